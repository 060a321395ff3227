"""Whether a file is, whole, the model that its name says: read with the format's own parser, without a runtime."""

import math
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compress.errors import MeasureError
from compress.files import size_of

FORMATS = ("onnx", "ort", "tflite")
_LARGEST = 1 << 31  # bytes that a protobuf or a FlatBuffer can have
_KINDS = (  # what is often found under a model's name, by how it begins
    (rb"version https://git-lfs", "a Git LFS pointer: git lfs pull"),
    (rb"(\.\./)*(\.git/annex/objects/|/annex/objects/)", "a git-annex pointer: git annex get"),
    (rb"\s*(?i:<!doctype html|<html|<head|<body)", "an HTML page: download the model itself"),
    (rb"\s*<\?xml", "XML: download the model itself"),
    (rb"....TFL3", "a TFLite file"),
    (rb"....ORTM", "an ORT file"),
    (rb"PK\x03\x04", "a zip archive, such as torch.save writes: export the model that is in it"),
    (rb"\x1f\x8b", "a gzip archive: unpack it"),
    (rb"\x89HDF", "an HDF5 file: export the model that is in it"),
    (rb"\x80[\x02-\x05]", "a pickle: export the model that is in it"),
)


def check_whole(path: Path) -> tuple[Path, ...]:
    """Other files that hold a part of the model's weights, which ship with it: an ONNX file may keep them outside.

    Raises MeasureError, in one line, for a file that is not, from its first byte to its last, a network with inputs and
    outputs of the format that its suffix states, and for weights that are not there or lie outside its folder. Of an
    ORT file, whose tables only onnxruntime knows, the head is looked at alone: it checks them when it opens the file.
    """
    if path.suffix[1:] not in FORMATS:
        raise MeasureError(f"{path}: no runtime for {path.suffix or 'a file without suffix'}; use .onnx, .ort, .tflite")
    size_bytes = _size_of(path)
    if size_bytes > _LARGEST:
        raise MeasureError(f"{path}: not a model: it has {size_bytes:,} bytes, more than the format can hold")
    try:
        with path.open("rb") as opened:
            _check_kind(path, opened.read(4096))
        return _READERS[path.suffix](path) if path.suffix in _READERS else ()
    except MeasureError:
        raise
    except Exception as error:  # each parser raises types of its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MeasureError(f"{path}: not a model: {reason}; export it again") from None


def _size_of(path: Path) -> int:
    try:
        size_bytes = size_of(path)
    except FileNotFoundError:
        raise MeasureError(f"{path}: no such file; name an exported file") from None
    except OSError as error:
        raise MeasureError(f"{path}: {error.strerror}; name an exported file") from None
    if not os.access(path, os.R_OK):
        raise MeasureError(f"{path}: cannot be read; mend its permissions")
    return size_bytes


def _check_kind(path: Path, head: bytes) -> None:
    if not head:
        raise MeasureError(f"{path}: not a model: it is empty, zero bytes; export it again")
    own = {"tflite": b"TFL3", "ort": b"ORTM"}.get(path.suffix[1:])
    if own is not None and head[4:8] == own:
        return
    kind = next((words for start, words in _KINDS if re.match(start, head, re.DOTALL)), None)
    if kind is None and _is_text(head):
        kind = "text"
    if kind or own:
        raise MeasureError(f"{path}: not a model: it is {kind or 'no ' + path.suffix[1:] + ' file'}")


def _is_text(head: bytes) -> bool:
    return all(byte in b"\t\n\r\f" or 32 <= byte < 127 or byte >= 128 for byte in head[:512])


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _check_values(name: str, shape: Sequence[int], bits: int, size_bytes: int) -> None:
    """That a constant has as many bytes as its shape and type ask for."""
    wanted = -(-math.prod(shape) * bits // 8)
    _require(min(shape, default=0) >= 0 and wanted == size_bytes, f"{name} has {size_bytes} bytes, not {wanted}")


# --- ONNX


def _read_onnx(path: Path) -> tuple[Path, ...]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    _require(bool(graph.input and graph.output and model.opset_import), "it has no graph with inputs and outputs")
    constants = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    made = {name for node in graph.node for name in node.output}
    _check_wiring(
        made | constants | {each.name for each in graph.input},
        (name for node in graph.node for name in node.input if name),
        (each.name for each in graph.output),
    )
    outside = {_check_tensor(path, tensor) for tensor in stored_tensors(model)}
    return tuple(sorted(each for each in outside if each is not None))


def _check_wiring(known: set[str], read: Iterator[str], given: Iterator[str]) -> None:
    for name in (*read, *given):
        _require(name in known, f"nothing makes {name!r}")


def stored_tensors(message: Any) -> Iterator[Any]:
    """Every stored tensor, however deep: of branches, functions and attributes too."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in value if field.is_repeated else [value]:
            if field.message_type.name == "TensorProto":
                yield each
            else:
                yield from stored_tensors(each)


def _check_tensor(path: Path, tensor: Any) -> Path | None:
    """The file that holds its values, where that is another one."""
    import onnx

    if tensor.data_type == onnx.TensorProto.STRING:
        return None
    bits = _onnx_bits(tensor.data_type)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _check_external(path, tensor, bits)
    if tensor.HasField("raw_data"):
        _check_values(tensor.name, tensor.dims, bits, len(tensor.raw_data))
        return None
    typed = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    _require(any(typed) or math.prod(tensor.dims) == 0, f"{tensor.name} has no values")
    return None


def _onnx_bits(data_type: int) -> int:
    import onnx

    name = onnx.TensorProto.DataType.Name(data_type)
    packed = re.fullmatch(r"(?:U?INT|FLOAT)([24])(?:E2M1)?", name)
    return int(packed[1]) if packed else 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize


def _check_external(path: Path, tensor: Any, bits: int) -> Path:
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    place = (path.parent / location).resolve()
    inside = path.parent.resolve() in place.parents
    if not location or "\0" in location or not inside or Path(location).is_absolute():
        raise MeasureError(f"{path}: keeps weights in {location!r}, outside its folder; save them beside it")
    there = _size_of(place)
    offset = int(said.get("offset", 0))
    length = int(said["length"]) if "length" in said else -(-math.prod(tensor.dims) * bits // 8)
    _check_values(tensor.name, tensor.dims, bits, length)
    if offset < 0 or offset + length > there:
        raise MeasureError(f"{place}: ends before {tensor.name!r}, which {path.name} keeps in it; export it again")
    return place


# --- TFLite


def _read_tflite(path: Path) -> tuple[Path, ...]:
    from ai_edge_litert import schema_py_generated as schema

    from compress.formats.metadata import names_files

    data = path.read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    graphs = [model.Subgraphs(i) for i in range(_within(data, model.SubgraphsLength()))]
    _require(bool(graphs), "it has no graph")
    _within(data, model.BuffersLength() + model.OperatorCodesLength())
    _within(data, sum(graph.TensorsLength() + graph.OperatorsLength() for graph in graphs))
    constants = [_buffer_bytes(data, model.Buffers(i)) for i in range(model.BuffersLength())]
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        _ = code.BuiltinCode(), code.DeprecatedBuiltinCode(), code.Version(), code.CustomCode()
    for graph in graphs:
        _check_graph(model, graph, constants)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == b"TFLITE_METADATA" and names_files(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()):
            _require(zipfile.is_zipfile(path), "the files that its metadata name are cut off")
    return ()


def _within(data: bytes, count: int) -> int:
    """A count of tables, each of which the file refers to with four bytes."""
    _require(4 * count <= len(data), f"it cannot hold {count} tables")
    return count


def _buffer_bytes(data: bytes, buffer: Any) -> int:
    if buffer.Offset() > 1:  # the values follow the FlatBuffer
        _require(buffer.Offset() + buffer.Size() <= len(data), "its weights are cut off")
        return int(buffer.Size())
    return len(buffer.DataAsNumpy()) if buffer.DataLength() else 0


def _check_graph(model: Any, graph: Any, constants: list[int]) -> None:
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    given, made = _numbers(graph, "Inputs"), _numbers(graph, "Outputs")
    _require(bool(given and made), "its graph has no inputs or no outputs")
    known = {*given, *(index for each in operators for index in _numbers(each, "Outputs"))}
    for index in range(graph.TensorsLength()):
        if _is_constant(index, graph.Tensors(index), constants):
            known.add(index)
    for each in operators:
        _require(each.OpcodeIndex() < model.OperatorCodesLength(), "an operator has no code")
    read = {index for each in operators for index in _numbers(each, "Inputs")} - {-1}
    for index in (*read, *made, *known):
        _require(0 <= index < graph.TensorsLength() and index in known, f"nothing makes tensor {index}")


def _numbers(table: Any, name: str) -> list[int]:
    return [int(i) for i in getattr(table, f"{name}AsNumpy")()] if getattr(table, f"{name}Length")() else []


def _is_constant(index: int, tensor: Any, constants: list[int]) -> bool:
    """Whether nothing need make the tensor: its values are stored, or there are none, or it keeps its own."""
    shape = [int(size) for size in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []
    size_bytes = constants[tensor.Buffer()]
    bits = _tflite_bits(tensor.Type())
    if size_bytes and bits and tensor.Sparsity() is None:
        _check_values(f"tensor {index}", shape, bits, size_bytes)
    return bool(size_bytes or 0 in shape or tensor.IsVariable())


def _tflite_bits(kind: int) -> int | None:
    """Of one value; None where they are not all equally long."""
    from ai_edge_litert.schema_py_generated import TensorType

    name = next((name for name, value in vars(TensorType).items() if value == kind), "")
    found = re.fullmatch(r"(?:U?INT|B?FLOAT|COMPLEX)(\d+)", name)
    return int(found[1]) if found else 8 if name == "BOOL" else None


_READERS = {".onnx": _read_onnx, ".tflite": _read_tflite}
