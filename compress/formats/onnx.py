"""QuantizedGraph -> ONNX: uint8 activations between QuantizeLinear/DequantizeLinear pairs (QDQ), int8 weights.

onnxruntime fuses each "DequantizeLinear, operator, QuantizeLinear" into one integer operator. Activations
are uint8, because its x86 kernels fuse only those. What it has no integer kernel for runs in float between the same
pairs. How each operator is said in ONNX, its own entry says (`compress.graph.operators`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ExportError
from compress.files import write_whole
from compress.formats.artifact import named_channels
from compress.formats.metadata import Card
from compress.graph.operators import OPERATORS
from compress.graph.operators.operator import OnnxForm
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec

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

    Quantized graph: the input is uint8 pixels [1, channels, H, W], or float32 (pixel - mean) / std where `reads` gives
    the two for 0..255, which the file turns back into the same pixels; the output uint8 (float32 where the graph's
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
    channels = image.shape[1]
    preprocessing = "none: uint8 pixels, 0..255"
    if graph.is_float:
        preprocessing = f"(pixel - {image.zero_point + 128}) * {image.scale!r}"
    elif reads:
        preprocessing = "float32 (pixel - {}) / {} of {} 0..255".format(*map(list, reads), named_channels(channels))
    facts = {
        "name": card.name,
        "version": card.version,
        "description": card.description,
        "author": card.author,
        "license": card.licence,
        "labels": "\n".join(card.labels),
        "color_space": {1: "GRAYSCALE", 3: "RGB"}.get(channels, ""),
        "pixels": card.pixels,
        "multilabel": "true" if card.multilabel else "",
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

    def add(self, operator: QuantizedOperator) -> None:
        self.graph.is_integer(operator)
        kept_float = operator.weight is not None and operator.weight_scale is None
        source, result = self.graph.tensors[operator.inputs[0]], self.graph.tensors[operator.output]
        forms = operator.kind.onnx(operator, source, result)
        inputs = [self.real(name, kept_float) for name in operator.inputs]
        value = self.computed(forms, inputs, operator)
        if operator.activation and not result.clamps(operator.activation):
            value = self.computed(OPERATORS[operator.activation].onnx(operator, result, result), [value])
        if result.scale is not None:
            self.node("QuantizeLinear", [value, *self.scale_of(result)])
        self.nodes[-1].output[0] = operator.output

    def computed(self, forms: Sequence[OnnxForm], inputs: list[str], operator: QuantizedOperator | None = None) -> str:
        """The result of one form after the other; `operator` gives the last its name, and all its weights."""
        values = list(inputs)
        for before_last, form in zip(range(len(forms) - 1, -1, -1), forms, strict=True):
            name = operator.name + f".{before_last}" * (before_last > 0) if operator else ""
            given = [*form.given(values, len(inputs)), *map(self.constant, form.constants)]
            if operator and operator.weight is not None:
                given += self.weights(operator, operator.weight, form.output_axis)
            values.append(self.node(form.op_type, given, name, **form.attributes))
        return values[-1]

    def normalised(self, image: TensorSpec, mean: tuple[float, ...], std: tuple[float, ...]) -> onnx.ValueInfoProto:
        """A float32 input that becomes `image`: its real value is scale * (std * x + mean - zero point)."""
        assert image.scale is not None
        name = f"{image.name}_float32"
        factor = np.float32(image.scale * np.array(std)).reshape(1, -1, 1, 1)
        offset = np.float32(image.scale * (np.array(mean) - image.zero_point - 128)).reshape(1, -1, 1, 1)
        scaled = self.node("Mul", [name, self.constant(factor)])
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

    def weights(self, operator: QuantizedOperator, weight: np.ndarray, axis: int) -> list[str]:
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
