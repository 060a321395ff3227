"""A TFLite file as steps, and the steps that a graph has in TFLite."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from compress.errors import ExportError
from compress.formats.steps import ABSENT, CONSTANT, INPUT, MISSING, OPERATOR, TENSOR, Listing, Step, array, plain
from compress.formats.tflite import TYPES, VERSIONS, as_stored, in_layout, options_table
from compress.graph.operators.operator import Scale, TfliteForm
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec

_IDENTIFIER = b"TFL3"
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_EMPTY = schema.BufferT()
_OF_QUANTIZATION = {"zeroPoint": "zero point", "quantizedDimension": "axis of the scales"}


def read_tflite(data: bytes) -> Listing:
    """The steps of a file. Raises ExportError, or whatever the parser does, for what is no model."""
    return listed(schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)), data[4:8])


def listed(model: schema.ModelT, identifier: bytes) -> Listing:
    """The steps of a parsed file."""
    if len(model.subgraphs or ()) != 1:
        raise ExportError(f"{len(model.subgraphs or ())} subgraphs, not 1")
    graph, codes, buffers = model.subgraphs[0], model.operatorCodes, model.buffers
    facts = [_facts_of(tensor, buffers[tensor.buffer]) for tensor in graph.tensors]
    values: dict[int, Step] = {-1: ABSENT}
    for index, tensor in enumerate(graph.tensors):
        if len(_bytes(buffers[tensor.buffer])):
            values[index] = Step(CONSTANT, facts[index])
    for place, index in enumerate(_indices(graph.inputs)):
        values[index] = Step(INPUT, {**facts[index], "place": place})
    operators = []
    for operator in graph.operators or ():
        inputs = tuple(values.get(index, MISSING) for index in _indices(operator.inputs))
        outputs = _indices(operator.outputs)
        own = _facts_of_operator(operator, codes[operator.opcodeIndex], len(outputs))
        operators.append(Step(OPERATOR, own, inputs))
        for place, index in enumerate(outputs):
            more = {"place": place} if place else {}
            values[index] = Step(TENSOR, {**facts[index], **more}, (operators[-1],))
    results = tuple(values.get(index, MISSING) for index in _indices(graph.outputs))
    return Listing(results, tuple(operators), _whole(model, graph, identifier))


def tflite_steps(graph: QuantizedGraph) -> Listing:
    """Of what a file of `graph` computes."""
    result = graph.tensors[graph.output]
    steps = _Steps(graph)
    for operator in graph.operators:
        steps.add(operator)
    output = steps.values[graph.output, "float32" if result.scale is None else "int8"]
    if result.scale is not None:
        output = steps.converted("QUANTIZE", schema.QuantizeOptionsT(), output, result, "uint8")
    return Listing((output,), (), _whole(schema.ModelT(version=3), schema.SubGraphT(), _IDENTIFIER))


class _Steps:
    """Collects the values of a graph's tensors, each by its name and dtype."""

    def __init__(self, graph: QuantizedGraph):
        self.graph = graph
        image = graph.tensors[graph.input]
        dtype = "float32" if graph.is_float else "uint8"
        given = Step(INPUT, {**_facts_of(_tensor(image, dtype)), "place": 0}, label="the input")
        self.values = {(graph.input, "float32"): given}
        if not graph.is_float:
            pixels = self.converted("QUANTIZE", schema.QuantizeOptionsT(), given, image, "int8")
            self.values = {(graph.input, "int8"): pixels}

    def add(self, operator: QuantizedOperator) -> None:
        source, result = self.graph.tensors[operator.inputs[0]], self.graph.tensors[operator.output]
        forms = operator.kind.tflite(operator, source, result)
        integer = self.graph.is_integer(operator) and not forms[0].in_float
        dtype = "int8" if integer else "float32"
        values = [self.read(name, dtype) for name in operator.inputs]
        if integer and operator.kind.scale is Scale.OF_INPUTS:
            values = [self.brought(value, name, result) for value, name in zip(values, operator.inputs)]
        for form in forms:
            given = self.arguments(operator, form, form.given(values, len(operator.inputs)), integer)
            made = _tensor(result if form is forms[-1] else source, dtype)
            if form.shape and form is not forms[-1]:
                made.shape = list(form.shape)
            label = operator.output if form is forms[-1] else operator.name
            step = _operator(form.code, options_table(form.options), form.versions[integer], given, operator.name)
            values.append(Step(TENSOR, _facts_of(made), (step,), f"{label}:"))
        self.values[operator.output, dtype] = values[-1]
        if not integer and result.scale is not None:
            rounded = self.converted("QUANTIZE", schema.QuantizeOptionsT(), values[-1], result, "int8")
            self.values[operator.output, "int8"] = rounded
            self.values[operator.output, "float32"] = self.dequantized(rounded, result)

    def read(self, name: str, dtype: str) -> Step:
        if (name, dtype) not in self.values:
            self.values[name, dtype] = self.dequantized(self.values[name, "int8"], self.graph.tensors[name])
        return self.values[name, dtype]

    def brought(self, value: Step, name: str, like: TensorSpec) -> Step:
        """In the scale of another tensor."""
        source = self.graph.tensors[name]
        if (source.scale, source.zero_point) == (like.scale, like.zero_point):
            return value
        scaled = replace(source, scale=like.scale, zero_point=like.zero_point)
        return self.converted("QUANTIZE", schema.QuantizeOptionsT(), value, scaled, "int8")

    def dequantized(self, value: Step, spec: TensorSpec) -> Step:
        return self.converted("DEQUANTIZE", schema.DequantizeOptionsT(), value, spec, "float32", integer=True)

    def converted(
        self, code: str, options: Any, value: Step, spec: TensorSpec, dtype: str, integer: bool = False
    ) -> Step:
        step = _operator(code, options, VERSIONS[code][integer], (value,), spec.name)
        return Step(TENSOR, _facts_of(_tensor(spec, dtype)), (step,), f"{spec.name}:")

    def arguments(
        self, operator: QuantizedOperator, form: TfliteForm, given: Sequence[Step], integer: bool
    ) -> tuple[Step, ...]:
        """All that a form reads, in order."""
        source = self.graph.tensors[operator.inputs[0]]
        if any(pad != (0, 0) for pad in form.pads):
            given = (self.padded(operator, form, source, given[0], integer), *given[1:])
        before, after = (
            [_constant(as_stored(value), f"{operator.name}: argument") for value in values]
            for values in (form.before, form.after)
        )
        reals = [_real(value, source if integer else None, f"{operator.name}: argument") for value in form.reals]
        read, weights = [*given, *reals], _weights(operator, form, source)
        if form.weights_first:
            read, weights = [*weights[:1], *read], weights[1:]
        return (*before, *read, *weights, *after)

    def padded(
        self, operator: QuantizedOperator, form: TfliteForm, source: TensorSpec, value: Step, integer: bool
    ) -> Step:
        (top, bottom), (left, right) = form.pads
        n, c, h, w = source.shape
        made = _tensor(source, "int8" if integer else "float32")
        made.shape = [n, h + top + bottom, w + left + right, c]
        amounts = _constant(np.array([(0, 0), *form.pads, (0, 0)], np.int32), f"{operator.name}: amounts of padding")
        code, options, inputs = "PAD", schema.PadOptionsT(), [value, amounts]
        if form.pad_lowest and not self.graph.never_negative(source, integer):
            lowest = np.array([-128], np.int8) if integer else np.array([np.finfo(np.float32).min])
            label = f"{operator.name}: value of the padding"
            inputs.append(_constant(lowest, label, _quantization(source) if integer else None))
            code, options = "PADV2", schema.PadV2OptionsT()
        step = _operator(code, options, VERSIONS[code][integer], inputs, operator.name)
        return Step(TENSOR, _facts_of(made), (step,), f"{operator.name}: padded")


def _weights(operator: QuantizedOperator, form: TfliteForm, source: TensorSpec) -> list[Step]:
    if operator.weight is None:
        return []
    weight = in_layout(form, operator.weight)
    weight_of = bias_of = None
    if operator.weight_scale is not None:
        scale = operator.weight_scale.astype(np.float32)
        weight_of = schema.QuantizationParametersT(
            scale=scale, zeroPoint=[0] * len(scale), quantizedDimension=form.output_axis
        )
        bias_of = schema.QuantizationParametersT(scale=np.float32(source.scale) * scale, zeroPoint=[0] * len(scale))
    nothing = np.zeros(weight.shape[form.output_axis], np.float32 if operator.weight_scale is None else np.int32)
    bias = nothing if operator.bias is None else operator.bias
    return [
        _constant(weight, f"{operator.name}: weight", weight_of),
        _constant(bias, f"{operator.name}: bias", bias_of),
    ]


def _real(value: float, source: TensorSpec | None, label: str) -> Step:
    """A real constant, stored as the integers of `source` where one is given."""
    if source is None or source.scale is None:
        return _constant(np.array([value], np.float32), label)
    integer = np.rint(np.float32(value) / np.float32(source.scale)) + source.zero_point
    return _constant(np.array([integer]).clip(-128, 127).astype(np.int8), label, _quantization(source))


def _quantization(spec: TensorSpec, more: int = 0) -> schema.QuantizationParametersT:
    return schema.QuantizationParametersT(scale=np.array([spec.scale], np.float32), zeroPoint=[spec.zero_point + more])


def _tensor(spec: TensorSpec, dtype: str) -> schema.TensorT:
    n, c, h, w = spec.shape
    quantization = None if dtype == "float32" else _quantization(spec, 128 if dtype == "uint8" else 0)
    return schema.TensorT([n, h, w, c], TYPES[dtype], quantization=quantization, hasRank=True)


def _constant(value: np.ndarray, label: str, quantization: schema.QuantizationParametersT | None = None) -> Step:
    tensor = schema.TensorT(list(value.shape), TYPES[value.dtype.name], quantization=quantization, hasRank=True)
    data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
    return Step(CONSTANT, _facts_of(tensor, schema.BufferT(data)), label=label)


def _operator(code: str, options: Any, version: int, inputs: Sequence[Step], name: str) -> Step:
    number = getattr(schema.BuiltinOperator, code)
    kind = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")) if options else 0
    for key, value in vars(options).items() if options else ():
        if isinstance(value, float):
            setattr(options, key, float(np.float32(value)))  # as a file stores it
    operator = schema.OperatorT(builtinOptionsType=kind, builtinOptions=options)
    codes = schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), version=version, builtinCode=number)
    return Step(OPERATOR, _facts_of_operator(operator, codes, 1), tuple(inputs), f"{name}:")


def _indices(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _bytes(buffer: schema.BufferT) -> np.ndarray:
    return np.zeros(0, np.uint8) if buffer.data is None else buffer.data


def _facts_of(tensor: schema.TensorT, buffer: schema.BufferT = _EMPTY) -> dict[str, Any]:
    """All that is said of a tensor, but for its name and where its values are stored, and those values."""
    own = {name: plain(value) for name, value in vars(tensor).items() if name not in ("name", "buffer", "quantization")}
    quantization = vars(tensor.quantization or schema.QuantizationParametersT())
    return {
        **own,
        **{_OF_QUANTIZATION.get(name, name): plain(value) for name, value in quantization.items()},
        **{f"buffer's {name}": plain(value) for name, value in vars(buffer).items() if name != "data"},
        "": array(_bytes(buffer)),
    }


def _facts_of_operator(operator: schema.OperatorT, code: schema.OperatorCodeT, outputs: int) -> dict[str, Any]:
    """All that an operator says but for what it reads and writes: each field of its options by name."""
    left_out = ("opcodeIndex", "inputs", "outputs", "builtinOptions", "debugMetadataIndex")
    own = {name: plain(value) for name, value in vars(operator).items() if name not in left_out}
    options = vars(operator.builtinOptions) if operator.builtinOptions is not None else {}
    kind = type(operator.builtinOptions).__name__
    return {
        **own,
        **{f"attribute {name}": plain(value) for name, value in options.items()},
        **{f"{name} of the operator": plain(value) for name, value in vars(code).items()},
        "options": kind,
        "operator": _NAMES.get(code.builtinCode, code.builtinCode),
        "outputs": outputs,
    }


def _whole(model: schema.ModelT, graph: schema.SubGraphT, identifier: bytes) -> Mapping[str, Any]:
    """What is said of a file apart from its operators, tensors and texts."""
    of_model = ("operatorCodes", "subgraphs", "description", "buffers", "metadata")
    of_graph = ("tensors", "inputs", "outputs", "operators", "name", "debugMetadataIndex")
    return {
        "the file identifier": identifier,
        **{f"the model's {name}": plain(value) for name, value in vars(model).items() if name not in of_model},
        **{f"the subgraph's {name}": plain(value) for name, value in vars(graph).items() if name not in of_graph},
    }
