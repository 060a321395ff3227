"""Pools over windows, and the mean over the whole map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from compress.errors import ExportError
from compress.graph.operators.conv import tflite_padding
from compress.graph.operators.operator import (
    IN_FLOAT,
    Attributes,
    Call,
    Channels,
    OnnxForm,
    OnSteps,
    Operator,
    Pair,
    Scale,
    TfliteForm,
    ToOnnx,
    Work,
    call,
    literal,
    of_inputs,
    pair,
)
from compress.graph.operators.spatial import mapped_onnx, mapped_tflite, sizes

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec


@dataclass(frozen=True)
class PoolAttributes(Attributes):
    """Padding never wins a maximum, and counts as zeros in an average only where `counts_padding`. `ceil`: the last
    window may lack pixels."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil: bool = False
    counts_padding: bool = False


@dataclass(frozen=True)
class AdaptiveAttributes(Attributes):
    """Bins along height and width. Bin i of n spans pixels floor(i * size / n) to ceil((i + 1) * size / n)."""

    bins: Pair


@dataclass(frozen=True)
class UnpoolAttributes(Attributes):
    """Of a max pooling without padding, whose windows lie side by side and divide the map."""

    kernel: Pair


def _pool_of(call: Call) -> PoolAttributes:
    a = call.arguments
    stride = pair(a["stride"] or a["kernel_size"])
    return PoolAttributes(pair(a["kernel_size"]), stride, pair(a["padding"]), bool(a["ceil_mode"]))


def _max_pool_of(call: Call) -> PoolAttributes | str:
    return _pool_of(call) if pair(call.arguments["dilation"]) == (1, 1) else "with dilation"


def _avg_pool_of(call: Call) -> PoolAttributes | str:
    a = call.arguments
    if a["divisor_override"]:
        return "with a divisor of its own"
    counts = bool(a["count_include_pad"]) and pair(a["padding"]) != (0, 0)
    if counts and a["ceil_mode"]:
        return "that counts padded pixels, with ceil_mode"
    return replace(_pool_of(call), counts_padding=counts)


def _to_one(call: Call) -> Attributes | str:
    return Attributes() if call.result[2:] == (1, 1) else f"to {call.result[2:]}"


def _to_bins(call: Call) -> AdaptiveAttributes:
    height, width = call.result[2:]
    return AdaptiveAttributes((int(height), int(width)))


def _max_pool(x: Sequence[Tensor], a: PoolAttributes) -> Tensor:
    from torch.nn import functional as F

    return F.max_pool2d(x[0], a.kernel, a.stride, a.padding, ceil_mode=a.ceil)


def _avg_pool(x: Sequence[Tensor], a: PoolAttributes) -> Tensor:
    from torch.nn import functional as F

    return F.avg_pool2d(x[0], a.kernel, a.stride, a.padding, a.ceil, a.counts_padding)


def _adaptive(x: Sequence[Tensor], a: AdaptiveAttributes) -> Tensor:
    from torch.nn import functional as F

    return F.adaptive_avg_pool2d(x[0], a.bins)


def bins_map(size: int, bins: int) -> np.ndarray:
    """[bins, size] float32: what each bin takes of the pixels along one axis."""
    import numpy as np

    matrix = np.zeros((bins, size), np.float32)
    for index in range(bins):
        first, last = index * size // bins, -(-(index + 1) * size // bins)
        matrix[index, first:last] = 1 / (last - first)
    return matrix


def _even(source: TensorSpec, bins: Pair) -> PoolAttributes | None:
    """The pool that does the same, where the bins divide the map."""
    if any(size % n for size, n in zip(source.shape[2:], bins, strict=True)):
        return None
    kernel = pair([size // n for size, n in zip(source.shape[2:], bins, strict=True)])
    return PoolAttributes(kernel, kernel)


def _adaptive_onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    if even := _even(source, node.attrs.bins):
        return _onnx_pool("AveragePool", even, source, result)
    return mapped_onnx(*(bins_map(*ends) for ends in sizes(source, result)))


def _adaptive_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    if even := _even(source, node.attrs.bins):
        return (_tflite_pool("AVERAGE_POOL_2D", even, "VALID"),)
    return mapped_tflite(source, *(bins_map(*ends) for ends in sizes(source, result)))


def _onnx_pool(op_type: str, a: PoolAttributes, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    """Padding at the end follows from the output's size, so that torch's ceil_mode needs no attribute."""
    covered = [(out - 1) * s + k for out, s, k in zip(result.shape[2:], a.stride, a.kernel, strict=True)]
    end = [max(c - size - b, 0) for c, size, b in zip(covered, source.shape[2:], a.padding, strict=True)]
    counts = {"count_include_pad": int(a.counts_padding)} if op_type == "AveragePool" else {}
    return (OnnxForm(op_type, {"kernel_shape": a.kernel, "strides": a.stride, "pads": [*a.padding, *end], **counts}),)


def _tflite_pool(code: str, a: PoolAttributes, padding: str, **more: Any) -> TfliteForm:
    fields = {
        "padding": padding,
        "strideW": a.stride[1],
        "strideH": a.stride[0],
        "filterWidth": a.kernel[1],
        "filterHeight": a.kernel[0],
    }
    return TfliteForm(code, ("Pool2DOptions", fields), **more)


def _onnx(op_type: str) -> ToOnnx:
    return lambda node, source, result: _onnx_pool(op_type, node.attrs, source, result)


def _max_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    a = node.attrs
    padding, pads = tflite_padding(source.shape[2:], result.shape[2:], a.kernel, a.stride, a.padding)
    return (_tflite_pool("MAX_POOL_2D", a, padding, pads=pads, pad_lowest=True),)


def _avg_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    """SAME never counts its padding, and an operator that pads puts zeros that always count."""
    a = node.attrs
    if a.counts_padding:
        return (_tflite_pool("AVERAGE_POOL_2D", a, "VALID", pads=tuple((p, p) for p in a.padding)),)
    padding, pads = tflite_padding(source.shape[2:], result.shape[2:], a.kernel, a.stride, a.padding)
    if any(pad != (0, 0) for pad in pads):
        raise ExportError(
            f"{node.name}: TFLite averages padded pixels only as SAME pads them, which kernel {tuple(a.kernel)}, "
            f"stride {tuple(a.stride)}, padding {tuple(a.padding)} on {source.shape[2]}x{source.shape[3]} is not; "
            "use a padding of 0 in the model"
        )
    return (_tflite_pool("AVERAGE_POOL_2D", a, padding, pads=pads),)


def _pool_torch(name: str, x: str, a: PoolAttributes, **more: Any) -> str:
    padding = {"padding": a.padding} if a.padding != (0, 0) else {}
    ceil = {"ceil_mode": True} if a.ceil else {}
    return call(name, x, literal(a.kernel), literal(a.stride), **padding, **ceil, **more)


def _avg_torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    pads = node.attrs.padding != (0, 0)
    return _pool_torch(
        "F.avg_pool2d", x[0], node.attrs, **({"count_include_pad": node.attrs.counts_padding} if pads else {})
    )


def _unpool(x: Sequence[Tensor], a: UnpoolAttributes) -> Tensor:
    from torch.nn import functional as F

    _, places = F.max_pool2d(x[1], a.kernel, return_indices=True)
    return F.max_unpool2d(x[0], places, a.kernel)


def _unpool_torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    kernel = literal(node.attrs.kernel)
    places = f"F.max_pool2d({x[1]}, {kernel}, return_indices=True)[1]"
    return f"F.max_unpool2d({x[0]}, {places}, {kernel})"


_FAR = 1e30
"""What makes 1 or more of any difference of two float32 values that are not the same."""


def _unpool_onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    """Of each window, as a row of its own: 1 where no value is larger and none before it as large, else 0."""
    import numpy as np

    _, channels, height, width = source.shape
    (high, wide), count = node.attrs.kernel, prod(node.attrs.kernel)
    to, real = (lambda *shape: np.array(shape, np.int64)), np.float32
    by_window, turned = to(channels, height, high, width, wide), {"perm": (0, 1, 3, 2, 4)}
    return (
        OnnxForm("Reshape", constants=(by_window,), reads=(1,)),  # 2
        OnnxForm("Transpose", turned),
        OnnxForm("Reshape", constants=(to(channels * height * width, count),)),
        OnnxForm("ReduceMax", {"axes": [1], "keepdims": 1}),
        OnnxForm("Sub", reads=(5, 4)),
        OnnxForm("Mul", constants=(real(_FAR),)),
        OnnxForm("Clip", constants=(real(0), real(1))),
        OnnxForm("MatMul", constants=(_before(count),)),  # 9: how many before it are smaller
        OnnxForm("Sub", constants=(np.arange(count, dtype=real)[None],)),
        OnnxForm("Sub", reads=(10, 8)),  # 0 if all are and it is the largest, else -1 or less
        OnnxForm("Add", constants=(real(1),)),
        OnnxForm("Relu"),
        OnnxForm("Reshape", constants=(to(channels * height * width, 1),), reads=(0,)),
        OnnxForm("Mul", reads=(13, 14)),
        OnnxForm("Reshape", constants=(to(channels, height, width, high, wide),)),
        OnnxForm("Transpose", turned),
        OnnxForm("Reshape", constants=(to(*result.shape),)),
    )


def _before(count: int) -> np.ndarray:
    """[count, count] float32: sums all that stand before."""
    import numpy as np

    return np.triu(np.ones((count, count), np.float32), 1)


def _unpool_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    import numpy as np

    _, channels, height, width = source.shape
    (high, wide), count = node.attrs.kernel, prod(node.attrs.kernel)
    each = height * width * channels
    apart, windows = (height, high, width, wide, channels), (height, width, channels, high, wide)
    flat, one = (1, 1, each, count), (1, 1, each, 1)

    def form(code: str, options: str, fields: dict[str, Any], shape: tuple[int, ...] = flat, **more: Any) -> TfliteForm:
        return TfliteForm(code, (options, fields) if options else None, shape=shape, in_float=True, **more)

    def to(shape: tuple[int, ...], **more: Any) -> TfliteForm:
        return form("RESHAPE", "ReshapeOptions", {}, shape, after=(shape,), **more)

    def turned(order: tuple[int, ...], shape: tuple[int, ...]) -> TfliteForm:
        return form("TRANSPOSE", "TransposeOptions", {}, shape, after=(order,), versions=(5, 5), since="2.4.0")

    return (
        to(apart, reads=(1,)),  # 2
        turned((0, 2, 4, 1, 3), windows),
        to(flat),
        form("REDUCE_MAX", "ReducerOptions", {"keepDims": True}, one, after=((3,),)),
        form("SUB", "SubOptions", {}, reads=(5, 4)),
        form("MUL", "MulOptions", {}, reals=(_FAR,)),
        form("MINIMUM", "MaximumMinimumOptions", {}, reals=(1.0,)),
        form("BATCH_MATMUL", "BatchMatMulOptions", {}, after=(_before(count),)),
        form("SUB", "SubOptions", {}, after=(np.arange(count, dtype=np.float32),)),
        form("SUB", "SubOptions", {}, reads=(10, 8)),
        form("ADD", "AddOptions", {}, reals=(1.0,)),
        form("RELU", "", {}),
        to(one, reads=(0,)),
        form("MUL", "MulOptions", {}, reads=(13, 14)),
        to(windows),
        turned((0, 3, 1, 4, 2), apart),
        to((1, height * high, width * wide, channels)),
    )


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
    torch=lambda node, x: _pool_torch("F.max_pool2d", x[0], node.attrs),
    onnx=_onnx("MaxPool"),
    tflite=_max_tflite,
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
    torch=_avg_torch,
    onnx=_onnx("AveragePool"),
    tflite=_avg_tflite,
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
    aten={"adaptive_avg_pool2d.default": _to_one},
    compute=lambda x, a: x[0].mean((2, 3), keepdim=True),
    torch=lambda node, x: f"{x[0]}.mean((2, 3), keepdim=True)",
    onnx=lambda node, source, result: (OnnxForm("GlobalAveragePool"),),
    tflite=lambda node, source, result: (TfliteForm("MEAN", ("ReducerOptions", {"keepDims": True}), after=((1, 2),)),),
    homogeneous=True,
    bounds=of_inputs,
)
ADAPTIVE_POOL = Operator(
    name="adaptive_pool",
    inputs=1,
    attributes=AdaptiveAttributes,
    channels=Channels.PASSES,
    scale=Scale.OF_INPUTS,
    on_steps=OnSteps.AVERAGES,
    work=Work.MOVING,
    aten={"adaptive_avg_pool2d.default": _to_bins},
    compute=_adaptive,
    torch=lambda node, x: call("F.adaptive_avg_pool2d", x[0], literal(node.attrs.bins)),
    onnx=_adaptive_onnx,
    tflite=_adaptive_tflite,
    onnx_float="bins that do not divide the map have no integer kernel, so they run in float between the same integers",
    homogeneous=True,
)
UNPOOL = Operator(
    name="unpool",
    inputs=2,  # a map, and that whose pooling said where its values go
    attributes=UnpoolAttributes,
    channels=Channels.TIES,
    scale=Scale.OWN,
    on_steps=OnSteps.REAL,
    work=Work.WRITING,
    compute=_unpool,
    torch=_unpool_torch,
    onnx=_unpool_onnx,
    tflite=_unpool_tflite,
    onnx_float=IN_FLOAT,
)
