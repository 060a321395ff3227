"""Sums, products and means, with constants and with one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compress.graph.operators import OPERATORS
from compress.graph.operators.constant import packed
from compress.graph.operators.conv import CONV, POINTWISE
from compress.graph.operators.elementwise import ADD, LOCAL_AFFINE, MUL, LocalAttributes
from compress.graph.operators.operator import Attributes
from compress.graph.operators.pool import ADAPTIVE_POOL, MAX_POOL, MEAN, AdaptiveAttributes, PoolAttributes
from compress.graph.operators.shape import CHANNEL_MAX, OverChannelsAttributes
from compress.load.axes import AXES, Part, View
from compress.load.calls.attention import changed_scores, without_largest
from compress.load.calls.call import Called, Largest, Scores, Stack, Unsupported, Value, same, viewed

if TYPE_CHECKING:
    from compress.load.walk import Walk


def arithmetic(operator: str) -> Callable[[Walk, Called], Value]:
    def rule(walk: Walk, call: Called) -> Value:
        left, right = call["self"], call["other"]
        alpha = call.arguments.get("alpha", 1)
        if operator == "rsub":
            return _with_constant(walk, "sub", right, left, alpha, call.layer)
        if isinstance(left, Scores | Largest) and isinstance(right, Scores | Largest):
            return without_largest(left, right, operator)
        if isinstance(left, View) and isinstance(right, View):
            return _of_two(walk, operator, left, right, alpha, call)
        return _with_constant(walk, operator, left, right, alpha, call.layer)

    return rule


def _of_two(walk: Walk, operator: str, left: View, right: View, alpha: float, call: Called) -> View:
    if operator not in OPERATORS or alpha != 1:
        raise Unsupported(f"with alpha {alpha}" if operator in OPERATORS else "of two tensors")
    return walk.joined(OPERATORS[operator], left, right, call.layer)


def _with_constant(walk: Walk, operator: str, left: Value, right: Value, alpha: float, layer: str) -> Value:
    """Of which one side is a number or a constant tensor: a factor and an offset for each channel, or for each value of
    the map."""
    value, constant = (right, left) if isinstance(left, int | float | Tensor) else (left, right)
    reverse = value is right
    if isinstance(value, Scores | Largest):
        return changed_scores(value, operator, constant, reverse)
    view = viewed(value).of_rank(torch.as_tensor(constant).ndim)
    c = over_map(constant, view)
    one, nothing = torch.ones_like(c), torch.zeros_like(c)
    match operator, reverse:
        case "add", _:
            scale, shift = (one * alpha, c) if reverse else (one, c * alpha)
        case "sub", False:
            scale, shift = one, -c * alpha
        case "sub", True:
            scale, shift = -one * alpha, c
        case "mul", _:
            scale, shift = c, nothing
        case "div", False:
            scale, shift = 1 / c, nothing
        case _:
            raise Unsupported("of a constant by a tensor")
    return affine(walk, view, scale, shift, layer)


def affine(walk: Walk, view: View, scale: Tensor, shift: Tensor, layer: str) -> View:
    """scale * x + shift, both [C or 1, H or 1, W or 1]."""
    if bool((scale == 1).all()) and bool((shift == 0).all()):
        return view
    if scale.shape[1:] == (1, 1):
        channels = view.shape[0]
        return walk.scaled(view, scale.flatten().expand(channels), shift.flatten().expand(channels), layer)
    factor = "" if bool((scale == 1).all()) else packed(scale.numpy())
    offset = "" if bool((shift == 0).all()) else packed(shift.numpy())
    name = walk.append(LOCAL_AFFINE, [view.tensor], LocalAttributes(factor, offset), layer)
    return view.on(name, view.shape)


def over_map(constant: Any, view: View) -> Tensor:
    """A number or a tensor that is broadcast to a view -> its values for the map, [C or 1, H or 1, W or 1] float32."""
    given = torch.as_tensor(constant).detach().float()
    given = given.reshape((1,) * (len(view.dims) - given.ndim) + tuple(given.shape))
    sizes = []
    for size, dim in zip(given.shape, view.dims):
        if size > 1 and not dim:
            raise Unsupported("with a constant that is larger than it")
        sizes += [part.size if size > 1 else 1 for part in dim]
    parts = [part for dim in view.dims for part in dim]
    order = sorted(range(len(parts)), key=lambda index: (AXES.index(parts[index].axis), -parts[index].stride))
    apart = given.reshape(sizes).permute(order) if parts else given.reshape(())
    for place, index in enumerate(order):  # an axis along which it varies in part is spread
        if any(parts[other].axis == parts[index].axis and sizes[other] > 1 for other in order):
            apart = apart.expand([*apart.shape[:place], parts[index].size, *apart.shape[place + 1 :]])
    shape = [prod(apart.shape[place] for place, i in enumerate(order) if parts[i].axis == axis) for axis in AXES]
    return apart.reshape(shape).contiguous()


def powered(walk: Walk, call: Called) -> Value:
    if call["exponent"] != 2:
        raise Unsupported(f"to the power of {call['exponent']}")
    view = viewed(call["self"])
    return walk.joined(MUL, view, view, call.layer)


def negated(walk: Walk, call: Called) -> Value:
    view = viewed(call["self"])
    return _times(walk, view, -1.0, call.layer)


def reduced(times: Callable[[int], float]) -> Callable[[Walk, Called], Value]:
    """Mean over dimensions; `times`, a function of how many values, is what it is multiplied by."""

    def rule(walk: Walk, call: Called) -> Value:
        value, keep = same(walk, call), call["keepdim"]
        if isinstance(value, Stack):
            return _reduced_stack(walk, value, call["dim"], keep, times, call.layer)
        view = viewed(value)
        dims = _dims_of(call, len(view.dims))
        result = _mean(walk, view, dims, call.layer)
        factor = times(prod(view.sizes[index] for index in dims))
        result = _times(walk, result, factor, f"{call.layer}.times")
        return result if keep else result.without(*dims)

    return rule


def _times(walk: Walk, view: View, factor: float, layer: str) -> View:
    scale = torch.full((1, 1, 1), factor)
    return affine(walk, view, scale, torch.zeros_like(scale), layer)


def _dims_of(call: Called, rank: int) -> list[int]:
    given = call.arguments.get("dim")
    dims = range(rank) if given is None or given == [] else [given] if isinstance(given, int) else given
    return sorted(dim % rank for dim in dims)


def _mean(walk: Walk, view: View, dims: Sequence[int], layer: str) -> View:
    parts = tuple(part for index in dims for part in view.dims[index])
    channels, height, width = view.shape
    if not parts:
        return view
    if {part.axis for part in parts} == {"c"}:
        sums = _summing(view, parts) / prod(part.size for part in parts)
        name = walk.append(CONV, [view.tensor], POINTWISE, layer, (sums[:, :, None, None], None))
        return view.with_sizes(name, dict.fromkeys(parts, 1))
    if set(parts) == set(view.whole("hw")):
        return view.on(walk.append(MEAN, [view.tensor], Attributes(), layer), (channels, 1, 1))
    if set(parts) in (set(view.whole("h")), set(view.whole("w"))):
        bins = (1, width) if parts[0].axis == "h" else (height, 1)
        return view.on(walk.append(ADAPTIVE_POOL, [view.tensor], AdaptiveAttributes(bins), layer), (channels, *bins))
    return _mean(walk, _as_height(walk, view, dims), dims, layer)


def _as_height(walk: Walk, view: View, dims: Sequence[int]) -> View:
    """The same tensor, these dimensions along the height of a map, all others its channels."""
    kept = [index for index in range(len(view.dims)) if index not in dims]
    return walk.arranged(view, kept, dims, [])


def _summing(view: View, parts: Sequence[Part]) -> Tensor:
    """[kept, C]: 1 where a channel is summed into one of those that are left."""
    own = view.in_turn("c")
    sizes = [1 if part in parts else part.size for part in own]
    kept = torch.arange(prod(sizes)).reshape(sizes).expand([part.size for part in own]).flatten()
    return torch.nn.functional.one_hot(kept).T.float()


def largest(walk: Walk, call: Called) -> Value:
    """The maximum over dimensions, by any of its names; of scores, it is what softmax is not changed by."""
    value, keep = same(walk, call), call.arguments.get("keepdim", False)
    if isinstance(value, Scores):
        if not keep or _dims_of(call, value.rank) != [value.rank - 1 - value.transposed]:
            raise Unsupported("of attention scores")
        return Largest(value)
    view = viewed(value)
    dims = _dims_of(call, len(view.dims))
    result = _largest(walk, view, dims, call.layer)
    return result if keep else result.without(*dims)


def _largest(walk: Walk, view: View, dims: Sequence[int], layer: str) -> View:
    parts = tuple(part for index in dims for part in view.dims[index])
    channels, height, width = view.shape
    if not parts:
        return view
    if set(parts) == set(view.whole("c")):
        name = walk.append(CHANNEL_MAX, [view.tensor], OverChannelsAttributes(), layer)
        return view.on(name, (1, height, width))
    for axes in ("hw", "h", "w"):
        if set(parts) == set(view.whole(axes)):
            kernel = (height if "h" in axes else 1, width if "w" in axes else 1)
            name = walk.append(MAX_POOL, [view.tensor], PoolAttributes(kernel, kernel), layer)
            return view.on(name, (channels, height // kernel[0], width // kernel[1]))
    return _largest(walk, _as_height(walk, view, dims), dims, layer)


def _reduced_stack(
    walk: Walk, stack: Stack, dims: Sequence[int], keep: bool, times: Callable[[int], float], layer: str
) -> View:
    if keep or len(dims) != 1 or dims[0] % (len(stack.views[0].dims) + 1) != stack.dim:
        raise Unsupported("of stacked tensors")
    total = stack.views[0]
    for view in stack.views[1:]:
        total = walk.joined(ADD, total, view, layer)
    return _times(walk, total, times(len(stack.views)) / len(stack.views), f"{layer}.times")
