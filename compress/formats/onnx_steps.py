"""An ONNX file as steps, and the steps that a graph has in ONNX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.errors import ExportError
from compress.formats.onnx import IR_VERSION, OPSET, Normalisation
from compress.formats.steps import ABSENT, CONSTANT, INPUT, MISSING, OPERATOR, Listing, Step, array
from compress.graph.operators import OPERATORS
from compress.graph.operators.operator import OnnxForm
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec

REST = "something that is not told here"
_NORMALISATION = ("input_mean", "input_std")
_TOLD = (*_NORMALISATION, *(f"{end}_{what}" for end in ("input", "output") for what in ("scale", "zero_point")))
"""Metadata from which a program knows how to fill the input and read the output."""


def read_onnx(data: bytes) -> tuple[Listing, Normalisation | None]:
    """The steps of a file, and the mean and std that it states of a float32 input. Raises ExportError, or one of
    protobuf's errors, for what is no model."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    values = {"": ABSENT} | {given.name: Step(INPUT, {"": place}) for place, given in enumerate(graph.input)}
    values |= {tensor.name: _constant(tensor) for tensor in graph.initializer}
    operators = []
    for node in graph.node:
        inputs = tuple(values.get(name, MISSING) for name in node.input)
        operators.append(Step(OPERATOR, _facts_of(node), inputs))
        values |= dict.fromkeys(node.output[:1], operators[-1])
        values |= {
            name: Step(OPERATOR, {"operator": f"output {place}"}, (operators[-1],))
            for place, name in enumerate(node.output[1:], 2)
        }
    outputs = tuple(values.get(made.name, MISSING) for made in graph.output)
    told = tuple((each.key, each.value) for each in model.metadata_props if each.key in _TOLD)
    return Listing(outputs, tuple(operators), _whole(model, told)), _normalisation(dict(told))


def onnx_steps(graph: QuantizedGraph, reads: Normalisation | None) -> Listing:
    """Of what a file of `graph` computes, where a float32 input is read with the mean and std of `reads`."""
    reads = None if graph.is_float else reads
    image = graph.tensors[graph.input]
    given = Step(INPUT, {"": 0}, label="the input")
    values = {graph.input: _normalised(image, given, *reads) if reads else given}
    for operator in graph.operators:
        values[operator.output] = _computed(graph, operator, values)
    model = helper.make_model(
        helper.make_graph([], "", [_end(graph, image, reads)], [_end(graph, graph.tensors[graph.output], None)]),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    return Listing((values[graph.output],), (), _whole(model, _told(graph, reads)))


def _computed(graph: QuantizedGraph, operator: QuantizedOperator, values: Mapping[str, Step]) -> Step:
    """The result of an operator, as integers where it has a scale."""
    source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.output]
    kept_float = operator.weight is not None and operator.weight_scale is None
    inputs = [_real(graph, name, values[name], kept_float) for name in operator.inputs]
    weights = _weights(operator, source)
    forms = operator.kind.onnx(operator, source, result)
    value = _chain(forms, inputs, [weights(form.output_axis) for form in forms], operator.name)
    if operator.activation and not result.clamps(operator.activation):
        forms = OPERATORS[operator.activation].onnx(operator, result, result)
        value = _chain(forms, [value], [()] * len(forms), operator.name)
    return value if result.scale is None else _linear("QuantizeLinear", value, result)


def _chain(forms: Sequence[OnnxForm], inputs: Sequence[Step], weights: Sequence[tuple[Step, ...]], name: str) -> Step:
    values = list(inputs)
    for form, own in zip(forms, weights, strict=True):
        more = tuple(_stored(value, f"{name}: argument") for value in form.constants)
        given = form.given(values, len(inputs))
        values.append(_node(form.op_type, (*given, *more, *own), f"{name}:", **form.attributes))
    return values[-1]


def _weights(operator: QuantizedOperator, source: TensorSpec) -> Callable[[int], tuple[Step, ...]]:
    """For the axis of the output channels, what an operator reads beside its inputs."""

    def along(axis: int) -> tuple[Step, ...]:
        weight = () if operator.weight is None else (of(operator.weight, "weight", None, axis),)
        return weight if operator.bias is None else (*weight, of(operator.bias, "bias", source.scale, 0))

    def of(value: np.ndarray, what: str, factor: float | None, axis: int) -> Step:
        label = f"{operator.name}: {what}"
        if operator.weight_scale is None:
            return _stored(value, label)
        scale = operator.weight_scale.astype(np.float32)
        scale = scale if factor is None else np.float32(factor) * scale
        zero_point = np.zeros(len(scale), value.dtype)
        inputs = _stored(value, label), _stored(scale, f"{label} scale"), _stored(zero_point, f"{label} zero point")
        return _node("DequantizeLinear", inputs, f"{label}:", axis=axis)

    return along


def _real(graph: QuantizedGraph, name: str, value: Step, kept_float: bool) -> Step:
    """The float value of a tensor."""
    spec = graph.tensors[name]
    if not _is_integer(graph, spec):
        return value
    if not kept_float:
        return _linear("DequantizeLinear", value, spec)
    axis = 1 if spec.shape[1] > 1 else 2
    return _linear("DequantizeLinear", value, spec, spec.shape[axis], axis=axis)


def _linear(op_type: str, value: Step, spec: TensorSpec, count: int | None = None, **attributes: int) -> Step:
    """To or from the integers of a tensor; `count` equal scales along an axis."""
    scale, zero_point = np.float32(spec.scale), np.uint8(spec.zero_point + 128)
    shape = () if count is None else (count,)
    scales = _stored(np.full(shape, scale), f"{spec.name}: scale")
    return _node(
        op_type,
        (value, scales, _stored(np.full(shape, zero_point), f"{spec.name}: zero point")),
        f"{spec.name}:",
        **attributes,
    )


def _normalised(image: TensorSpec, given: Step, mean: Sequence[float], std: Sequence[float]) -> Step:
    """Real value = scale * (std * x + mean - zero point), rounded to the image's integers."""
    assert image.scale is not None
    factor = np.float32(image.scale * np.array(std)).reshape(1, -1, 1, 1)
    offset = np.float32(image.scale * (np.array(mean) - image.zero_point - 128)).reshape(1, -1, 1, 1)
    scaled = _node("Mul", (given, _stored(factor, f"{image.name}: std")), f"{image.name}:")
    shifted = _node("Add", (scaled, _stored(offset, f"{image.name}: mean")), f"{image.name}:")
    return _linear("QuantizeLinear", shifted, image)


def _node(op_type: str, inputs: Sequence[Step], label: str, **attributes: Any) -> Step:
    return Step(OPERATOR, _facts_of(helper.make_node(op_type, [], [""], **attributes)), tuple(inputs), label)


def _stored(value: Any, label: str) -> Step:
    return ABSENT if value is None else Step(CONSTANT, {"": array(np.asarray(value))}, label=label)


def _constant(tensor: onnx.TensorProto) -> Step:
    """An initializer by its value. Raises ExportError for one that lies in another file, which is not opened."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise ExportError(f"{tensor.name!r} lies in another file")
    facts = {"": array(numpy_helper.to_array(tensor))}
    rest = onnx.TensorProto()
    rest.CopyFrom(tensor)
    for name in ("name", "doc_string", "dims", "data_type", "raw_data", "metadata_props"):
        rest.ClearField(name)
    return Step(CONSTANT, {**facts, REST: rest.SerializeToString()} if rest.ByteSize() else facts)


def _facts_of(node: onnx.NodeProto) -> dict[str, Any]:
    """All that a node says but for names and what it reads: each attribute by name, and the rest in one."""
    rest = onnx.NodeProto()
    rest.CopyFrom(node)
    for name in ("input", "output", "name", "doc_string", "attribute", "op_type", "metadata_props"):
        rest.ClearField(name)
    facts: dict[str, Any] = {"operator": node.op_type, "outputs": len(node.output), REST: rest.SerializeToString()}
    for attribute in node.attribute:
        attribute.ClearField("doc_string")
        name = f"attribute {attribute.name}"
        facts[name] = facts.get(name, b"") + attribute.SerializeToString(deterministic=True)
    return facts


def _whole(model: onnx.ModelProto, told: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """What is said of a file apart from its operators and constants: taken out of `model`, which is spent then."""
    facts = {
        "the IR version": model.ir_version,
        "the opset": tuple((each.domain, each.version) for each in model.opset_import),
        "the metadata of the input and output": tuple(sorted(told)),
    }
    for what, ends in (("the input", model.graph.input), ("the output", model.graph.output)):
        for end in ends:
            end.ClearField("doc_string")
            end.ClearField("metadata_props")
        facts[what] = tuple(end.SerializeToString(deterministic=True) for end in ends)
    for name in ("ir_version", "opset_import", "metadata_props", "producer_name", "producer_version", "domain",
                 "model_version", "doc_string"):  # fmt: skip
        model.ClearField(name)
    for name in ("node", "initializer", "input", "output", "name", "doc_string", "metadata_props"):
        model.graph.ClearField(name)
    return {**facts, REST: model.SerializeToString(deterministic=True)}


def _is_integer(graph: QuantizedGraph, spec: TensorSpec) -> bool:
    return spec.scale is not None and not (spec.name == graph.input and graph.is_float)


def _end(graph: QuantizedGraph, spec: TensorSpec, reads: Normalisation | None) -> onnx.ValueInfoProto:
    integer = _is_integer(graph, spec) and not reads
    name = f"{spec.name}_float32" if reads else spec.name
    return helper.make_tensor_value_info(
        name, onnx.TensorProto.UINT8 if integer else onnx.TensorProto.FLOAT, spec.shape
    )


def _told(graph: QuantizedGraph, reads: Normalisation | None) -> tuple[tuple[str, str], ...]:
    found = {}
    for end, spec in (("input", graph.tensors[graph.input]), ("output", graph.tensors[graph.output])):
        if _is_integer(graph, spec) and not (end == "input" and reads):
            found[f"{end}_scale"] = repr(float(np.float32(spec.scale)))
            found[f"{end}_zero_point"] = str(spec.zero_point + 128)
    if reads:
        found |= {name: " ".join(map(repr, values)) for name, values in zip(_NORMALISATION, reads, strict=True)}
    return tuple(found.items())


def _normalisation(told: Mapping[str, str]) -> Normalisation | None:
    if not told.keys() >= set(_NORMALISATION):
        return None
    mean, std = (tuple(float(number) for number in told[name].split()) for name in _NORMALISATION)
    if not len(mean) == len(std) > 0:
        raise ExportError("the mean and the std of its input are not as many numbers")
    return mean, std
