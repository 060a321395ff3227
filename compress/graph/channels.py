"""Which channels must be cut together.

Convolutions make new channels, sums and products tie the channels of their inputs, a concat puts them side by side,
and so on, as each operator says itself. What remains is the dependency graph of Fang et al. 2023 (DepGraph, arXiv
2301.12900). Channels that are tied to parts of others are divided where those begin; what has heads or groups is cut in
whole groups, or by equally many channels in each head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import lcm
from typing import assert_never

from torch import Tensor

from compress.graph.network import Network, Node, is_depthwise
from compress.graph.operators.operator import Channels as From


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must be cut together: index c of every producer goes or stays with index c of the others.

    `block` consecutive channels go or stay together; of each of `parts` equal parts of the channels equally many stay.
    """

    name: str  # the first producer, and which of its channels if it is not all
    width: int
    producers: tuple[str, ...]  # convolutions whose output channels these are
    frozen: str = ""  # why it cannot be cut; empty if it can
    parts: int = 1
    block: int = 1

    @property
    def unit(self) -> int:
        """Its width is always a multiple of so many channels."""
        return self.parts * self.block


@dataclass(frozen=True)
class Channels:
    """`groups` by name, and for each tensor the names of the groups that its channels are, in order."""

    groups: Mapping[str, ChannelGroup]
    segments: Mapping[str, tuple[str, ...]]

    def whole(self) -> dict[str, tuple[int, ...]]:
        """Every channel of every group, as a plan that cuts nothing keeps them."""
        return {group.name: tuple(range(group.width)) for group in self.groups.values()}

    def widths(self) -> dict[str, int]:
        """Of all groups, uncut."""
        return {group.name: group.width for group in self.groups.values()}

    def prunable(self) -> list[ChannelGroup]:
        return [group for group in self.groups.values() if not group.frozen]

    def width(self, tensor: str, widths: Mapping[str, int]) -> int:
        """Channels of a tensor when the groups have these widths."""
        return sum(widths[group] for group in self.segments[tensor])

    def reads(self, node: Node, weight: Tensor, widths: Mapping[str, int]) -> int:
        """Input channels of each filter of a convolution when the groups have these widths."""
        (source,), groups = node.inputs, node.attrs.groups
        if groups > 1 and self.segments[source] == self.segments[node.name]:  # whole groups are cut
            return weight.shape[node.weights.inputs] // (groups if node.weights.transposed else 1)
        return self.width(source, widths) // groups

    def narrowed(self, kept: Mapping[str, tuple[int, ...]]) -> "Channels":
        """Those of the network that is cut to the channels `kept` of each group."""
        groups = {name: replace(group, width=len(kept[name])) for name, group in self.groups.items()}
        return Channels(groups, self.segments)


def find_groups(net: Network) -> Channels:
    """The channel groups of a network; those of its input and output are frozen."""
    ties = _Ties()
    segments: dict[str, list[str]] = {}
    for node in net.nodes:
        segments[node.name] = _segments(net, node, [segments[name] for name in node.inputs], ties)
    for run in ties.runs(segments[net.output]):
        ties.reason[run] = "class map"
    return ties.channels(segments)


def _segments(net: Network, node: Node, inputs: list[list[str]], ties: "_Ties") -> list[str]:
    """The groups that a node's channels are, in order, from those of its inputs'."""
    why = f"read by {node.name}, a {node.op}"
    match node.kind.channels:
        case From.IMAGE:
            return [ties.new(node.name, node.attrs.channels, frozen="input image")]
        case From.MAKES:
            return _made(net, node, inputs[0], ties)
        case From.TIES:
            widest = max(inputs, key=ties.count)
            ties.tie(*(part for part in inputs if ties.count(part) == ties.count(widest)))
            return widest  # one channel is spread over those of the other
        case From.JOINS:
            return [group for part in inputs for group in part]
        case From.PASSES | From.MIXES:
            return inputs[0]
        case From.ARRANGES:
            ties.freeze(inputs[0], why)
            return [ties.new(node.name, node.attrs.made, f"made by {node.name}, a {node.op}")]
        case From.GROUPS:
            if node.attrs.groups > 1:
                ties.in_blocks(inputs[0], ties.count(inputs[0]) // node.attrs.groups, why)
            return inputs[0]
        case From.SHARES:
            ties.freeze(inputs[0], why)
            return inputs[0]
        case From.ATTENDS:
            query, key, value = inputs
            ties.tie(query, key)
            for part in (query, value):
                ties.evenly(part, node.attrs.heads, why)
            return value
        case other:
            assert_never(other)


def _made(net: Network, node: Node, given: list[str], ties: "_Ties") -> list[str]:
    """Of a convolution in groups as wide as what they read, whole groups are cut; of another one equally many inputs,
    and equally many outputs, of each."""
    weight, groups = net.weight(node.name), node.attrs.groups
    if is_depthwise(node, weight):
        return given
    made = [ties.new(node.name, node.out_channels(weight))]
    if groups == 1:
        return made
    why = f"read by {node.name}, a grouped {node.op}"
    if ties.count(given) == ties.count(made):
        ties.tie(given, made)
        ties.in_blocks(given, ties.count(given) // groups, why)
    else:
        ties.evenly(given, groups, why)
        ties.evenly(made, groups, f"made by {node.name}, a grouped {node.op}")
    return made


class _Ties:
    """Union-find over runs of channels. One that is tied to parts of others is divided, with all that is tied to it."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}
        self.width: dict[str, int] = {}
        self.reason: dict[str, str] = {}
        self.parts: dict[str, int] = {}
        self.block: dict[str, int] = {}
        self.halves: dict[str, tuple[str, str]] = {}

    def new(self, name: str, width: int, frozen: str = "", block: int = 1) -> str:
        self.parent[name], self.width[name], self.reason[name] = name, width, frozen
        self.parts[name], self.block[name] = 1, block
        return name

    def root(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def runs(self, groups: list[str]) -> list[str]:
        """What they are by now, in order: roots, none of them divided."""
        found = []
        for root in map(self.root, groups):
            found += self.runs(list(self.halves[root])) if root in self.halves else [root]
        return found

    def count(self, groups: list[str]) -> int:
        """How many channels they are."""
        return sum(self.width[group] for group in groups)

    def tie(self, left: list[str], *others: list[str]) -> None:
        for right in others:
            while (apart := self._first_apart(left, right)) is not None:
                self._divide(*apart)
            for a, b in zip(self.runs(left), self.runs(right)):
                self._join(self.root(a), self.root(b))

    def _first_apart(self, left: list[str], right: list[str]) -> tuple[str, int] | None:
        """The first run that is wider than what it is tied to, and where it must be divided."""
        for a, b in zip(self.runs(left), self.runs(right)):
            if self.width[a] != self.width[b]:
                return max(a, b, key=self.width.__getitem__), min(self.width[a], self.width[b])
        return None

    def _divide(self, run: str, first: int) -> None:
        width, reason = self.width[run], self.reason[run]
        if self.parts[run] > 1:
            reason = reason or "cut evenly in heads or groups, and tied to parts of other channels"
        ends = ((0, first), (first, width))
        a, b = (self.new(f"{run}[{low}:{high}]", high - low, reason, self.block[run]) for low, high in ends)
        self.halves[run] = a, b

    def _join(self, a: str, b: str) -> None:
        if a == b:
            return
        self.parent[b] = a
        self.reason[a] = self.reason[a] or self.reason[b]
        self.parts[a], self.block[a] = lcm(self.parts[a], self.parts[b]), lcm(self.block[a], self.block[b])

    def in_blocks(self, groups: list[str], block: int, reason: str) -> None:
        """Whole blocks of them are cut, counted from the first channel of the first."""
        runs = self.runs(groups)
        if any(self.width[run] % block for run in runs):
            self.freeze(runs, reason)
        for run in runs:
            self.block[run] = lcm(self.block[run], block)

    def evenly(self, groups: list[str], parts: int, reason: str) -> None:
        """Equally many of each part of them are cut."""
        runs = self.runs(groups)
        if parts > 1 and len(runs) > 1:
            self.freeze(runs, reason)
        elif parts > 1:
            self.parts[runs[0]] = lcm(self.parts[runs[0]], parts)

    def freeze(self, groups: list[str], reason: str) -> None:
        for run in self.runs(groups):
            self.reason[run] = self.reason[run] or reason

    def channels(self, segments: Mapping[str, list[str]]) -> Channels:
        halves = {half for pair in self.halves.values() for half in pair}
        producers: dict[str, list[str]] = {}
        for name in self.parent:
            for run in self.runs([name]) if name not in halves else ():
                producers.setdefault(run, []).append(name)
        groups = {run: self._group(run, tuple(made)) for run, made in producers.items()}
        return Channels(groups, {tensor: tuple(self.runs(parts)) for tensor, parts in segments.items()})

    def _group(self, run: str, producers: tuple[str, ...]) -> ChannelGroup:
        width, parts, block = self.width[run], self.parts[run], self.block[run]
        reason = self.reason[run]
        if not reason and parts * block > 1 and (width % (parts * block) or width == parts * block):
            reason = "in heads or groups that cannot be narrower"
        return ChannelGroup(run, width, producers, reason, *((1, 1) if reason else (parts, block)))
