"""Attention, as it is written in pieces and as one call: products of queries and keys, their softmax, its product with
values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compress.graph.operators.attention import ATTENTION, AttentionAttributes
from compress.graph.operators.constant import packed
from compress.graph.operators.operator import Attributes
from compress.graph.operators.unary import SOFTMAX
from compress.load.axes import View
from compress.load.calls.call import Called, Largest, Scores, Unsupported, Value, viewed

if TYPE_CHECKING:
    from compress.load.walk import Walk

MASKED = -1e9
"""What is added to scores that are not to count: as good as no bound, and a number."""


def softmax(walk: Walk, call: Called) -> Value:
    value = call["self"]
    if isinstance(value, Scores):
        if call["dim"] % value.rank != value.rank - 1 - value.transposed or value.over != "nothing":
            raise Unsupported("of attention scores over queries")
        return replace(value, over="pairs" if value.flat else "keys")
    view = walk.with_channels(viewed(value), call["dim"] % len(viewed(value).dims))
    return view.on(walk.append(SOFTMAX, [view.tensor], Attributes(), call.layer), view.shape)


def product(walk: Walk, call: Called) -> Value:
    left, right = call["self"], call["other" if "other" in call.arguments else "mat2"]
    if isinstance(right, Tensor):
        return walk.linear(viewed(left), _matrix(right).T, None, call.layer)
    if isinstance(left, Tensor):
        turned = _turned(viewed(right))
        return _turned(walk.linear(turned, _matrix(left), None, call.layer))
    if isinstance(left, Scores):
        return _attended(walk, left, viewed(right), call, values_first=False)
    if isinstance(right, Scores):
        return _attended(walk, right, viewed(left), call, values_first=True)
    return _scores(viewed(left), viewed(right))


def _matrix(constant: Tensor) -> Tensor:
    if prod(constant.shape[:-2]) != 1 or constant.ndim < 2:
        raise Unsupported("with several matrices of constants")
    return constant.reshape(constant.shape[-2:])


def _turned(view: View) -> View:
    rank = len(view.dims)
    return view.permuted([*range(rank - 2), rank - 1, rank - 2])


def _scores(query: View, key: View) -> Scores:
    """Of queries [..., queries, inner] with keys [..., inner, keys]."""
    if query.sizes[-1] != key.sizes[-2] or prod(query.sizes[:-2]) != prod(key.sizes[:-2]):
        raise Unsupported("of queries and keys that are not as many")
    return Scores(query, key, replace(query, dims=query.dims[:-2]))


def reshaped_scores(scores: Scores, shape: Sequence[int]) -> Scores:
    pairs = prod(scores.sizes)
    flat = shape[-1] == pairs and not scores.transposed
    ends = 1 if flat else 2
    lead = scores.lead.reshaped(shape[:-ends])
    if lead is None or prod(shape[-ends:]) != pairs or (not flat and tuple(shape[-2:]) != _apart(scores)):
        raise Unsupported("of attention scores")
    return replace(scores, lead=lead, flat=flat)


def _apart(scores: Scores) -> tuple[int, ...]:
    return replace(scores, flat=False).sizes


def permuted_scores(scores: Scores, order: Sequence[int]) -> Scores:
    rank, last = scores.rank, list(order[-2:])
    if scores.flat or sorted(last) != [rank - 2, rank - 1]:
        raise Unsupported("of attention scores")
    parts = [part for index in order[:-2] for part in scores.lead.dims[index]]
    if tuple(parts) != scores.parts:
        raise Unsupported("of attention scores")
    lead = scores.lead.permuted(order[:-2])
    return replace(scores, lead=lead, transposed=scores.transposed != (last[0] > last[1]))


def changed_scores(scores: Scores | Largest, operator: str, constant: Any, reverse: bool) -> Scores:
    if not isinstance(scores, Scores) or scores.over != "nothing":
        raise Unsupported("on attention scores")
    given = torch.as_tensor(constant).detach().float()
    match operator, reverse:
        case ("mul", _) | ("div", False) if given.numel() == 1:
            return _times(scores, float(given) if operator == "mul" else 1 / float(given))
        case "add", _:
            return _plus(scores, given)
        case "sub", False:
            return _plus(scores, -given)
        case _:
            raise Unsupported("on attention scores")


def _times(scores: Scores, factor: float) -> Scores:
    return replace(scores, scale=scores.scale * factor, added=tuple(each * factor for each in scores.added))


def _plus(scores: Scores, constant: Tensor) -> Scores:
    """A constant, as far as it is broadcast by row and by head."""
    if scores.flat:
        raise Unsupported("on attention scores")
    given = constant.reshape((1,) * (scores.rank - constant.ndim) + tuple(constant.shape))
    given = given.mT if scores.transposed else given
    sizes: list[int] = []
    if len(scores.lead.dims) != given.ndim - 2:
        raise Unsupported("on attention scores")
    for size, dim in zip(given.shape, scores.lead.dims):
        if size > 1 and not dim:
            raise Unsupported("with a constant that is larger than attention scores")
        sizes += [part.size if size > 1 else 1 for part in dim]
    given = given.reshape(*sizes, *given.shape[-2:])
    heads = [index for index, part in enumerate(scores.parts) if part.axis == "c"]
    rows = [index for index in range(len(sizes)) if index not in heads]
    shape = []
    for those in (rows, heads):
        if any(sizes[index] > 1 for index in those):
            for index in those:
                given = given.expand([scores.parts[index].size if i == index else n for i, n in enumerate(given.shape)])
        shape.append(prod(given.shape[index] for index in those))
    given = given.permute(*rows, *heads, -2, -1).reshape(*shape, *given.shape[-2:])
    return replace(scores, added=(*scores.added, given))


def masked(walk: Walk, call: Called) -> Value:
    """Where a constant says so, a number; of scores, one that is as good as no score."""
    scores, value = call["self"], call["value"]
    if not isinstance(scores, Scores) or not isinstance(call["mask"], Tensor) or float(value) > -1e4:
        raise Unsupported("")
    return changed_scores(scores, "add", call["mask"].float() * MASKED, False)


def without_largest(left: Scores | Largest, right: Scores | Largest, operator: str) -> Scores:
    """The difference to the largest score of each query, either way round."""
    scores = left if isinstance(left, Scores) else right
    of = left if isinstance(left, Largest) else right
    if operator != "sub" or not isinstance(scores, Scores) or not isinstance(of, Largest) or of.scores is not scores:
        raise Unsupported("of attention scores")
    return replace(scores if scores is left else _times(scores, -1.0), shifted=True)


def _attended(walk: Walk, scores: Scores, value: View, call: Called, values_first: bool) -> View:
    """softmax(scores) @ value, or value @ softmax(scores) transposed."""
    value = _turned(value) if values_first else value
    if scores.flat or scores.transposed != values_first or value.sizes[-2] != scores.key.sizes[-1]:
        raise Unsupported("that is no attention: softmax(queries @ keys) @ values")
    if scores.shifted and scores.over != "keys":
        raise Unsupported("of attention scores less the largest, without a softmax over keys")
    lead = [part.size for part in scores.parts]
    heads = [index for index, part in enumerate(scores.parts) if part.axis == "c"]
    rows = [index for index in range(len(lead)) if index not in heads]
    count = prod(lead[index] for index in heads)
    query, key, value = (_by_head(walk, each, lead, heads, rows) for each in (scores.query, _turned(scores.key), value))
    attributes = AttentionAttributes(
        count,
        scores.scale,
        scores.key.sizes[-1],
        bool(rows),
        scores.over,
        tuple(packed(each.numpy()) for each in scores.added if bool(each.any())),
    )
    name = walk.append(ATTENTION, [query.tensor, key.tensor, value.tensor], attributes, f"{call.layer}.attention")
    result = View.of_map(name, (value.shape[0], *query.shape[1:]))
    channels = result.reshaped((1, *(lead[index] for index in heads), value.sizes[-1], *result.shape[1:]))
    assert channels is not None
    by_head = {index: channels.dims[1 + place] for place, index in enumerate(heads)}
    if rows:
        by_row = View.of_map(name, (1, *result.shape[1:])).reshaped((1, *(lead[i] for i in rows), result.shape[2]))
        assert by_row is not None
        by_head |= {index: by_row.dims[1 + place] for place, index in enumerate(rows)}
    pixels = result.whole("w" if rows else "hw")
    ends = [channels.dims[1 + len(heads)], pixels][:: -1 if not values_first else 1]
    given = result.with_dims([*(by_head[index] for index in range(len(lead))), *ends]).reshaped(call.shape)
    if given is None:
        raise Unsupported("of values in other heads")
    return given


def _by_head(walk: Walk, view: View, lead: Sequence[int], heads: Sequence[int], rows: Sequence[int]) -> View:
    """A tensor [..., pixels, channels], arranged so that heads and then channels are those of its map, and rows its
    rows, where there are any; dimensions [*lead, pixels, channels]."""
    apart = view.reshaped((*lead, *view.sizes[-2:]))
    if apart is None:
        raise Unsupported("of queries, keys and values in other heads")
    pixels, channels = len(lead), len(lead) + 1
    in_order = tuple(part for index in (*heads, channels) for part in apart.dims[index])
    whole = replace(apart, dims=()).with_dims([in_order]).dims[0] == apart.whole("c")
    if not rows and whole and apart.dims[pixels] == apart.whole("hw"):
        return apart
    return walk.arranged(apart, [*heads, channels], rows, [pixels])


def dot_product_attention(walk: Walk, call: Called) -> Value:
    query, key, value = (viewed(call[name]) for name in ("query", "key", "value"))
    scale = call["scale"] if call["scale"] is not None else 1 / sqrt(query.sizes[-1])
    scores = replace(_scores(query, _turned(key)), scale=float(scale))
    mask = call["attn_mask"]
    if call["is_causal"]:
        mask = torch.ones(scores.sizes, dtype=torch.bool).tril()
    if mask is not None and not isinstance(mask, Tensor):
        raise Unsupported("with a mask that is no constant")
    if mask is not None:
        scores = _plus(scores, mask.float().clamp_min(MASKED) if mask.is_floating_point() else (~mask) * MASKED)
    return _attended(walk, replace(scores, over="keys"), value, call, values_first=False)
