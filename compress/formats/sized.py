"""Files whose image may have any height and width, given one: apps that use such a file decide it when they load it."""

from pathlib import Path
from typing import Any

from compress.errors import MeasureError
from compress.formats.artifact import IMAGE_EXPECTED, image_layout

Size = tuple[int, int]


def is_free(path: Path) -> bool:
    """Whether the file leaves the height or the width of its image open. Raises MeasureError for no model."""
    return path.suffix in _READERS and _READERS[path.suffix](path) is not None


def with_size(path: Path, size: Size, place: Path) -> None:
    """Writes the file to `place` for images of `size`, height and width. Raises MeasureError where its image cannot be
    told from its shape."""
    try:
        _WRITERS[path.suffix](path, size, place)
    except MeasureError:
        raise
    except Exception as error:  # each parser raises types of its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MeasureError(f"{path}: cannot be given a size: {reason}; export it with a fixed one") from None


def _sides(path: Path, shape: list[int]) -> tuple[int, int]:
    """Where height and width stand in a shape whose free sizes are -1: beside the channels."""
    layout = image_layout(shape, path.suffix == ".tflite")
    if layout is None:
        raise MeasureError(f"{path}: the input has shape {shape}; {IMAGE_EXPECTED}")
    return layout.index("H"), layout.index("W")


def _free_sides(shape: list[int]) -> list[int] | None:
    """The shape, where it is one of an image with a side that is not fixed."""
    return shape if len(shape) == 4 and min(shape[1:]) < 1 else None


# --- ONNX


def _onnx_image(model: Any) -> Any:
    """The only input that is no weight."""
    stored = {tensor.name for tensor in model.graph.initializer}
    given = [each for each in model.graph.input if each.name not in stored]
    return given[0].type.tensor_type.shape.dim if len(given) == 1 else []


def _onnx_shape(path: Path) -> list[int] | None:
    import onnx

    return _free_sides([dim.dim_value or -1 for dim in _onnx_image(onnx.load(path, load_external_data=False))])


def _onnx_with_size(path: Path, size: Size, place: Path) -> None:
    import onnx

    model = onnx.load(path)
    dims = _onnx_image(model)
    named: dict[str, int] = {}
    wanted = dict(zip(_sides(path, [dim.dim_value or -1 for dim in dims]), size, strict=True)) | {0: 1}
    for index, value in wanted.items():
        if dims[index].dim_value < 1:
            named |= {dims[index].dim_param: value} if dims[index].dim_param else {}
            dims[index].dim_value = value
    del model.graph.value_info[:]  # what was noted of other sizes
    for made in model.graph.output:
        for dim in made.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
    onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), place)


# --- TFLite


def _tflite_shape(path: Path) -> list[int] | None:
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    image = graph.Tensors(graph.Inputs(0))
    signature = image.ShapeSignatureAsNumpy() if image.ShapeSignatureLength() else image.ShapeAsNumpy()
    return _free_sides([int(side) for side in signature])


def _tflite_with_size(path: Path, size: Size, place: Path) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    image = graph.tensors[graph.inputs[0]]
    shape = [int(side) for side in image.shapeSignature]
    for index, value in zip(_sides(path, shape), size, strict=True):
        shape[index] = value
    image.shape, image.shapeSignature = [1, *shape[1:]], None
    builder = flatbuffers.Builder(path.stat().st_size)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    place.write_bytes(bytes(builder.Output()))


_READERS = {".onnx": _onnx_shape, ".tflite": _tflite_shape}
_WRITERS = {".onnx": _onnx_with_size, ".tflite": _tflite_with_size}
