"""Sums, products and means, with constants and with one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compress.graph.operators import OPERATORS
from compress.graph.operators.conv import CONV, POINTWISE
from compress.graph.operators.elementwise import ADD, MUL
from compress.graph.operators.operator import Attributes
from compress.graph.operators.pool import MEAN
from compress.load.axes import Part, View
from compress.load.calls.call import Called, Scores, Stack, Unsupported, Value, viewed
from compress.load.calls.dimensions import same

if TYPE_CHECKING:
    from compress.load.walk import Walk


def arithmetic(operator: str) -> Callable[[Walk, Called], Value]:
    def rule(walk: Walk, call: Called) -> Value:
        left, right = call["self"], call["other"]
        alpha = call.arguments.get("alpha", 1)
        if operator == "rsub":
            return _with_constant(walk, "sub", right, left, alpha, call.layer)
        if isinstance(left, View) and isinstance(right, View):
            return _of_two(walk, operator, left, right, alpha, call)
        return _with_constant(walk, operator, left, right, alpha, call.layer)

    return rule


def _of_two(walk: Walk, operator: str, left: View, right: View, alpha: float, call: Called) -> View:
    if operator not in OPERATORS or alpha != 1:
        raise Unsupported(f"with alpha {alpha}" if operator in OPERATORS else "of two tensors")
    return walk.joined(OPERATORS[operator], left, right, call.layer)


def _with_constant(walk: Walk, operator: str, left: Value, right: Value, alpha: float, layer: str) -> Value:
    """Of which one side is a number or a constant tensor: a factor and an offset for each channel."""
    value, constant = (right, left) if isinstance(left, int | float | Tensor) else (left, right)
    reverse = value is right
    if isinstance(value, Scores):
        return _scaled_scores(value, operator, constant, reverse)
    view = viewed(value)
    c = per_channel(constant, view)
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
    if bool((scale == 1).all()) and bool((shift == 0).all()):
        return view
    return walk.scaled(view, scale, shift, layer)


def _scaled_scores(scores: Scores, operator: str, constant: Any, reverse: bool) -> Scores:
    number = float(constant) if not isinstance(constant, Tensor) or constant.numel() == 1 else None
    if number is None or scores.softmax or operator not in ("mul", "div") or (operator == "div" and reverse):
        raise Unsupported("on attention scores")
    return replace(scores, scale=scores.scale * (number if operator == "mul" else 1 / number))


def per_channel(constant: Any, view: View) -> Tensor:
    """A number or a tensor that is broadcast to a view -> its value for each channel of the map, [C] float32."""
    given = torch.as_tensor(constant, dtype=torch.float32)
    rank = len(view.dims)
    if given.ndim > rank:
        if prod(given.shape[: given.ndim - rank]) != 1:
            raise Unsupported("with a constant of more dimensions")
        given = given.reshape(given.shape[given.ndim - rank :])
    given = given.reshape((1,) * (rank - given.ndim) + tuple(given.shape))
    parts: list[Part] = []
    for index, dim in enumerate(view.dims):
        channels = [part for part in dim if part.axis == "c"]
        if given.shape[index] > 1 and (len(channels) != len(dim) or not dim):
            raise Unsupported("with a constant that varies over the map")
        parts += channels
    sizes = [part.size for part in parts]
    wide = given.expand([prod(p.size for p in dim if p.axis == "c") for dim in view.dims]).reshape(sizes)
    order = sorted(range(len(parts)), key=lambda index: -parts[index].stride)
    return wide.permute(order).reshape(-1).contiguous() if parts else given.reshape(-1).expand(view.shape[0])


def powered(walk: Walk, call: Called) -> Value:
    if call["exponent"] != 2:
        raise Unsupported(f"to the power of {call['exponent']}")
    view = viewed(call["self"])
    return walk.joined(MUL, view, view, call.layer)


def negated(walk: Walk, call: Called) -> Value:
    view = viewed(call["self"])
    return walk.scaled(view, -torch.ones(view.shape[0]), torch.zeros(view.shape[0]), call.layer)


def reduced(times: Callable[[int], float]) -> Callable[[Walk, Called], Value]:
    """Mean over dimensions; `times`, a function of how many values, is what it is multiplied by."""

    def rule(walk: Walk, call: Called) -> Value:
        value, keep = same(walk, call), call["keepdim"]
        given = call["dim"]
        if isinstance(value, Stack):
            return _reduced_stack(walk, value, given, keep, times, call.layer)
        view = viewed(value)
        dims = {dim % len(view.dims) for dim in (range(len(view.dims)) if given is None else given)}
        parts = tuple(part for index in sorted(dims) for part in view.dims[index])
        count = prod(part.size for part in parts)
        if parts and set(parts) == set(view.whole("hw")):
            name = walk.append(MEAN, [view.tensor], Attributes(), call.layer)
            result = view.on(name, (view.shape[0], 1, 1))
        elif parts and parts == view.whole("c"):
            weights = torch.full((1, view.shape[0], 1, 1), 1 / view.shape[0]), torch.zeros(1)
            name = walk.append(CONV, [view.tensor], POINTWISE, call.layer, weights)
            result = view.on(name, (1, *view.shape[1:]))
        elif not parts:
            result = view
        else:
            raise Unsupported("over some of the dimensions of a map")
        if times(count) != 1:
            scale = torch.full((result.shape[0],), times(count))
            result = walk.scaled(result, scale, torch.zeros_like(scale), f"{call.layer}.times")
        if keep:
            return result
        return result.with_dims([dim for index, dim in enumerate(result.dims) if index not in dims])

    return rule


def _reduced_stack(
    walk: Walk, stack: Stack, dims: Sequence[int], keep: bool, times: Callable[[int], float], layer: str
) -> View:
    if keep or len(dims) != 1 or dims[0] % (len(stack.views[0].dims) + 1) != stack.dim:
        raise Unsupported("of stacked tensors")
    total = stack.views[0]
    for view in stack.views[1:]:
        total = walk.joined(ADD, total, view, layer)
    factor = times(len(stack.views)) / len(stack.views)
    if factor == 1:
        return total
    scale = torch.full((total.shape[0],), factor)
    return walk.scaled(total, scale, torch.zeros_like(scale), f"{layer}.times")
