"""Convolutions: plain, dilated, grouped, depthwise, transposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from compress.errors import ExportError
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
    ToTorch,
    Weights,
    Work,
    call,
    literal,
    pair,
)

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec

GROUPED_SINCE = "2.9.0"
FUSED_TRANSPOSE_SINCE = "2.13.0"


@dataclass(frozen=True)
class ConvAttributes(Attributes):
    """The weight is [O, I / groups, kh, kw]."""

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    padding: Pair = (0, 0)


POINTWISE = ConvAttributes()
"""Of a 1x1 convolution."""


@dataclass(frozen=True)
class ConvTransposeAttributes(ConvAttributes):
    """The weight is [I, O / groups, kh, kw]."""

    output_padding: Pair = (0, 0)


def _conv_of(call: Call) -> ConvAttributes | str:
    a, padding = call.arguments, call.arguments["padding"]
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(pair(a["dilation"]), call.shapes["weight"][2:])]
        if padding == "same" and (any(r % 2 for r in reach) or pair(a["stride"]) != (1, 1)):
            return "with an uneven 'same' padding"
        padding = [r // 2 if padding == "same" else 0 for r in reach]
    return ConvAttributes(pair(a["stride"]), pair(a["dilation"]), a["groups"], pair(padding))


def _conv_transpose_of(call: Call) -> ConvTransposeAttributes:
    a = call.arguments
    pairs = (pair(a[key]) for key in ("padding", "output_padding"))
    return ConvTransposeAttributes(pair(a["stride"]), pair(a["dilation"]), a["groups"], *pairs)


def _conv(x: Sequence[Tensor], a: ConvAttributes, weight: Tensor, bias: Tensor) -> Tensor:
    from torch.nn import functional as F

    return F.conv2d(x[0], weight, bias, a.stride, a.padding, a.dilation, a.groups)


def _conv_transpose(x: Sequence[Tensor], a: ConvTransposeAttributes, weight: Tensor, bias: Tensor) -> Tensor:
    from torch.nn import functional as F

    return F.conv_transpose2d(x[0], weight, bias, a.stride, a.padding, a.output_padding, a.groups, a.dilation)


def _onnx_attributes(a: ConvAttributes) -> dict[str, Any]:
    return {
        "strides": a.stride,
        "pads": [*a.padding, *a.padding],
        "dilations": a.dilation,
        "group": a.groups,
    }


def _conv_onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    return (OnnxForm("Conv", _onnx_attributes(node.attrs)),)


def _conv_transpose_onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    attributes = {**_onnx_attributes(node.attrs), "output_padding": node.attrs.output_padding}
    axis, groups = 1, node.attrs.groups
    if groups > 1 and node.weight_scale is not None:
        if len(node.weight_scale) != groups:
            raise ExportError(
                f"{node.name}: ONNX has no per-channel scales for a transposed convolution in {groups} groups; "
                f"keep it float with --keep-float {node.name}"
            )
        axis = 0
    return (OnnxForm("ConvTranspose", attributes, output_axis=axis),)


def _conv_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    a, weight = node.attrs, weight_of(node)
    reach = [d * (k - 1) + 1 for d, k in zip(a.dilation, weight.shape[2:], strict=True)]
    padding, pads = tflite_padding(source.shape[2:], result.shape[2:], reach, a.stride, a.padding)
    common = {
        "padding": padding,
        "strideH": a.stride[0],
        "strideW": a.stride[1],
        "dilationHFactor": a.dilation[0],
        "dilationWFactor": a.dilation[1],
        "fusedActivationFunction": node.activation,
    }
    if a.groups > 1 and a.groups == source.shape[1]:
        options = ("DepthwiseConv2DOptions", {"depthMultiplier": weight.shape[0] // a.groups, **common})
        return (TfliteForm("DEPTHWISE_CONV_2D", options, (2, 3), pads=pads, axes=(1, 2, 3, 0), output_axis=3),)
    versions, since = ((6, 6), GROUPED_SINCE) if a.groups > 1 else ((1, 3), "2.3.0")
    return (TfliteForm("CONV_2D", ("Conv2DOptions", common), versions, since, pads=pads, axes=(0, 2, 3, 1)),)


def _conv_transpose_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    """SAME cuts half of what exceeds the output's size in front. Rows of zeros behind the kernel (as many as torch's
    output padding) make that half equal torch's padding, without an operator to cut."""
    a, weight = node.attrs, weight_of(node)
    if a.groups > 1 or tuple(a.dilation) != (1, 1):
        raise ExportError(
            f"{node.name}: TFLite has no transposed convolution with groups or dilation; "
            "use resize and a convolution in the model instead"
        )
    kernel, extra = weight.shape[2:], a.output_padding
    if tuple(a.padding) == (0, 0):
        padding, extra = "VALID", (0, 0)
    elif all(0 < k + e - 2 * p <= s for k, e, p, s in zip(kernel, extra, a.padding, a.stride, strict=True)):
        padding = "SAME"
    else:
        raise ExportError(
            f"{node.name}: TFLite has no transposed convolution with kernel {tuple(kernel)}, stride "
            f"{tuple(a.stride)}, padding {tuple(a.padding)}; its output must be at most stride times as large as its "
            "input"
        )
    n, c, h, w = result.shape
    fused = None if result.clamps(node.activation) else node.activation
    fields = {"padding": padding, "strideW": a.stride[1], "strideH": a.stride[0], "fusedActivationFunction": fused}
    return (
        TfliteForm(
            "TRANSPOSE_CONV",
            ("TransposeConvOptions", fields),
            versions=(4, 4) if fused else (3, 3),
            since=FUSED_TRANSPOSE_SINCE if fused else "2.3.0",
            before=((n, h, w, c),),
            widen=(extra[0], extra[1]),
            axes=(1, 2, 3, 0),
            weights_first=True,
        ),
    )


def _torch(name: str) -> ToTorch:
    """The layer; what is as torch has it by default is left out."""

    def layer(node: QuantizedOperator, x: Sequence[str]) -> str:
        weight, default = weight_of(node), node.kind.attributes()
        weights = node.kind.weights
        assert weights
        inputs = weight.shape[weights.inputs] * (1 if weights.transposed else node.attrs.groups)
        outputs = weights.out_channels(weight.shape, node.attrs.groups)
        given = [literal(each) for each in (inputs, outputs, tuple(weight.shape[2:]))]
        values = {each.name: getattr(node.attrs, each.name) for each in fields(node.attrs)}
        return call(name, *given, **{key: value for key, value in values.items() if value != getattr(default, key)})

    return layer


def undivided(a: ConvTransposeAttributes, weight: Tensor) -> tuple[ConvTransposeAttributes, Tensor]:
    """The same transposed convolution without groups and dilation, which TFLite lacks: zeros stand where they leave
    out. weight [I, O/groups, kh, kw] -> [I, O, ...]."""
    (inputs, each, *kernel), (down, right) = weight.shape, a.dilation
    reach = [(side - 1) * step + 1 for side, step in zip(kernel, a.dilation)]
    whole = weight.new_zeros(inputs, each * a.groups, *reach)
    for group in range(a.groups):
        read = slice(group * inputs // a.groups, (group + 1) * inputs // a.groups)
        whole[read, group * each : (group + 1) * each, ::down, ::right] = weight[read]
    return replace(a, groups=1, dilation=(1, 1)), whole


def weight_of(node: QuantizedOperator) -> Any:
    if node.weight is None:
        raise ExportError(f"{node.name}: a {node.op} without a weight")
    return node.weight


def tflite_padding(
    sizes: Sequence[int], outs: Sequence[int], reach: Sequence[int], stride: Sequence[int], begin: Sequence[int]
) -> tuple[str, tuple[Pair, ...]]:
    """How to say torch's padding: SAME or VALID if it means the same windows on both axes, otherwise VALID and the
    amounts that an operator before it has to add (none of those windows may lack pixels).

    SAME puts half of what the last window lacks in front, the smaller half where it is odd.
    """
    lacking = [(out - 1) * s + r - size for size, out, r, s in zip(sizes, outs, reach, stride, strict=True)]
    rounded_up = all(out == -(-size // s) for size, out, s in zip(sizes, outs, stride, strict=True))
    if rounded_up and all(max(lack, 0) // 2 == b for lack, b in zip(lacking, begin, strict=True)):
        return "SAME", ()
    return "VALID", tuple((b, max(lack - b, 0)) for lack, b in zip(lacking, begin, strict=True))


CONV = Operator(
    name="conv",
    inputs=1,
    attributes=ConvAttributes,
    channels=Channels.MAKES,
    scale=Scale.OWN,
    on_steps=OnSteps.FILTERS,
    work=Work.FILTERING,
    aten={"conv2d.default": _conv_of, "conv2d.padding": _conv_of},
    compute=_conv,
    torch=_torch("nn.Conv2d"),
    onnx=_conv_onnx,
    tflite=_conv_tflite,
    weights=Weights(outputs=0, inputs=1),
    fuses=True,
)
CONV_TRANSPOSE = Operator(
    name="conv_transpose",
    inputs=1,
    attributes=ConvTransposeAttributes,
    channels=Channels.MAKES,
    scale=Scale.OWN,
    on_steps=OnSteps.FILTERS,
    work=Work.FILTERING,
    aten={"conv_transpose2d.input": _conv_transpose_of},
    compute=_conv_transpose,
    torch=_torch("nn.ConvTranspose2d"),
    onnx=_conv_transpose_onnx,
    tflite=_conv_transpose_tflite,
    weights=Weights(outputs=1, inputs=0, transposed=True),
    onnx_float="onnxruntime has no integer kernel for it; its int8 weights are computed with in float",
    fuses=True,
)
