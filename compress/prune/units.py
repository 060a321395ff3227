"""How many channels go at a time, and which of them go together."""

from collections.abc import Sequence
from math import lcm

from compress.graph.channels import ChannelGroup

STEP = 8
"""Widths are multiples of this: int8 kernels work in blocks of 8, a narrower layer saves no time."""


def step_of(group: ChannelGroup) -> int:
    """Widths of the group are multiples of this, where it has heads or groups not of 8 if that left but one width."""
    step = lcm(STEP, group.unit)
    return step if group.unit == 1 or step < group.width else group.unit


def next_width(width: int, step: int = STEP) -> int:
    """The next narrower multiple of `step`; 0 when there is none."""
    return (width - 1) // step * step


def in_units(group: ChannelGroup, order: Sequence[int], worth: Sequence[float]) -> tuple[int, ...]:
    """The channels in such an order that any whole number of units of them may stay.

    order  all channels, the first kept first
    worth  of each channel: blocks are ranked by the sum of theirs, within their part
    """
    if group.unit == 1:
        return tuple(order)
    blocks = [range(first, first + group.block) for first in range(0, group.width, group.block)]
    of_each = len(blocks) // group.parts
    ranked = [
        sorted(blocks[first : first + of_each], key=lambda block: -sum(worth[channel] for channel in block))
        for first in range(0, len(blocks), of_each)
    ]
    return tuple(channel for unit in zip(*ranked) for block in unit for channel in block)
