"""torch module -> Network: exported to ATen operators, batch normalisation folded, the class map as output."""

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
from compress.graph.operators.unary import SIGMOID, SOFTMAX
from compress.terminal.quiet import quietly

IDENTITIES = {
    f"{name}.default" for name in ("dropout", "dropout_", "feature_dropout", "clone", "contiguous", "detach", "alias")
}
BATCH_NORM = "batch_norm.default"
POINTWISE = ConvAttributes()
"""Of a 1x1 convolution."""


def trace(
    module: nn.Module, size: tuple[int, int], output: int, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Network, tuple[tuple[int, ...], ...]]:
    """The network that maps an RGB image, real values pixel / 255, to class probabilities; and the shapes of all
    outputs of `module`.

    `module` maps normalised images [1, 3, H, W] to one map or a sequence of maps, of which `output`
    is deployed. Raises ModelError naming the layer and the operator that is not known here.
    """
    try:
        with quietly():
            exported = torch.export.export(module.eval(), (torch.zeros(1, 3, *size),), strict=False)
    except Exception as error:
        raise ModelError(f"the model cannot be traced at {size[0]}x{size[1]}: {_first_line(error)}") from error
    walk = _Walk(exported, size, mean, std)
    net = _with_class_map(walk.nodes, walk.weights, walk.outputs, output, classes)
    return net, walk.output_shapes


class _Walk:
    """Goes once through the exported graph, collecting our operators."""

    def __init__(self, exported: torch.export.ExportedProgram, size: tuple[int, int], mean: Any, std: Any):
        self.nodes = [Node("image", IMAGE.name, (), ImageAttributes(1 / 255, 0, size))]
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        self.names: dict[torch.fx.Node, str] = {}
        self.outputs: list[str] = []
        self.output_shapes: tuple[tuple[int, ...], ...] = ()
        signature = exported.graph_signature
        stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        constants = {**exported.state_dict, **exported.constants}
        stored.update(signature.inputs_to_lifted_tensor_constants)
        self.tensors = {placeholder: constants[target].detach().float() for placeholder, target in stored.items()}
        self.paths = stored
        self._affine("normalise", "image", 1 / torch.tensor(std), -torch.tensor(mean) / torch.tensor(std))
        for node in exported.graph.nodes:
            if node.op == "placeholder" and node.name not in self.tensors:
                self.names[node] = "normalise"
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self.outputs = [self.names[arg] for arg in node.args[0]]
                self.output_shapes = tuple(tuple(arg.meta["val"].shape) for arg in node.args[0])

    def _call(self, node: torch.fx.Node) -> None:
        name, arguments = str(node.target).removeprefix("aten."), _arguments(node)
        if name in IDENTITIES or self._keeps_size(node, name):
            self.names[node] = self.names[node.all_input_nodes[0]]
        elif name == BATCH_NORM:
            self._batch_norm(node, arguments)
        else:
            self._become(node, name, arguments)

    def _keeps_size(self, node: torch.fx.Node, name: str) -> bool:
        """Whether it resizes to the size that there is."""
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        resizes = name.startswith(("upsample_bilinear2d.", "upsample_nearest2d."))
        return resizes and source is not None and source.meta["val"].shape == node.meta["val"].shape

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
        layer = _layer(node) if given is None else self.paths[given.name].removesuffix(".weight")
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
            layer = _layer(node).removesuffix(f".{node.name}")
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
        else:
            name = self._unique(_layer(node))
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


def _with_class_map(
    nodes: list[Node], weights: dict[str, tuple[Tensor, Tensor]], outputs: list[str], index: int, classes: int
) -> Network:
    """The network whose output is one probability per class.

    One sigmoid channel for two classes becomes two, sigmoid(-z) and sigmoid(z), which is the softmax over
    (-z/2, z/2): apps take the argmax over channels, which is meaningless on one.
    """
    if index >= len(outputs):
        raise ModelError(f"output {index} does not exist: the model has {len(outputs)}; set model.output in the recipe")
    net = Network(nodes, weights, outputs[index])
    channels = net.shapes()[net.output][1]
    last = net.by_name[net.output]
    if channels == 1 and classes == 2:
        logits = last.inputs[0] if last.op == SIGMOID.name else last.name
        return _two_channels(net, logits)
    if channels != classes:
        raise ModelError(f"output {index} has {channels} channels, but the recipe names {classes} classes")
    if last.op in (SIGMOID.name, SOFTMAX.name):
        return net
    nodes = [*net.nodes, Node("class_map", SOFTMAX.name, (last.name,))]
    return net.rewritten(net.weights(), nodes, "class_map")


def _two_channels(net: Network, logits: str) -> Network:
    source = net.by_name[logits]
    between = [source]
    while between[-1].op == "resize" and net.readers[between[-1].name] == 1:
        between.append(net.by_name[between[-1].inputs[0]])
    conv = between[-1]
    weights, nodes = net.weights(), list(net.nodes)
    if conv.op == CONV.name and conv.attrs.groups == 1 and net.readers[conv.name] == 1:
        weight, bias = weights[conv.name]
        weights[conv.name] = (torch.cat([-weight, weight]), torch.cat([-bias, bias]))
        map_source = logits
    else:
        nodes.append(Node("two_classes", CONV.name, (logits,), POINTWISE))
        weights["two_classes"] = (torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), torch.zeros(2))
        map_source = "two_classes"
    nodes.append(Node("class_map", SIGMOID.name, (map_source,)))
    return net.rewritten(weights, nodes, "class_map")


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


def _layer(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return f"{path}.{node.name}" if path else node.name


def _unknown(node: torch.fx.Node, how: str = "") -> ModelError:
    return ModelError(
        f"{_layer(node)}: operator {node.target}{' ' + how if how else ''} is not supported; "
        "replace it with one that `compress inspect` knows"
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
