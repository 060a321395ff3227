"""Attention, as it is written in pieces and as one call: products of queries and keys, their softmax, its product with
values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod, sqrt
from typing import TYPE_CHECKING

from torch import Tensor

from compress.graph.operators.attention import ATTENTION, AttentionAttributes
from compress.graph.operators.operator import Attributes
from compress.graph.operators.unary import SOFTMAX
from compress.load.axes import Part, View
from compress.load.calls.call import Called, Scores, Unsupported, Value, viewed

if TYPE_CHECKING:
    from compress.load.walk import Walk


def softmax(walk: Walk, call: Called) -> Value:
    value = call["self"]
    if isinstance(value, Scores):
        if call["dim"] % value.rank != value.rank - 1 - value.transposed or value.softmax:
            raise Unsupported("of attention scores over queries")
        return replace(value, softmax=True)
    view = viewed(value)
    if view.dims[call["dim"]] != view.whole("c"):
        raise Unsupported(f"along dimension {call['dim']}, which is not the channels")
    return view.on(walk.append(SOFTMAX, [view.tensor], Attributes(), call.layer), view.shape)


def product(walk: Walk, call: Called) -> Value:
    left, right = (walk.values[node] for node in call.node.all_input_nodes[:2])
    if isinstance(right, Tensor) and right.ndim == 2:
        return walk.linear(viewed(left), right.T, None, call.layer)
    if isinstance(left, Scores):
        return _attended(walk, left, viewed(right), call.layer, values_first=False)
    if isinstance(right, Scores):
        return _attended(walk, right, viewed(left), call.layer, values_first=True)
    return _scores(viewed(left), viewed(right))


def _scores(query: View, key: View) -> Scores:
    """Of queries [..., queries, channels] with keys [..., channels, keys]."""
    tokens = query.dims[-2] == query.whole("hw") and key.dims[-1] == key.whole("hw")
    heads = _heads(query, query.dims[:-2], query.dims[-1])
    if not tokens or heads is None or _sizes(heads) != _sizes(_heads(key, key.dims[:-2], key.dims[-2])):
        raise Unsupported("of tensors that are not queries and keys of whole maps")
    return Scores(query, key, heads, len(query.dims))


def _heads(view: View, lead: Sequence[tuple[Part, ...]], last: tuple[Part, ...]) -> tuple[Part, ...] | None:
    """The parts of the channels in the leading dimensions, where the last one holds all others and counts fastest."""
    parts = tuple(part for dim in lead for part in dim)
    return parts if View("", view.shape, ()).with_dims([(*parts, *last)]).dims == (view.whole("c"),) else None


def _sizes(parts: tuple[Part, ...] | None) -> tuple[int, ...] | None:
    return None if parts is None else tuple(part.size for part in parts)


def _attended(walk: Walk, scores: Scores, value: View, layer: str, values_first: bool) -> View:
    """softmax(scores) @ value, or value @ softmax(scores) transposed."""
    tokens, channels = (value.dims[-1], value.dims[-2]) if values_first else (value.dims[-2], value.dims[-1])
    heads = _heads(value, value.dims[:-2], channels)
    fits = tokens == value.whole("hw") and value.shape[1:] == scores.key.shape[1:]
    if not scores.softmax or scores.transposed != values_first or not fits:
        raise Unsupported("that is no attention of a map's pixels: softmax(queries @ keys) @ values")
    if heads is None or _sizes(heads) != _sizes(scores.heads):
        raise Unsupported("of values in other heads")
    count = prod(part.size for part in heads)
    attributes = AttentionAttributes(count, scores.scale, prod(value.shape[1:]))
    name = walk.append(
        ATTENTION, [scores.query.tensor, scores.key.tensor, value.tensor], attributes, f"{layer}.attention"
    )
    result = View.of_map(name, (value.shape[0], *scores.query.shape[1:]))
    ends = [channels, result.whole("hw")] if values_first else [result.whole("hw"), channels]
    return result.with_dims([*value.dims[:-2], *ends])


def dot_product_attention(walk: Walk, call: Called) -> Value:
    query, key, value = (viewed(call[name]) for name in ("query", "key", "value"))
    if call["attn_mask"] is not None or call["is_causal"]:
        raise Unsupported("with a mask")
    turned = key.permuted([*range(len(key.dims) - 2), len(key.dims) - 1, len(key.dims) - 2])
    scale = call["scale"] if call["scale"] is not None else 1 / sqrt(query.sizes[-1])
    scores = replace(_scores(query, turned), scale=float(scale), softmax=True)
    return _attended(walk, scores, value, call.layer, values_first=False)
