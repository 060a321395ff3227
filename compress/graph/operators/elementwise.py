"""Sums and products of two tensors, and tensors side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.graph.operators.constant import as_tensor, bytes_of, in_torch, unpacked
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

    from compress.graph.quantized import QuantizedOperator, TensorSpec


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


@dataclass(frozen=True)
class LocalAttributes(Attributes):
    """Constants [channels or 1, height or 1, width or 1], packed: what is multiplied, then what is added; either may be
    empty."""

    factor: str = ""
    offset: str = ""

    def stored_bytes(self) -> int:
        return bytes_of(text for _, text in self.steps())

    def steps(self) -> list[tuple[str, str]]:
        """ "mul" and "add", each with its constant."""
        return [(name, text) for name, text in (("mul", self.factor), ("add", self.offset)) if text]


def _local(x: Sequence[Tensor], a: LocalAttributes) -> Tensor:
    value = x[0]
    for name, text in a.steps():
        constant = as_tensor(text, value)
        value = value * constant if name == "mul" else value + constant
    return value


def _local_torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    signs = {"mul": "*", "add": "+"}
    return " ".join([x[0], *(f"{signs[name]} {in_torch(text, x[0])}" for name, text in node.attrs.steps())])


def _local_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    return tuple(
        TfliteForm(
            name.upper(),
            (f"{name.title()}Options", {}),
            after=(unpacked(text).transpose(1, 2, 0)[None],),
            in_float=True,
        )
        for name, text in node.attrs.steps()
    )


LOCAL_AFFINE = Operator(
    name="local_affine",
    inputs=1,
    attributes=LocalAttributes,
    channels=Channels.SHARES,  # its constants are of the channels that there are
    scale=Scale.OWN,
    on_steps=OnSteps.REAL,
    work=Work.MOVING,
    compute=_local,
    torch=_local_torch,
    onnx=lambda node, source, result: tuple(
        OnnxForm(name.title(), constants=(unpacked(text)[None],)) for name, text in node.attrs.steps()
    ),
    tflite=_local_tflite,
    onnx_float=IN_FLOAT,
)
