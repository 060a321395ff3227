"""Norms of the image itself: mean 0 and variance 1 over a channel, a group of channels, or the channels of a pixel.

What follows them, a factor and an offset for each channel, is an operator of its own. Neither runtime has an integer
kernel that rounds right, so they are computed on real values between the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.graph.operators.operator import (
    IN_FLOAT,
    Attributes,
    Channels,
    OnnxForm,
    OnSteps,
    Operator,
    Scale,
    TfliteForm,
    Work,
    call,
    literal,
)

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec


@dataclass(frozen=True)
class NormAttributes(Attributes):
    eps: float


@dataclass(frozen=True)
class GroupNormAttributes(NormAttributes):
    """`groups`: into how many parts the channels are divided, each with a mean of its own."""

    groups: int


def _standard(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    variance, mean = _moments(x, dims)
    return (x - mean) * (variance + eps).rsqrt()


def _moments(x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    import torch

    return torch.var_mean(x, list(dims), correction=0, keepdim=True)


def _group_norm(x: Sequence[Tensor], a: GroupNormAttributes) -> Tensor:
    parts = x[0].unflatten(1, (a.groups, -1))
    return _standard(parts, (2, 3, 4), a.eps).flatten(1, 2)


def _onnx_forms(eps: float, axes: Sequence[int], shape: Sequence[int] = ()) -> tuple[OnnxForm, ...]:
    """`shape`: in which the axes are those, where it is not that of the input."""
    import numpy as np

    first = (OnnxForm("Reshape", constants=(np.array(shape, np.int64),)),) if shape else ()
    last = (OnnxForm("Reshape", constants=(np.array((1, -1, *shape[3:]), np.int64),)),) if shape else ()
    x = len(first)  # the number of the value that is made standard
    mean = {"axes": list(axes), "keepdims": 1}
    return (
        *first,
        OnnxForm("ReduceMean", mean),
        OnnxForm("Sub", reads=(x, x + 1)),
        OnnxForm("Mul", reads=(x + 2, x + 2)),
        OnnxForm("ReduceMean", mean),
        OnnxForm("Add", constants=(np.float32(eps),)),
        OnnxForm("Sqrt"),
        OnnxForm("Div", reads=(x + 2, x + 6)),
        *last,
    )


def _tflite_forms(
    source: TensorSpec, eps: float, axes: Sequence[int], shape: Sequence[int] = ()
) -> tuple[TfliteForm, ...]:
    n, c, h, w = source.shape
    given = tuple(shape) or (n, h, w, c)
    small = tuple(1 if axis in axes else size for axis, size in enumerate(given))
    first = (TfliteForm("RESHAPE", ("ReshapeOptions", {}), after=(given,), shape=given, in_float=True),)
    last = (TfliteForm("RESHAPE", ("ReshapeOptions", {}), after=((n, h, w, c),), in_float=True),)
    x = 1 if shape else 0

    def one(code: str, options: str = "", shape: tuple[int, ...] = small, **more: Any) -> TfliteForm:
        fields = {"keepDims": True} if code == "MEAN" else {}
        return TfliteForm(code, (options, fields) if options else None, shape=shape, in_float=True, **more)

    return (
        *(first if shape else ()),
        one("MEAN", "ReducerOptions", after=(tuple(axes),)),
        one("SUB", "SubOptions", given, reads=(x, x + 1)),
        one("MUL", "MulOptions", given, reads=(x + 2, x + 2)),
        one("MEAN", "ReducerOptions", after=(tuple(axes),)),
        one("ADD", "AddOptions", reals=(eps,)),
        one("RSQRT", versions=(1, 2)),
        one("MUL", "MulOptions", given, reads=(x + 2, x + 6)),
        *(last if shape else ()),
    )


def _group_onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    _, channels, height, width = source.shape
    groups = node.attrs.groups
    return _onnx_forms(node.attrs.eps, (2, 3, 4), (1, groups, channels // groups, height, width))


def _group_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    _, channels, height, width = source.shape
    groups = node.attrs.groups
    return _tflite_forms(source, node.attrs.eps, (1, 3), (1, height * width, groups, channels // groups))


def _layer_torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    last = call("F.layer_norm", f"{x[0]}.permute(0, 2, 3, 1)", f"{x[0]}.shape[1:2]", eps=node.attrs.eps)
    return f"{last}.permute(0, 3, 1, 2)"


INSTANCE_NORM = Operator(
    name="instance_norm",
    inputs=1,
    attributes=NormAttributes,
    channels=Channels.PASSES,
    scale=Scale.OWN,
    on_steps=OnSteps.REAL,
    work=Work.MOVING,
    compute=lambda x, a: _standard(x[0], (2, 3), a.eps),
    torch=lambda node, x: call("torch.group_norm", x[0], f"{x[0]}.shape[1]", eps=node.attrs.eps),
    onnx=lambda node, source, result: _onnx_forms(node.attrs.eps, (2, 3)),
    tflite=lambda node, source, result: _tflite_forms(source, node.attrs.eps, (1, 2)),
    onnx_float=IN_FLOAT,
)
GROUP_NORM = Operator(
    name="group_norm",
    inputs=1,
    attributes=GroupNormAttributes,
    channels=Channels.GROUPS,
    scale=Scale.OWN,
    on_steps=OnSteps.REAL,
    work=Work.MOVING,
    compute=_group_norm,
    torch=lambda node, x: call("torch.group_norm", x[0], literal(node.attrs.groups), eps=node.attrs.eps),
    onnx=_group_onnx,
    tflite=_group_tflite,
    onnx_float=IN_FLOAT,
)
LAYER_NORM = Operator(
    name="layer_norm",
    inputs=1,
    attributes=NormAttributes,
    channels=Channels.MIXES,
    scale=Scale.OWN,
    on_steps=OnSteps.REAL,
    work=Work.MOVING,
    compute=lambda x, a: _standard(x[0], (1,), a.eps),
    torch=_layer_torch,
    onnx=lambda node, source, result: _onnx_forms(node.attrs.eps, (1,)),
    tflite=lambda node, source, result: _tflite_forms(source, node.attrs.eps, (3,)),
    onnx_float=IN_FLOAT,
)
