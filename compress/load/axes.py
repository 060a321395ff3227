"""Tensors of any rank as views of maps.

A network of ours knows maps alone, [N, C, H, W]. What people's modules do in between (tokens, heads, permutations)
mostly moves no value: it only names the axes otherwise. So each tensor of a traced module is told as a view of a map:
which parts of which axes its dimensions are, in order. Reshapes and permutations rewrite the view, and vanish.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from compress.graph.operators.shape import ArrangeAttributes

Axis = Literal["c", "h", "w"]
AXES: tuple[Axis, ...] = ("c", "h", "w")


@dataclass(frozen=True)
class Part:
    """Part of an axis: its index there counts `stride` positions at each of `size` steps."""

    axis: Axis
    size: int
    stride: int = 1


Dim = tuple[Part, ...]
"""One dimension: the parts that it runs through, the last of them fastest. None: it has size 1."""


@dataclass(frozen=True)
class View:
    """`dims` of a tensor that holds the map of node `tensor`, whose [C, H, W] is `shape`. The batch is 1 in what is
    traced, so that no dimension is of it."""

    tensor: str
    shape: tuple[int, int, int]
    dims: tuple[Dim, ...]

    @classmethod
    def of_map(cls, tensor: str, shape: Sequence[int]) -> "View":
        """[1, C, H, W] as it is."""
        channels, height, width = shape[-3:]
        return cls(tensor, (channels, height, width), ((), *_whole((channels, height, width))))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(prod(part.size for part in dim) for dim in self.dims)

    @property
    def is_map(self) -> bool:
        return len(self.dims) == 4 and self.dims == View.of_map(self.tensor, self.shape).dims

    def whole(self, axes: str) -> Dim:
        """The dimension that runs through all of these axes, the last fastest."""
        by_axis = dict(zip("chw", _whole(self.shape)))
        return tuple(part for axis in axes for part in by_axis[axis])

    def with_dims(self, dims: Sequence[Dim]) -> "View":
        return replace(self, dims=tuple(map(_merged, dims)))

    def permuted(self, order: Sequence[int]) -> "View":
        return self.with_dims([self.dims[index] for index in order])

    def reshaped(self, sizes: Sequence[int]) -> "View | None":
        """The same values in the same order, in dimensions of these sizes; None where one would begin within a part
        that does not divide."""
        left = list(_merged(tuple(part for dim in self.dims for part in dim)))
        dims = []
        for size in sizes:
            dim: list[Part] = []
            while size > 1:
                if not left:
                    return None
                part = left.pop(0)
                if size % part.size:
                    if part.size % size:
                        return None
                    inner = part.size // size
                    left.insert(0, Part(part.axis, inner, part.stride))
                    part = Part(part.axis, size, part.stride * inner)
                dim.append(part)
                size //= part.size
            dims.append(tuple(dim))
        return None if left else self.with_dims(dims)

    def of_rank(self, rank: int) -> "View":
        """With dimensions of size 1 before its own, up to so many."""
        return self.with_dims([()] * (rank - len(self.dims)) + list(self.dims))

    def without(self, *indices: int) -> "View":
        """All dimensions but these."""
        return self.with_dims([dim for index, dim in enumerate(self.dims) if index not in indices])

    def parts(self, axis: Axis) -> tuple[Part, ...]:
        """All parts of an axis, in the order of the dimensions."""
        return tuple(part for dim in self.dims for part in dim if part.axis == axis)

    def in_turn(self, axis: Axis) -> list[Part]:
        """The same, those that count slower first."""
        return sorted(self.parts(axis), key=lambda part: -part.stride)

    def with_sizes(self, tensor: str, sizes: Mapping[Part, int]) -> "View":
        """The same dimensions of a map in which these parts of the channels have other sizes; what has 1 is none."""
        stride, now = 1, {}
        for part in reversed(self.in_turn("c")):
            size = sizes.get(part, part.size)
            now[part] = (Part("c", size, stride),) if size > 1 else ()
            stride *= size
        dims = [tuple(new for part in dim for new in now.get(part, (part,))) for dim in self.dims]
        return View(tensor, (stride, *self.shape[1:]), ()).with_dims(dims)

    @property
    def is_natural(self) -> bool:
        """Whether no axis is divided."""
        return all(len(_merged(self.parts(axis))) <= 1 for axis in AXES)

    def arranged(self, groups: Sequence[Sequence[int]]) -> "tuple[ArrangeAttributes, View]":
        """How the map becomes another, whose channels, height and width run each through these dimensions, all of them
        together, in order; and the same tensor as a view of that."""
        own = {axis: self.in_turn(axis) for axis in AXES}
        numbers = {part: index for index, part in enumerate(part for axis in AXES for part in own[axis])}
        order = tuple(tuple(numbers[part] for index in group for part in self.dims[index]) for group in groups)
        channels, height, width = (tuple(part.size for part in own[axis]) for axis in AXES)
        attributes = ArrangeAttributes(channels, height, width, order)
        dims: list[Dim] = [()] * len(self.dims)
        shape = []
        for axis, group in zip(AXES, groups):
            size = 1
            for index in reversed(group):
                if self.sizes[index] > 1:
                    dims[index] = (Part(axis, self.sizes[index], size),)
                size *= self.sizes[index]
            shape.append(size)
        return attributes, View.of_map(self.tensor, shape).with_dims(dims)

    def like(self, other: "View") -> "tuple[ArrangeAttributes, View] | None":
        """How the map becomes one of which the same tensor is told as `other` is of its own; None where it cannot.
        Dimensions of size 1 stay so."""
        rank = max(len(self.dims), len(other.dims))
        pairs: list[tuple[Part, Part]] = []
        dims: list[Dim] = []
        for ours, theirs in zip(self.of_rank(rank).dims, other.of_rank(rank).dims):
            together = _divided_alike(ours, theirs) if ours else []
            if together is None:
                return None
            pairs += together
            dims.append(tuple(part for _, part in together))
        in_turn = {axis: sorted((p for p in pairs if p[1].axis == axis), key=lambda p: -p[1].stride) for axis in AXES}
        shape = []
        for axis in AXES:
            size = 1
            for _, part in reversed(in_turn[axis]):
                if part.stride != size:
                    return None
                size *= part.size
            if in_turn[axis] and size != other.shape[AXES.index(axis)]:
                return None
            shape.append(size)
        source = replace(self, dims=tuple(tuple(ours for ours, _ in in_turn[axis]) for axis in AXES))
        attributes, _ = source.arranged(([0], [1], [2]))
        return attributes, View.of_map(self.tensor, shape).with_dims(dims)

    def on(self, tensor: str, shape: Sequence[int]) -> "View":
        """The same dimensions of another map, whose [C, H, W] may lack an axis of this one's (be 1 there)."""
        channels, height, width = shape[-3:]
        there = {axis for axis, size in zip(AXES, (channels, height, width)) if size > 1}
        dims = [tuple(part for part in dim if part.axis in there) for dim in self.dims]
        return View(tensor, (channels, height, width), tuple(dims))


def _whole(shape: tuple[int, int, int]) -> list[Dim]:
    return [(Part(axis, size),) if size > 1 else () for axis, size in zip(AXES, shape)]  # type: ignore[arg-type]


def _divided_alike(left: Dim, right: Dim) -> list[tuple[Part, Part]] | None:
    """Two ways to tell one dimension, in parts of equal sizes; None where they do not divide so."""
    pairs = []
    a, b = list(left), list(right)
    while a and b:
        one, other = a.pop(0), b.pop(0)
        size = min(one.size, other.size)
        for part, rest in ((one, a), (other, b)):
            if part.size % size:
                return None
            if part.size > size:
                rest.insert(0, Part(part.axis, part.size // size, part.stride))
        pairs.append((_outer(one, size), _outer(other, size)))
    return None if a or b else pairs


def _outer(part: Part, size: int) -> Part:
    """The first `size` steps of a part that is divided."""
    return Part(part.axis, size, part.stride * (part.size // size))


def _merged(dim: Dim) -> Dim:
    """With neighbours that count on within one axis as one part."""
    merged: list[Part] = []
    for part in dim:
        before = merged[-1] if merged else None
        if before and before.axis == part.axis and before.stride == part.size * part.stride:
            merged[-1] = Part(part.axis, before.size * part.size, part.stride)
        else:
            merged.append(part)
    return tuple(merged)


def broadcast(left: View, right: View) -> tuple[Dim, ...] | None:
    """The dimensions of what two views give element by element, such that their maps, broadcast as they are, are the
    same; None where they are not."""
    rank = max(len(left.dims), len(right.dims))
    a, b = (view.of_rank(rank).dims for view in (left, right))
    if any(x != y and x and y for x, y in zip(a, b)):
        return None
    for axis in AXES:
        ours, theirs = (tuple(part for dim in dims for part in dim if part.axis == axis) for dims in (a, b))
        if ours != theirs and ours and theirs:
            return None
    return tuple(x or y for x, y in zip(a, b))
