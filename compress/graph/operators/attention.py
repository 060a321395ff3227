"""Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762) between the pixels of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.graph.operators.operator import (
    Attributes,
    Channels,
    OnnxForm,
    OnSteps,
    Operator,
    Scale,
    TfliteForm,
    Work,
    literal,
)

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec


@dataclass(frozen=True)
class AttentionAttributes(Attributes):
    """`heads`: into how many parts the channels are divided, each attending for itself. `scale`: of the products,
    before softmax. `keys`: how many pixels keys and values have at the traced size."""

    heads: int
    scale: float
    keys: int


def _attention(x: Sequence[Tensor], a: AttentionAttributes) -> Tensor:
    from torch.nn import functional as F

    query, key, value = (each.flatten(2).unflatten(1, (a.heads, -1)).mT for each in x)
    attended = F.scaled_dot_product_attention(query, key, value, scale=a.scale)
    return attended.mT.flatten(1, 2).unflatten(2, x[0].shape[2:])


def _onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    import numpy as np

    def reshaped(value: int) -> OnnxForm:
        return OnnxForm("Reshape", constants=(by_head,), reads=(value,))

    by_head = np.array((1, node.attrs.heads, channels_of(source, node), -1), np.int64)
    of_values = np.array((1, node.attrs.heads, channels_of(result, node), -1), np.int64)
    turned = {"perm": (0, 1, 3, 2)}
    return (
        reshaped(0),
        OnnxForm("Transpose", turned),
        reshaped(1),
        OnnxForm("MatMul", reads=(4, 5)),
        OnnxForm("Mul", constants=(np.float32(node.attrs.scale),)),
        OnnxForm("Softmax", {"axis": -1}),
        OnnxForm("Reshape", constants=(of_values,), reads=(2,)),
        OnnxForm("Transpose", turned),
        OnnxForm("MatMul", reads=(8, 10)),
        OnnxForm("Transpose", turned),
        OnnxForm("Reshape", constants=(np.array(result.shape, np.int64),)),
    )


def channels_of(spec: TensorSpec, node: QuantizedOperator) -> int:
    """Of one head."""
    return spec.shape[1] // int(node.attrs.heads)


def _tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    heads, keys = node.attrs.heads, node.attrs.keys
    _, channels, height, width = result.shape
    queries, wide, deep = height * width, channels_of(source, node), channels_of(result, node)

    def one(code: str, options: str, fields: dict[str, Any], shape: tuple[int, ...] = (), **more: Any) -> TfliteForm:
        return TfliteForm(code, (options, fields), shape=shape, in_float=True, **more)

    def by_head(value: int, count: int, each: int) -> tuple[TfliteForm, TfliteForm]:
        flat, turned = (1, count, heads, each), (1, heads, count, each)
        return (
            one("RESHAPE", "ReshapeOptions", {}, flat, after=(flat,), reads=(value,)),
            one("TRANSPOSE", "TransposeOptions", {}, turned, after=((0, 2, 1, 3),)),
        )

    scores = (1, heads, queries, keys)
    return (
        *by_head(0, queries, wide),
        *by_head(1, keys, wide),
        one("BATCH_MATMUL", "BatchMatMulOptions", {"adjY": True}, scores, reads=(4, 6)),
        one("MUL", "MulOptions", {}, scores, reals=(node.attrs.scale,)),
        one("SOFTMAX", "SoftmaxOptions", {"beta": 1.0}, scores),
        *by_head(2, keys, deep),
        one("BATCH_MATMUL", "BatchMatMulOptions", {}, (1, heads, queries, deep), reads=(9, 11)),
        one("TRANSPOSE", "TransposeOptions", {}, (1, queries, heads, deep), after=((0, 2, 1, 3),)),
        one("RESHAPE", "ReshapeOptions", {}, after=((1, height, width, channels),)),
    )


def _torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    heads, scale = literal(node.attrs.heads), literal(node.attrs.scale)
    by_head = f"*(each.flatten(2).unflatten(1, ({heads}, -1)).mT for each in ({', '.join(x)}))"
    attended = f"F.scaled_dot_product_attention({by_head}, scale={scale})"
    return f"{attended}.mT.flatten(1, 2).unflatten(2, {x[0]}.shape[2:])"


ATTENTION = Operator(
    name="attention",
    inputs=3,
    attributes=AttentionAttributes,
    channels=Channels.ATTENDS,
    scale=Scale.OWN,
    on_steps=OnSteps.REAL,
    work=Work.ATTENDING,
    compute=_attention,
    torch=_torch,
    onnx=_onnx,
    tflite=_tflite,
    onnx_float="it runs in float between the same integers: products of activations are rounded nowhere on the way",
)
