"""What moves values and computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    literal,
)

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec


@dataclass(frozen=True)
class PadAttributes(Attributes):
    """Zeros around the map, before and after, of height and of width; or, below zero, what is cut off there."""

    height: Pair
    width: Pair


def _pad_of(call: Call) -> PadAttributes | str:
    a = call.arguments
    if a.get("mode", "constant") != "constant":
        return f"with mode {a['mode']!r}"
    if a.get("value"):
        return f"with {a['value']}"
    left, right, top, bottom = [*a["pad"], 0, 0][:4]
    if any(a["pad"][4:]):
        return f"by {tuple(a['pad'])}"
    return PadAttributes((top, bottom), (left, right))


def _pad(x: Sequence[Tensor], a: PadAttributes) -> Tensor:
    from torch.nn import functional as F

    return F.pad(x[0], (*a.width, *a.height))


def _pad_onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    import numpy as np

    (top, bottom), (left, right) = node.attrs.height, node.attrs.width
    return (OnnxForm("Pad", constants=(np.array([0, 0, top, left, 0, 0, bottom, right], np.int64),)),)


def _pad_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    n, channels, height, width = source.shape
    ends = (node.attrs.height, node.attrs.width)
    begin = [max(-before, 0) for before, _ in ends]
    left = [size + min(before, 0) + min(after, 0) for size, (before, after) in zip((height, width), ends)]
    amounts = ((0, 0), *((max(before, 0), max(after, 0)) for before, after in ends), (0, 0))
    cut = TfliteForm(
        "SLICE", ("SliceOptions", {}), after=((0, *begin, 0), (n, *left, channels)), shape=(n, *left, channels)
    )
    pad = TfliteForm("PAD", ("PadOptions", {}), after=(amounts,))
    cuts, pads = min(min(each) for each in ends) < 0, max(max(each) for each in ends) > 0
    return tuple(form for form, wanted in ((cut, cuts), (pad, pads or not cuts)) if wanted)


PAD = Operator(
    name="pad",
    inputs=1,
    attributes=PadAttributes,
    channels=Channels.PASSES,
    scale=Scale.OF_INPUTS,  # zero is a value of every scale
    on_steps=OnSteps.MOVES,
    work=Work.MOVING,
    aten={"pad.default": _pad_of, "constant_pad_nd.default": _pad_of},
    compute=_pad,
    torch=lambda node, x: f"F.pad({x[0]}, {literal((*node.attrs.width, *node.attrs.height))})",
    onnx=_pad_onnx,
    tflite=_pad_tflite,
    homogeneous=True,
)
