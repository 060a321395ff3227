"""Calls that name dimensions otherwise, or take or join parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from compress.graph.operators.conv import CONV, POINTWISE
from compress.graph.operators.elementwise import CONCAT
from compress.graph.operators.operator import Attributes, Pair
from compress.graph.operators.pool import MAX_POOL, PoolAttributes
from compress.graph.operators.resize import RESIZE, ResizeAttributes
from compress.graph.operators.shape import PAD, ROLL, PadAttributes, RollAttributes
from compress.load.axes import AXES, Axis, Dim, Part, View
from compress.load.calls.arithmetic import affine, over_map
from compress.load.calls.attention import permuted_scores, reshaped_scores
from compress.load.calls.call import Called, Largest, Scores, Stack, Unsupported, Value, same, viewed

if TYPE_CHECKING:
    from compress.load.walk import Walk


def dropped(walk: Walk, call: Called) -> Value:
    if call["train"] and call["p"] > 0:
        raise Unsupported("that is on in evaluation too")
    return same(walk, call)


def reshaped(walk: Walk, call: Called) -> Value:
    value = same(walk, call)
    if isinstance(value, Scores):
        return reshaped_scores(value, call.shape)
    if isinstance(value, Largest):
        return value
    view = viewed(value)
    result = view.reshaped(call.shape) or _in_a_row(walk, view).reshaped(call.shape)
    if result is None:  # one value stands for several
        raise Unsupported(f"from {tuple(view.sizes)} to {call.shape}")
    return result


def _in_a_row(walk: Walk, view: View) -> View:
    """Every value along the width of a map: what no axis that is left whole stands in the way of."""
    return walk.arranged(view, [], [], range(len(view.dims)))


def repeated(walk: Walk, call: Called) -> Value:
    """As often as there is nothing but the one value, it is broadcast where it is read."""
    view = viewed(same(walk, call)).of_rank(len(call["repeats"]))
    if any(times > 1 and size > 1 for times, size in zip(call["repeats"], view.sizes)):
        raise Unsupported("of more than one value")
    return view


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
    return permuted_scores(value, order) if isinstance(value, Scores) else viewed(value).permuted(order)


def expanded(walk: Walk, call: Called) -> Value:
    """What is read again and again along a dimension is broadcast where it is read."""
    value = same(walk, call)
    if isinstance(value, Largest):
        return value
    return viewed(value).of_rank(len(call.shape))


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
        return tuple(_part(walk, view, dim, i, i + 1).without(dim) for i in range(len(metas)))
    sizes = [tuple(meta.shape)[dim] for meta in metas]
    return tuple(_part(walk, view, dim, first, first + n) for first, n in zip(accumulate(sizes, initial=0), sizes))


def sliced(walk: Walk, call: Called) -> Value:
    view = viewed(same(walk, call))
    dim = call["dim"] % len(view.dims)
    size, count, step = view.sizes[dim], call.shape[dim], call.arguments.get("step", 1)
    start = call["start"] or 0
    start = max(start + size, 0) if start < 0 else start
    if step == 1:
        return _part(walk, view, dim, start, start + count)
    if view.dims[dim] == view.whole("c"):
        indices = tuple(range(start, start + (count - 1) * step + 1, step))
        return _with_size(view, walk.select(view.tensor, indices), dim, "c", count)
    end = size if (size - start - 1) // step + 1 == count else start + (count - 1) * step + 1
    view, axis = walk.with_axis(_part(walk, view, dim, start, end), dim)
    stride = (step, 1) if axis == "h" else (1, step)
    name = walk.append(MAX_POOL, [view.tensor], PoolAttributes((1, 1), stride), call.layer)
    return _with_size(view, name, dim, axis, count)


def _with_size(view: View, tensor: str, dim: int, axis: Axis, size: int) -> View:
    """The same dimensions of a map whose axis has another size: one of them is all of it."""
    shape = [size if one == axis else each for one, each in zip(AXES, view.shape)]
    own: Dim = (Part(axis, size),) if size > 1 else ()
    return View.of_map(tensor, shape).with_dims([own if i == dim else each for i, each in enumerate(view.dims)])


def selected(walk: Walk, call: Called) -> Value:
    value = same(walk, call)
    if isinstance(value, Stack):
        if call["dim"] % len(call.shape) != value.dim:
            raise Unsupported("of stacked tensors")
        return value.views[call["index"]]
    view = viewed(value)
    dim = call["dim"] % len(view.dims)
    index = call["index"] % max(view.sizes[dim], 1)
    return _part(walk, view, dim, index, index + 1).without(dim)


def _part(walk: Walk, view: View, dim: int, first: int, last: int) -> View:
    """A range of one dimension."""
    size = view.sizes[dim]
    if (first, last) == (0, size):
        return view
    each = prod(part.size for part in view.dims[dim][1:])
    if any(part.axis != "c" for part in view.dims[dim]) or first % each or last % each:
        return padded_along(walk, view, dim, (-first, last - size), f"{view.tensor}.crop")
    cut = view.dims[dim][0]
    first, last = first // each, last // each
    parts = view.in_turn("c")
    channels = torch.arange(view.shape[0]).reshape([part.size for part in parts])
    indices = channels.narrow(parts.index(cut), first, last - first).flatten().tolist()
    return view.with_sizes(walk.select(view.tensor, tuple(indices)), {cut: last - first})


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


def filled(walk: Walk, call: Called) -> Value:
    """What depends on a shape alone."""
    given, *others = call.node.args
    assert isinstance(given, fx.Node)
    return call.node.target(torch.empty(given.meta["val"].shape), *others, **call.node.kwargs)  # type: ignore[operator]


def getitem(walk: Walk, call: Called) -> Value:
    value = same(walk, call)[call.node.args[1]]
    if value is None:
        raise Unsupported("of where the largest values are")
    return value


def padded_along(walk: Walk, view: View, dim: int, amounts: Pair, layer: str) -> View:
    """Zeros before and after one dimension, or, below zero, what is cut off there."""
    view, axis = walk.with_axis(view, dim)
    ends = (amounts, (0, 0)) if axis == "h" else ((0, 0), amounts)
    name = walk.append(PAD, [view.tensor], PadAttributes(*ends), layer)
    return _with_size(view, name, dim, axis, view.sizes[dim] + sum(amounts))


def rolled(walk: Walk, call: Called) -> Value:
    view = viewed(call["self"])
    dims = call["dims"] or [0] * len(call["shifts"])
    for by, dim in zip(call["shifts"], dims, strict=True):
        view, axis = walk.with_axis(view, dim % len(view.dims))
        attributes = RollAttributes(by if axis == "h" else 0, by if axis == "w" else 0)
        view = view.on(walk.append(ROLL, [view.tensor], attributes, call.layer), view.shape)
    return view


def concat(walk: Walk, call: Called) -> Value:
    values = [value for value in call["tensors"] if not _is_empty(value)]
    dim = call["dim"] % len(call.shape)
    views = [_with_constants(walk, group, dim, call) for group in _by_view(values)]
    if len(views) == 1:
        return views[0]
    views = _alike(walk, views, dim, call.shape)
    name = walk.append(CONCAT, [view.tensor for view in views], Attributes(), call.layer)
    whole = View.of_map(name, (sum(view.shape[0] for view in views), *views[0].shape[1:]))
    return whole.with_dims([whole.whole("c") if i == dim else each for i, each in enumerate(views[0].dims)])


def _by_view(values: Sequence[Value]) -> list[list[Value]]:
    """What is joined, each tensor with the constants that stand after it, the first with those before it too."""
    groups: list[list[Value]] = [[]]
    for value in values:
        if not isinstance(value, Tensor) and any(not isinstance(each, Tensor) for each in groups[-1]):
            groups.append([])
        groups[-1].append(value)
    return groups


def _alike(walk: Walk, views: Sequence[View], dim: int, shape: Sequence[int]) -> list[View]:
    """The same tensors, whose dimension `dim` is their channels, and the others told alike."""
    views = [_spread(walk, view, views, dim, shape) for view in views]
    others = {tuple(each for index, each in enumerate(view.dims) if index != dim) for view in views}
    if len(others) == 1 and all(view.dims[dim] == view.whole("c") for view in views):
        return views
    if any(view.sizes[index] != size for view in views for index, size in enumerate(shape) if index != dim):
        raise Unsupported(f"along dimension {dim} of tensors that are not as large")
    return [walk.by_channels(view, dim) for view in views]


def _spread(walk: Walk, view: View, views: Sequence[View], dim: int, shape: Sequence[int]) -> View:
    """What is the same at every pixel, made as large as the others."""
    lacking = [index for index, size in enumerate(shape) if index != dim and view.sizes[index] != size]
    like = next((each for each in views if all(each.sizes[index] == shape[index] for index in lacking)), None)
    if not lacking or like is None or view.shape[1:] != (1, 1):
        return view
    if {part for index in lacking for part in like.dims[index]} != set(like.whole("hw")):
        return view
    size = like.shape[1:]
    name = walk.append(RESIZE, [view.tensor], ResizeAttributes("nearest", size), f"{view.tensor}.spread")
    dims = [like.dims[index] if index in lacking else each for index, each in enumerate(view.dims)]
    return View.of_map(name, (view.shape[0], *size)).with_dims(dims)


def _with_constants(walk: Walk, values: Sequence[Value], dim: int, call: Called) -> View:
    """One tensor between constants (a class token before the others, say): room for them, and what they are there."""
    place = next(index for index, value in enumerate(values) if not isinstance(value, Tensor))
    view = viewed(values[place])
    if len(values) == 1:
        return view
    sizes = [value.shape[dim] if isinstance(value, Tensor) else view.sizes[dim] for value in values]
    amounts = sum(sizes[:place]), sum(sizes[place + 1 :])
    constants = [
        value.float() if isinstance(value, Tensor) else torch.zeros([*call.shape[:dim], n, *call.shape[dim + 1 :]])
        for value, n in zip(values, sizes)
    ]
    if any(view.sizes[index] != size for index, size in enumerate(call.shape) if index != dim):
        raise Unsupported("of tensors that are not as large")
    if view.dims[dim] == view.whole("c"):
        weight = torch.nn.functional.pad(torch.eye(view.shape[0]), (0, 0, *amounts))
        name = walk.append(CONV, [view.tensor], POINTWISE, f"{call.layer}.room", (weight[:, :, None, None], None))
        wide = _with_size(view, name, dim, "c", len(weight))
    else:
        wide = padded_along(walk, view, dim, amounts, f"{call.layer}.room")
    offset = over_map(torch.cat(constants, dim), wide)
    return affine(walk, wide, torch.ones_like(offset), offset, call.layer)


def _is_empty(value: Value) -> bool:
    """A constant of no values, as encoders of packages have for a stage that they lack."""
    return isinstance(value, Tensor) and not value.numel()


def stacked(walk: Walk, call: Called) -> Value:
    return Stack(tuple(viewed(value) for value in call["tensors"]), call["dim"] % len(call.shape))
