"""An exported module, read call by call: the operators of ours that compute what it computes.

Every value of the module is a constant, which is computed here and now, or a `View` of a map. A call becomes an
operator of the table by what that says of itself (`Operator.aten`), or one of `CALLS`, where it speaks of several
operators, of constants, or of dimensions alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx

from compress.errors import ModelError
from compress.graph.network import Node, needed
from compress.graph.operators import OPERATORS
from compress.graph.operators.attention import ATTENTION, AttentionAttributes
from compress.graph.operators.conv import CONV, CONV_TRANSPOSE, ConvAttributes, ConvTransposeAttributes
from compress.graph.operators.elementwise import ADD, CONCAT, MUL
from compress.graph.operators.image import IMAGE, ImageAttributes
from compress.graph.operators.norm import (
    GROUP_NORM,
    INSTANCE_NORM,
    LAYER_NORM,
    GroupNormAttributes,
    NormAttributes,
)
from compress.graph.operators.operator import Attributes, Call, Channels, FromAten, Operator, pair
from compress.graph.operators.pool import MEAN
from compress.graph.operators.shape import PAD, PadAttributes
from compress.graph.operators.unary import LEAKY_RELU, RELU, SOFTMAX, UNARY, LeakyReluAttributes
from compress.load.axes import Part, View, broadcast
from compress.load.faithful import layer_of

POINTWISE = ConvAttributes()
"""Of a 1x1 convolution."""

NORMALISE = "normalise"
"""The node that makes of pixels what the module reads."""

NAMELESS = ("_tensor_constant", "lifted_tensor")

SINGLE_VALUES = {one.name for one in UNARY} - {SOFTMAX.name}
"""Operators that look at one value at a time, whatever the dimensions are called."""


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


class Walk:
    """Goes once through the exported graph, collecting the operators that an output needs.

    nodes, weights  of the network
    layers          by node of the exported graph, the node of the network that gives the same map
    unknown         what could not be said, one each: "layer: operator aten.foo.default with this"
    """

    def __init__(
        self, exported: torch.export.ExportedProgram, output: fx.Node, size: tuple[int, int], mean: Any, std: Any
    ):
        self.nodes = [Node("image", IMAGE.name, (), ImageAttributes(1 / 255, 0, size))]
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        self.unknown: list[str] = []
        self.selected: dict[tuple[str, tuple[int, ...]], str] = {}
        self.values: dict[fx.Node, Value] = {}  # what a node's value is now
        self.layers: dict[fx.Node, str] = {}
        self.output = output
        signature = exported.graph_signature
        self.paths = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        stored = {**exported.state_dict, **exported.constants}
        normalised = self.affine(NORMALISE, "image", 1 / torch.tensor(std), -torch.tensor(mean) / torch.tensor(std))
        for node in _needed(exported, output):
            if node.op == "placeholder":
                path = self.paths.get(node.name)
                self.values[node] = View.of_map(normalised, (3, *size)) if path is None else stored[path].detach()
            elif node.op == "call_function":
                self.values[node] = self._called(node)
                if _in_place(node):
                    self.values[node.all_input_nodes[0]] = self.values[node]
            value = self.values.get(node)
            if isinstance(value, View) and value.is_map:
                self.layers[node] = value.tensor

    def result(self) -> str:
        """The node that gives the output, after factors and offsets of channels (batch normalisation, say) have become
        part of the convolution that they alone read, or of all that read them. Raises ModelError where it is no map."""
        value = self.values[self.output]
        if isinstance(value, Tensor):
            raise ModelError("the deployed output is a constant of the model: it does not depend on the image")
        if not isinstance(value, View) or not value.is_map:
            raise ModelError("the deployed output is no map [1, classes, H, W]; set model.output in the recipe")
        self.nodes = list(needed(self.nodes, value.tensor))
        output = self._fold_into_what_is_read(value.tensor)
        self._fold_into_readers(output)
        return output

    def _fold_into_what_is_read(self, output: str) -> str:
        """The output's name then."""
        readers = Counter([output, *(name for node in self.nodes for name in node.inputs)])
        holder: dict[str, str] = {}  # by convolution, whose value it gives
        gone: set[str] = set()
        kept: list[Node] = []
        for node in self.nodes:
            renamed = {name: source for source, name in holder.items()}
            node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
            source = next((each for each in kept if each.name in node.inputs), None)
            read = source and holder.get(source.name, source.name)
            if source and read and readers[read] == 1 and source.kind.weights and self._is_affine(node):
                scale, shift = self.weights.pop(node.name)
                weight, bias = self.weights[source.name]
                scaled = source.scale_outputs(weight, scale.flatten())
                self.weights[source.name] = scaled, bias * scale.flatten() + shift
                holder[source.name] = node.name
                gone.add(read)
            else:
                kept.append(node)
        renamed = {name: source for source, name in holder.items()}
        self.nodes = kept
        self.layers = {node: renamed.get(name, name) for node, name in self.layers.items() if name not in gone}
        return renamed.get(output, output)

    def _fold_into_readers(self, output: str) -> None:
        """Those that are left, behind a norm say, where all that reads them are convolutions that pad nothing. What
        reads the image stays: how it is read is folded elsewhere."""
        for node in [each for each in self.nodes if each.name not in (NORMALISE, output) and self._is_affine(each)]:
            readers = [each for each in self.nodes if node.name in each.inputs]
            if not all(r.kind is CONV and r.attrs.groups == 1 and r.attrs.padding == (0, 0) for r in readers):
                continue
            scale, shift = self.weights.pop(node.name)
            for reader in readers:
                weight, bias = self.weights[reader.name]
                moved = (weight * shift.reshape(1, -1, 1, 1)).sum((1, 2, 3))
                self.weights[reader.name] = weight * scale.reshape(1, -1, 1, 1), bias + moved
            source = {node.name: node.inputs[0]}
            self.nodes = [
                replace(each, inputs=tuple(source.get(name, name) for name in each.inputs))
                for each in self.nodes
                if each is not node
            ]
            self.layers = {each: name for each, name in self.layers.items() if name != node.name}

    def _is_affine(self, node: Node) -> bool:
        if node.kind is not CONV:
            return False
        weight, groups = self.weights[node.name][0], node.attrs.groups
        return tuple(weight.shape) == (groups, 1, 1, 1) and node.attrs == ConvAttributes(groups=groups)

    def _called(self, node: fx.Node) -> Value:
        given = [self.values[each] for each in node.all_input_nodes]
        if any(_is_unknown(value) for value in given):
            return None
        if all(isinstance(value, Tensor) for value in given):
            return _computed(node, self.values)
        name = _name(node)
        try:
            if name in CALLS:
                return CALLS[name](self, Called(node, name, _arguments(node, self.values), layer_of(node)))
            return self._become(node, name)
        except Unsupported as why:
            self.unknown.append(f"{layer_of(node)}: operator {node.target}{f' {why}' if str(why) else ''}")
            return None

    def _become(self, node: fx.Node, name: str) -> View:
        """The operator of the table that says that the call is one of its own."""
        arguments = _arguments(node, self.values)
        shapes = {key: tuple(each.shape) if isinstance(each, Tensor) else each.sizes
                  for key, each in arguments.items() if isinstance(each, Tensor | View)}  # fmt: skip
        call = Call(arguments, shapes, tuple(node.meta["val"].shape))
        why = ""
        for operator, rule in FROM_ATEN.get(name, ()):
            attributes = rule(call)
            if not isinstance(attributes, str):
                return self._appended(node, operator, attributes, arguments)
            why = attributes
        raise Unsupported(why)

    def _appended(self, node: fx.Node, operator: Operator, attributes: Attributes, a: Mapping[str, Any]) -> View:
        views = [value for value in a.values() if isinstance(value, View)]
        if len(views) != operator.inputs:
            raise Unsupported("with a constant")
        if operator.inputs == 2:
            return self.joined(operator, views[0], views[1], layer_of(node))
        (view,) = views
        if operator.name in SINGLE_VALUES:
            return view.on(self.append(operator, [view.tensor], attributes, layer_of(node)), view.shape)
        source = self.map_of(view)
        if not operator.weights:
            name = self.append(operator, [source], attributes, layer_of(node))
            return View.of_map(name, node.meta["val"].shape)
        weight = a["weight"].float()
        outputs = operator.weights.out_channels(weight.shape, attributes.groups)  # type: ignore[attr-defined]
        bias = torch.zeros(outputs) if a["bias"] is None else a["bias"].float()
        name = self.append(operator, [source], attributes, self.layer_of(node), (weight, bias))
        return View.of_map(name, node.meta["val"].shape)

    def layer_of(self, node: fx.Node) -> str:
        """The layer whose weight a call reads, where that has a name of its own."""
        given = next((each for each in node.all_input_nodes[1:] if each.name in self.paths), None)
        path = self.paths[given.name] if given is not None else ""
        return path.removesuffix(".weight") if path and not path.startswith(NAMELESS) else layer_of(node)

    def append(
        self,
        operator: Operator,
        inputs: Sequence[str],
        attributes: Attributes,
        layer: str,
        weights: tuple[Tensor, Tensor] | None = None,
    ) -> str:
        """The name of a new node."""
        taken = {node.name for node in self.nodes}
        name = next(n for i in range(len(taken) + 1) if (n := f"{layer}_{i}" if i else layer) not in taken)
        self.nodes.append(Node(name, operator.name, tuple(inputs), attributes))
        if weights:
            self.weights[name] = weights
        return name

    def affine(self, layer: str, source: str, scale: Tensor, shift: Tensor) -> str:
        """y = scale * x + shift for each channel, [C] each, as a depthwise 1x1 convolution."""
        weights = scale.float().reshape(-1, 1, 1, 1), shift.float()
        return self.append(CONV, [source], ConvAttributes(groups=len(scale)), layer, weights)

    def scaled(self, view: View, scale: Tensor, shift: Tensor, layer: str) -> View:
        return view.on(self.affine(layer, view.tensor, scale, shift), view.shape)

    def linear(self, view: View, weight: Tensor, bias: Tensor | None, layer: str) -> View:
        """Of the last dimension, [O, I] and [O]: a 1x1 convolution, if that dimension is all channels."""
        if view.dims[-1] != view.whole("c"):
            raise Unsupported("of a dimension that is not the channels of a map")
        weights = weight.float()[:, :, None, None], torch.zeros(len(weight)) if bias is None else bias.float()
        shape = (len(weight), *view.shape[1:])
        result = View.of_map(self.append(CONV, [view.tensor], POINTWISE, layer, weights), shape)
        return result.with_dims([*view.dims[:-1], result.whole("c")])

    def joined(self, operator: Operator, left: View, right: View, layer: str) -> View:
        """Two tensors, element by element."""
        dims = broadcast(left, right)
        if dims is None:
            raise Unsupported("of tensors whose dimensions are told otherwise")
        shape = tuple(max(a, b) for a, b in zip(left.shape, right.shape))
        name = self.append(operator, [left.tensor, right.tensor], Attributes(), layer)
        return replace(left, tensor=name, shape=shape, dims=dims)  # type: ignore[arg-type]

    def as_map(self, value: Value) -> View:
        view = _viewed(value)
        return View.of_map(self.map_of(view), view.shape)

    def map_of(self, view: View) -> str:
        """The map that a tensor is, its channels in another order where they are."""
        if view.is_map:
            return view.tensor
        whole = View.of_map(view.tensor, view.shape).dims
        if len(view.dims) != 4 or any(view.dims[index] != whole[index] for index in (0, 2, 3)):
            raise Unsupported("of a tensor that is no map [N, C, H, W]")
        order = torch.zeros(1, dtype=torch.long)
        for part in view.dims[1]:
            order = (order[:, None] + torch.arange(part.size) * part.stride).flatten()
        return self.select(view.tensor, tuple(order.tolist()))

    def select(self, tensor: str, indices: tuple[int, ...]) -> str:
        """Some channels of a map, in that order: the operators before it, as far as they go channel by channel, made
        for these channels alone."""
        key = tensor, indices
        if key not in self.selected:
            self.selected[key] = self._select(tensor, indices)
        return self.selected[key]

    def _select(self, tensor: str, indices: tuple[int, ...]) -> str:
        node = next(each for each in self.nodes if each.name == tensor)
        kind, layer, chosen = node.kind, f"{tensor}.{indices[0]}", list(indices)
        if tensor == NORMALISE:  # stays what reads the image
            return self._picked_by_convolution(tensor, chosen)
        if kind.weights and node.attrs.groups == 1:
            weight, bias = self.weights[tensor]
            part = weight.index_select(kind.weights.outputs, torch.tensor(chosen))
            return self.append(kind, node.inputs, node.attrs, layer, (part, bias[chosen]))
        if kind.weights and kind is CONV and len(self.weights[tensor][0]) == node.attrs.groups:
            weight, bias = self.weights[tensor]
            source = self.select(node.inputs[0], indices)
            attrs = replace(node.attrs, groups=len(chosen))
            return self.append(kind, [source], attrs, layer, (weight[chosen], bias[chosen]))
        if kind.channels is Channels.PASSES and kind is not SOFTMAX:
            return self.append(kind, [self.select(node.inputs[0], indices)], node.attrs, layer)
        if kind.channels is Channels.TIES:
            sources = [self.select(each, indices) if self.channels(each) > 1 else each for each in node.inputs]
            return self.append(kind, sources, node.attrs, layer)
        if kind is CONCAT and (parts := self._parts_of(node, indices)):
            sources = [self.select(name, part) for name, part in parts]
            return sources[0] if len(sources) == 1 else self.append(CONCAT, sources, Attributes(), layer)
        return self._picked_by_convolution(tensor, chosen)

    def _picked_by_convolution(self, tensor: str, chosen: list[int]) -> str:
        one_hot = torch.eye(self.channels(tensor))[chosen][:, :, None, None]
        return self.append(CONV, [tensor], POINTWISE, f"{tensor}.picked", (one_hot, torch.zeros(len(chosen))))

    def _parts_of(self, node: Node, indices: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
        """Of a concat's inputs, each with its channels among these; empty where one's are not beside each other."""
        parts: list[tuple[str, tuple[int, ...]]] = []
        first = 0
        for name in node.inputs:
            last = first + self.channels(name)
            part = tuple(index - first for index in indices if first <= index < last)
            if part:
                parts.append((name, part))
            first = last
        starts = dict(zip(node.inputs, _running([self.channels(name) for name in node.inputs])))
        return parts if [starts[name] + i for name, part in parts for i in part] == list(indices) else []

    def channels(self, tensor: str) -> int:
        node = next(each for each in self.nodes if each.name == tensor)
        if node.op == IMAGE.name:
            return 3
        if node.kind.weights:
            return node.out_channels(self.weights[tensor][0])
        counts = [self.channels(name) for name in node.inputs]
        return sum(counts) if node.kind is CONCAT else counts[-1] if node.kind is ATTENTION else max(counts)


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


# --- what calls become ------------------------------------------------------------------------------------------------


def _same(walk: Walk, call: Called) -> Value:
    return walk.values[call.node.all_input_nodes[0]]


def _dropped(walk: Walk, call: Called) -> Value:
    if call["train"] and call["p"] > 0:
        raise Unsupported("that is on in evaluation too")
    return _same(walk, call)


def _reshaped(walk: Walk, call: Called) -> Value:
    value = _same(walk, call)
    if isinstance(value, Scores):
        if call.shape[-2:] != _score_sizes(value):
            raise Unsupported("of attention scores")
        return replace(value, rank=len(call.shape))
    view = _viewed(value)
    result = view.reshaped(call.shape)
    if result is None:
        raise Unsupported(f"from {tuple(view.sizes)} to {call.shape}, which divides an axis unevenly")
    return result


def _permuted(walk: Walk, call: Called) -> Value:
    value = _same(walk, call)
    rank = value.rank if isinstance(value, Scores) else len(_viewed(value).dims)
    order = list(range(rank))
    if "dims" in call.arguments:
        order = [dim % rank for dim in call["dims"]]
    else:
        ends = (call["dim0"], call["dim1"]) if "dim0" in call.arguments else (0, 1)
        a, b = (dim % rank for dim in ends)
        order[a], order[b] = order[b], order[a]
    if not isinstance(value, Scores):
        return _viewed(value).permuted(order)
    if order == list(range(rank)):
        return value
    if order != [*range(rank - 2), rank - 1, rank - 2]:
        raise Unsupported("of attention scores")
    return replace(value, transposed=not value.transposed)


def _expanded(walk: Walk, call: Called) -> Value:
    """What is read again and again along a dimension is broadcast where it is read."""
    view = _viewed(_same(walk, call))
    return view.with_dims([()] * (len(call.shape) - len(view.dims)) + list(view.dims))


def _pieces(walk: Walk, call: Called) -> Value:
    """Several ranges along one dimension."""
    value = _same(walk, call)
    dim = call.arguments.get("dim", 0)
    metas = call.node.meta["val"]
    if isinstance(value, Stack) and call.name.startswith("unbind"):
        return value.views
    view = _viewed(value)
    dim %= len(view.dims)
    if call.name.startswith("unbind"):
        return tuple(_without(_part(walk, view, dim, i, i + 1), dim) for i in range(len(metas)))
    sizes = [tuple(meta.shape)[dim] for meta in metas]
    return tuple(_part(walk, view, dim, first, first + n) for first, n in zip(_running(sizes), sizes))


def _slice(walk: Walk, call: Called) -> Value:
    view = _viewed(_same(walk, call))
    dim = call["dim"] % len(view.dims)
    size = view.sizes[dim]
    if call.arguments.get("step", 1) != 1:
        raise Unsupported("in steps")
    start = call["start"] or 0
    start = max(start + size, 0) if start < 0 else start
    return _part(walk, view, dim, start, start + call.shape[dim])


def _selected(walk: Walk, call: Called) -> Value:
    value = _same(walk, call)
    if isinstance(value, Stack):
        if call["dim"] % len(call.shape) != value.dim:
            raise Unsupported("of stacked tensors")
        return value.views[call["index"]]
    view = _viewed(value)
    dim = call["dim"] % len(view.dims)
    index = call["index"] % max(view.sizes[dim], 1)
    return _without(_part(walk, view, dim, index, index + 1), dim)


def _without(view: View, dim: int) -> View:
    return view.with_dims([each for index, each in enumerate(view.dims) if index != dim])


def _part(walk: Walk, view: View, dim: int, first: int, last: int) -> View:
    """A range of one dimension."""
    size = view.sizes[dim]
    if (first, last) == (0, size):
        return view
    if view.is_map and dim in (2, 3):
        amounts = [(0, 0), (0, 0)]
        amounts[dim - 2] = (-first, last - size)
        name = walk.append(PAD, [view.tensor], PadAttributes(*amounts), f"{view.tensor}.crop")
        shape = [*view.shape]
        shape[dim - 1] = last - first
        return View.of_map(name, shape)
    cut, *faster = view.dims[dim]
    each = prod(part.size for part in faster)
    if any(part.axis != "c" for part in view.dims[dim]) or first % each or last % each:
        raise Unsupported("of a range that is not of channels")
    first, last = first // each, last // each
    parts = sorted(view.parts("c"), key=lambda part: -part.stride)
    channels = torch.arange(view.shape[0]).reshape([part.size for part in parts])
    place = parts.index(cut)
    indices = channels.narrow(place, first, last - first).flatten().tolist()
    sizes = [last - first if part is cut else part.size for part in parts]
    strides = [prod(sizes[index + 1 :]) for index in range(len(sizes))]
    renamed = {
        part: () if size == 1 else (Part("c", size, stride),)
        for part, size, stride in zip(parts, sizes, strides, strict=True)
    }
    name = walk.select(view.tensor, tuple(indices))
    dims = [tuple(new for part in each for new in renamed.get(part, (part,))) for each in view.dims]
    return View(name, (len(indices), *view.shape[1:]), ()).with_dims(dims)


def _picked(walk: Walk, call: Called) -> Value:
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


def _getitem(walk: Walk, call: Called) -> Value:
    return _same(walk, call)[call.node.args[1]]


def _concat(walk: Walk, call: Called) -> Value:
    views = [_viewed(value) for value in call["tensors"] if not _is_empty(value)]
    dim = call["dim"] % len(views[0].dims)
    if len(views) == 1:
        return views[0]
    others = {tuple(each for index, each in enumerate(view.dims) if index != dim) for view in views}
    if len(others) != 1 or any(view.dims[dim] != view.whole("c") for view in views):
        raise Unsupported(f"along dimension {call['dim']}, which is not the channels")
    name = walk.append(CONCAT, [view.tensor for view in views], Attributes(), call.layer)
    shape = (sum(view.shape[0] for view in views), *views[0].shape[1:])
    whole = View.of_map(name, shape)
    return whole.with_dims([whole.whole("c") if i == dim else each for i, each in enumerate(views[0].dims)])


def _is_empty(value: Value) -> bool:
    """A constant of no values, as encoders of packages have for a stage that they lack."""
    return isinstance(value, Tensor) and not value.numel()


def _stacked(walk: Walk, call: Called) -> Value:
    return Stack(tuple(_viewed(value) for value in call["tensors"]), call["dim"] % len(call.shape))


def _arithmetic(operator: str) -> Callable[[Walk, Called], Value]:
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
    view = _viewed(value)
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


def _powered(walk: Walk, call: Called) -> Value:
    if call["exponent"] != 2:
        raise Unsupported(f"to the power of {call['exponent']}")
    view = _viewed(call["self"])
    return walk.joined(MUL, view, view, call.layer)


def _negated(walk: Walk, call: Called) -> Value:
    view = _viewed(call["self"])
    return walk.scaled(view, -torch.ones(view.shape[0]), torch.zeros(view.shape[0]), call.layer)


def _batch_norm(walk: Walk, call: Called) -> Value:
    if call["running_mean"] is None or call["training"]:
        layer = call.layer.removesuffix(f".{call.node.name}")
        raise ModelError(
            f"{layer}: batch normalisation without running statistics is not supported: it would take them from "
            "each image; train it with track_running_stats"
        )
    view = _viewed(call["input"])
    if len(view.dims) < 2 or view.dims[1] != view.whole("c"):
        raise Unsupported("of a dimension that is not the channels of a map")
    scale = 1 / torch.sqrt(call["running_var"] + call["eps"])
    scale = scale * call["weight"] if call["weight"] is not None else scale
    shift = -call["running_mean"] * scale
    return walk.scaled(view, scale, shift if call["bias"] is None else shift + call["bias"], call.layer)


def _normed(walk: Walk, call: Called, operator: Operator, attributes: NormAttributes, view: View) -> View:
    """A norm, and its factors and offsets."""
    result = view.on(walk.append(operator, [view.tensor], attributes, call.layer), view.shape)
    weight, bias = call["weight"], call["bias"]
    if weight is None and bias is None:
        return result
    channels = view.shape[0]
    scale = torch.ones(channels) if weight is None else weight.flatten()
    shift = torch.zeros(channels) if bias is None else bias.flatten()
    if len(scale) != channels:
        raise Unsupported("with a factor that varies over the map")
    return walk.scaled(result, scale, shift, f"{call.layer}.affine")


def _instance_norm(walk: Walk, call: Called) -> Value:
    if not call["use_input_stats"]:
        raise Unsupported("with running statistics")
    view = walk.as_map(call["input"])
    return _normed(walk, call, INSTANCE_NORM, NormAttributes(float(call["eps"])), view)


def _group_norm(walk: Walk, call: Called) -> Value:
    view = walk.as_map(call["input"])
    groups = call["num_groups"]
    if groups == view.shape[0]:
        return _normed(walk, call, INSTANCE_NORM, NormAttributes(float(call["eps"])), view)
    return _normed(walk, call, GROUP_NORM, GroupNormAttributes(float(call["eps"]), groups), view)


def _layer_norm(walk: Walk, call: Called) -> Value:
    view = _viewed(call["input"])
    if len(call["normalized_shape"]) != 1 or view.dims[-1] != view.whole("c"):
        raise Unsupported("over more than the channels")
    return _normed(walk, call, LAYER_NORM, NormAttributes(float(call["eps"])), view)


def _prelu(walk: Walk, call: Called) -> Value:
    """One slope is a leaky ReLU; one for each channel is max(0, x) - slope * max(0, -x)."""
    view, slopes = _viewed(call["self"]), call["weight"].float()
    if slopes.numel() == 1:
        attributes = LeakyReluAttributes(float(slopes))
        return view.on(walk.append(LEAKY_RELU, [view.tensor], attributes, call.layer), view.shape)
    if len(view.dims) < 2 or view.dims[1] != view.whole("c"):
        raise Unsupported("of a dimension that is not the channels of a map")
    nothing = torch.zeros_like(slopes)
    above = walk.append(RELU, [view.tensor], Attributes(), call.layer)
    turned = walk.affine(f"{call.layer}.turned", view.tensor, -torch.ones_like(slopes), nothing)
    below = walk.append(RELU, [turned], Attributes(), f"{call.layer}.below")
    sloped = walk.affine(f"{call.layer}.slope", below, -slopes, nothing)
    return view.on(walk.append(ADD, [above, sloped], Attributes(), f"{call.layer}.sum"), view.shape)


def _reduced(times: Callable[[int], float]) -> Callable[[Walk, Called], Value]:
    """Mean over dimensions; `times`, a function of how many values, is what it is multiplied by."""

    def rule(walk: Walk, call: Called) -> Value:
        value, keep = _same(walk, call), call["keepdim"]
        given = call["dim"]
        if isinstance(value, Stack):
            return _reduced_stack(walk, value, given, keep, times, call.layer)
        view = _viewed(value)
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


def _softmax(walk: Walk, call: Called) -> Value:
    value = call["self"]
    if isinstance(value, Scores):
        if call["dim"] % value.rank != value.rank - 1 - value.transposed or value.softmax:
            raise Unsupported("of attention scores over queries")
        return replace(value, softmax=True)
    view = _viewed(value)
    if view.dims[call["dim"]] != view.whole("c"):
        raise Unsupported(f"along dimension {call['dim']}, which is not the channels")
    return view.on(walk.append(SOFTMAX, [view.tensor], Attributes(), call.layer), view.shape)


def _linear(walk: Walk, call: Called) -> Value:
    weight = call["weight"]
    if not isinstance(weight, Tensor):
        raise Unsupported("with a weight that is no constant")
    return walk.linear(_viewed(call["input"]), weight, call["bias"], walk.layer_of(call.node))


def _convolution(walk: Walk, call: Called) -> Value:
    """As scripted and lowered modules say it, transposed or not."""
    source, weight = walk.map_of(_viewed(call["input"])), call["weight"]
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        raise Unsupported("with a weight that is no constant of two dimensions")
    stride, padding, dilation, extra = (pair(call[key]) for key in ("stride", "padding", "dilation", "output_padding"))
    operator, attributes = CONV, ConvAttributes(stride, dilation, call["groups"], padding)
    if call["transposed"]:
        operator, attributes = CONV_TRANSPOSE, ConvTransposeAttributes(stride, dilation, call["groups"], padding, extra)
    outputs = operator.weights.out_channels(weight.shape, call["groups"]) if operator.weights else 0
    bias = torch.zeros(outputs) if call["bias"] is None else call["bias"].float()
    name = walk.append(operator, [source], attributes, walk.layer_of(call.node), (weight.float(), bias))
    return View.of_map(name, call.shape)


def _product(walk: Walk, call: Called) -> Value:
    left, right = (walk.values[node] for node in call.node.all_input_nodes[:2])
    if isinstance(right, Tensor) and right.ndim == 2:
        return walk.linear(_viewed(left), right.T, None, call.layer)
    if isinstance(left, Scores):
        return _attended(walk, left, _viewed(right), call.layer, values_first=False)
    if isinstance(right, Scores):
        return _attended(walk, right, _viewed(left), call.layer, values_first=True)
    query, key = _viewed(left), _viewed(right)
    tokens = query.dims[-2] == query.whole("hw") and key.dims[-1] == key.whole("hw")
    heads = _heads(query, query.dims[:-2], query.dims[-1])
    if not tokens or heads is None or _sizes(heads) != _sizes(_heads(key, key.dims[:-2], key.dims[-2])):
        raise Unsupported("of tensors that are not queries and keys of whole maps")
    return Scores(query, key, heads, len(query.dims))


def _heads(view: View, lead: Sequence[tuple[Part, ...]], last: tuple[Part, ...]) -> tuple[Part, ...] | None:
    """The parts of the channels in the leading dimensions, where the last one holds all others and counts fastest."""
    parts = tuple(part for dim in lead for part in dim)
    return parts if View("", view.shape, ()).with_dims([(*parts, *last)]).dims == (view.whole("c"),) else None


def _sizes(parts: tuple[Part, ...] | None) -> tuple[int, ...] | None:
    return None if parts is None else tuple(part.size for part in parts)


def _score_sizes(scores: Scores) -> tuple[int, int]:
    sizes = prod(scores.query.shape[1:]), prod(scores.key.shape[1:])
    return sizes[::-1] if scores.transposed else sizes


def _attended(walk: Walk, scores: Scores, value: View, layer: str, values_first: bool) -> View:
    """softmax(scores) @ value, or value @ softmax(scores) transposed."""
    tokens, channels = (value.dims[-1], value.dims[-2]) if values_first else (value.dims[-2], value.dims[-1])
    heads = _heads(value, value.dims[:-2], channels)
    fits = tokens == value.whole("hw") and value.shape[1:] == scores.key.shape[1:]
    if not scores.softmax or scores.transposed != values_first or not fits:
        raise Unsupported("that is no attention of a map's pixels: softmax(queries @ keys) @ values")
    if heads is None or _sizes(heads) != _sizes(scores.heads):
        raise Unsupported("of values in other heads")
    count = prod(part.size for part in heads)
    attributes = AttentionAttributes(count, scores.scale, prod(value.shape[1:]))
    name = walk.append(
        ATTENTION, [scores.query.tensor, scores.key.tensor, value.tensor], attributes, f"{layer}.attention"
    )
    result = View.of_map(name, (value.shape[0], *scores.query.shape[1:]))
    ends = [channels, result.whole("hw")] if values_first else [result.whole("hw"), channels]
    return result.with_dims([*value.dims[:-2], *ends])


def _dot_product_attention(walk: Walk, call: Called) -> Value:
    query, key, value = (_viewed(call[name]) for name in ("query", "key", "value"))
    if call["attn_mask"] is not None or call["is_causal"]:
        raise Unsupported("with a mask")
    heads = _heads(query, query.dims[:-2], query.dims[-1])
    turned = key.permuted([*range(len(key.dims) - 2), len(key.dims) - 1, len(key.dims) - 2])
    tokens = query.dims[-2] == query.whole("hw") and turned.dims[-1] == key.whole("hw")
    if not tokens or heads is None or _sizes(heads) != _sizes(_heads(key, key.dims[:-2], key.dims[-1])):
        raise Unsupported("of tensors that are not queries and keys of whole maps")
    scale = call["scale"] if call["scale"] is not None else 1 / sqrt(query.sizes[-1])
    scores = Scores(query, turned, heads, len(query.dims), float(scale), softmax=True)
    return _attended(walk, scores, value, call.layer, values_first=False)


def _resized(walk: Walk, call: Called) -> Value:
    """To the size that there is: nothing."""
    view = _viewed(_same(walk, call))
    exact = all(factor == 1 for factor in call.arguments.get("scale_factors") or ())
    return view if exact and tuple(view.sizes) == call.shape else walk._become(call.node, call.name)


def _padded(walk: Walk, call: Called) -> Value:
    """By nothing: nothing."""
    return _same(walk, call) if not any(call["pad"]) else walk._become(call.node, call.name)


def _viewed(value: Value) -> View:
    if not isinstance(value, View):
        raise Unsupported("of attention scores" if isinstance(value, Scores) else "of several tensors or a constant")
    return value


def _named(names: str, rule: Callable[[Walk, Called], Value]) -> dict[str, Callable[[Walk, Called], Value]]:
    return dict.fromkeys(names.split(), rule)


CALLS: Mapping[str, Callable[[Walk, Called], Value]] = {
    **_named("dropout.default dropout_.default feature_dropout.default feature_dropout_.default", _dropped),
    **_named(
        "clone.default contiguous.default detach.default alias.default lift_fresh_copy.default to.dtype to.device "
        "to.dtype_layout _to_copy.default type_as.default",
        _same,
    ),
    **_named(
        "view.default reshape.default _unsafe_view.default flatten.using_ints unflatten.int unsqueeze.default "
        "squeeze.dim squeeze.dims squeeze.default",
        _reshaped,
    ),
    **_named("permute.default transpose.int t.default swapaxes.default", _permuted),
    **_named("expand.default expand_as.default", _expanded),
    **_named("chunk.default split.Tensor split_with_sizes.default tensor_split.sections unbind.int", _pieces),
    **_named("slice.Tensor narrow.default", _slice),
    **_named("select.int", _selected),
    **_named("flip.default index.Tensor", _picked),
    **_named("getitem", _getitem),
    **_named("cat.default concat.default", _concat),
    **_named("stack.default", _stacked),
    **_named("add.Tensor add_.Tensor", _arithmetic("add")),
    **_named("sub.Tensor sub_.Tensor", _arithmetic("sub")),
    **_named("rsub.Scalar", _arithmetic("rsub")),
    **_named("mul.Tensor mul_.Tensor", _arithmetic("mul")),
    **_named("div.Tensor div_.Tensor", _arithmetic("div")),
    **_named("pow.Tensor_Scalar", _powered),
    **_named("neg.default", _negated),
    **_named("batch_norm.default", _batch_norm),
    **_named("instance_norm.default", _instance_norm),
    **_named("group_norm.default", _group_norm),
    **_named("layer_norm.default", _layer_norm),
    **_named("prelu.default", _prelu),
    **_named("mean.dim", _reduced(lambda count: 1.0)),
    **_named("sum.dim_IntList", _reduced(float)),
    **_named("softmax.int", _softmax),
    **_named("linear.default", _linear),
    **_named("convolution.default _convolution.default", _convolution),
    **_named("matmul.default bmm.default", _product),
    **_named("scaled_dot_product_attention.default", _dot_product_attention),
    **_named(
        "upsample_bilinear2d.vec upsample_bilinear2d.default upsample_nearest2d.vec upsample_nearest2d.default "
        "upsample_bicubic2d.vec upsample_bicubic2d.default",
        _resized,
    ),
    **_named("pad.default constant_pad_nd.default", _padded),
}


def _rules() -> dict[str, list[tuple[Operator, FromAten]]]:
    """By the name of an ATen operator: what it may become, in the order in which they are asked."""
    rules: dict[str, list[tuple[Operator, FromAten]]] = {}
    for operator in OPERATORS.values():
        for name, rule in operator.aten.items():
            rules.setdefault(name, []).append((operator, rule))
    return rules


FROM_ATEN = _rules()


def _is_unknown(value: Value) -> bool:
    return value is None


def _computed(node: fx.Node, values: Mapping[fx.Node, Value]) -> Value:
    """A call on constants alone."""
    target: Any = node.target
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: values[each])
    with torch.no_grad():
        return target(*args, **kwargs)


def _arguments(node: fx.Node, values: Mapping[fx.Node, Value]) -> dict[str, Any]:
    """Every argument of a call by its name, defaults included."""
    target: Any = node.target
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda each: values[each])
    if not hasattr(target, "_schema"):
        return {}
    schema = target._schema.arguments
    given = [*args, *(kwargs.get(a.name, a.default_value) for a in schema[len(args) :])]
    return {argument.name: value for argument, value in zip(schema, given)}


def _needed(exported: torch.export.ExportedProgram, output: fx.Node) -> list[fx.Node]:
    """The nodes that decide an output, in order: what it reads, and what changes in place what it reads."""
    wanted = {output}
    kept = []
    for node in reversed(list(exported.graph.nodes)):
        if node in wanted or (_in_place(node) and node.args[0] in wanted):
            wanted.update(node.all_input_nodes)
            kept.append(node)
    return kept[::-1]


def _in_place(node: fx.Node) -> bool:
    return node.op == "call_function" and _name(node).partition(".")[0].endswith("_")


def _name(node: fx.Node) -> str:
    return "getitem" if node.target is getitem else str(node.target).removeprefix("aten.")


def _running(sizes: Sequence[int]) -> list[int]:
    """Where each of several things side by side begins."""
    return [sum(sizes[:index]) for index in range(len(sizes))]
