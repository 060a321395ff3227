"""Scales of sums, moved a little so that no sum of two integers comes close to a half: runtimes add in float, each in
its own order, and would round such a sum one way or the other, which the layers after it carry on."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from compress.graph.network import Network
from compress.quantize.placement import Placement

FAR = 2.0**-14
"""Of a half, in steps: four float32 roundings of a value below 256 are closer than that."""
_FINEST = 2.0**-18
_TRIES = 256
"""Scales that are looked at: each is `_FINEST` of it further away than the last, 0.05 % at most."""
_LEVELS = np.arange(-128, 128)
_SIGNS = {"add": 1, "sub": -1}


class Steps(NamedTuple):
    """real = scale * (integer - zero_point), of int8 integers."""

    scale: np.float32
    zero_point: int


def off_halves(net: Network, placement: Placement, steps: Mapping[str, Steps]) -> dict[str, Steps]:
    """The steps of every group, where those of sums and differences are moved. A scale that is fixed stays, and so does
    one whose sums are far from every half, or cannot be brought further away."""
    found = dict(steps)
    for node in net.nodes:
        if node.op not in _SIGNS:
            continue
        fused = placement.fused.get(node.name)
        result = placement.group_of[fused.name if fused else node.name]
        given = [placement.group_of.get(name) for name in node.inputs]
        if result in placement.fixed or result in given or None in given:
            continue
        first, second = (found[group] for group in given if group)
        found[result] = _moved(first, second, found[result], _SIGNS[node.op])
    return found


def _moved(first: Steps, second: Steps, result: Steps, sign: int) -> Steps:
    best, furthest = result, 0.0
    for place in range(_TRIES):
        away = (place + 1) // 2 * (1 if place % 2 else -1)
        scale = np.float32(result.scale * (1 + away * _FINEST))
        candidate = Steps(scale, result.zero_point)
        distance = nearest_half(first, second, candidate, sign)
        if distance > furthest:
            best, furthest = candidate, distance
        if furthest >= FAR:
            break
    return best


def nearest_half(first: Steps, second: Steps, result: Steps, sign: int = 1) -> float:
    """How close any sum (`sign` -1: difference) that is not clipped comes to a half between two integers, in steps."""
    a, b = ((float(each.scale) / float(result.scale)) * (_LEVELS - each.zero_point) for each in (first, second))
    total = np.add.outer(a, sign * b) + result.zero_point
    inside = total[(total > _LEVELS[0] - 1) & (total < _LEVELS[-1] + 1)]
    return float(np.abs(inside - np.floor(inside) - 0.5).min(initial=0.5))
