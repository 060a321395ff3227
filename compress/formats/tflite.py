"""QuantizedGraph -> TFLite: the FlatBuffer is written field by field, so every integer in it is the graph's.

Layout is NHWC. torch's padding becomes SAME or VALID wherever one of them means the same pixels, so that a
PAD operator stands only where a converter would have to put one too (stride 2, mostly).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from compress.errors import ExportError
from compress.files import write_whole
from compress.formats.metadata import Card, metadata, packed_labels
from compress.graph.quantized import Operator, QuantizedGraph, TensorSpec

# The lowest operator versions that do what is asked here: for float32, for int8.
VERSIONS = {
    "ADD": (1, 2),
    "AVERAGE_POOL_2D": (1, 2),
    "CONCATENATION": (1, 2),
    "CONV_2D": (1, 3),
    "DEPTHWISE_CONV_2D": (2, 3),
    "DEQUANTIZE": (1, 2),
    "LOGISTIC": (1, 2),
    "MAX_POOL_2D": (1, 2),
    "MEAN": (1, 2),
    "MUL": (1, 2),
    "PAD": (1, 2),
    "PADV2": (1, 2),
    "QUANTIZE": (1, 1),
    "RELU": (1, 2),
    "RELU6": (1, 2),
    "RESIZE_BILINEAR": (3, 3),
    "RESIZE_NEAREST_NEIGHBOR": (1, 2),
    "SOFTMAX": (1, 2),
    "TRANSPOSE_CONV": (3, 3),
}
GROUPED_CONV_VERSION = 6
FUSED_TRANSPOSE_CONV_VERSION = 4
# TensorFlow releases that brought the newest of these versions; the rest is older than 2.3.
MIN_RUNTIMES = {("CONV_2D", GROUPED_CONV_VERSION): "2.9.0", ("TRANSPOSE_CONV", FUSED_TRANSPOSE_CONV_VERSION): "2.13.0"}
OLDEST_RUNTIME = "2.3.0"

ACTIVATIONS = {
    None: schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
}


def to_tflite(graph: QuantizedGraph, path: Path, *, card: Card | None = None, expose: Sequence[str] = ()) -> None:
    """Write `graph` as it is: nothing is calibrated or rounded again.

    Quantized graph: the input is uint8 pixels [1, H, W, 3], the output uint8 [1, H, W, classes] (float32
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
    return metadata(card, mean, std, (0 - mean) / std, (255 - mean) / std)


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


@dataclass
class _Form:
    """An operator in TFLite's words: `before` and `after` are constants around the inputs, weights come last."""

    code: str
    options: Any
    before: Sequence[np.ndarray] = ()
    after: Sequence[np.ndarray] = ()
    version: int | None = None
    pads: Sequence[tuple[int, int]] = ()  # of height and width, in an operator of their own
    pad_lowest: bool = False  # pad with the lowest value instead of zero
    layout: Callable[[np.ndarray], np.ndarray] = field(default=lambda weight: weight)
    output_axis: int = 0  # of the weight in that layout


class _Writer:
    """Collects tensors, buffers and operators. A quantized tensor's own name is its int8 value, except
    the graph's input and output, whose int8 values have ".int8" appended."""

    def __init__(self, graph: QuantizedGraph):
        self.graph = graph
        self.tensors: list[schema.TensorT] = []
        self.operators: list[schema.OperatorT] = []
        self.codes: list[tuple[str, int]] = []
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

    def add(self, operator: Operator) -> None:
        if operator.op not in TRANSLATE:
            raise ExportError(f"{operator.name}: TFLite export does not know the operator {operator.op!r}")
        source, result = self.graph.tensors[operator.inputs[0]], self.graph.tensors[operator.output]
        integer = self.graph.is_integer(operator)
        dtype = "int8" if integer else "float32"
        form = TRANSLATE[operator.op](operator, source, result)
        inputs = [self.read(name, dtype) for name in operator.inputs]
        if any(pad != (0, 0) for pad in form.pads):
            inputs[0] = self.pad(operator, form, source, dtype, inputs[0])
        weights = self.weights(operator, form, operator.weight) if operator.weight is not None else []
        before = [self.constant(f"{operator.name}.argument", value) for value in form.before]
        after = [self.constant(f"{operator.name}.argument", value) for value in form.after]
        if form.code == "TRANSPOSE_CONV":  # the one operator whose weight stands before its input
            inputs.insert(0, weights.pop(0))
        output = self.activation(result, dtype)
        self.operator(form.code, form.options, [*before, *inputs, *weights, *after], output, form.version, integer)
        if not integer and result.scale is not None:
            self.operator("QUANTIZE", schema.QuantizeOptionsT(), [output], self.activation(result, "int8"))
            del self.values[result.name, "float32"]  # readers in float get the rounded value, as in ONNX

    def read(self, name: str, dtype: str) -> int:
        """Index of a tensor's int8 or float32 value, dequantized once where it exists as int8 alone."""
        if (name, dtype) not in self.values:
            output = self.activation(self.graph.tensors[name], "float32")
            self.operator("DEQUANTIZE", schema.DequantizeOptionsT(), [self.values[name, "int8"]], output, integer=True)
        return self.values[name, dtype]

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

    def weights(self, operator: Operator, form: _Form, weight: np.ndarray) -> list[int]:
        channels = form.layout(weight).shape[form.output_axis]
        dtype = np.float32 if operator.weight_scale is None else np.int32
        bias = np.zeros(channels, dtype) if operator.bias is None else operator.bias
        weight_quantization = bias_quantization = None
        if operator.weight_scale is not None:
            weight_scale = operator.weight_scale.astype(np.float32)
            input_scale = np.float32(self.graph.tensors[operator.inputs[0]].scale)
            weight_quantization = _quantization(weight_scale, axis=form.output_axis)
            bias_quantization = _quantization(input_scale * weight_scale)
        return [
            self.constant(f"{operator.name}.weight", form.layout(weight), weight_quantization),
            self.constant(f"{operator.name}.bias", bias, bias_quantization),
        ]

    def pad(self, operator: Operator, form: _Form, source: TensorSpec, dtype: str, tensor: int) -> int:
        """The input of a convolution or pool, padded with zero, or with the lowest value; padded once for all
        operators that ask for the same."""
        lowest = form.pad_lowest and not self.never_negative(source, dtype)
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

    def never_negative(self, spec: TensorSpec, dtype: str) -> bool:
        """Whether zero is the lowest value: XNNPACK has PAD, but not PADV2."""
        if dtype == "int8":
            return spec.zero_point == -128
        maker = next((made for made in self.graph.operators if made.output == spec.name), None)
        return maker is not None and bool({maker.op, maker.activation} & {"relu", "relu6", "sigmoid", "softmax"})

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
        wanted = [MIN_RUNTIMES.get(code, OLDEST_RUNTIME) for code in self.codes]
        return max(wanted, key=lambda text: [int(part) for part in text.split(".")])


def _quantization(scale: np.ndarray, zero_point: int = 0, axis: int = 0) -> schema.QuantizationParametersT:
    return schema.QuantizationParametersT(
        scale=scale.astype("<f4"),
        zeroPoint=np.full(scale.shape, zero_point, "<i8"),
        quantizedDimension=axis,
    )


def _padding(sizes: Sequence[int], outs: Sequence[int], reach: Sequence[int], stride: Sequence[int],
             begin: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:  # fmt: skip
    """How to say torch's padding: SAME or VALID if it means the same windows on both axes, otherwise VALID
    and the amounts that an operator before it has to add (none of those windows may lack pixels).

    SAME puts half of what the last window lacks in front, the smaller half where it is odd.
    """
    lacking = [(out - 1) * s + r - size for size, out, r, s in zip(sizes, outs, reach, stride, strict=True)]
    rounded_up = all(out == -(-size // s) for size, out, s in zip(sizes, outs, stride, strict=True))
    if rounded_up and all(max(lack, 0) // 2 == b for lack, b in zip(lacking, begin, strict=True)):
        return SAME, []
    return VALID, [(b, max(lack - b, 0)) for lack, b in zip(lacking, begin, strict=True)]


def _conv(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    attrs, weight = operator.attrs, _weight(operator)
    reach = [d * (k - 1) + 1 for d, k in zip(attrs["dilation"], weight.shape[2:], strict=True)]
    padding, pads = _padding(source.shape[2:], result.shape[2:], reach, attrs["stride"], attrs["padding"])
    common = {
        "padding": padding,
        "strideH": attrs["stride"][0],
        "strideW": attrs["stride"][1],
        "dilationHFactor": attrs["dilation"][0],
        "dilationWFactor": attrs["dilation"][1],
        "fusedActivationFunction": ACTIVATIONS[operator.activation],
    }
    groups, channels = attrs["groups"], source.shape[1]
    if groups > 1 and groups == channels:
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=weight.shape[0] // groups, **common)
        return _Form("DEPTHWISE_CONV_2D", options, pads=pads, layout=lambda w: w.transpose(1, 2, 3, 0), output_axis=3)
    version = GROUPED_CONV_VERSION if groups > 1 else None
    options = schema.Conv2DOptionsT(**common)
    return _Form("CONV_2D", options, version=version, pads=pads, layout=lambda w: w.transpose(0, 2, 3, 1))


def _conv_transpose(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    """SAME cuts half of what exceeds the output's size in front. Rows of zeros behind the kernel (as many as
    torch's output padding) make that half equal torch's padding, without an operator to cut."""
    attrs, weight = operator.attrs, _weight(operator)
    if attrs["groups"] > 1 or tuple(attrs["dilation"]) != (1, 1):
        raise ExportError(
            f"{operator.name}: TFLite has no transposed convolution with groups or dilation; "
            "use resize and a convolution in the model instead"
        )
    kernel, stride, begin, extra = weight.shape[2:], attrs["stride"], attrs["padding"], attrs["output_padding"]
    if tuple(begin) == (0, 0):
        padding, extra = VALID, (0, 0)
    elif all(0 < k + e - 2 * p <= s for k, e, p, s in zip(kernel, extra, begin, stride, strict=True)):
        padding = SAME
    else:
        raise ExportError(
            f"{operator.name}: TFLite has no transposed convolution with kernel {tuple(kernel)}, stride "
            f"{tuple(stride)}, padding {tuple(begin)}; its output must be at most stride times as large as its input"
        )
    n, c, h, w = result.shape
    fused = None if result.clamps(operator.activation) else operator.activation
    options = schema.TransposeConvOptionsT(padding, stride[1], stride[0], ACTIVATIONS[fused])
    return _Form(
        "TRANSPOSE_CONV",
        options,
        before=[np.array((n, h, w, c), np.int32)],
        version=FUSED_TRANSPOSE_CONV_VERSION if fused else None,
        layout=lambda w: np.pad(w, ((0, 0), (0, 0), (0, extra[0]), (0, extra[1]))).transpose(1, 2, 3, 0),
    )


def _pool(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    kernel, stride, begin = (operator.attrs[key] for key in ("kernel", "stride", "padding"))
    padding, pads = _padding(source.shape[2:], result.shape[2:], kernel, stride, begin)
    if operator.op == "avg_pool" and any(pad != (0, 0) for pad in pads):
        raise ExportError(
            f"{operator.name}: TFLite averages padded pixels only as SAME pads them, which kernel {tuple(kernel)}, "
            f"stride {tuple(stride)}, padding {tuple(begin)} on {source.shape[2]}x{source.shape[3]} is not; "
            "use a padding of 0 in the model"
        )
    options = schema.Pool2DOptionsT(padding, stride[1], stride[0], kernel[1], kernel[0])
    code = "MAX_POOL_2D" if operator.op == "max_pool" else "AVERAGE_POOL_2D"
    return _Form(code, options, pads=pads, pad_lowest=True)


def _resize(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    size = [np.array(result.shape[2:], np.int32)]
    if operator.attrs["mode"] == "bilinear":
        return _Form("RESIZE_BILINEAR", schema.ResizeBilinearOptionsT(halfPixelCenters=True), after=size)
    return _Form("RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT(), after=size)


def _weight(operator: Operator) -> np.ndarray:
    if operator.weight is None:
        raise ExportError(f"{operator.name}: a {operator.op} without a weight")
    return operator.weight


def _mean(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    return _Form("MEAN", schema.ReducerOptionsT(keepDims=True), after=[np.array([1, 2], np.int32)])


TRANSLATE: dict[str, Callable[[Operator, TensorSpec, TensorSpec], _Form]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "add": lambda op, *_: _Form("ADD", schema.AddOptionsT(ACTIVATIONS[op.activation])),
    "mul": lambda op, *_: _Form("MUL", schema.MulOptionsT(ACTIVATIONS[op.activation])),
    "concat": lambda *_: _Form("CONCATENATION", schema.ConcatenationOptionsT(axis=3)),
    "max_pool": _pool,
    "avg_pool": _pool,
    "mean": _mean,
    "resize": _resize,
    "relu": lambda *_: _Form("RELU", None),
    "relu6": lambda *_: _Form("RELU6", None),
    "sigmoid": lambda *_: _Form("LOGISTIC", None),
    "softmax": lambda *_: _Form("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0)),
}
