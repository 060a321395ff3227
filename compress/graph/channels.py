"""Which channels must be cut together.

Convolutions make new channels, sums and products tie the channels of their inputs, a concat puts them side by side,
and so on, as each operator says itself. What remains is the dependency graph of Fang et al. 2023 (DepGraph, arXiv
2301.12900).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from compress.graph.network import Network, Node, is_depthwise
from compress.graph.operators.operator import Channels as From


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must be cut together: index c of every producer goes or stays with index c of the others."""

    name: str  # the first producer
    width: int
    producers: tuple[str, ...]  # convolutions whose output channels these are
    frozen: str = ""  # why it cannot be cut; empty if it can


@dataclass(frozen=True)
class Channels:
    """`groups` by name, and for each tensor the names of the groups that its channels are, in order."""

    groups: Mapping[str, ChannelGroup]
    segments: Mapping[str, tuple[str, ...]]

    def prunable(self) -> list[ChannelGroup]:
        return [group for group in self.groups.values() if not group.frozen]

    def width(self, tensor: str, widths: Mapping[str, int]) -> int:
        """Channels of a tensor when the groups have these widths."""
        return sum(widths[group] for group in self.segments[tensor])


def find_groups(net: Network) -> Channels:
    """The channel groups of a network; those of its input and output are frozen."""
    ties = _Ties()
    segments: dict[str, list[str]] = {}
    for node in net.nodes:
        segments[node.name] = _segments(net, node, [segments[name] for name in node.inputs], ties)
    ties.freeze(segments[net.output], "class map")
    return ties.channels(segments)


def _segments(net: Network, node: Node, inputs: list[list[str]], ties: "_Ties") -> list[str]:
    """The groups that a node's channels are, in order, from those of its inputs'."""
    match node.kind.channels:
        case From.IMAGE:
            return [ties.new(node.name, 3, frozen="input image")]
        case From.MAKES:
            return _made(net, node, inputs[0], ties)
        case From.TIES:
            widest = max(inputs, key=ties.count)
            ties.tie(*(part for part in inputs if ties.count(part) == ties.count(widest)))
            return widest  # one channel is spread over those of the other
        case From.JOINS:
            return [group for part in inputs for group in part]
        case From.PASSES:
            return inputs[0]
        case From.ARRANGES:
            ties.freeze(inputs[0], f"read by {node.name}, a {node.op}")
            return [ties.new(node.name, node.attrs.made, f"made by {node.name}, a {node.op}")]
        case From.MIXES | From.ATTENDS:
            for part in inputs:
                ties.freeze(part, f"read by {node.name}, a {node.op}")
            return inputs[-1]
        case other:
            assert_never(other)


def _made(net: Network, node: Node, given: list[str], ties: "_Ties") -> list[str]:
    weight = net.weight(node.name)
    if is_depthwise(node, weight):
        return given
    reason = "grouped convolution" if node.attrs.groups > 1 else ""
    if reason:
        ties.freeze(given, reason)
    return [ties.new(node.name, node.out_channels(weight), reason)]


class _Ties:
    """Union-find over groups."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}
        self.width: dict[str, int] = {}
        self.reason: dict[str, str] = {}

    def new(self, name: str, width: int, frozen: str = "") -> str:
        self.parent[name], self.width[name], self.reason[name] = name, width, frozen
        return name

    def root(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def count(self, groups: list[str]) -> int:
        """How many channels they are."""
        return sum(self.width[group] for group in groups)

    def tie(self, left: list[str], *others: list[str]) -> None:
        for right in others:
            self._tie_two(left, right)

    def _tie_two(self, left: list[str], right: list[str]) -> None:
        if [self.width[g] for g in left] != [self.width[g] for g in right]:
            self.freeze(left + right, "added to channels that are divided otherwise")
            return
        for a, b in zip(map(self.root, left), map(self.root, right)):
            if a != b:
                self.parent[b] = a
                self.reason[a] = self.reason[a] or self.reason[b]

    def freeze(self, groups: list[str], reason: str) -> None:
        for group in groups:
            self.reason[self.root(group)] = self.reason[self.root(group)] or reason

    def channels(self, segments: Mapping[str, list[str]]) -> Channels:
        producers: dict[str, list[str]] = {}
        for name in self.parent:
            producers.setdefault(self.root(name), []).append(name)
        groups = {
            root: ChannelGroup(root, self.width[root], tuple(made), self.reason[root])
            for root, made in producers.items()
        }
        return Channels(groups, {tensor: tuple(map(self.root, parts)) for tensor, parts in segments.items()})
