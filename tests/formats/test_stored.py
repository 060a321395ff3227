"""What a file says is what the graph says; any one change of it is found, and named."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from integer_reference import GraphBuilder
from operator_cases import CASES, u_shape

from compress.errors import ExportError
from compress.formats.metadata import Card
from compress.formats.onnx import to_onnx
from compress.formats.onnx_steps import onnx_steps, read_onnx
from compress.formats.steps import plain, unlike
from compress.formats.stored import differences
from compress.formats.tflite import to_tflite
from compress.formats.tflite_steps import listed, tflite_steps

WRITERS = {"onnx": to_onnx, "tflite": to_tflite}


@pytest.mark.parametrize("quantized", [True, False], ids=["int8", "float"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_right_file_is_called_equal(kind, case, quantized, tmp_path):
    builder = GraphBuilder(quantized=quantized)
    CASES[case](builder)
    builder.conv(builder.operators[-1].output, 3)
    path = tmp_path / f"model.{kind}"
    WRITERS[kind](builder.graph(), path)
    assert differences(builder.graph(), path) == []


def varied() -> GraphBuilder:
    """Small, with every way of writing an operator: padding of its own, options, arguments, several nodes for one,
    several inputs, layers that are kept float."""
    b = GraphBuilder((6, 8))
    top = b.conv("image", 2, activation="relu")
    down = b.pool("max_pool", b.conv(top, 2, stride=(2, 2)), kernel=(3, 3), stride=(1, 1), padding=(1, 1))
    up = b.conv_transpose(down, 2, kernel=(3, 3), padding=(1, 1), output_padding=(1, 1))
    bent = b.one("silu", b.one("leaky_relu", up, attrs={"negative_slope": 0.25}))
    same = b.conv(top, 2, groups=2, like=bent)
    joined = b.join("concat", bent, same, b.resize(bent, (6, 8)))
    x = b.join("add", joined, b.one("mean", joined), activation="relu")
    x = b.join("mul", x, x, float_output=True)
    x = b.one("clamp", b.conv(x, 2), attrs={"lowest": -1.0, "highest": None})
    b.one("sigmoid", b.conv(x, 2, kernel=(1, 1), padding=(0, 0)))
    return b


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("build", [varied, lambda: (b := GraphBuilder(), u_shape(b))[0]], ids=["varied", "u"])
def test_a_right_file_of_many_operators_is_called_equal(kind, build, tmp_path):
    graph, path = build().graph(), tmp_path / f"model.{kind}"
    WRITERS[kind](graph, path, card=Card("sample", labels=("a", "b")))
    assert differences(graph, path) == []


def test_a_right_file_that_normalises_its_input_is_called_equal(tmp_path):
    graph, path = varied().graph(), tmp_path / "model.onnx"
    to_onnx(graph, path, reads=((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    assert differences(graph, path) == []


@dataclass(frozen=True)
class Change:
    """One change of a parsed file, in place, and what takes it back."""

    place: str
    do: Callable[[], object]
    undo: Callable[[], object]


def fields_of_protobuf(message: Any, place: str = "") -> Iterator[Change]:
    """Each field of a message and of all below it: another value; each item of a list changed, removed, exchanged with
    the next, and one more."""
    for field in message.DESCRIPTOR.fields:
        where, value = f"{place}.{field.name}", getattr(message, field.name)
        if field.is_repeated:
            yield from _of_repeated(value, field, where)
        elif field.type != field.TYPE_MESSAGE:
            undo = partial(setattr, message, field.name, value)
            if not message.HasField(field.name):
                undo = partial(message.ClearField, field.name)
            for other in others(value):
                yield Change(where, partial(setattr, message, field.name, other), undo)
        elif message.HasField(field.name):
            yield from fields_of_protobuf(value, where)


def _of_repeated(values: Any, field: Any, where: str) -> Iterator[Change]:
    before = list(values)
    if field.type == field.TYPE_MESSAGE:
        before = [copy.deepcopy(each) for each in values]
        for index in range(len(values)):
            yield from fields_of_protobuf(values[index], f"{where}[{index}]")

    def now(items: list[Any]) -> None:
        del values[:]
        values.extend(items)

    empty = field.message_type._concrete_class() if field.type == field.TYPE_MESSAGE else None
    more = {field.TYPE_STRING: "x", field.TYPE_BYTES: b"x", field.TYPE_MESSAGE: empty}.get(field.type, 1)
    for what, items in lists(before, more):
        yield Change(f"{where}[{what}]", partial(now, items), partial(now, before))


def fields_of_flatbuffer(value: Any, place: str = "") -> Iterator[Change]:
    """The same of a flatbuffer's object; what is not there is set."""
    for name, field in vars(value).items():
        where = f"{place}.{name}"
        if field is None:
            found = [("set", [1])]
        elif isinstance(field, list | np.ndarray):
            found = list(lists(list(field), list(field)[-1] if len(field) else 1))
            if isinstance(field, np.ndarray):
                found = [(what, np.array(items, field.dtype)) for what, items in found]
        elif hasattr(field, "__dict__") and plain(field) == plain(type(field)()):
            found = []  # it says nothing, so it may as well not be there
        else:
            found = [("", other) for other in others(field)]
        for what, other in found:
            place_ = f"{where}[{what}]" if what else where
            yield Change(place_, partial(setattr, value, name, other), partial(setattr, value, name, field))
        for index, item in enumerate(field if isinstance(field, list) else [field]):
            if hasattr(item, "__dict__"):
                yield from fields_of_flatbuffer(item, f"{where}[{index}]" if isinstance(field, list) else where)


def lists(items: list[Any], more: Any) -> Iterator[tuple[str, list[Any]]]:
    """Other lists, of which long ones are changed at both ends alone."""
    for index in sorted({0, len(items) - 1}) if len(items) > 16 else range(len(items)):
        rest = items[:index], items[index + 1 :]
        yield f"-{index}", [*rest[0], *rest[1]]
        for other in others(items[index]):
            if other is not None:
                yield f"{index}", [*rest[0], other, *rest[1]]
        if rest[1] and rest[1][0] is not items[index] and not _alike(rest[1][0], items[index]):
            yield f"{index}<>", [*rest[0], rest[1][0], items[index], *rest[1][1:]]
    yield "+", [*items, more]


def others(value: Any) -> list[Any]:
    """Other values of the same kind; None in place of an object."""
    if isinstance(value, bool | np.bool_):
        return [not value]
    if isinstance(value, str):
        return [value + "x"]
    if isinstance(value, bytes):
        return [bytes([value[0] ^ 1, *value[1:]]), value[:-1] + bytes([value[-1] ^ 128])] if value else [b"x"]
    if isinstance(value, float | np.floating):
        return [value * 1.5, value * 1.01] if value else [1.0]
    if isinstance(value, int | np.integer):
        return [value + 1 if value < 100 else value - 1]
    return [None]


def _alike(a: Any, b: Any) -> bool:
    return isinstance(a, int | float | str | bytes | np.generic) and bool(a == b)


SILENT = {
    "onnx": [
        r"\.(producer_name|producer_version|domain|model_version|doc_string)",  # of the model
        r".*\.doc_string",
        r"\.graph\.name",
        r"\.graph\.node\[\d+\]\.name",
        r"\.(graph|graph\..*)\.metadata_props\[.*",  # but the model's own, which programs read, are compared
        r"\.metadata_props\[\+\]",
        r".*\.(attribute|initializer|metadata_props)\[\d+<>\]",  # in another order
        r"\.graph\.node\[\d+<>\]",  # so are two that do not read each other
    ],
    "tflite": [
        r"\.description",
        r"\.(subgraphs\[0\]\.)?(tensors\[\d+\]\.)?name",
        r".*\.debugMetadataIndex",
        r"\.metadata\[.*",
        r"\.subgraphs\[0\]\.operators\[\d+<>\]",  # two that do not read each other
        r"\.(operatorCodes|buffers|subgraphs\[0\]\.tensors)\[\+\]",  # one more, which nothing uses
    ],
}
"""Places that have no say in what a file computes."""


def changed_onnx(graph, path) -> Iterator[tuple[str, list[str]]]:
    model, wanted = onnx.load(path), onnx_steps(graph, None)
    for change in fields_of_protobuf(model):
        change.do()
        yield change.place, found(wanted, lambda: read_onnx(model.SerializeToString())[0])
        change.undo()
    assert model == onnx.load(path)


def changed_tflite(graph, path) -> Iterator[tuple[str, list[str]]]:
    model, wanted = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0)), tflite_steps(graph)
    texts = tuple(f".buffers[{sign}{each.buffer}]" for each in model.metadata for sign in ("", "-"))
    for change in fields_of_flatbuffer(model):
        if change.place.startswith(texts):
            continue
        change.do()
        yield change.place, found(wanted, lambda: listed(model, b"TFL3"))
        change.undo()
    assert found(wanted, lambda: listed(model, b"TFL3")) == []


def found(wanted, read) -> list[str]:
    try:
        return unlike(wanted, read())
    except Exception as error:  # which `differences` says in one line
        return [str(error)]


CHANGED = {"onnx": changed_onnx, "tflite": changed_tflite}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_single_change_of_a_file_is_found(kind, tmp_path):
    graph, path = varied().graph(), tmp_path / f"model.{kind}"
    WRITERS[kind](graph, path)
    changes = list(CHANGED[kind](graph, path))
    silent = re.compile("|".join(SILENT[kind]))
    missed = [place for place, lines in changes if not lines and not silent.fullmatch(place)]
    assert missed == []
    assert len(changes) > 1000


def scaled(graph, path):
    """Channel 1 of the second convolution is three times as large."""
    model = onnx.load(path)
    node = next(each for each in model.graph.node if "conv1.weight" in each.input)
    tensor = next(each for each in model.graph.initializer if each.name == node.input[1])
    values = onnx.numpy_helper.to_array(tensor) * np.float32([1, 3])
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    return ["model.onnx: conv1: weight scale differs from the graph's"]


def strided(graph, path):
    model = onnx.load(path)
    node = next(each for each in model.graph.node if each.name == "conv0")
    next(each for each in node.attribute if each.name == "dilations").ints[:] = [2, 1]
    onnx.save(model, path)
    return ["model.onnx: conv0: attribute dilations differs from the graph's"]


def exchanged(graph, path):
    """Two inputs of a concat."""
    model = onnx.load(path)
    node = next(each for each in model.graph.node if each.op_type == "Concat")
    node.input[0], node.input[1] = node.input[1], node.input[0]
    onnx.save(model, path)
    return [f"model.onnx: {node.name}: input {place} differs from the graph's" for place in (2, 1)]


def watched(graph, path):
    model = onnx.load(path)
    model.graph.output.append(model.graph.output[0])
    onnx.save(model, path)
    return ["model.onnx: the output differs from the graph's", "model.onnx: 2 outputs, the graph has 1"]


@pytest.mark.parametrize("change", [scaled, strided, exchanged, watched])
def test_a_change_is_named_with_its_layer(change, tmp_path):
    graph, path = varied().graph(), tmp_path / "model.onnx"
    to_onnx(graph, path)
    assert change(graph, path) == differences(graph, path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07TFL3" + bytes(200), bytes(1000)])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_is_no_model_is_one_line(kind, content, tmp_path):
    path = tmp_path / f"model.{kind}"
    path.write_bytes(content)
    try:
        lines = differences(varied().graph(), path)
    except ExportError as error:
        lines = [str(error)]
    assert lines
    assert all(f"model.{kind}: " in line and "\n" not in line for line in lines)
