"""torch module -> Network: exported to ATen operators, batch normalisation folded, the class map as output, and
compared with the module."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph.network import Network, Node
from compress.graph.operators import OPERATORS
from compress.graph.operators.conv import CONV, ConvAttributes
from compress.graph.operators.image import IMAGE, ImageAttributes
from compress.graph.operators.operator import Call, FromAten, Operator
from compress.load.class_map import with_class_map
from compress.load.faithful import Original, first_line, layer_of, made_up_pictures
from compress.terminal.quiet import quietly

IDENTITIES = {"clone.default", "contiguous.default", "detach.default", "alias.default"}
DROPOUTS = {"dropout.default", "dropout_.default", "feature_dropout.default"}
PADS = {"pad.default", "constant_pad_nd.default"}
BATCH_NORM = "batch_norm.default"
Shapes = tuple[tuple[int, ...], ...]


def trace(
    module: nn.Module, size: tuple[int, int], output: int, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Network, Shapes]:
    """The network that maps an RGB image, real values pixel / 255, to class probabilities; and the shapes of all
    outputs of `module`.

    `module` maps normalised images [1, 3, H, W] to one map or a sequence of maps, of which `output`
    is deployed; what that does not need is left out. Raises ModelError naming the layer and the operator that is not
    known here, or the layer whose values are not those of the module.
    """
    net, shapes, _ = trace_with_original(module, size, output, classes, mean, std)
    return net, shapes


def trace_with_original(
    module: nn.Module, size: tuple[int, int], output: int, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Network, Shapes, Original]:
    """The same, and what the network can be compared with on other pictures."""
    example = torch.zeros(1, 3, *size)
    try:
        with quietly():
            exported = torch.export.export(module.eval(), (example,), strict=False)
    except Exception as error:
        raise ModelError(f"the model cannot be traced at {size[0]}x{size[1]}: {first_line(error)}") from error
    given = _outputs(exported)
    walk = _Walk(exported, _deployed(given, output), size, mean, std)
    net = Network(walk.nodes, walk.weights, walk.names[given[output]])
    shapes = tuple(tuple(one.meta["val"].shape) for one in given if _is_tensor(one))
    original = Original(module, exported, net, output, walk.layers, mean, std)
    original.check(made_up_pictures(size))
    return with_class_map(net, output, classes), shapes, original


def _outputs(exported: torch.export.ExportedProgram) -> tuple[Any, ...]:
    """What the module returns, as nodes; None and numbers stay what they are."""
    return tuple(next(node for node in exported.graph.nodes if node.op == "output").args[0])


def _is_tensor(output: Any) -> bool:
    return isinstance(output, torch.fx.Node) and isinstance(output.meta["val"], Tensor)


def _deployed(given: tuple[Any, ...], index: int) -> torch.fx.Node:
    advice = "set model.output in the recipe"
    if index >= len(given):
        raise ModelError(f"output {index} does not exist: the model has {len(given)}; {advice}")
    if not _is_tensor(given[index]):
        raise ModelError(f"output {index} is no map but {_kind(given[index])}; {advice}")
    shape = tuple(given[index].meta["val"].shape)
    if len(shape) != 4 or shape[0] != 1 or 0 in shape:
        raise ModelError(f"output {index} is no map: its shape is {'x'.join(map(str, shape)) or 'empty'}; {advice}")
    return given[index]


def _kind(output: Any) -> str:
    return "None" if output is None else f"of type {type(output).__name__}"


def _needed(exported: torch.export.ExportedProgram, output: torch.fx.Node) -> list[torch.fx.Node]:
    """The nodes that decide an output, in order: what it reads, and what changes in place what it reads."""
    wanted = {output}
    kept = []
    for node in reversed(list(exported.graph.nodes)):
        if node in wanted or (_in_place(node) and node.args[0] in wanted):
            wanted.update(node.all_input_nodes)
            kept.append(node)
    return kept[::-1]


def _in_place(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and _name(node).partition(".")[0].endswith("_")


def _name(node: torch.fx.Node) -> str:
    return str(node.target).removeprefix("aten.")


class _Walk:
    """Goes once through the exported graph, collecting our operators."""

    def __init__(
        self,
        exported: torch.export.ExportedProgram,
        output: torch.fx.Node,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        self.nodes = [Node("image", IMAGE.name, (), ImageAttributes(1 / 255, 0, size))]
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        self.names: dict[torch.fx.Node, str] = {}  # of what a node's value is now
        self.layers: dict[torch.fx.Node, str] = {}  # whose value each node gave, when it gave it
        signature = exported.graph_signature
        stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        constants = {**exported.state_dict, **exported.constants}
        stored.update(signature.inputs_to_lifted_tensor_constants)
        self.tensors = {placeholder: constants[target].detach().float() for placeholder, target in stored.items()}
        self.paths = stored
        self._affine("normalise", "image", 1 / torch.tensor(std), -torch.tensor(mean) / torch.tensor(std))
        for node in _needed(exported, output):
            if node.op == "placeholder" and node.name not in self.tensors:
                self.names[node] = self.layers[node] = "normalise"
            elif node.op == "call_function":
                self._call(node)
                self.layers[node] = self.names[node]
        if output not in self.names:
            raise ModelError("the deployed output is a constant of the model: it does not depend on the image")

    def _call(self, node: torch.fx.Node) -> None:
        name, arguments = _name(node), _arguments(node)
        if self._passes(node, name, arguments):
            self.names[node] = self.names[node.all_input_nodes[0]]
        elif name == BATCH_NORM:
            self._batch_norm(node, arguments)
        else:
            self._become(node, name, arguments)
        if _in_place(node):
            self.names[node.all_input_nodes[0]] = self.names[node]

    def _passes(self, node: torch.fx.Node, name: str, arguments: Mapping[str, Any]) -> bool:
        """Whether it gives what it reads: a dropout that is off, a pad by nothing, a resize to the size that there is.
        Raises ModelError for a dropout that is on."""
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if source is None or source not in self.names:
            return False
        if name in DROPOUTS and arguments["train"] and arguments["p"] > 0:
            raise _unknown(node, "that is on in evaluation too")
        if name in PADS:
            return not any(arguments["pad"])
        if name.startswith(("upsample_bilinear2d.", "upsample_nearest2d.")):
            exact = all(factor == 1 for factor in arguments.get("scale_factors") or ())
            return exact and source.meta["val"].shape == node.meta["val"].shape
        return name in IDENTITIES or name in DROPOUTS

    def _become(self, node: torch.fx.Node, name: str, arguments: Mapping[str, Any]) -> None:
        """Append the operator that says the call is one of its own."""
        call = Call(arguments, _shapes(arguments), tuple(node.meta["val"].shape))
        inputs = [given for given in _tensors(node) if given in self.names]
        why = ""
        for operator, rule in FROM_ATEN.get(name, ()):
            attributes = rule(call)
            if isinstance(attributes, str):
                why = attributes
            elif len(inputs) != operator.inputs and (operator.inputs is not None or len(inputs) < 2):
                why = "with a constant"
            else:
                self._append(node, operator, inputs, attributes, arguments)
                return
        raise _unknown(node, why)

    def _append(
        self, node: torch.fx.Node, operator: Operator, inputs: list[torch.fx.Node], attributes: Any, arguments: Any
    ) -> None:
        given = arguments["weight"] if operator.weights else None
        layer = layer_of(node) if given is None else self.paths[given.name].removesuffix(".weight")
        name = self.names[node] = self._unique(layer)
        self.nodes.append(Node(name, operator.name, tuple(self.names[i] for i in inputs), attributes))
        if given is not None and operator.weights:
            weight, bias = self.tensors[given.name], arguments["bias"]
            outputs = operator.weights.out_channels(weight.shape, attributes.groups)
            self.weights[name] = weight, torch.zeros(outputs) if bias is None else self.tensors[bias.name]

    def _unique(self, name: str) -> str:
        taken = {node.name for node in self.nodes}
        return next(n for i in range(len(taken) + 1) if (n := f"{name}_{i}" if i else name) not in taken)

    def _affine(self, name: str, source: str, scale: Tensor, shift: Tensor) -> None:
        """y = scale * x + shift for each channel, as a depthwise 1x1 convolution."""
        channels = len(scale)
        self.nodes.append(Node(name, CONV.name, (source,), ConvAttributes(groups=channels)))
        self.weights[name] = (scale.float().reshape(channels, 1, 1, 1), shift.float())

    def _batch_norm(self, node: torch.fx.Node, a: Mapping[str, Any]) -> None:
        """Folded into the convolution before it, where nothing else reads that."""
        if a["running_mean"] is None or a["training"]:
            layer = layer_of(node).removesuffix(f".{node.name}")
            raise ModelError(
                f"{layer}: batch normalisation without running statistics is not supported: it would take them from "
                "each image; train it with track_running_stats"
            )
        mean, variance = self.tensors[a["running_mean"].name], self.tensors[a["running_var"].name]
        scale = 1 / torch.sqrt(variance + a["eps"])
        if a["weight"] is not None:
            scale = scale * self.tensors[a["weight"].name]
        shift = -mean * scale
        if a["bias"] is not None:
            shift = shift + self.tensors[a["bias"].name]
        source = self.nodes[-1]
        if source.name == self.names[a["input"]] and source.kind.weights and len(a["input"].users) == 1:
            weight, offset = self.weights[source.name]
            self.weights[source.name] = source.scale_outputs(weight, scale), offset * scale + shift
            self.names[node] = source.name
            del self.layers[a["input"]]  # its own value is nowhere now
        else:
            name = self._unique(layer_of(node))
            self._affine(name, self.names[a["input"]], scale, shift)
            self.names[node] = name


def _rules() -> dict[str, list[tuple[Operator, FromAten]]]:
    """By the name of an ATen operator: what it may become, in the order in which they are asked."""
    rules: dict[str, list[tuple[Operator, FromAten]]] = {}
    for operator in OPERATORS.values():
        for name, rule in operator.aten.items():
            rules.setdefault(name, []).append((operator, rule))
    return rules


FROM_ATEN = _rules()


def fold_normalisation(net: Network) -> Network:
    """A copy that reads pixels with one scale and zero point, the normalisation folded into the convolutions
    that read it. Their padding then stands for the mean grey instead of each channel's own mean, which
    training absorbs. Where something other than a convolution reads it, it stays an operator of its own.
    """
    normalise = net.by_name.get("normalise")
    readers = [node for node in net.nodes if "normalise" in node.inputs]
    if normalise is None or any(r.op != CONV.name or r.attrs.groups != 1 for r in readers):
        return net
    scale, shift = net.weight("normalise").flatten(), net.bias("normalise")
    zero_point = int((-shift / scale * 255).mean().round().clamp(0, 255))
    weights = net.weights()
    for reader in readers:
        weight, bias = weights[reader.name]
        grey = (shift + scale * zero_point / 255).reshape(1, -1, 1, 1)
        weights[reader.name] = (weight * scale.reshape(1, -1, 1, 1), bias + (weight * grey).sum((1, 2, 3)))
    image = replace(net.input, attrs=replace(net.input.attrs, zero_point=zero_point))
    nodes = [image if n is net.input else n for n in net.nodes if n.name != "normalise"]
    nodes = [Node(n.name, n.op, tuple("image" if i == "normalise" else i for i in n.inputs), n.attrs) for n in nodes]
    return net.rewritten(weights, nodes)


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    """Every argument of the operator by its name, defaults included."""
    target: Any = node.target
    schema = target._schema.arguments
    given = [*node.args, *(node.kwargs.get(a.name, a.default_value) for a in schema[len(node.args) :])]
    return {argument.name: value for argument, value in zip(schema, given)}


def _shapes(arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of the tensors among the arguments."""
    nodes = {name: value for name, value in arguments.items() if isinstance(value, torch.fx.Node)}
    return {name: tuple(node.meta["val"].shape) for name, node in nodes.items()}


def _tensors(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The nodes that a call reads, in order and as often as it reads them."""
    parts = [part for arg in node.args for part in (arg if isinstance(arg, list | tuple) else [arg])]
    return [part for part in parts if isinstance(part, torch.fx.Node)]


def _unknown(node: torch.fx.Node, how: str = "") -> ModelError:
    return ModelError(
        f"{layer_of(node)}: operator {node.target}{' ' + how if how else ''} is not supported; "
        "replace it with one that `compress inspect` knows"
    )
