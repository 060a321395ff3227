"""Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762) between the pixels of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.graph.operators.constant import as_tensor, bytes_of, in_torch, unpacked
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
    """What the products of queries and keys become on their way.

    heads    into how many parts the channels are divided, each attending for itself
    scale    of the products
    keys     how many pixels keys and values have, at the traced size; of a row, if `rows`
    rows     every row of the map attends for itself (rows are windows, then), else the whole map does
    over     of what the weights of the values sum to one: "keys", for each query; "pairs" of them; or "nothing": the
             products themselves
    added    to the scaled products: constants [rows or 1, heads or 1, queries, keys], packed
    """

    heads: int
    scale: float
    keys: int
    rows: bool = False
    over: str = "keys"
    added: tuple[str, ...] = ()

    def stored_bytes(self) -> int:
        return bytes_of(self.added)


def _attention(x: Sequence[Tensor], a: AttentionAttributes) -> Tensor:
    import torch
    from torch.nn import functional as F

    def by_head(each: Tensor) -> Tensor:  # [N, rows, heads, pixels, channels]
        rows = each if a.rows else each.flatten(2).unsqueeze(2)
        return rows.unflatten(1, (a.heads, -1)).permute(0, 3, 1, 4, 2)

    query, key, value = map(by_head, x)
    added = [as_tensor(each, query) for each in a.added]
    if a.over == "keys":
        mask = sum(added[1:], added[0]) if added else None
        attended = F.scaled_dot_product_attention(query, key, value, mask, scale=a.scale)
    else:
        scores = sum(added, query @ key.mT * a.scale)
        if a.over == "pairs":
            scores = torch.softmax(scores.flatten(-2), -1).view(scores.shape)
        attended = scores @ value
    return attended.permute(0, 2, 4, 1, 3).reshape(len(x[0]), -1, *x[0].shape[2:])


def _rows(node: QuantizedOperator, result: TensorSpec) -> tuple[int, int]:
    """How many attend for themselves, and how many queries each has."""
    _, _, height, width = result.shape
    return (height, width) if node.attrs.rows else (1, height * width)


def _onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    import numpy as np

    a = node.attrs
    rows, queries = _rows(node, result)
    forms: list[OnnxForm] = []

    def add(op_type: str, *constants: Any, reads: Sequence[int] = (), **attributes: Any) -> int:
        forms.append(OnnxForm(op_type, attributes, constants, reads=tuple(reads)))
        return len(forms) + 2

    def to(shape: Sequence[int], reads: Sequence[int] = ()) -> int:
        return add("Reshape", np.array(shape, np.int64), reads=reads)

    def by_head(value: int, channels: int, turned: bool) -> int:
        """[rows, heads, pixels, channels], or the last two the other way round."""
        if rows == 1:
            whole = to((1, a.heads, channels, -1), [value])
            return add("Transpose", perm=(0, 1, 3, 2)) if turned else whole
        to((a.heads, channels, rows, -1), [value])
        return add("Transpose", perm=(2, 0, 3, 1) if turned else (2, 0, 1, 3))

    query = by_head(0, channels_of(source, node), turned=True)
    key = by_head(1, channels_of(source, node), turned=False)
    add("MatMul", reads=(query, key))
    scores = add("Mul", np.float32(a.scale))
    for each in a.added:
        scores = add("Add", unpacked(each))
    if a.over == "pairs":
        to((rows, a.heads, queries * a.keys))
        add("Softmax", axis=-1)
        scores = to((rows, a.heads, queries, a.keys))
    elif a.over == "keys":
        scores = add("Softmax", axis=-1)
    value = by_head(2, channels_of(result, node), turned=True)
    add("MatMul", reads=(scores, value))
    add("Transpose", perm=(0, 1, 3, 2) if rows == 1 else (1, 3, 0, 2))
    to(result.shape)
    return tuple(forms)


def channels_of(spec: TensorSpec, node: QuantizedOperator) -> int:
    """Of one head."""
    return spec.shape[1] // int(node.attrs.heads)


def _tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    a = node.attrs
    _, channels, height, width = result.shape
    rows, queries = _rows(node, result)
    wide, deep = channels_of(source, node), channels_of(result, node)
    forms: list[TfliteForm] = []

    def add(code: str, options: str, fields: dict[str, Any], shape: tuple[int, ...] = (), **more: Any) -> int:
        forms.append(TfliteForm(code, (options, fields), shape=shape, in_float=True, **more))
        return len(forms) + 2

    def to(shape: tuple[int, ...], reads: tuple[int, ...] = ()) -> int:
        return add("RESHAPE", "ReshapeOptions", {}, shape, after=(shape,), reads=reads)

    def turned(shape: tuple[int, ...]) -> int:
        return add("TRANSPOSE", "TransposeOptions", {}, shape, after=((0, 2, 1, 3),))

    def by_head(value: int, pixels: int, each: int) -> int:
        to((rows, pixels, a.heads, each), (value,))
        return turned((rows, a.heads, pixels, each))

    scores = (rows, a.heads, queries, a.keys)
    query, key = by_head(0, queries, wide), by_head(1, a.keys, wide)
    add("BATCH_MATMUL", "BatchMatMulOptions", {"adjY": True}, scores, reads=(query, key))
    weights = add("MUL", "MulOptions", {}, scores, reals=(a.scale,))
    for each in a.added:
        weights = add("ADD", "AddOptions", {}, scores, after=(unpacked(each),))
    if a.over == "pairs":
        to((rows, a.heads, 1, queries * a.keys))
        add("SOFTMAX", "SoftmaxOptions", {"beta": 1.0}, (rows, a.heads, 1, queries * a.keys))
        weights = to(scores)
    elif a.over == "keys":
        weights = add("SOFTMAX", "SoftmaxOptions", {"beta": 1.0}, scores)
    value = by_head(2, a.keys, deep)
    add("BATCH_MATMUL", "BatchMatMulOptions", {}, (rows, a.heads, queries, deep), reads=(weights, value))
    turned((rows, queries, a.heads, deep))
    to((1, height, width, channels))
    return tuple(forms)


def _torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    if node.attrs.rows or node.attrs.added or node.attrs.over != "keys":
        return _torch_in_steps(node, x)
    heads, scale = literal(node.attrs.heads), literal(node.attrs.scale)
    by_head = f"*(each.flatten(2).unflatten(1, ({heads}, -1)).mT for each in ({', '.join(x)}))"
    attended = f"F.scaled_dot_product_attention({by_head}, scale={scale})"
    return f"{attended}.mT.flatten(1, 2).unflatten(2, {x[0]}.shape[2:])"


def _torch_in_steps(node: QuantizedOperator, x: Sequence[str]) -> str:
    a = node.attrs
    apart = (
        f"{'' if a.rows else '.flatten(2).unsqueeze(2)'}.unflatten(1, ({literal(a.heads)}, -1)).permute(0, 3, 1, 4, 2)"
    )
    query, key, value = (f"{each}{apart}" for each in x)
    added = "".join(f" + {in_torch(each, x[0])}" for each in a.added)
    weights = f"({query} @ {key}.mT * {literal(a.scale)}{added})"
    if a.over == "keys":
        weights += ".softmax(-1)"
    elif a.over == "pairs":
        weights += f".flatten(-2).softmax(-1).unflatten(-1, (-1, {literal(a.keys)}))"
    return f"({weights} @ {value}).permute(0, 2, 4, 1, 3).reshape(len({x[0]}), -1, *{x[0]}.shape[2:])"


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
