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
)

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec


@dataclass(frozen=True)
class PadAttributes(Attributes):
    """Zeros around the map: before and after, of height and of width."""

    height: Pair
    width: Pair


def _pad_of(call: Call) -> PadAttributes | str:
    a = call.arguments
    if a.get("mode", "constant") != "constant":
        return f"with mode {a['mode']!r}"
    if a.get("value"):
        return f"with {a['value']}"
    left, right, top, bottom = [*a["pad"], 0, 0][:4]
    if any(a["pad"][4:]) or min(left, right, top, bottom) < 0:
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
    amounts = ((0, 0), tuple(node.attrs.height), tuple(node.attrs.width), (0, 0))
    return (TfliteForm("PAD", ("PadOptions", {}), after=(amounts,)),)


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
    onnx=_pad_onnx,
    tflite=_pad_tflite,
    homogeneous=True,
)
