"""Calls that name dimensions otherwise, or take or join parts of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compress.graph.operators.elementwise import CONCAT
from compress.graph.operators.operator import Attributes
from compress.graph.operators.shape import PAD, PadAttributes
from compress.load.axes import Part, View
from compress.load.calls.call import Called, Scores, Stack, Unsupported, Value, viewed

if TYPE_CHECKING:
    from compress.load.walk import Walk


def same(walk: Walk, call: Called) -> Value:
    return walk.values[call.node.all_input_nodes[0]]


def dropped(walk: Walk, call: Called) -> Value:
    if call["train"] and call["p"] > 0:
        raise Unsupported("that is on in evaluation too")
    return same(walk, call)


def reshaped(walk: Walk, call: Called) -> Value:
    value = same(walk, call)
    if isinstance(value, Scores):
        if call.shape[-2:] != _score_sizes(value):
            raise Unsupported("of attention scores")
        return replace(value, rank=len(call.shape))
    view = viewed(value)
    result = view.reshaped(call.shape)
    if result is None:
        raise Unsupported(f"from {tuple(view.sizes)} to {call.shape}, which divides an axis unevenly")
    return result


def permuted(walk: Walk, call: Called) -> Value:
    value = same(walk, call)
    rank = value.rank if isinstance(value, Scores) else len(viewed(value).dims)
    order = list(range(rank))
    if "dims" in call.arguments:
        order = [dim % rank for dim in call["dims"]]
    else:
        ends = (call["dim0"], call["dim1"]) if "dim0" in call.arguments else (0, 1)
        a, b = (dim % rank for dim in ends)
        order[a], order[b] = order[b], order[a]
    if not isinstance(value, Scores):
        return viewed(value).permuted(order)
    if order == list(range(rank)):
        return value
    if order != [*range(rank - 2), rank - 1, rank - 2]:
        raise Unsupported("of attention scores")
    return replace(value, transposed=not value.transposed)


def expanded(walk: Walk, call: Called) -> Value:
    """What is read again and again along a dimension is broadcast where it is read."""
    view = viewed(same(walk, call))
    return view.with_dims([()] * (len(call.shape) - len(view.dims)) + list(view.dims))


def pieces(walk: Walk, call: Called) -> Value:
    """Several ranges along one dimension."""
    value = same(walk, call)
    dim = call.arguments.get("dim", 0)
    metas = call.node.meta["val"]
    if isinstance(value, Stack) and call.name.startswith("unbind"):
        return value.views
    view = viewed(value)
    dim %= len(view.dims)
    if call.name.startswith("unbind"):
        return tuple(_without(_part(walk, view, dim, i, i + 1), dim) for i in range(len(metas)))
    sizes = [tuple(meta.shape)[dim] for meta in metas]
    return tuple(_part(walk, view, dim, first, first + n) for first, n in zip(accumulate(sizes, initial=0), sizes))


def sliced(walk: Walk, call: Called) -> Value:
    view = viewed(same(walk, call))
    dim = call["dim"] % len(view.dims)
    size = view.sizes[dim]
    if call.arguments.get("step", 1) != 1:
        raise Unsupported("in steps")
    start = call["start"] or 0
    start = max(start + size, 0) if start < 0 else start
    return _part(walk, view, dim, start, start + call.shape[dim])


def selected(walk: Walk, call: Called) -> Value:
    value = same(walk, call)
    if isinstance(value, Stack):
        if call["dim"] % len(call.shape) != value.dim:
            raise Unsupported("of stacked tensors")
        return value.views[call["index"]]
    view = viewed(value)
    dim = call["dim"] % len(view.dims)
    index = call["index"] % max(view.sizes[dim], 1)
    return _without(_part(walk, view, dim, index, index + 1), dim)


def _without(view: View, dim: int) -> View:
    return view.with_dims([each for index, each in enumerate(view.dims) if index != dim])


def _part(walk: Walk, view: View, dim: int, first: int, last: int) -> View:
    """A range of one dimension."""
    size = view.sizes[dim]
    if (first, last) == (0, size):
        return view
    if view.is_map and dim in (2, 3):
        amounts = [(0, 0), (0, 0)]
        amounts[dim - 2] = (-first, last - size)
        name = walk.append(PAD, [view.tensor], PadAttributes(*amounts), f"{view.tensor}.crop")
        shape = [*view.shape]
        shape[dim - 1] = last - first
        return View.of_map(name, shape)
    cut, *faster = view.dims[dim]
    each = prod(part.size for part in faster)
    if any(part.axis != "c" for part in view.dims[dim]) or first % each or last % each:
        raise Unsupported("of a range that is not of channels")
    first, last = first // each, last // each
    parts = sorted(view.parts("c"), key=lambda part: -part.stride)
    channels = torch.arange(view.shape[0]).reshape([part.size for part in parts])
    place = parts.index(cut)
    indices = channels.narrow(place, first, last - first).flatten().tolist()
    sizes = [last - first if part is cut else part.size for part in parts]
    strides = [prod(sizes[index + 1 :]) for index in range(len(sizes))]
    renamed = {
        part: () if size == 1 else (Part("c", size, stride),)
        for part, size, stride in zip(parts, sizes, strides, strict=True)
    }
    name = walk.select(view.tensor, tuple(indices))
    dims = [tuple(new for part in each for new in renamed.get(part, (part,))) for each in view.dims]
    return View(name, (len(indices), *view.shape[1:]), ()).with_dims(dims)


def picked(walk: Walk, call: Called) -> Value:
    """Channels in another order: RGB turned to BGR, say."""
    view = walk.as_map(call["self"])
    if call.name.startswith("flip"):
        if [dim % 4 for dim in call["dims"]] != [1]:
            raise Unsupported(f"of dimensions {call['dims']}")
        indices = list(range(view.shape[0]))[::-1]
    else:
        chosen = call["indices"]
        if len(chosen) != 2 or chosen[0] is not None or not isinstance(chosen[1], Tensor):
            raise Unsupported("of anything but channels")
        indices = [int(index) % view.shape[0] for index in chosen[1]]
    return View.of_map(walk.select(view.tensor, tuple(indices)), (len(indices), *view.shape[1:]))


def getitem(walk: Walk, call: Called) -> Value:
    return same(walk, call)[call.node.args[1]]


def concat(walk: Walk, call: Called) -> Value:
    views = [viewed(value) for value in call["tensors"] if not _is_empty(value)]
    dim = call["dim"] % len(views[0].dims)
    if len(views) == 1:
        return views[0]
    if dim == 1 and any(len(view.dims) == 4 and view.dims[1] != view.whole("c") for view in views):
        views = [walk.as_map(view) for view in views]
    others = {tuple(each for index, each in enumerate(view.dims) if index != dim) for view in views}
    if len(others) != 1 or any(view.dims[dim] != view.whole("c") for view in views):
        raise Unsupported(f"along dimension {call['dim']}, which is not the channels")
    name = walk.append(CONCAT, [view.tensor for view in views], Attributes(), call.layer)
    shape = (sum(view.shape[0] for view in views), *views[0].shape[1:])
    whole = View.of_map(name, shape)
    return whole.with_dims([whole.whole("c") if i == dim else each for i, each in enumerate(views[0].dims)])


def _is_empty(value: Value) -> bool:
    """A constant of no values, as encoders of packages have for a stage that they lack."""
    return isinstance(value, Tensor) and not value.numel()


def stacked(walk: Walk, call: Called) -> Value:
    return Stack(tuple(viewed(value) for value in call["tensors"]), call["dim"] % len(call.shape))


def _score_sizes(scores: Scores) -> tuple[int, int]:
    sizes = prod(scores.query.shape[1:]), prod(scores.key.shape[1:])
    return sizes[::-1] if scores.transposed else sizes
