"""Sums and products of two tensors, and tensors side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.graph.operators.operator import (
    IN_FLOAT,
    Attributes,
    Bounds,
    Channels,
    OnnxForm,
    OnSteps,
    Operator,
    Scale,
    TfliteForm,
    Work,
    of_inputs,
    unbounded,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def _product(x: Sequence[Bounds], a: Attributes) -> Bounds:
    """Of what is not below zero; nothing is said of other products."""
    (low, high), (other_low, other_high) = x
    return (low * other_low, high * other_high) if min(low, other_low) >= 0 else unbounded(x, a)


def _concat(x: Sequence[Tensor], a: Attributes) -> Tensor:
    import torch

    return torch.cat(list(x), 1)


ADD = Operator(
    name="add",
    inputs=2,
    attributes=Attributes,
    channels=Channels.TIES,
    scale=Scale.OWN,
    on_steps=OnSteps.LINEAR,
    work=Work.MOVING,
    compute=lambda x, a: x[0] + x[1],
    torch=lambda node, x: f"{x[0]} + {x[1]}",
    onnx=lambda node, source, result: (OnnxForm("Add"),),
    tflite=lambda node, source, result: (
        TfliteForm("ADD", ("AddOptions", {"fusedActivationFunction": node.activation})),
    ),
    fuses=True,
)
MUL = Operator(
    name="mul",
    inputs=2,
    attributes=Attributes,
    channels=Channels.TIES,
    scale=Scale.OWN,
    on_steps=OnSteps.REAL,
    work=Work.MOVING,
    compute=lambda x, a: x[0] * x[1],
    torch=lambda node, x: f"{x[0]} * {x[1]}",
    onnx=lambda node, source, result: (OnnxForm("Mul"),),
    tflite=lambda node, source, result: (
        TfliteForm("MUL", ("MulOptions", {"fusedActivationFunction": node.activation})),
    ),
    fuses=True,
    bounds=_product,
)
SUB = Operator(
    name="sub",
    inputs=2,
    attributes=Attributes,
    channels=Channels.TIES,
    scale=Scale.OWN,
    on_steps=OnSteps.LINEAR,
    work=Work.MOVING,
    compute=lambda x, a: x[0] - x[1],
    torch=lambda node, x: f"{x[0]} - {x[1]}",
    onnx=lambda node, source, result: (OnnxForm("Sub"),),
    tflite=lambda node, source, result: (
        TfliteForm("SUB", ("SubOptions", {"fusedActivationFunction": node.activation})),
    ),
    onnx_float=IN_FLOAT,
    fuses=True,
)
CONCAT = Operator(
    name="concat",
    inputs=None,
    attributes=Attributes,
    channels=Channels.JOINS,
    scale=Scale.OF_INPUTS,
    on_steps=OnSteps.MOVES,
    work=Work.MOVING,
    compute=_concat,
    torch=lambda node, x: f"torch.cat([{', '.join(x)}], 1)",
    onnx=lambda node, source, result: (OnnxForm("Concat", {"axis": 1}),),
    tflite=lambda node, source, result: (TfliteForm("CONCATENATION", ("ConcatenationOptions", {"axis": 3})),),
    homogeneous=True,
    bounds=of_inputs,
)
