"""A call of a traced module, and the values that calls read and give."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from compress.load.axes import Part, View


class Unsupported(Exception):
    """Why a call cannot be said in our operators: "with dilation"."""


@dataclass(frozen=True)
class Scores:
    """Products of every query with every key, [..., queries, keys], on their way to become an attention.

    `heads`: the parts of the channels that stand before. `transposed`: [..., keys, queries]."""

    query: View
    key: View
    heads: tuple[Part, ...]
    rank: int
    scale: float = 1.0
    softmax: bool = False
    transposed: bool = False


@dataclass(frozen=True)
class Stack:
    """Several tensors along a new dimension."""

    views: tuple[View, ...]
    dim: int


Value = Any
"""View, Scores, Stack, a constant Tensor, or a tuple of these; None for what could not be said."""


@dataclass(frozen=True)
class Called:
    """A call: its arguments by name, those that are values of the walk as such, and the layer that it stands in."""

    node: fx.Node
    name: str
    arguments: Mapping[str, Any]
    layer: str

    def __getitem__(self, key: str) -> Any:
        return self.arguments[key]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return tuple(self.node.meta["val"].shape)


def viewed(value: Value) -> View:
    if not isinstance(value, View):
        raise Unsupported("of attention scores" if isinstance(value, Scores) else "of several tensors or a constant")
    return value
