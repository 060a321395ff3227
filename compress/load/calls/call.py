"""A call of a traced module, and the values that calls read and give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from compress.graph.operators.pool import PoolAttributes
from compress.load.axes import Part, View

if TYPE_CHECKING:
    from compress.load.walk import Walk


class Unsupported(Exception):
    """Why a call cannot be said in our operators: "with dilation"."""


@dataclass(frozen=True)
class Scores:
    """Products of every query with every key, [..., queries, keys], on their way to become an attention.

    query, key  [..., queries, inner] and [..., inner, keys]
    lead        the dimensions before, as those of the queries' map
    added       to the scaled products: [rows or 1, heads or 1, queries or 1, keys or 1] each
    over        as an attention has it: "nothing" until a softmax
    transposed  [..., keys, queries]
    flat        [..., queries * keys]
    shifted     less what is the same for all keys of a query, which a softmax alone takes away
    """

    query: View
    key: View
    lead: View
    scale: float = 1.0
    added: tuple[Tensor, ...] = ()
    over: str = "nothing"
    transposed: bool = False
    flat: bool = False
    shifted: bool = False

    @property
    def rank(self) -> int:
        return len(self.lead.dims) + (1 if self.flat else 2)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the last dimensions."""
        queries, keys = self.query.sizes[-2], self.key.sizes[-1]
        return (queries * keys,) if self.flat else (keys, queries) if self.transposed else (queries, keys)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of the dimensions before, in their order. Those of channels are heads, the others rows."""
        return tuple(part for dim in self.lead.dims for part in dim)


@dataclass(frozen=True)
class Largest:
    """Of each query's scores."""

    scores: Scores


@dataclass(frozen=True)
class Stack:
    """Several tensors along a new dimension."""

    views: tuple[View, ...]
    dim: int


@dataclass(frozen=True)
class Pooled:
    """Where the values of a max pooling were."""

    source: View
    pool: PoolAttributes


Value = Any
"""View, Scores, Largest, Pooled, Stack, a constant Tensor, or a tuple of these; None for what could not be said."""


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
        return shape_of(self.node)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Of what a call gives; of several results the first."""
    given = node.meta["val"]
    return tuple((given[0] if isinstance(given, tuple | list) else given).shape)


def same(walk: Walk, call: Called) -> Value:
    """What a call is of."""
    return walk.values[call.node.all_input_nodes[0]]


def viewed(value: Value) -> View:
    if not isinstance(value, View):
        raise Unsupported(
            "of attention scores" if isinstance(value, Scores | Largest) else "of several tensors or a constant"
        )
    return value
