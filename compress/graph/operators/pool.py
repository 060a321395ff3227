"""Pools over windows, and the mean over the whole map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.errors import ExportError
from compress.graph.operators.conv import tflite_padding
from compress.graph.operators.operator import (
    Attributes,
    Call,
    Channels,
    OnnxForm,
    OnSteps,
    Operator,
    Pair,
    Scale,
    TfliteForm,
    Work,
    of_inputs,
    pair,
)

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec


@dataclass(frozen=True)
class PoolAttributes(Attributes):
    """Padding never wins a maximum and is not counted in an average. `ceil`: the last window may lack pixels."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil: bool = False


def _pool_of(call: Call) -> PoolAttributes:
    a = call.arguments
    stride = pair(a["stride"] or a["kernel_size"])
    return PoolAttributes(pair(a["kernel_size"]), stride, pair(a["padding"]), bool(a["ceil_mode"]))


def _max_pool_of(call: Call) -> PoolAttributes | str:
    return _pool_of(call) if pair(call.arguments["dilation"]) == (1, 1) else "with dilation"


def _avg_pool_of(call: Call) -> PoolAttributes | str:
    a = call.arguments
    if a["divisor_override"] or (a["count_include_pad"] and pair(a["padding"]) != (0, 0)):
        return "that counts padded pixels"
    return _pool_of(call)


def _mean_of(call: Call) -> Attributes | str:
    dims = call.arguments["dim"]
    if sorted(d % 4 for d in dims) != [2, 3] or not call.arguments["keepdim"]:
        return f"over dimensions {dims}"
    return Attributes()


def _adaptive_of(call: Call) -> Attributes | str:
    size = call.arguments["output_size"]
    return Attributes() if pair(size) == (1, 1) else f"to {size}"


def _max_pool(x: Sequence[Tensor], a: PoolAttributes) -> Tensor:
    from torch.nn import functional as F

    return F.max_pool2d(x[0], a.kernel, a.stride, a.padding, ceil_mode=a.ceil)


def _avg_pool(x: Sequence[Tensor], a: PoolAttributes) -> Tensor:
    from torch.nn import functional as F

    return F.avg_pool2d(x[0], a.kernel, a.stride, a.padding, a.ceil, False)


def _onnx(op_type: str, **more: Any) -> Any:
    """Padding at the end follows from the output's size, so that torch's ceil_mode needs no attribute."""

    def forms(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
        a = node.attrs
        covered = [(out - 1) * s + k for out, s, k in zip(result.shape[2:], a.stride, a.kernel, strict=True)]
        end = [max(c - size - b, 0) for c, size, b in zip(covered, source.shape[2:], a.padding, strict=True)]
        return (OnnxForm(op_type, {"kernel_shape": a.kernel, "strides": a.stride, "pads": [*a.padding, *end], **more}),)

    return forms


def _tflite(code: str, pads_averages: bool) -> Any:
    def forms(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
        a = node.attrs
        padding, pads = tflite_padding(source.shape[2:], result.shape[2:], a.kernel, a.stride, a.padding)
        if not pads_averages and any(pad != (0, 0) for pad in pads):
            raise ExportError(
                f"{node.name}: TFLite averages padded pixels only as SAME pads them, which kernel {tuple(a.kernel)}, "
                f"stride {tuple(a.stride)}, padding {tuple(a.padding)} on {source.shape[2]}x{source.shape[3]} is not; "
                "use a padding of 0 in the model"
            )
        fields = {
            "padding": padding,
            "strideW": a.stride[1],
            "strideH": a.stride[0],
            "filterWidth": a.kernel[1],
            "filterHeight": a.kernel[0],
        }
        return (TfliteForm(code, ("Pool2DOptions", fields), pads=pads, pad_lowest=True),)

    return forms


MAX_POOL = Operator(
    name="max_pool",
    inputs=1,
    attributes=PoolAttributes,
    channels=Channels.PASSES,
    scale=Scale.OF_INPUTS,
    on_steps=OnSteps.MOVES,
    work=Work.MOVING,
    aten={"max_pool2d.default": _max_pool_of},
    compute=_max_pool,
    onnx=_onnx("MaxPool"),
    tflite=_tflite("MAX_POOL_2D", pads_averages=True),
    homogeneous=True,
    bounds=of_inputs,
)
AVG_POOL = Operator(
    name="avg_pool",
    inputs=1,
    attributes=PoolAttributes,
    channels=Channels.PASSES,
    scale=Scale.OF_INPUTS,
    on_steps=OnSteps.AVERAGES,
    work=Work.MOVING,
    aten={"avg_pool2d.default": _avg_pool_of},
    compute=_avg_pool,
    onnx=_onnx("AveragePool", count_include_pad=0),
    tflite=_tflite("AVERAGE_POOL_2D", pads_averages=False),
    homogeneous=True,
    bounds=of_inputs,
)
MEAN = Operator(
    name="mean",
    inputs=1,
    attributes=Attributes,
    channels=Channels.PASSES,
    scale=Scale.OWN,
    on_steps=OnSteps.LINEAR,
    work=Work.MOVING,
    aten={"mean.dim": _mean_of, "adaptive_avg_pool2d.default": _adaptive_of},
    compute=lambda x, a: x[0].mean((2, 3), keepdim=True),
    onnx=lambda node, source, result: (OnnxForm("GlobalAveragePool"),),
    tflite=lambda node, source, result: (TfliteForm("MEAN", ("ReducerOptions", {"keepDims": True}), after=((1, 2),)),),
    homogeneous=True,
    bounds=of_inputs,
)
