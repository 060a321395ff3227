"""torch module -> Network: exported to ATen operators, batch normalisation folded, the class map as output."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph.network import CONVS, Network, Node, scale_outputs

aten = torch.ops.aten
Arguments = dict[str, Any]

PASS_THROUGH = {
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.alias.default,
}
SIMPLE = {
    aten.relu.default: "relu",
    aten.relu_.default: "relu",
    aten.relu6.default: "relu6",
    aten.relu6_.default: "relu6",
    aten.sigmoid.default: "sigmoid",
    aten.add.Tensor: "add",
    aten.add_.Tensor: "add",
    aten.mul.Tensor: "mul",
    aten.mul_.Tensor: "mul",
}


def trace(
    module: nn.Module, size: tuple[int, int], output: int, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Network, tuple[tuple[int, ...], ...]]:
    """The network that maps an RGB image, real values pixel / 255, to class probabilities; and the shapes of all
    outputs of `module`.

    `module` maps normalised images [1, 3, H, W] to one map or a sequence of maps, of which `output`
    is deployed. Raises ModelError naming the layer and the operator that is not known here.
    """
    try:
        exported = torch.export.export(module.eval(), (torch.zeros(1, 3, *size),), strict=False)
    except Exception as error:
        raise ModelError(f"the model cannot be traced at {size[0]}x{size[1]}: {_first_line(error)}") from error
    walk = _Walk(exported, size, mean, std)
    net = _with_class_map(walk.nodes, walk.weights, walk.outputs, output, classes)
    return net, walk.output_shapes


class _Walk:
    """Goes once through the exported graph, collecting our operators."""

    def __init__(self, exported: torch.export.ExportedProgram, size: tuple[int, int], mean: Any, std: Any):
        self.nodes = [Node("image", "input", (), {"scale": 1 / 255, "zero_point": 0, "size": size})]
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
        target: Any = node.target
        if target in PASS_THROUGH:
            self.names[node] = self.names[node.all_input_nodes[0]]
        elif target in SIMPLE:
            inputs = [arg for arg in node.args[:2] if isinstance(arg, torch.fx.Node) and arg in self.names]
            if len(inputs) != (2 if SIMPLE[target] in ("add", "mul") else 1) or node.kwargs.get("alpha", 1) != 1:
                raise _unknown(node, "with a constant")
            self._add(node, SIMPLE[target], inputs)
        elif target in HANDLERS:
            HANDLERS[target](self, node, _arguments(node))
        else:
            raise _unknown(node)

    def _add(self, node: torch.fx.Node, op: str, inputs: list[torch.fx.Node], name: str = "", **attrs: Any) -> None:
        name = self._unique(name or _layer(node))
        self.nodes.append(Node(name, op, tuple(self.names[i] for i in inputs), attrs))
        self.names[node] = name

    def _unique(self, name: str) -> str:
        taken = {node.name for node in self.nodes}
        return next(n for i in range(len(taken) + 1) if (n := f"{name}_{i}" if i else name) not in taken)

    def _affine(self, name: str, source: str, scale: Tensor, shift: Tensor) -> None:
        """y = scale * x + shift for each channel, as a depthwise 1x1 convolution."""
        channels = len(scale)
        attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": channels}
        self.nodes.append(Node(name, "conv", (source,), attrs))
        self.weights[name] = (scale.float().reshape(channels, 1, 1, 1), shift.float())

    def _filter(self, node: torch.fx.Node, op: str, a: Arguments, outputs: int, **attrs: Any) -> None:
        name = self.paths[a["weight"].name].removesuffix(".weight")
        shared = {"stride": _pair(a["stride"]), "dilation": _pair(a["dilation"]), "groups": a["groups"]}
        self._add(node, op, [a["input"]], name, **shared, **attrs)
        bias = torch.zeros(outputs) if a["bias"] is None else self.tensors[a["bias"].name]
        self.weights[self.names[node]] = (self.tensors[a["weight"].name], bias)

    def conv(self, node: torch.fx.Node, a: Arguments) -> None:
        weight, padding = self.tensors[a["weight"].name], a["padding"]
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(_pair(a["dilation"]), weight.shape[2:])]
            if padding == "same" and (any(r % 2 for r in reach) or _pair(a["stride"]) != (1, 1)):
                raise _unknown(node, "with an uneven 'same' padding")
            padding = [r // 2 if padding == "same" else 0 for r in reach]
        self._filter(node, "conv", a, weight.shape[0], padding=_pair(padding))

    def conv_transpose(self, node: torch.fx.Node, a: Arguments) -> None:
        outputs = self.tensors[a["weight"].name].shape[1] * a["groups"]
        padding, extra = _pair(a["padding"]), _pair(a["output_padding"])
        self._filter(node, "conv_transpose", a, outputs, padding=padding, output_padding=extra)

    def batch_norm(self, node: torch.fx.Node, a: Arguments) -> None:
        centre, spread = self.tensors[a["running_mean"].name], self.tensors[a["running_var"].name]
        scale = 1 / torch.sqrt(spread + a["eps"])
        if a["weight"] is not None:
            scale = scale * self.tensors[a["weight"].name]
        shift = -centre * scale
        if a["bias"] is not None:
            shift = shift + self.tensors[a["bias"].name]
        source = self.nodes[-1]
        if source.name == self.names[a["input"]] and source.op in CONVS and len(a["input"].users) == 1:
            weight, offset = self.weights[source.name]
            self.weights[source.name] = (
                scale_outputs(source.op, weight, source.attrs["groups"], scale),
                offset * scale + shift,
            )
            self.names[node] = source.name
        else:
            name = self._unique(_layer(node))
            self._affine(name, self.names[a["input"]], scale, shift)
            self.names[node] = name

    def hardtanh(self, node: torch.fx.Node, a: Arguments) -> None:
        if (a["min_val"], a["max_val"]) != (0, 6):
            raise _unknown(node, f"with limits {a['min_val']}..{a['max_val']}")
        self._add(node, "relu6", [a["self"]])

    def concat(self, node: torch.fx.Node, a: Arguments) -> None:
        self._over_channels(node, a)
        self._add(node, "concat", list(a["tensors"]))

    def softmax(self, node: torch.fx.Node, a: Arguments) -> None:
        self._over_channels(node, a)
        self._add(node, "softmax", [a["self"]])

    def _over_channels(self, node: torch.fx.Node, a: Arguments) -> None:
        if a["dim"] not in (1, -3):
            raise _unknown(node, f"along dimension {a['dim']}")

    def max_pool(self, node: torch.fx.Node, a: Arguments) -> None:
        if _pair(a["dilation"]) != (1, 1):
            raise _unknown(node, "with dilation")
        self._pool(node, "max_pool", a)

    def avg_pool(self, node: torch.fx.Node, a: Arguments) -> None:
        if a["divisor_override"] or (a["count_include_pad"] and _pair(a["padding"]) != (0, 0)):
            raise _unknown(node, "that counts padded pixels")
        self._pool(node, "avg_pool", a)

    def _pool(self, node: torch.fx.Node, op: str, a: Arguments) -> None:
        kernel, stride = _pair(a["kernel_size"]), _pair(a["stride"] or a["kernel_size"])
        padding, ceil = _pair(a["padding"]), bool(a["ceil_mode"])
        self._add(node, op, [a["self"]], kernel=kernel, stride=stride, padding=padding, ceil=ceil)

    def mean(self, node: torch.fx.Node, a: Arguments) -> None:
        if sorted(d % 4 for d in a["dim"]) != [2, 3] or not a["keepdim"]:
            raise _unknown(node, f"over dimensions {a['dim']}")
        self._add(node, "mean", [a["self"]])

    def adaptive_pool(self, node: torch.fx.Node, a: Arguments) -> None:
        if _pair(a["output_size"]) != (1, 1):
            raise _unknown(node, f"to {a['output_size']}")
        self._add(node, "mean", [a["self"]])

    def bilinear(self, node: torch.fx.Node, a: Arguments) -> None:
        if a["align_corners"]:
            raise _unknown(node, "with align_corners=True")
        self._resize(node, "bilinear")

    def nearest(self, node: torch.fx.Node, a: Arguments) -> None:
        self._resize(node, "nearest")

    def _resize(self, node: torch.fx.Node, mode: str) -> None:
        (x,) = node.all_input_nodes
        after, before = node.meta["val"].shape[2:], x.meta["val"].shape[2:]
        if after == before:
            self.names[node] = self.names[x]
        else:
            self._add(node, "resize", [x], mode=mode, size=tuple(int(s) for s in after))


HANDLERS: dict[Any, Callable[..., None]] = {
    aten.conv2d.default: _Walk.conv,
    aten.conv2d.padding: _Walk.conv,
    aten.conv_transpose2d.input: _Walk.conv_transpose,
    aten.batch_norm.default: _Walk.batch_norm,
    aten.hardtanh.default: _Walk.hardtanh,
    aten.hardtanh_.default: _Walk.hardtanh,
    aten.cat.default: _Walk.concat,
    aten.softmax.int: _Walk.softmax,
    aten.max_pool2d.default: _Walk.max_pool,
    aten.avg_pool2d.default: _Walk.avg_pool,
    aten.mean.dim: _Walk.mean,
    aten.adaptive_avg_pool2d.default: _Walk.adaptive_pool,
    aten.upsample_bilinear2d.vec: _Walk.bilinear,
    aten.upsample_bilinear2d.default: _Walk.bilinear,
    aten.upsample_nearest2d.vec: _Walk.nearest,
    aten.upsample_nearest2d.default: _Walk.nearest,
}


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
        logits = last.inputs[0] if last.op == "sigmoid" else last.name
        return _two_channels(net, logits)
    if channels != classes:
        raise ModelError(f"output {index} has {channels} channels, but the recipe names {classes} classes")
    if last.op in ("sigmoid", "softmax"):
        return net
    nodes = [*net.nodes, Node("class_map", "softmax", (last.name,))]
    return net.rewritten(net.weights(), nodes, "class_map")


def _two_channels(net: Network, logits: str) -> Network:
    source = net.by_name[logits]
    between = [source]
    while between[-1].op == "resize" and net.readers[between[-1].name] == 1:
        between.append(net.by_name[between[-1].inputs[0]])
    conv = between[-1]
    weights, nodes = net.weights(), list(net.nodes)
    if conv.op == "conv" and conv.attrs["groups"] == 1 and net.readers[conv.name] == 1:
        weight, bias = weights[conv.name]
        weights[conv.name] = (torch.cat([-weight, weight]), torch.cat([-bias, bias]))
        map_source = logits
    else:
        attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        nodes.append(Node("two_classes", "conv", (logits,), attrs))
        weights["two_classes"] = (torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), torch.zeros(2))
        map_source = "two_classes"
    nodes.append(Node("class_map", "sigmoid", (map_source,)))
    return net.rewritten(weights, nodes, "class_map")


def fold_normalisation(net: Network) -> Network:
    """A copy that reads pixels with one scale and zero point, the normalisation folded into the convolutions
    that read it. Their padding then stands for the mean grey instead of each channel's own mean, which
    training absorbs. Where something other than a convolution reads it, it stays an operator of its own.
    """
    normalise = net.by_name.get("normalise")
    readers = [node for node in net.nodes if "normalise" in node.inputs]
    if normalise is None or any(r.op != "conv" or r.attrs["groups"] != 1 for r in readers):
        return net
    scale, shift = net.weight("normalise").flatten(), net.bias("normalise")
    zero_point = int((-shift / scale * 255).mean().round().clamp(0, 255))
    weights = net.weights()
    for reader in readers:
        weight, bias = weights[reader.name]
        grey = (shift + scale * zero_point / 255).reshape(1, -1, 1, 1)
        weights[reader.name] = (weight * scale.reshape(1, -1, 1, 1), bias + (weight * grey).sum((1, 2, 3)))
    image = Node("image", "input", (), {**net.input.attrs, "zero_point": zero_point})
    nodes = [image if n.op == "input" else n for n in net.nodes if n.name != "normalise"]
    nodes = [Node(n.name, n.op, tuple("image" if i == "normalise" else i for i in n.inputs), n.attrs) for n in nodes]
    return net.rewritten(weights, nodes)


def _arguments(node: torch.fx.Node) -> Arguments:
    """Every argument of the operator by its name, defaults included."""
    target: Any = node.target
    schema = target._schema.arguments
    given = [*node.args, *(node.kwargs.get(a.name, a.default_value) for a in schema[len(node.args) :])]
    return {argument.name: value for argument, value in zip(schema, given)}


def _layer(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return f"{path}.{node.name}" if path else node.name


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    return (int(value[0]), int(value[-1]))


def _unknown(node: torch.fx.Node, how: str = "") -> ModelError:
    return ModelError(
        f"{_layer(node)}: operator {node.target}{' ' + how if how else ''} is not supported; "
        "replace it with one that `compress inspect` knows"
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
