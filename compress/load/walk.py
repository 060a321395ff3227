"""An exported module, read call by call: the operators of ours that compute what it computes.

Every value of the module is a constant, which is computed here and now, or a `View` of a map. A call becomes an
operator of the table by what that says of itself (`Operator.aten`), or one of `CALLS`, where it speaks of several
operators, of constants, or of dimensions alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx

from compress.errors import ModelError
from compress.graph.network import Node, needed
from compress.graph.operators import OPERATORS
from compress.graph.operators.attention import ATTENTION
from compress.graph.operators.conv import CONV, POINTWISE, ConvAttributes, ConvTransposeAttributes, undivided
from compress.graph.operators.elementwise import CONCAT
from compress.graph.operators.image import IMAGE, ImageAttributes
from compress.graph.operators.operator import Attributes, Call, Channels, FromAten, Operator
from compress.graph.operators.shape import ARRANGE, ARRANGE_PIXELS, ArrangeAttributes
from compress.graph.operators.unary import SOFTMAX, UNARY
from compress.load.axes import AXES, Axis, View, broadcast
from compress.load.calls import CALLS
from compress.load.calls.call import Called, Unsupported, Value, shape_of, viewed
from compress.load.exported import layer_of, line_of, operator_of, paths_of, stored_in

NORMALISE = "normalise"
"""The node that makes of pixels what the module reads."""

NAMELESS = ("_tensor_constant", "lifted_tensor")

SINGLE_VALUES = {one.name for one in UNARY} - {SOFTMAX.name}
"""Operators that look at one value at a time, whatever the dimensions are called."""


class Walk:
    """Goes once through the exported graph, collecting the operators that an output needs.

    nodes, weights  of the network
    layers          by node of the exported graph, the node of the network that gives the same map
    unknown         what could not be said, "operator aten.foo.default with this", and its places: "layer at net.py:9"
    """

    def __init__(
        self, exported: torch.export.ExportedProgram, output: fx.Node, size: tuple[int, int], mean: Any, std: Any
    ):
        self.nodes = [Node("image", IMAGE.name, (), ImageAttributes(1 / 255, 0, size, len(mean)))]
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        self.unknown: dict[str, list[str]] = {}
        self.selected: dict[tuple[str, tuple[int, ...]], str] = {}
        self.values: dict[fx.Node, Value] = {}  # what a node's value is now
        self.moved: dict[tuple[str, ArrangeAttributes], str] = {}
        self.layers: dict[fx.Node, str] = {}
        self.output = output
        self.paths, stored = paths_of(exported), stored_in(exported)
        normalised = self.affine(NORMALISE, "image", 1 / torch.tensor(std), -torch.tensor(mean) / torch.tensor(std))
        for node in _needed(exported, output):
            if node.op == "placeholder":
                path = self.paths.get(node.name)
                self.values[node] = (
                    View.of_map(normalised, (len(mean), *size)) if path is None else stored[path].detach()
                )
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
        try:
            value = self.as_map(value)
        except Unsupported:
            raise ModelError(
                "the deployed output is no map [1, classes, H, W]; set model.output in the recipe"
            ) from None
        self.layers[self.output] = value.tensor
        self.nodes = list(needed(self.nodes, value.tensor))
        output = self._fold_into_what_is_read(value.tensor)
        self._fold_into_readers(output)
        return output

    def _fold_into_what_is_read(self, output: str) -> str:
        """The output's name then."""
        readers = Counter([output, *(name for node in self.nodes for name in node.inputs)])
        folded: dict[str, str] = {}  # by name of what gives a value now: the convolution that it became part of
        gone: set[str] = set()
        kept: dict[str, Node] = {}
        for node in self.nodes:
            read = node.inputs[0] if node.inputs else ""
            node = replace(node, inputs=tuple(folded.get(name, name) for name in node.inputs))
            source = kept.get(node.inputs[0]) if node.inputs else None
            if source and readers[read] == 1 and source.kind.weights and self._is_affine(node):
                scale, shift = self.weights.pop(node.name)
                weight, bias = self.weights[source.name]
                scaled = source.scale_outputs(weight, scale.flatten())
                self.weights[source.name] = scaled, bias * scale.flatten() + shift
                folded[node.name] = source.name
                gone.add(read)
            else:
                kept[node.name] = node
        self.nodes = list(kept.values())
        self.layers = {node: folded.get(name, name) for node, name in self.layers.items() if name not in gone}
        return folded.get(output, output)

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
        name = _name(node)
        try:
            if any(value is None for value in given):  # of what could not be said before
                self._check_known(name)
                return None
            if all(isinstance(value, Tensor) for value in given):
                return _computed(node, self.values)
            if name in CALLS:
                value = CALLS[name](self, Called(node, name, _arguments(node, self.values), layer_of(node)))
                return _with_further(value, node.meta["val"])
            return self.become(node, name)
        except Unsupported as why:
            what = f"operator {node.target}{f' {why}' if str(why) else ''}"
            self.unknown.setdefault(what, []).append(f"{layer_of(node)}{line_of(node)}")
            return None

    def _check_known(self, name: str) -> None:
        if name not in CALLS and name not in FROM_ATEN:
            raise Unsupported("")

    def become(self, node: fx.Node, name: str) -> View:
        """The operator of the table that says that the call is one of its own."""
        self._check_known(name)
        arguments = _arguments(node, self.values)
        shapes = {key: tuple(each.shape) if isinstance(each, Tensor) else each.sizes
                  for key, each in arguments.items() if isinstance(each, Tensor | View)}  # fmt: skip
        call = Call(arguments, shapes, shape_of(node))
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
        (view,) = views
        if operator.name in SINGLE_VALUES:
            return view.on(self.append(operator, [view.tensor], attributes, layer_of(node)), view.shape)
        source = self.map_of(view)
        if not operator.weights:
            name = self.append(operator, [source], attributes, layer_of(node))
            return View.of_map(name, shape_of(node))
        name = self.append(operator, [source], attributes, self.layer_of(node), (a["weight"], a["bias"]))
        return View.of_map(name, shape_of(node))

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
        weights: tuple[Tensor, Tensor | None] | None = None,
    ) -> str:
        """The name of a new node. Where it has weights but no bias, that is zero."""
        if isinstance(attributes, ConvTransposeAttributes) and weights:
            attributes, weight = undivided(attributes, weights[0])
            weights = weight, weights[1]
        taken = {node.name for node in self.nodes}
        name = next(n for i in range(len(taken) + 1) if (n := f"{layer}_{i}" if i else layer) not in taken)
        node = Node(name, operator.name, tuple(inputs), attributes)
        self.nodes.append(node)
        if weights:
            weight, bias = weights
            bias = torch.zeros(node.out_channels(weight)) if bias is None else bias
            self.weights[name] = weight.float(), bias.float()
        return name

    def affine(self, layer: str, source: str, scale: Tensor, shift: Tensor) -> str:
        """y = scale * x + shift for each channel, [C] each, as a depthwise 1x1 convolution."""
        return self.append(
            CONV, [source], ConvAttributes(groups=len(scale)), layer, (scale.reshape(-1, 1, 1, 1), shift)
        )

    def scaled(self, view: View, scale: Tensor, shift: Tensor, layer: str) -> View:
        return view.on(self.affine(layer, view.tensor, scale, shift), view.shape)

    def linear(self, view: View, weight: Tensor, bias: Tensor | None, layer: str) -> View:
        """Of the last dimension, [O, I] and [O]: a 1x1 convolution, if that dimension is all channels."""
        view = self.with_channels(view, len(view.dims) - 1)
        name = self.append(CONV, [view.tensor], POINTWISE, layer, (weight[:, :, None, None], bias))
        result = View.of_map(name, (len(weight), *view.shape[1:]))
        return result.with_dims([*view.dims[:-1], result.whole("c")])

    def joined(self, operator: Operator, left: View, right: View, layer: str) -> View:
        """Two tensors, element by element."""
        left, right = self._told_alike(left, right)
        dims = broadcast(left, right)
        if dims is None and len(left.dims) == len(right.dims) == 4:
            left, right = self.as_map(left), self.as_map(right)
            dims = broadcast(left, right)
        if dims is None:
            raise Unsupported("of tensors whose dimensions are told otherwise")
        shape = tuple(max(a, b) for a, b in zip(left.shape, right.shape))
        name = self.append(operator, [left.tensor, right.tensor], Attributes(), layer)
        return replace(left, tensor=name, shape=shape, dims=dims)  # type: ignore[arg-type]

    def _told_alike(self, left: View, right: View) -> tuple[View, View]:
        """The same two, one of them arranged as the other is, where they would not meet as they are: if it can be, as
        the one whose axes are whole."""
        if broadcast(left, right) is not None:
            return left, right
        first = self.like(left, right) if right.is_natural else None
        if first is None and (second := self.like(right, left)):
            return left, second
        return first or self.like(left, right) or left, right

    def like(self, view: View, other: View) -> View | None:
        found = view.like(other)
        return found and self._moved(view, *found)

    def arranged(self, view: View, *groups: Sequence[int]) -> View:
        """The same tensor as a view of a map whose channels, height and width are these dimensions."""
        return self._moved(view, *view.arranged(groups))

    def _moved(self, view: View, attributes: ArrangeAttributes, result: View) -> View:
        order = [index for one in attributes.order for index in one]
        if order == list(range(len(order))) and result.shape == view.shape:
            return replace(result, tensor=view.tensor)
        key = view.tensor, attributes
        if key not in self.moved:
            pixels, layer = attributes.of_pixels, f"{view.tensor}.arranged"
            operator = ARRANGE_PIXELS if pixels else ARRANGE
            self.moved[key] = self.append(operator, [view.tensor], pixels or attributes, layer)
        return replace(result, tensor=self.moved[key])

    def with_channels(self, view: View, dim: int) -> View:
        """The same tensor, of which one dimension is all channels of a map."""
        return view if view.dims[dim] == view.whole("c") else self.by_channels(view, dim)

    def by_channels(self, view: View, dim: int) -> View:
        """The same, whose width is the last of the other dimensions, and whose height runs through the rest."""
        rest = [index for index, size in enumerate(view.sizes) if size > 1 and index != dim]
        return self.arranged(view, [dim], rest[:-1], rest[-1:])

    def with_axis(self, view: View, dim: int) -> tuple[View, Axis]:
        """The same tensor, of which one dimension is all of the height or of the width of a map: and which it is."""
        for axis in AXES[1:]:
            if view.dims[dim] and view.dims[dim] == view.whole(axis):
                return view, axis
        channels = [index for index, each in enumerate(view.dims) if each and each == view.whole("c")]
        rest = [index for index, size in enumerate(view.sizes) if size > 1 and index not in (*channels, dim)]
        return self.arranged(view, channels, rest, [dim]), "w"

    def as_map(self, value: Value) -> View:
        view = viewed(value)
        return View.of_map(self.map_of(view), view.sizes)

    def map_of(self, view: View) -> str:
        """The map that a tensor is, its channels and pixels in other places where they are."""
        if view.is_map:
            return view.tensor
        if len(view.dims) != 4 or view.dims[0]:
            raise Unsupported("of a tensor that is no map [N, C, H, W]")
        whole = View.of_map(view.tensor, view.shape).dims
        if any(view.dims[index] != whole[index] for index in (2, 3)):
            return self.arranged(view, [1], [2], [3]).tensor
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
        if kind.channels is Channels.PASSES:
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
        return self.append(CONV, [tensor], POINTWISE, f"{tensor}.picked", (one_hot, None))

    def _parts_of(self, node: Node, indices: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
        """Of a concat's inputs, each with its channels among these; empty where one's are not beside each other."""
        parts: list[tuple[str, tuple[int, ...]]] = []
        first, in_turn = 0, []
        for name in node.inputs:
            last = first + self.channels(name)
            own = [index for index in indices if first <= index < last]
            if own:
                parts.append((name, tuple(index - first for index in own)))
            in_turn += own
            first = last
        return parts if in_turn == list(indices) else []

    def channels(self, tensor: str) -> int:
        node = next(each for each in self.nodes if each.name == tensor)
        if node.op == IMAGE.name:
            return int(node.attrs.channels)
        if node.kind.weights:
            return node.out_channels(self.weights[tensor][0])
        if node.kind.channels is Channels.ARRANGES:
            return int(node.attrs.made)
        counts = [self.channels(name) for name in node.inputs]
        return sum(counts) if node.kind is CONCAT else counts[-1] if node.kind is ATTENTION else max(counts)


def _rules() -> dict[str, list[tuple[Operator, FromAten]]]:
    """By the name of an ATen operator: what it may become, in the order in which they are asked."""
    rules: dict[str, list[tuple[Operator, FromAten]]] = {}
    for operator in OPERATORS.values():
        for name, rule in operator.aten.items():
            rules.setdefault(name, []).append((operator, rule))
    return rules


FROM_ATEN = _rules()


def _computed(node: fx.Node, values: Mapping[fx.Node, Value]) -> Value:
    """A call on constants alone."""
    target: Any = node.target
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: values[each])
    with torch.no_grad():
        return target(*args, **kwargs)


def _with_further(value: Value, given: Any) -> Value:
    """What a call gives first, or all: None for each further result that cannot be said."""
    if isinstance(value, tuple) or not isinstance(given, tuple | list):
        return value
    return (value, *[None] * (len(given) - 1))


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
    """The nodes that decide an output, in order: what it reads, and what changes in place what it reads, or part of
    it."""
    wanted = {output}
    kept = []
    for node in reversed(list(exported.graph.nodes)):
        if node in wanted or (_in_place(node) and not wanted.isdisjoint(_same_memory(node.args[0]))):
            wanted.update(node.all_input_nodes)
            kept.append(node)
    return kept[::-1]


def _same_memory(node: Any) -> list[fx.Node]:
    """A node, and those whose memory its value is part of."""
    found = [node]
    while node.op == "call_function" and hasattr(node.target, "_schema") and node.all_input_nodes:
        first = node.target._schema.arguments[0]
        if first.alias_info is None:
            break
        node = node.all_input_nodes[0]
        found.append(node)
    return found


def _in_place(node: fx.Node) -> bool:
    return operator_of(node).endswith("_")


def _name(node: fx.Node) -> str:
    return "getitem" if node.target is getitem else str(node.target).removeprefix("aten.")
