"""QuantizedGraph -> TFLite: the FlatBuffer is written field by field, so every integer in it is the graph's.

Layout is NHWC. torch's padding becomes SAME or VALID wherever one of them means the same pixels, so that a
PAD operator stands only where a converter would have to put one too (stride 2, mostly).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from compress.files import write_whole
from compress.formats.metadata import Card, metadata, packed_labels
from compress.graph.operators import OPERATORS
from compress.graph.operators.operator import Scale, TfliteForm
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec

# The versions of the operators that are written here and not asked for by an entry: for float32, for int8.
VERSIONS = {"DEQUANTIZE": (1, 2), "PAD": (1, 2), "PADV2": (1, 2), "QUANTIZE": (1, 1)}
OLDEST_RUNTIME = "2.3.0"
"""The release of TensorFlow that brought the newest of all other operators' versions."""

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
}


def to_tflite(graph: QuantizedGraph, path: Path, *, card: Card | None = None, expose: Sequence[str] = ()) -> None:
    """Write `graph` as it is: nothing is calibrated or rounded again.

    Quantized graph: the input is uint8 pixels [1, H, W, channels], the output uint8 [1, H, W, classes] (float32
    where the graph's output is float), int8 in between. Float graph: float32 real values in, float32 out.
    Tensors have the graph's names; `card` becomes TFLite Metadata, with the labels in it; the tensors
    named in `expose` become further outputs, as int8.

    Raises ExportError, naming the layer, for what TFLite cannot express, and for a path that cannot be written.
    """
    writer = _Writer(graph)
    inputs = [writer.open_input()]
    for operator in graph.operators:
        writer.add(operator)
    outputs = [writer.close_output(), *(writer.exposed(name) for name in expose)]
    subgraph = schema.SubGraphT(writer.tensors, inputs, outputs, writer.operators, name="main")
    entries = {"min_runtime_version": writer.min_runtime().ljust(16, "\0").encode()}
    if card:
        entries["TFLITE_METADATA"] = _metadata(graph, card)
    model = schema.ModelT(
        version=3,
        operatorCodes=[_operator_code(name, version) for name, version in writer.codes],
        subgraphs=[subgraph],
        description=graph.name,
        metadata=[schema.MetadataT(name, writer.buffer(data)) for name, data in entries.items()],
        buffers=[schema.BufferT(), *(schema.BufferT(np.frombuffer(data, np.uint8)) for data in writer.buffers)],
    )
    builder = _Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    write_whole(path, bytes(builder.Output()) + (packed_labels(card) if card else b""))


def _metadata(graph: QuantizedGraph, card: Card) -> bytes:
    image = graph.tensors[graph.input]
    assert image.scale is not None
    mean, std = (image.zero_point + 128, 1 / image.scale) if graph.is_float else (0, 1)
    return metadata(card, image.shape[1], mean, std, (0 - mean) / std, (255 - mean) / std)


class _Builder(flatbuffers.Builder):
    """Stores equal vectors once (the zero points of weights and biases alone are 16 bytes a channel), and buffers
    at multiples of 16 bytes, which the schema asks for and its Python code does not see to."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.vectors: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 - the name in flatbuffers
        key = (x.dtype.str, x.tobytes())
        if key not in self.vectors:
            self.StartVector(x.itemsize, x.size, 16 if x.dtype == np.uint8 else x.itemsize)
            self.head -= len(key[1])
            self.Bytes[self.head : self.head + len(key[1])] = key[1]
            self.vectors[key] = self.EndVector()
        return self.vectors[key]


def _operator_code(name: str, version: int) -> schema.OperatorCodeT:
    code = getattr(schema.BuiltinOperator, name)
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), version=version, builtinCode=code)


def options_table(options: tuple[str, Mapping[str, Any]] | None) -> Any:
    """The options table that a form names, its enumerations as the schema has them."""
    if options is None:
        return None
    table, fields = options
    return getattr(schema, f"{table}T")(**{key: _ENUMS.get(key, _same)(value) for key, value in fields.items()})


def _same(value: Any) -> Any:
    return value


def _fused(activation: str | None) -> int:
    rectifier = OPERATORS[activation].rectifier if activation else None
    return int(getattr(schema.ActivationFunctionType, rectifier.tflite if rectifier else "NONE"))


_ENUMS: Mapping[str, Callable[[Any], Any]] = {
    "padding": lambda value: getattr(schema.Padding, value),
    "fusedActivationFunction": _fused,
}


class _Writer:
    """Collects tensors, buffers and operators. A quantized tensor's own name is its int8 value, except
    the graph's input and output, whose int8 values have ".int8" appended."""

    def __init__(self, graph: QuantizedGraph):
        self.graph = graph
        self.tensors: list[schema.TensorT] = []
        self.operators: list[schema.OperatorT] = []
        self.codes: list[tuple[str, int]] = []
        self.since = [OLDEST_RUNTIME]
        self.buffers: dict[bytes, int] = {}
        self.values: dict[tuple[str, str], int] = {}  # (tensor, dtype) -> index
        self.padded: dict[tuple[Any, ...], int] = {}

    def open_input(self) -> int:
        spec = self.graph.tensors[self.graph.input]
        if self.graph.is_float:
            return self.activation(spec, "float32")
        pixels = self.activation(spec, "uint8")
        self.operator("QUANTIZE", schema.QuantizeOptionsT(), [pixels], self.activation(spec, "int8"))
        return pixels

    def close_output(self) -> int:
        spec = self.graph.tensors[self.graph.output]
        if spec.scale is None:
            return self.values[spec.name, "float32"]
        result = self.activation(spec, "uint8")
        self.operator("QUANTIZE", schema.QuantizeOptionsT(), [self.values[spec.name, "int8"]], result)
        return result

    def exposed(self, name: str) -> int:
        return self.values[name, "float32" if self.graph.tensors[name].scale is None else "int8"]

    def add(self, operator: QuantizedOperator) -> None:
        source, result = self.graph.tensors[operator.inputs[0]], self.graph.tensors[operator.output]
        forms = operator.kind.tflite(operator, source, result)
        integer = self.graph.is_integer(operator) and not forms[0].in_float
        dtype = "int8" if integer else "float32"
        values = inputs = [self.read(name, dtype) for name in operator.inputs]
        if integer and operator.kind.scale is Scale.OF_INPUTS:
            values = inputs = [self.brought(index, name, result) for index, name in zip(inputs, operator.inputs)]
        for step, form in enumerate(forms):
            given = form.given(values, len(inputs))
            if any(pad != (0, 0) for pad in form.pads):
                given = [self.pad(operator, form, source, dtype, given[0]), *given[1:]]
            given = self.arguments(operator, form, given, source if integer else None)
            output = (
                self.activation(result, dtype) if form is forms[-1] else self.between(operator, form, step, inputs[0])
            )
            self.operator(form.code, options_table(form.options), given, output, form.versions[integer])
            self.since.append(form.since)
            values = [*values, output]
        if not integer and result.scale is not None:
            self.operator("QUANTIZE", schema.QuantizeOptionsT(), [output], self.activation(result, "int8"))
            del self.values[result.name, "float32"]  # readers in float get the rounded value, as in ONNX

    def arguments(
        self, operator: QuantizedOperator, form: TfliteForm, given: list[int], source: TensorSpec | None
    ) -> list[int]:
        """All that a form reads, in order. `source`: whose integers its real constants become, where it computes on
        integers."""
        weights = self.weights(operator, form, operator.weight) if operator.weight is not None else []
        before, after = (
            [self.constant(f"{operator.name}.argument", as_stored(value)) for value in values]
            for values in (form.before, form.after)
        )
        reals = [self.real(f"{operator.name}.argument", value, source) for value in form.reals]
        given = [*given, *reals]
        if form.weights_first:
            given = [weights.pop(0), *given]
        return [*before, *given, *weights, *after]

    def real(self, name: str, value: float, source: TensorSpec | None) -> int:
        if source is None or source.scale is None:
            return self.constant(name, np.array([value], np.float32))
        integer = np.rint(np.float32(value) / np.float32(source.scale)) + source.zero_point
        quantization = _quantization(np.array([source.scale]), zero_point=source.zero_point)
        return self.constant(name, np.array([integer]).clip(-128, 127).astype(np.int8), quantization)

    def between(self, operator: QuantizedOperator, form: TfliteForm, step: int, like: int) -> int:
        """The result of a form that another one of the same operator reads."""
        other = self.tensors[like]
        dtype = "int8" if other.type == schema.TensorType.INT8 else "float32"
        return self.tensor(f"{operator.name}.{step}", form.shape or other.shape, dtype, other.quantization)

    def read(self, name: str, dtype: str) -> int:
        """Index of a tensor's int8 or float32 value, dequantized once where it exists as int8 alone."""
        if (name, dtype) not in self.values:
            output = self.activation(self.graph.tensors[name], "float32")
            self.operator("DEQUANTIZE", schema.DequantizeOptionsT(), [self.values[name, "int8"]], output, integer=True)
        return self.values[name, dtype]

    def brought(self, index: int, name: str, like: TensorSpec) -> int:
        """An int8 tensor in the scale of another, which TFLite's operators that move values ask for."""
        source = self.graph.tensors[name]
        if (source.scale, source.zero_point) == (like.scale, like.zero_point):
            return index
        quantization = _quantization(np.array([like.scale]), zero_point=like.zero_point)
        output = self.tensor(f"{name}.for.{like.name}", self.tensors[index].shape, "int8", quantization)
        self.operator("QUANTIZE", schema.QuantizeOptionsT(), [index], output)
        return output

    def activation(self, spec: TensorSpec, dtype: str) -> int:
        """A new tensor for a value of the graph, NHWC."""
        n, c, h, w = spec.shape
        at_the_end = spec.name in (self.graph.input, self.graph.output)
        own = "float32" if spec.scale is None or self.graph.is_float else "uint8" if at_the_end else "int8"
        name = spec.name if dtype == own else f"{spec.name}.{dtype}"
        quantization = None
        if dtype != "float32":
            zero_point = spec.zero_point + (128 if dtype == "uint8" else 0)
            quantization = _quantization(np.array([spec.scale]), zero_point=zero_point)
        self.values[spec.name, dtype] = self.tensor(name, (n, h, w, c), dtype, quantization)
        return self.values[spec.name, dtype]

    def weights(self, operator: QuantizedOperator, form: TfliteForm, weight: np.ndarray) -> list[int]:
        laid_out = in_layout(form, weight)
        channels = laid_out.shape[form.output_axis]
        dtype = np.float32 if operator.weight_scale is None else np.int32
        bias = np.zeros(channels, dtype) if operator.bias is None else operator.bias
        weight_quantization = bias_quantization = None
        if operator.weight_scale is not None:
            weight_scale = operator.weight_scale.astype(np.float32)
            input_scale = np.float32(self.graph.tensors[operator.inputs[0]].scale)
            weight_quantization = _quantization(weight_scale, axis=form.output_axis)
            bias_quantization = _quantization(input_scale * weight_scale)
        return [
            self.constant(f"{operator.name}.weight", laid_out, weight_quantization),
            self.constant(f"{operator.name}.bias", bias, bias_quantization),
        ]

    def pad(self, operator: QuantizedOperator, form: TfliteForm, source: TensorSpec, dtype: str, tensor: int) -> int:
        """The input of a convolution or pool, padded with zero, or with the lowest value; padded once for all
        operators that ask for the same."""
        lowest = form.pad_lowest and not self.graph.never_negative(source, dtype == "int8")
        key = (tensor, tuple(form.pads), lowest)
        if key not in self.padded:
            amounts = np.array([(0, 0), *form.pads, (0, 0)], np.int32)
            n, h, w, c = self.tensors[tensor].shape
            shape = (n, h + sum(form.pads[0]), w + sum(form.pads[1]), c)
            quantization = self.tensors[tensor].quantization
            output = self.tensor(f"{operator.name}.padded", shape, dtype, quantization)
            inputs = [tensor, self.constant(f"{operator.name}.pads", amounts)]
            if lowest:
                value = np.array([-128 if dtype == "int8" else np.finfo(np.float32).min], dtype)
                inputs.append(self.constant(f"{operator.name}.lowest", value, quantization))
            code, options = ("PADV2", schema.PadV2OptionsT()) if lowest else ("PAD", schema.PadOptionsT())
            self.operator(code, options, inputs, output, integer=dtype == "int8")
            self.padded[key] = output
        return self.padded[key]

    def constant(self, name: str, array: np.ndarray, quantization: schema.QuantizationParametersT | None = None) -> int:
        array = np.ascontiguousarray(array)
        return self.tensor(name, array.shape, array.dtype.name, quantization, self.buffer(array.tobytes()))

    def buffer(self, data: bytes) -> int:
        """Index of a buffer with these bytes; buffer 0 is the empty one, and equal bytes are stored once."""
        return self.buffers.setdefault(data, len(self.buffers) + 1)

    def tensor(self, name: str, shape: Sequence[int], dtype: str,
               quantization: schema.QuantizationParametersT | None = None, buffer: int = 0) -> int:  # fmt: skip
        tensor = schema.TensorT(
            list(shape), TYPES[dtype], buffer, name, quantization or schema.QuantizationParametersT(), hasRank=True
        )
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, code: str, options: Any, inputs: list[int], output: int, version: int | None = None,
                 integer: bool = False) -> None:  # fmt: skip
        key = (code, version or VERSIONS[code][integer])
        if key not in self.codes:
            self.codes.append(key)
        kind = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")) if options else 0
        self.operators.append(
            schema.OperatorT(self.codes.index(key), inputs, [output], builtinOptionsType=kind, builtinOptions=options)
        )

    def min_runtime(self) -> str:
        return max(self.since, key=lambda text: [int(part) for part in text.split(".")])


def as_stored(value: Any) -> np.ndarray:
    """Real numbers as float32, whole ones as int32."""
    array = np.array(value)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def in_layout(form: TfliteForm, weight: np.ndarray) -> np.ndarray:
    """A weight as TFLite stores it."""
    down, across = form.widen
    return np.pad(weight, ((0, 0), (0, 0), (0, down), (0, across))).transpose(form.axes)


def _quantization(scale: np.ndarray, zero_point: int = 0, axis: int = 0) -> schema.QuantizationParametersT:
    return schema.QuantizationParametersT(
        scale=scale.astype("<f4"),
        zeroPoint=np.full(scale.shape, zero_point, "<i8"),
        quantizedDimension=axis,
    )
