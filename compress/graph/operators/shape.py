"""What moves values and computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

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
    of_inputs,
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


@dataclass(frozen=True)
class ArrangeAttributes(Attributes):
    """Pixels and channels in other places.

    channels, height, width  the parts into which each is divided, the last running fastest; of another map, the first
                             part of each is as large as that leaves it
    order                    of the result's channels, height and width: which of all these parts each runs through
    """

    channels: tuple[int, ...]
    height: tuple[int, ...]
    width: tuple[int, ...]
    order: tuple[tuple[int, ...], ...]

    @property
    def made(self) -> int:
        """Channels of the result."""
        return prod((*self.channels, *self.height, *self.width)[index] for index in self.order[0])

    def parts(self, source: Sequence[int]) -> list[int]:
        """Of a map [C, H, W], all of them."""
        return [n for size, own in zip(source, (self.channels, self.height, self.width)) for n in _divided(size, own)]

    @property
    def of_pixels(self) -> ArrangeAttributes | None:
        """The same with channels as one part, if they stay what they are."""
        count = len(self.channels)
        if self.order[0] != tuple(range(count)):
            return None
        order = ((0,), *(tuple(index - count + 1 for index in one) for one in self.order[1:]))
        return replace(self, channels=(prod(self.channels),), order=order)

    def of(self, source: Sequence[int]) -> tuple[list[int], list[int]]:
        """The shape of the result of a map [C, H, W], and its parts."""
        parts = self.parts(source)
        return [prod(parts[index] for index in one) for one in self.order], parts


def _divided(size: int, parts: tuple[int, ...]) -> tuple[int, ...]:
    return (size // prod(parts[1:]), *parts[1:]) if parts else ()


def _arrange(x: Sequence[Tensor], a: ArrangeAttributes) -> Tensor:
    shape, parts = a.of(x[0].shape[1:])
    order = [index + 1 for one in a.order for index in one]
    return x[0].reshape(len(x[0]), *parts).permute(0, *order).reshape(len(x[0]), *shape)


def _arrange_torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    """The axes divided, the parts permuted, and those that run through one axis of the result joined."""
    a, text = node.attrs, x[0]
    for axis, parts in ((3, a.width), (2, a.height), (1, a.channels)):
        if not parts:
            text += f".squeeze({axis})"
        elif len(parts) > 1:
            text += f".unflatten({axis}, (-1, {', '.join(map(literal, parts[1:]))}))"
    text += f".permute({', '.join(['0', *(str(int(index) + 1) for one in a.order for index in one)])})"
    for axis, one in enumerate(a.order, 1):
        if not one:
            text += f".unsqueeze({axis})"
        elif len(one) > 1:
            text += f".flatten({axis}, {axis + len(one) - 1})"
    return text


def _steps(parts: Sequence[int], order: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and their permutation, neighbours that stay neighbours taken as one."""
    runs: list[list[int]] = []
    for index in order:
        if parts[index] == 1:
            continue
        if runs and all(parts[between] == 1 for between in range(runs[-1][-1] + 1, index)) and index > runs[-1][-1]:
            runs[-1].append(index)
        else:
            runs.append([index])
    stored = sorted(runs)
    return tuple(prod(parts[i] for i in run) for run in stored), tuple(stored.index(run) for run in runs)


def _arrange_onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    import numpy as np

    parts = node.attrs.parts(source.shape[1:])
    sizes, turned = _steps(parts, [index for one in node.attrs.order for index in one])
    last = OnnxForm("Reshape", constants=(np.array(result.shape, np.int64),))
    if turned == tuple(range(len(turned))):
        return (last,)
    first = OnnxForm("Reshape", constants=(np.array(sizes, np.int64),))
    return (first, OnnxForm("Transpose", {"perm": turned}), last)


def _arrange_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    """Of NHWC: channels are last, before and after."""
    a, (_, channels, height, width) = node.attrs, result.shape
    parts = a.parts(source.shape[1:])
    count = len(a.channels)
    ours = [*range(count, len(parts)), *range(count)]
    order = [ours.index(index) for one in (a.order[1], a.order[2], a.order[0]) for index in one]
    sizes, turned = _steps([parts[index] for index in ours], order)
    shape = (1, height, width, channels)
    last = TfliteForm("RESHAPE", ("ReshapeOptions", {}), versions=(1, 1), after=(shape,), shape=shape)
    if turned == tuple(range(len(turned))):
        return (last,)
    versions, since = ((5, 5), "2.4.0") if len(sizes) > 4 else ((1, 2), "2.3.0")
    return (
        TfliteForm("RESHAPE", ("ReshapeOptions", {}), versions=(1, 1), after=(sizes,), shape=sizes),
        TfliteForm(
            "TRANSPOSE",
            ("TransposeOptions", {}),
            versions=versions,
            since=since,
            after=(turned,),
            shape=tuple(sizes[index] for index in turned),
        ),
        last,
    )


@dataclass(frozen=True)
class RollAttributes(Attributes):
    """By how many pixels down and to the right, what leaves the map coming in at its other end."""

    down: int
    right: int


def _roll(x: Sequence[Tensor], a: RollAttributes) -> Tensor:
    import torch

    return torch.roll(x[0], (a.down, a.right), (2, 3))


def _turns(a: RollAttributes, source: TensorSpec) -> list[tuple[int, int]]:
    """Axis (1 for height, 2 for width) and, of its size, from where on pixels come to the front."""
    ends = ((1, a.down, source.shape[2]), (2, a.right, source.shape[3]))
    return [(axis, size - by % size) for axis, by, size in ends if by % size]


def _roll_onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    import numpy as np

    forms: list[OnnxForm] = []
    for axis, place in _turns(node.attrs, source):
        given = len(forms)
        ends = ((place, source.shape[axis + 1]), (0, place))
        forms += [
            OnnxForm("Slice", constants=tuple(np.array([n], np.int64) for n in (*end, axis + 1)), reads=(given,))
            for end in ends
        ]
        forms.append(OnnxForm("Concat", {"axis": axis + 1}, reads=(given + 1, given + 2)))
    return tuple(forms) or (OnnxForm("Identity"),)


def _roll_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    n, channels, height, width = source.shape
    whole = (n, height, width, channels)
    forms: list[TfliteForm] = []
    for axis, place in _turns(node.attrs, source):
        given = len(forms)
        for first, size in ((place, whole[axis] - place), (0, place)):
            begin = tuple(first if index == axis else 0 for index in range(4))
            shape = tuple(size if index == axis else each for index, each in enumerate(whole))
            forms.append(TfliteForm("SLICE", ("SliceOptions", {}), after=(begin, shape), shape=shape, reads=(given,)))
        join = ("ConcatenationOptions", {"axis": axis})
        forms.append(TfliteForm("CONCATENATION", join, shape=whole, reads=(given + 1, given + 2)))
    nothing = TfliteForm("RESHAPE", ("ReshapeOptions", {}), versions=(1, 1), after=(whole,))
    return tuple(forms) or (nothing,)


@dataclass(frozen=True)
class OverChannelsAttributes(Attributes):
    @property
    def made(self) -> int:
        """Channels of the result."""
        return 1


_MOVES: dict[str, Any] = {
    "inputs": 1,
    "scale": Scale.OF_INPUTS,
    "on_steps": OnSteps.MOVES,
    "work": Work.MOVING,
}
_ARRANGES: dict[str, Any] = {
    **_MOVES,
    "attributes": ArrangeAttributes,
    "compute": _arrange,
    "torch": _arrange_torch,
    "onnx": _arrange_onnx,
    "tflite": _arrange_tflite,
    "bounds": of_inputs,
}
ARRANGE = Operator(name="arrange", channels=Channels.ARRANGES, **_ARRANGES)
ARRANGE_PIXELS = Operator(name="arrange_pixels", channels=Channels.PASSES, homogeneous=True, **_ARRANGES)
"""The same, where channels stay what they are."""
ROLL = Operator(
    name="roll",
    attributes=RollAttributes,
    channels=Channels.PASSES,
    compute=_roll,
    torch=lambda node, x: f"torch.roll({x[0]}, ({node.attrs.down:d}, {node.attrs.right:d}), (2, 3))",
    onnx=_roll_onnx,
    tflite=_roll_tflite,
    onnx_float="its pieces are joined in float, between the same integers",
    homogeneous=True,
    bounds=of_inputs,
    **_MOVES,
)
CHANNEL_MAX = Operator(
    name="channel_max",
    attributes=OverChannelsAttributes,
    channels=Channels.ARRANGES,
    compute=lambda x, a: x[0].amax(1, keepdim=True),
    torch=lambda node, x: f"{x[0]}.amax(1, keepdim=True)",
    onnx=lambda node, source, result: (OnnxForm("ReduceMax", {"axes": [1], "keepdims": 1}),),
    tflite=lambda node, source, result: (
        TfliteForm("REDUCE_MAX", ("ReducerOptions", {"keepDims": True}), after=((3,),)),
    ),
    bounds=of_inputs,
    **_MOVES,
)
