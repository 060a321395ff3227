"""QuantizedGraph -> ONNX: uint8 activations between QuantizeLinear/DequantizeLinear pairs (QDQ), int8 weights.

onnxruntime fuses each "DequantizeLinear, operator, QuantizeLinear" into one integer operator. Activations
are uint8, because its x86 kernels fuse only those. It has no integer kernel for ConvTranspose and none that
rounds for Resize: these two run in float between the same pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ExportError
from compress.files import write_whole
from compress.formats.metadata import Card
from compress.graph.quantized import Operator, QuantizedGraph, TensorSpec

OPSET = 13  # the first with DequantizeLinear per channel
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
IR_VERSION = 7  # the one that came with opset 13: onnxruntime 1.6 and later read it


def to_onnx(
    graph: QuantizedGraph,
    path: Path,
    *,
    card: Card | None = None,
    expose: Sequence[str] = (),
    reads: Normalisation | None = None,
) -> None:
    """Write `graph` as it is: nothing is calibrated or rounded again.

    Quantized graph: the input is uint8 pixels [1, 3, H, W], or float32 (pixel - mean) / std where `reads` gives the
    two for 0..255 RGB, which the file turns back into the same pixels; the output uint8 (float32 where the graph's
    output is float). Float graph: the input is float32 real values, the output float32. Nodes have the
    operators' names, the pairs around them none. `card` goes to metadata_props, beside `input_scale`,
    `input_zero_point`, `output_scale` and `output_zero_point` of a uint8 input and output, `input_mean` and
    `input_std` of `reads`. The tensors named in `expose` become further outputs.

    Raises ExportError, naming the layer, for what ONNX cannot express, and for a path that cannot be written.
    """
    image = graph.tensors[graph.input]
    reads = None if graph.is_float else reads
    writer = _Writer(graph)
    given = writer.normalised(image, *reads) if reads else writer.value_info(image)
    for operator in graph.operators:
        writer.add(operator)
    result = graph.tensors[graph.output]
    integer = {"output": result} if writer.is_integer(result) else {}
    if writer.is_integer(image) and not reads:
        integer["input"] = image
    model = helper.make_model(
        helper.make_graph(
            writer.nodes,
            graph.name,
            [given],
            [writer.value_info(spec) for spec in (result, *(graph.tensors[name] for name in expose))],
            list(writer.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="compress",
    )
    scales = {f"{end}_scale": repr(float(np.float32(spec.scale))) for end, spec in integer.items()}
    zero_points = {f"{end}_zero_point": str(spec.zero_point + 128) for end, spec in integer.items()}
    normalisation = {f"input_{key}": " ".join(map(repr, values)) for key, values in zip(("mean", "std"), reads or ())}
    facts = {**scales, **zero_points, **normalisation, **(_facts(graph, card, reads) if card else {})}
    helper.set_model_props(model, facts)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{graph.name}: ONNX refuses the graph: {str(error).splitlines()[0]}") from error
    write_whole(path, model.SerializeToString())


def _facts(graph: QuantizedGraph, card: Card, reads: Normalisation | None) -> dict[str, str]:
    image = graph.tensors[graph.input]
    preprocessing = "none: uint8 pixels, 0..255"
    if graph.is_float:
        preprocessing = f"(pixel - {image.zero_point + 128}) * {image.scale!r}"
    elif reads:
        preprocessing = "float32 (pixel - {}) / {} of RGB 0..255".format(*(list(values) for values in reads))
    facts = {
        "name": card.name,
        "version": card.version,
        "description": card.description,
        "author": card.author,
        "license": card.licence,
        "labels": "\n".join(card.labels),
        "color_space": "RGB",
        "preprocessing": preprocessing,
    }
    return {key: value for key, value in facts.items() if value}


class _Writer:
    """Collects nodes and constants. A quantized tensor's own name is its uint8 value."""

    def __init__(self, graph: QuantizedGraph):
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[Any, ...], TensorProto] = {}
        self.dequantized: dict[str, str] = {}

    def add(self, operator: Operator) -> None:
        self.graph.is_integer(operator)
        kept_float = operator.weight is not None and operator.weight_scale is None
        if operator.op not in TRANSLATE:
            raise ExportError(f"{operator.name}: ONNX export does not know the operator {operator.op!r}")
        source, result = self.graph.tensors[operator.inputs[0]], self.graph.tensors[operator.output]
        form = TRANSLATE[operator.op](operator, source, result)
        inputs = [self.real(name, kept_float) for name in operator.inputs]
        inputs += [self.constant(value) for value in form.constants]
        if operator.weight is not None:
            inputs += self.weights(operator, operator.weight, form.output_axis)
        value = self.node(form.op_type, inputs, operator.name, **form.attributes)
        if operator.activation and not result.clamps(operator.activation):
            activation = TRANSLATE[operator.activation](operator, result, result)
            value = self.node(activation.op_type, [value, *(self.constant(limit) for limit in activation.constants)])
        if result.scale is not None:
            self.node("QuantizeLinear", [value, *self.scale_of(result)])
        self.nodes[-1].output[0] = operator.output

    def normalised(self, image: TensorSpec, mean: tuple[float, ...], std: tuple[float, ...]) -> onnx.ValueInfoProto:
        """A float32 input that becomes `image`: its real value is scale * (std * x + mean - zero point)."""
        assert image.scale is not None
        name = f"{image.name}_float32"
        slope = np.float32(image.scale * np.array(std)).reshape(1, -1, 1, 1)
        offset = np.float32(image.scale * (np.array(mean) - image.zero_point - 128)).reshape(1, -1, 1, 1)
        scaled = self.node("Mul", [name, self.constant(slope)])
        real = self.node("Add", [scaled, self.constant(offset)])
        self.node("QuantizeLinear", [real, *self.scale_of(image)])
        self.nodes[-1].output[0] = image.name
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, image.shape)

    def node(self, op_type: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        """Add a node; the name of its result. Names that nobody looks up are short: they add up in the file."""
        self.nodes.append(helper.make_node(op_type, inputs, [f"_{len(self.nodes)}"], name=name, **attributes))
        return self.nodes[-1].output[0]

    def is_integer(self, spec: TensorSpec) -> bool:
        return spec.scale is not None and not (spec.name == self.graph.input and self.graph.is_float)

    def value_info(self, spec: TensorSpec) -> onnx.ValueInfoProto:
        dtype = TensorProto.UINT8 if self.is_integer(spec) else TensorProto.FLOAT
        return helper.make_tensor_value_info(spec.name, dtype, spec.shape)

    def real(self, tensor: str, kept_float: bool = False) -> str:
        """The float value of a tensor: itself, or what its one DequantizeLinear gives. A layer with float weights has
        one of its own with a scale for each channel, all of them equal: after a single scale, onnxruntime would
        quantize the weights."""
        spec = self.graph.tensors[tensor]
        if not self.is_integer(spec):
            return tensor
        if kept_float:
            axis = 1 if spec.shape[1] > 1 else 2
            scale = np.full(spec.shape[axis], spec.scale, np.float32)
            zero_point = np.full(spec.shape[axis], spec.zero_point + 128, np.uint8)
            return self.node("DequantizeLinear", [tensor, self.constant(scale), self.constant(zero_point)], axis=axis)
        if tensor not in self.dequantized:
            self.dequantized[tensor] = self.node("DequantizeLinear", [tensor, *self.scale_of(spec)])
        return self.dequantized[tensor]

    def scale_of(self, spec: TensorSpec) -> list[str]:
        return [self.constant(np.float32(spec.scale)), self.constant(np.uint8(spec.zero_point + 128))]

    def weights(self, operator: Operator, weight: np.ndarray, axis: int) -> list[str]:
        """Inputs for the weight and the bias; int8 and int32 ones go through a DequantizeLinear."""
        named = [(weight, f"{operator.name}.weight"), (operator.bias, f"{operator.name}.bias")]
        stored = [self.constant(value, name, own=True) for value, name in named if value is not None]
        if operator.weight_scale is None:
            return stored
        weight_scale = operator.weight_scale.astype(np.float32)
        bias_scale = np.float32(self.graph.tensors[operator.inputs[0]].scale) * weight_scale
        ways = [(weight_scale, axis, np.int8), (bias_scale, 0, np.int32)]
        return [
            self.node("DequantizeLinear", [name, self.constant(scale), self.zeros(name, len(scale), dtype)], axis=axis)
            for name, (scale, axis, dtype) in zip(stored, ways, strict=False)
        ]

    def zeros(self, of: str, count: int, dtype: Any) -> str:
        return self.constant(np.zeros(count, dtype), f"{of}.0", own=dtype == np.int8)

    def constant(self, value: Any, name: str = "", own: bool = False) -> str:
        """Name of an initializer with this value; equal values are stored once, unless each is its operator's own:
        onnxruntime rewrites int8 weights and their zero points on x86 without VNNI, and refuses to do so twice.
        None: the empty input."""
        if value is None:
            return ""
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes(), name if own else "")
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, name or f"_c{len(self.constants)}")
        return self.constants[key].name


@dataclass(frozen=True)
class _Form:
    """An operator in ONNX's words: constants follow the inputs, weights follow those."""

    op_type: str
    attributes: dict[str, Any]
    constants: Sequence[Any] = ()
    output_axis: int = 0  # of the weight: that of the output channels


def _plain(op_type: str, **attributes: Any) -> Callable[[Operator, TensorSpec, TensorSpec], _Form]:
    return lambda operator, source, result: _Form(op_type, attributes)


def _conv(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    return _Form("Conv", _conv_attributes(operator))


def _conv_transpose(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    attributes = {**_conv_attributes(operator), "output_padding": operator.attrs["output_padding"]}
    axis, groups = 1, operator.attrs["groups"]
    if groups > 1 and operator.weight_scale is not None:
        if len(operator.weight_scale) != groups:
            raise ExportError(
                f"{operator.name}: ONNX has no per-channel scales for a transposed convolution in {groups} groups; "
                f"keep it float with --keep-float {operator.name}"
            )
        axis = 0
    return _Form("ConvTranspose", attributes, output_axis=axis)


def _conv_attributes(operator: Operator) -> dict[str, Any]:
    attrs = operator.attrs
    return {
        "strides": attrs["stride"],
        "pads": [*attrs["padding"], *attrs["padding"]],
        "dilations": attrs["dilation"],
        "group": attrs["groups"],
    }


def _pool(op_type: str, **more: Any) -> Callable[[Operator, TensorSpec, TensorSpec], _Form]:
    """Padding at the end follows from the output's size, so that torch's ceil_mode needs no attribute."""

    def form(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
        kernel, stride, begin = (operator.attrs[key] for key in ("kernel", "stride", "padding"))
        covered = [(out - 1) * s + k for out, s, k in zip(result.shape[2:], stride, kernel, strict=True)]
        end = [max(c - size - b, 0) for c, size, b in zip(covered, source.shape[2:], begin, strict=True)]
        return _Form(op_type, {"kernel_shape": kernel, "strides": stride, "pads": [*begin, *end], **more})

    return form


def _resize(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    # torch's "nearest" takes floor(index * in / out); only its "bilinear" has half-pixel centres.
    modes = {
        "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    }
    sizes = np.array(result.shape, np.int64)
    return _Form("Resize", modes[operator.attrs["mode"]], (None, None, sizes))


def _relu6(operator: Operator, source: TensorSpec, result: TensorSpec) -> _Form:
    return _Form("Clip", {}, (np.float32(0), np.float32(6)))


TRANSLATE: dict[str, Callable[[Operator, TensorSpec, TensorSpec], _Form]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "add": _plain("Add"),
    "mul": _plain("Mul"),
    "concat": _plain("Concat", axis=1),
    "max_pool": _pool("MaxPool"),
    "avg_pool": _pool("AveragePool", count_include_pad=0),
    "mean": _plain("GlobalAveragePool"),
    "resize": _resize,
    "relu": _plain("Relu"),
    "relu6": _relu6,
    "sigmoid": _plain("Sigmoid"),
    "softmax": _plain("Softmax", axis=1),
}
