"""Damages one file or folder in place; every function returns what it did, in words."""

import io
import json
import os
import pickle
import random
import shutil
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import torch
from ai_edge_litert import schema_py_generated as schema
from odd import ODD, Place, change, chosen, places, shown
from PIL import Image

Damage = Callable[[random.Random, Path], str]

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not Found</body></html>\n"


def png(size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02}q\x00.")
    return buffer.getvalue()


FOREIGN: dict[str, Callable[[random.Random], bytes]] = {
    "empty": lambda rng: b"",
    "one zero": lambda rng: b"\0",
    "HTML": lambda rng: PAGE,
    "an LFS pointer": lambda rng: POINTER,
    "a PNG": lambda rng: png(),
    "a zip": lambda rng: archive(),
    "noise": lambda rng: rng.randbytes(2000),
    "zeros": lambda rng: bytes(5000),
    "JSON": lambda rng: b'{"schema": 1}',
    "null": lambda rng: b"null",
    "a pickle": lambda rng: pickle.dumps({"a": 1}),
    "TFL3 and noise": lambda rng: b"\x1c\0\0\0TFL3" + rng.randbytes(400),
    "ORTM and noise": lambda rng: b"\x1c\0\0\0ORTM" + rng.randbytes(400),
    "deep JSON": lambda rng: b"[" * 100_000,
    "UTF-16": lambda rng: "name = 1".encode("utf-16"),
}


def nothing(rng: random.Random, path: Path) -> str:
    return "nothing"


def foreign(rng: random.Random, path: Path) -> str:
    """Quite another file under its name."""
    what = rng.choice(sorted(FOREIGN))
    path.write_bytes(FOREIGN[what](rng))
    return f"{path.name} is {what}"


def bytes_(rng: random.Random, path: Path) -> str:
    """Bits that turned, and parts that are missing, doubled or from elsewhere."""
    data = bytearray(path.read_bytes())
    size = len(data)
    how = rng.choice(["flip", "flips", "cut", "longer", "zeroed", "spliced", "ones", "foreign"])
    at, length = rng.randrange(size), rng.choice([1, 4, 8, 64, size // 4 + 1])
    if how == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif how == "flips":
        for _ in range(rng.choice([3, 30, 300])):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "longer":
        data += rng.randbytes(length)
    elif how == "zeroed":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif how == "spliced":
        other = rng.randrange(size)
        data[at : at + length] = data[other : other + length]
    elif how == "ones":
        data[at : at + 4] = b"\xff\xff\xff\xff"
    else:
        return foreign(rng, path)
    path.write_bytes(data)
    return f"{path.name}: {how} at {at} of {size}, {length} bytes"


# --- JSON and TOML


def json_(rng: random.Random, path: Path) -> str:
    document = json.loads(path.read_text())
    said = [change(rng, document) for _ in range(rng.choice([1, 1, 1, 2]))]
    path.write_text(json.dumps(document))
    return f"{path.name}: {', '.join(said)}"


def toml(rng: random.Random, path: Path) -> str:
    document = tomllib.loads(path.read_text())
    odd = [value for value in ODD if value is not None and value not in ([None], {"": 1})]
    said = change(rng, document, odd)
    path.write_text(to_toml(document), errors="surrogatepass")
    return f"{path.name}: {said}"


def to_toml(document: dict[str, Any]) -> str:
    plain = {key: value for key, value in document.items() if not isinstance(value, dict)}
    lines = [f"{_toml(key)} = {_toml(value)}" for key, value in plain.items()]
    for name, table in document.items():
        if name not in plain:
            lines += [f"[{_toml(name)}]", *(f"{_toml(key)} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        depth = 0  # of lists that hold nothing but a list, of which there may be more than Python recurses
        while len(value) == 1 and isinstance(value[0], list):
            value, depth = value[0], depth + 1
        return "[" * depth + f"[{', '.join(map(_toml, value))}]" + "]" * depth
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    return str(value)


# --- ONNX and TFLite, field by field

_INTS = [0, 1, -1, 2, 3, 127, 255, 2**31 - 1, -(2**31), 2**63 - 1]
_FLOATS = [0.0, -1.0, float("nan"), float("inf"), 1e-45, 3e38]


def _near(rng: random.Random, value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([*_INTS, value + 1, value - 1, value * 2])
    if isinstance(value, float):
        return rng.choice([*_FLOATS, value * 1.5, value * 1.01, -value])
    if isinstance(value, str):
        return rng.choice(["", "other", value + "x", "x" * 5000])
    if isinstance(value, bytes):
        return rng.choice([b"", value[: len(value) // 2], bytes(len(value)), value + b"\0", b"other"])
    return value


def onnx_fields(rng: random.Random, path: Path) -> str:
    model = onnx.load_model_from_string(path.read_bytes())
    while True:
        place = chosen(rng, list(_messages(model)))
        try:
            return f"{path.name}: {_changed_message(rng, place)}"
        except (ValueError, TypeError, OverflowError):
            continue
        finally:
            path.write_bytes(model.SerializeToString())


def _messages(message: Any, path: str = "", kind: str = "") -> Iterator[Place]:
    for field, value in message.ListFields():
        here, same = f"{path}.{field.name}", f"{kind}.{field.name}"
        repeated = not isinstance(value, str | bytes | int | float) and hasattr(value, "__len__")
        yield Place(here, same, value, lambda new, field=field: setattr(message, field.name, new), None)
        for index, each in enumerate(value if repeated else [value]):
            if hasattr(each, "ListFields"):
                yield from _messages(each, f"{here}.{index}" if repeated else here, same)


def _changed_message(rng: random.Random, place: Place) -> str:
    value = place.value
    if isinstance(value, str | bytes | int | float):
        new = _near(rng, value)
        place.set(new)
        return f"{place.path} = {shown(new)}"
    if hasattr(value, "ListFields"):
        value.Clear()
        return f"{place.path} is cleared"
    at, how = rng.randrange(len(value)), rng.choice(["left out", "twice", "first", "changed"])
    if how == "changed" and not hasattr(value[at], "ListFields"):
        value[at] = _near(rng, value[at])
        return f"{place.path}.{at} = {shown(value[at])}"
    kept = list(value)
    copies = {"left out": kept[:at] + kept[at + 1 :], "first": [kept[at], *kept[:at], *kept[at + 1 :]]}
    kept = [_copy(each) for each in copies.get(how, [*kept, kept[at]])]
    del value[:]
    value.extend(kept)
    return f"{place.path}.{at} is {how}"


def _copy(each: Any) -> Any:
    if not hasattr(each, "ListFields"):
        return each
    copied = type(each)()
    copied.CopyFrom(each)
    return copied


def tflite_fields(rng: random.Random, path: Path) -> str:
    original = path.read_bytes()
    while True:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(original))
        place = chosen(rng, [each for each in places(model) if each.value is not None])
        said = _changed_object(rng, place)
        try:
            builder = flatbuffers.Builder(len(original))
            builder.Finish(model.Pack(builder), b"TFL3")
        except Exception:  # a value that no file can hold
            continue
        path.write_bytes(builder.Output())
        return f"{path.name}: {said}"


def _changed_object(rng: random.Random, place: Place) -> str:
    value = place.value
    if isinstance(value, np.ndarray):
        value = value.copy()
        how = rng.choice(["left out", "emptied", "cut", "doubled", "changed", "zeroed"])
        if how == "changed" and value.size:
            at = rng.randrange(value.size)
            value.flat[at] = _fitting(_near(rng, value.flat[at].item()), value.dtype)
            how = f"[{at}] = {value.flat[at]}"
        new = {"left out": None, "emptied": value[:0], "cut": value[: len(value) // 2], "zeroed": value * 0}
        new["doubled"] = np.concatenate([value, value])
        place.set(new.get(how, value))
        return f"{place.path} {how}"
    if isinstance(value, list):
        how = rng.choice(["emptied", "cut", "doubled", "reversed"])
        place.set({"emptied": [], "cut": value[:-1], "doubled": value * 2, "reversed": value[::-1]}[how])
        return f"{place.path} {how}"
    new = None if hasattr(value, "__dict__") else _near(rng, value)
    place.set(new)
    return f"{place.path} = {shown(new)}"


def _fitting(value: Any, dtype: np.dtype) -> Any:
    if dtype.kind == "f":
        return np.float32(min(max(value, -3e38), 3e38))
    info = np.iinfo(dtype)
    return value if info.min <= value <= info.max else info.max


def endless(rng: random.Random, path: Path) -> str:
    """A loop of 2^62 turns between the input and the rest of an ONNX graph."""
    model = onnx.load_model_from_string(path.read_bytes())
    first = model.graph.input[0]
    body = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", ["go"], ["goes"]),
            onnx.helper.make_node("Identity", ["pixels"], ["turned"]),
        ],
        "body",
        [
            onnx.helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("pixels", first.type.tensor_type.elem_type, None),
        ],
        [
            onnx.helper.make_tensor_value_info("goes", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("turned", first.type.tensor_type.elem_type, None),
        ],
    )
    for node in model.graph.node:
        node.input[:] = ["looped" if name == first.name else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Loop", ["turns", "", first.name], ["looped"], body=body))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(2**62), "turns"))
    path.write_bytes(model.SerializeToString())
    return f"{path.name} has a loop of 2^62 turns"


# --- what torch.save and numpy wrote

MARK = "code-ran"


class _Code:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def _odd_tensors(tensor: torch.Tensor) -> dict[str, Any]:
    return {
        "NaN": torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor - 1,
        "inf": torch.full_like(tensor, float("inf")) if tensor.is_floating_point() else tensor + 2**30,
        "huge": tensor.double() * 1e30,
        "zeros": torch.zeros_like(tensor),
        "float64": tensor.double(),
        "float16": tensor.half(),
        "int64": tensor.nan_to_num().clamp(-1e9, 1e9).long(),
        "bool": tensor != 0,
        "complex": tensor.to(torch.complex64),
        "empty": torch.empty(0),
        "a number": torch.tensor(1.0),
        "one more axis": tensor[None],
        "transposed": tensor.movedim(0, -1) if tensor.dim() else tensor,
        "one row less": tensor[:-1] if tensor.dim() else tensor,
        "sparse": tensor.to_sparse() if tensor.dim() else tensor,
        "expanded": torch.zeros((), dtype=tensor.dtype).expand(tensor.shape),
        "meta": tensor.to("meta"),
        "a parameter": torch.nn.Parameter(tensor.float()),
    }


def pt(rng: random.Random, path: Path) -> str:
    """Another tree than was saved: keys, types, values, or a whole that is no tree of weights."""
    content = torch.load(path, weights_only=True)
    if rng.random() < 0.2:
        whole: dict[str, Any] = {
            "a list": [content],
            "a string": "weights",
            "a tensor": torch.zeros(3),
            "None": None,
            "a number": 7,
            "an empty dict": {},
            "state_dict of a list": {"state_dict": [1, 2]},
            "state_dict of itself": {"state_dict": content, "epoch": 3},
            "model of itself": {"model": content},
            "code": _Code(path.parent / MARK),
            "code among weights": {**content, "more": _Code(path.parent / MARK)} if isinstance(content, dict) else 1,
            "a module": torch.nn.Conv2d(1, 1, 1),
        }
        what = rng.choice(sorted(whole))
        torch.save(whole[what], path)
        return f"{path.name} is {what}"
    found = list(places(content))
    place = chosen(rng, found)
    if rng.random() < 0.6:  # most of what such a file holds
        place = rng.choice([each for each in found if isinstance(each.value, torch.Tensor)] or found)
    how = rng.random()
    if how < 0.1 and place.drop:
        place.drop()
        said = "is left out"
    elif how < 0.2 and isinstance(content, dict):
        key = rng.choice([7, None, (1, 2), "", "more", "a.b.c", 1.5, b"bytes", True])
        content[key] = rng.choice([torch.zeros(1), place.value])
        said = f"is there, and {key!r} besides"
    elif isinstance(place.value, torch.Tensor) and how < 0.85:
        odd = _odd_tensors(place.value)
        said = rng.choice(sorted(odd))
        place.set(odd[said])
        said = f"is {said}"
    else:
        value = rng.choice([value for value in ODD if value is not ODD[-1]])
        place.set(value)
        said = f"= {shown(value)}"
    torch.save(content, path)
    return f"{path.name}: {place.path} {said}"


def pt_zip(rng: random.Random, path: Path) -> str:
    """The archive that torch.save wrote, with one member changed but its sums right."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = rng.choice(sorted(members))
    data = bytearray(members[name])
    how = rng.choice(["left out", "emptied", "cut", "flipped", "doubled"])
    if how == "flipped" and data:
        for _ in range(rng.choice([1, 10])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    members[name] = {"emptied": b"", "cut": bytes(data[: len(data) // 2]), "doubled": bytes(data * 2)}.get(
        how, bytes(data)
    )
    if how == "left out":
        del members[name]
    with zipfile.ZipFile(path, "w") as new:
        for each, content in members.items():
            new.writestr(each, content)
    return f"{path.name}: member {name} is {how}"


def safetensors(rng: random.Random, path: Path) -> str:
    """A header that says something else of the bytes behind it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    how = rng.choice(["changed", "changed", "changed", "length", "deep", "no end"])
    said = change(rng, header) if how == "changed" else how
    text = b"{" * 200_000 if how == "deep" else json.dumps(header).encode()
    size = rng.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1]) if how == "length" else len(text)
    path.write_bytes(struct.pack("<Q", size) + text + (b"" if how == "no end" else data[8 + length :]))
    return f"{path.name}: header {said}"


def disguised(rng: random.Random, path: Path) -> str:
    """Code under the name of a file that holds none, and weights that lie elsewhere."""
    how = rng.choice(["a pickle", "an archive", "a member", "a bomb", "many members", "outside", "missing"])
    if how == "a pickle":
        path.write_bytes(pickle.dumps(_Code(path.parent / MARK)))
    elif how == "an archive":
        torch.save({"a": _Code(path.parent / MARK)}, path)
    elif how in ("outside", "missing") and path.suffix == ".onnx":
        model = onnx.load_model_from_string(path.read_bytes())
        place = {"outside": "../../../../../../etc/hostname", "missing": "there-is-none.bin"}[how]
        tensor = rng.choice(list(model.graph.initializer))
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        path.write_bytes(model.SerializeToString())
    else:
        _rewritten(rng, path, how)
    return f"{path.name} is {how}"


def _rewritten(rng: random.Random, path: Path, how: str) -> None:
    """The members of an archive, or none, with code in one, one of a gigabyte of zeros, or very many more."""
    members = {"a/data.pkl": b""}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as old:
            members = {name: old.read(name) for name in old.namelist()}
    name = rng.choice(sorted(members))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for each, content in members.items():
            if each != name or how == "many members":
                new.writestr(each, content)
        if how == "a bomb":
            with new.open(name, "w", force_zip64=True) as member:
                for _ in range(1024):
                    member.write(bytes(1 << 20))
        elif how == "many members":
            for number in range(20_000):
                new.writestr(f"a/data/{number + 10_000}", b"")
        else:
            new.writestr(name, pickle.dumps(_Code(path.parent / MARK)))


def npz(rng: random.Random, path: Path) -> str:
    with np.load(path) as old:
        arrays = dict(old)
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    if name == "graph" and rng.random() < 0.8:
        document = json.loads(array.tobytes())
        said = change(rng, document)
        arrays[name] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    else:
        odd: dict[str, Any] = {
            "left out": None,
            "empty": array[..., :0],
            "a number": np.array(1),
            "an object": np.array({"a": 1}, object),
            "text": np.array("text"),
            "float64": array.astype(np.float64),
            "NaN": np.full(array.shape, np.nan, np.float32),
            "int64": array.astype(np.int64) + 2**40,
            "one more axis": array[None],
            "flat": array.ravel(),
            "one row less": array[:-1] if array.ndim else array,
            "transposed": array.T,
            "complex": array.astype(np.complex64),
            "bool": array != 0,
        }
        said = rng.choice(sorted(odd))
        arrays[name] = odd[said]
        if arrays[name] is None:
            del arrays[name]
    np.savez_compressed(path, **arrays)
    return f"{path.name}: {name}: {said}"


def npz_header(rng: random.Random, path: Path) -> str:
    """An array that says that it is larger, or of another kind, than what follows."""
    header = rng.choice(
        [
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (-1,), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': 'zzz', 'fortran_order': False, 'shape': (1,), }",
            "{'shape': " + "(" * 200,
        ]
    )
    member = rng.choice(["graph.npy", "pixels.npy", "meta.npy", "0.weight.npy"])
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as new:
        new.writestr(member, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"data")
    return f"{path.name}: {member} with the header {header[:60]}"


# --- images


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 8 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def _png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    written = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def png_chunks(rng: random.Random, path: Path) -> str:
    """A PNG whose sums are right and whose fields are not."""
    chunks = _chunks(path.read_bytes())
    how = rng.choice(["size", "depth", "no data", "no header", "twice", "unknown", "palette", "text bomb"])
    header = bytearray(chunks[0][1])
    if how == "size":
        header[0:8] = struct.pack(">II", *rng.choice([(0, 0), (60_000, 60_000), (2**31, 1), (1, 1), (100_000, 2)]))
    elif how == "depth":
        header[8], header[9] = rng.choice([(1, 0), (16, 2), (3, 3), (8, 3), (0, 0), (8, 7), (16, 0), (8, 4)])
    chunks[0] = (b"IHDR", bytes(header))
    if how == "no data":
        chunks = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    elif how == "no header":
        chunks = chunks[1:]
    elif how == "twice":
        chunks = chunks + chunks
    elif how == "unknown":
        chunks.insert(1, (b"ABCD", b"?"))
    elif how == "palette":
        chunks.insert(1, (b"PLTE", b"\1"))
    elif how == "text bomb":
        chunks.insert(1, (b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))))
    path.write_bytes(_png_of(chunks))
    return f"{path.name}: PNG chunks: {how}"


_MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]


def picture(rng: random.Random, path: Path) -> str:
    """Another image under its name: of another kind, size or format, which may be good or not."""
    mode, kind = rng.choice(_MODES), rng.choice(["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "ICO", "PPM"])
    size = rng.choice([(1, 1), (1, 64), (64, 1), (64, 64), (33, 31), (3000, 2)])
    image = Image.new(mode, size)
    try:
        image.save(path, kind)
    except (OSError, ValueError, KeyError):
        image.convert("RGB").save(path, "PNG")
        kind = "PNG"
    data = path.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(data[: len(data) // 2])
        kind += " cut in half"
    return f"{path.name} is {kind} of mode {mode}, {size[0]}x{size[1]}"


def mask(rng: random.Random, path: Path) -> str:
    """Class ids that there are not, or an image where ids are expected."""
    size = Image.open(path).size
    what = rng.choice(["all 7", "all 255", "all 0", "0 and 255", "RGB", "palette", "16 bit", "larger", "alpha", "ramp"])
    ids = np.zeros(size[::-1], np.uint8)
    ids[: size[1] // 2] = 1
    images = {
        "all 7": Image.new("L", size, 7),
        "all 255": Image.new("L", size, 255),
        "all 0": Image.new("L", size, 0),
        "0 and 255": Image.fromarray(ids * 255),
        "RGB": Image.new("RGB", size, (255, 0, 9)),
        "16 bit": Image.fromarray(ids.astype(np.uint16) * 300),
        "larger": Image.new("L", (size[0] + 1, size[1]), 1),
        "alpha": Image.new("RGBA", size, (1, 1, 1, 128)),
        "ramp": Image.fromarray(np.resize(np.arange(256, dtype=np.uint8), size[::-1])),
    }
    paletted = Image.fromarray(ids + 3, "P")
    paletted.putpalette([0, 0, 0] * 3 + [255, 255, 255] * 253)
    (images | {"palette": paletted})[what].save(path, "PNG")
    return f"{path.name} is a mask of {what}"


# --- folders


def folder(rng: random.Random, path: Path) -> str:
    """Something else at the place of a file or folder."""
    how = rng.choice(
        ["missing", "a folder", "a FIFO", "a loop", "dangling", "/dev/zero", "unreadable", "empty", "a file"]
    )
    was_folder = path.is_dir()
    if how == "unreadable":
        path.chmod(0)
        return f"{path.name} is {how}"
    shutil.rmtree(path) if was_folder else path.unlink()
    if how in ("a folder", "empty"):
        path.mkdir()
    elif how == "a FIFO":
        os.mkfifo(path)
    elif how == "a loop":
        path.symlink_to(path)
    elif how == "dangling":
        path.symlink_to("/nowhere/at/all")
    elif how == "/dev/zero":
        path.symlink_to("/dev/zero")
    elif how == "a file":
        path.write_bytes(b"a file")
    return f"{path.name} is {how}"


def stranger(rng: random.Random, path: Path) -> str:
    """One more file in a folder, which nobody expects."""
    name = rng.choice(
        [b"a\nb.png", b"\xff\xfe.png", b"x" * 200 + b".png", b".hidden.png", b"IMAGE.PNG", b"a.txt", b"Thumbs.db"]
        + [b"model.onnx", b"a.tif", b"a.webp", b" .png", b"-rf.png"]
    )
    place = os.fsencode(path) + b"/" + name
    how = rng.choice(["a FIFO", "an image", "noise", "a folder", "a loop"])
    if os.path.lexists(place):
        os.unlink(place)
    if how == "a FIFO":
        os.mkfifo(place)
    elif how == "a folder":
        os.mkdir(place)
    elif how == "a loop":
        os.symlink(os.fsencode(path), place)
    else:
        with open(place, "wb") as file:
            file.write(png() if how == "an image" else rng.randbytes(500))
    return f"{path.name} has {name!r}, {how}, besides"
