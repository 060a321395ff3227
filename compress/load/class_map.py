"""What a network gives last -> one probability per class, as large as the image."""

import torch

from compress.errors import ModelError
from compress.graph.network import Network, Node
from compress.graph.operators.conv import CONV, ConvAttributes
from compress.graph.operators.operator import OnSteps
from compress.graph.operators.resize import RESIZE, ResizeAttributes
from compress.graph.operators.unary import SIGMOID, SOFTMAX

POINTWISE = ConvAttributes()
"""Of a 1x1 convolution."""

RESIZED = "resized_map"
ENDS = (SIGMOID.name, SOFTMAX.name)


def with_class_map(net: Network, output: int, classes: int) -> Network:
    """The network whose output is one probability per class, [1, classes, H, W] of the image's height and width. A map
    of another size is resized: its logits where an activation is the last that is done to it.

    What cannot leave 0..1 are probabilities, whatever was done to them after the sigmoid or softmax; all else are
    logits. `output`: its index in the model, for messages. Raises ModelError.
    """
    shape, size = net.shapes()[net.output], net.traced_size
    if shape[1] != classes and (shape[1], classes) != (1, 2):
        raise ModelError(f"output {output} has {shape[1]} channels, but the recipe names {classes} classes")
    if min(shape[2:]) == 1 < min(size):
        raise ModelError(
            f"output {output} is {shape[2]}x{shape[3]} for an image of {size[0]}x{size[1]}: one class for the whole "
            "image is no map; set model.output in the recipe"
        )
    if shape[2:] != size:
        net = _resized(net, size)
    low, high = net.bounds()[net.output]
    probabilities = low >= 0 and high <= 1
    if shape[1] != classes:
        return _two_channels(net, probabilities)
    return net if probabilities else _appended(net, Node("class_map", SOFTMAX.name, (net.output,)))


def _appended(net: Network, node: Node, weights: tuple[torch.Tensor, torch.Tensor] | None = None) -> Network:
    more = {node.name: weights} if weights else {}
    return net.rewritten({**net.weights(), **more}, [*net.nodes, node], node.name)


def _resized(net: Network, size: tuple[int, int]) -> Network:
    last, attributes = net.by_name[net.output], ResizeAttributes("bilinear", size)
    if last.op not in ENDS:
        return _appended(net, Node(RESIZED, RESIZE.name, (last.name,), attributes))
    before = Node(RESIZED, RESIZE.name, last.inputs, attributes)
    nodes = [*net.nodes[:-1], before, Node(last.name, last.op, (before.name,))]
    return net.rewritten(net.weights(), nodes)


def _two_channels(net: Network, probabilities: bool) -> Network:
    """One channel for two classes becomes two, sigmoid(-z) and sigmoid(z), which is the softmax over (-z/2, z/2): apps
    take the argmax over channels, which is meaningless on one.

    Averages of a sigmoid's values stay after it: two channels that sum to 1 still do. Of other probabilities p the two
    are 1 - p and p.
    """
    if not probabilities:
        net, pair = _negated_too(net, net.output)
        return _appended(net, Node("class_map", SIGMOID.name, (pair,)))
    end = net.by_name[net.output]
    while end.kind.on_steps is OnSteps.AVERAGES and net.readers[end.inputs[0]] == 1:
        end = net.by_name[end.inputs[0]]
    if end.op != SIGMOID.name:
        weights = (torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), torch.tensor([1.0, 0.0]))
        return _appended(net, Node("class_map", CONV.name, (net.output,), POINTWISE), weights)
    net, pair = _negated_too(net, end.inputs[0])
    if end.name == net.output:
        return _appended(net, Node("class_map", SIGMOID.name, (pair,)))
    both = Node(end.name, SIGMOID.name, (pair,))
    return net.rewritten(net.weights(), [both if node.name == end.name else node for node in net.nodes])


def _negated_too(net: Network, logits: str) -> tuple[Network, str]:
    """The network with a tensor of two channels, -z and z of the one channel of `logits`, and the tensor's name: made
    by the convolution that made z where nothing else reads it, else by one of its own."""
    between = [net.by_name[logits]]
    while between[-1].op == RESIZE.name:
        between.append(net.by_name[between[-1].inputs[0]])
    conv, alone = between[-1], all(net.readers[node.name] <= 1 for node in between)
    if conv.op == CONV.name and conv.attrs.groups == 1 and alone:
        weight, bias = net.weight(conv.name), net.bias(conv.name)
        doubled = {conv.name: (torch.cat([-weight, weight]), torch.cat([-bias, bias]))}
        return net.rewritten({**net.weights(), **doubled}), logits
    node = Node("two_classes", CONV.name, (logits,), POINTWISE)
    weights = {**net.weights(), node.name: (torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), torch.zeros(2))}
    place = next(index for index, other in enumerate(net.nodes) if other.name == logits) + 1
    return net.rewritten(weights, [*net.nodes[:place], node, *net.nodes[place:]], node.name), node.name
