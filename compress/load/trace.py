"""torch module -> Network: exported to ATen operators, batch normalisation folded, the class map as output."""

from dataclasses import replace

import torch
from torch import nn

from compress.errors import ModelError
from compress.graph.network import Network, Node, needed
from compress.graph.operators.conv import CONV
from compress.graph.operators.unary import SIGMOID, SOFTMAX
from compress.load.views import View
from compress.load.walk import POINTWISE, Walk, folded


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
    walk = Walk(exported, size, mean, std, output)
    if walk.unknown:
        raise _refused(walk.unknown)
    if not isinstance(walk.output, View) or not walk.output.is_map:
        raise ModelError(f"output {output} is no map [1, classes, H, W]; set model.output in the recipe")
    nodes, last = folded(needed(walk.nodes, walk.output.tensor), walk.weights, walk.output.tensor)
    return _with_class_map(Network(nodes, walk.weights, last), output, classes), walk.output_shapes


SHOWN = 8
"""Of what cannot be read, so many are named."""


def _refused(unknown: list[str]) -> ModelError:
    shown = "; ".join(unknown[:SHOWN]) + (f"; and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
    return ModelError(f"{shown}: not supported; replace it with what `compress inspect` knows (docs/operators.md)")


def _with_class_map(net: Network, index: int, classes: int) -> Network:
    """The network whose output is one probability per class.

    One sigmoid channel for two classes becomes two, sigmoid(-z) and sigmoid(z), which is the softmax over
    (-z/2, z/2): apps take the argmax over channels, which is meaningless on one.
    """
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


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
