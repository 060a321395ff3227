"""What a network gives last -> one probability per class, as large as the image."""

import torch

from compress.errors import ModelError
from compress.graph.network import Network, Node
from compress.graph.operators.conv import CONV, POINTWISE
from compress.graph.operators.operator import OnSteps
from compress.graph.operators.resize import RESIZE, ResizeAttributes
from compress.graph.operators.unary import SIGMOID, SOFTMAX
from compress.load.faithful import Original
from compress.load.outputs import ADVICE

MOST_LABELS = 31
"""Masks are sets of labels, as bits of an int32."""
RESIZED = "resized_map"
ENDS = (SIGMOID.name, SOFTMAX.name)


def with_class_map(original: Original, classes: int | None, multilabel: bool | None = None) -> Network:
    """The network whose output is one probability per class, [1, classes, H, W] of the image's height and width. A map
    of another size is resized: its logits where an activation is the last that is done to it.

    What cannot leave 0..1 are probabilities, whatever was done to them after the sigmoid or softmax; all else are
    logits: of classes that exclude one another, or with `multilabel` each of its own label (None: as
    `is_multilabel` has it). `classes`: None for as many as there are channels. Raises ModelError.
    """
    net, deployed = original.network, original.deployed
    shape, size = net.shapes()[net.output], net.traced_size
    multilabel = is_multilabel(original, multilabel)
    of_two = is_of_two(shape, classes, multilabel)
    check_map(deployed.name, shape, size, classes, multilabel)
    if multilabel and _end(net).op == SOFTMAX.name:
        raise ModelError(
            f"output {deployed.name} is a softmax, of which labels exclude one another; set multilabel = false under "
            "[model], or deploy the logits before it"
        )
    probabilities = _are_probabilities(net)
    read_at = 0.5 if probabilities else 0.0
    if deployed.threshold not in (None, read_at):
        raise ModelError(
            f"output {deployed.name} decides at {deployed.threshold:g}, but its map is read at {read_at:g}; "
            "deploy the map before that"
        )
    if shape[2:] != size:
        net = _resized(net, size)
    if of_two:
        return _two_channels(net, probabilities)
    last = SIGMOID if multilabel else SOFTMAX
    return net if probabilities else _appended(net, Node("class_map", last.name, (net.output,)))


def is_of_two(shape: tuple[int, ...], classes: int | None, multilabel: bool) -> bool:
    """Whether a map's one channel tells two classes apart."""
    return shape[1] == 1 and classes in (None, 2) and not multilabel


def check_map(name: str, shape: tuple[int, ...], size: tuple[int, int], classes: int | None, multilabel: bool) -> None:
    """Raises ModelError where the output `name`, of this shape, is no map of so many classes for an image of `size`."""
    if multilabel and shape[1] > MOST_LABELS:
        raise ModelError(f"output {name} has {shape[1]} labels; at most {MOST_LABELS} can be told at once")
    if classes not in (None, shape[1]) and not is_of_two(shape, classes, multilabel):
        raise ModelError(
            f"output {name} has {shape[1]} channel{'s' * (shape[1] > 1)}, but the recipe names {classes} "
            f"{'labels' if multilabel else 'classes'}; name as many as there are channels, or {ADVICE}"
        )
    if min(shape[2:]) == 1 < min(size):
        raise ModelError(
            f"output {name} is {shape[2]}x{shape[3]} for an image of {size[0]}x{size[1]}: one class for the "
            f"whole image is no map; {ADVICE}"
        )


def is_multilabel(original: Original, said: bool | None) -> bool:
    """Whether a pixel can have several labels: as is said, or where nothing is, as the module tells."""
    return tells_labels_apart(original) if said is None else said


def tells_labels_apart(original: Original) -> bool:
    """Whether a module gives several labels at once: by a sigmoid of each of several channels, or because each was held
    against a threshold."""
    net = original.network
    several = net.shapes()[net.output][1] > 1
    return several and (original.deployed.threshold is not None or _end(net).op == SIGMOID.name)


def _are_probabilities(net: Network) -> bool:
    low, high = net.bounds()[net.output]
    return low >= 0 and high <= 1


def _end(net: Network) -> Node:
    """The operator that gave the values of the map, but for resizing and averages."""
    end = net.by_name[net.output]
    while end.kind.on_steps is OnSteps.AVERAGES:
        end = net.by_name[end.inputs[0]]
    return end


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
        return _in_two(net, net.output, Node("class_map", SIGMOID.name, (net.output,)))
    end = net.by_name[net.output]
    while end.kind.on_steps is OnSteps.AVERAGES and net.readers[end.inputs[0]] == 1:
        end = net.by_name[end.inputs[0]]
    if end.op != SIGMOID.name:
        return _appended(net, Node("class_map", CONV.name, (net.output,), POINTWISE), _pair_of(1.0))
    if end.name == net.output:
        end = Node("class_map", SIGMOID.name, end.inputs)
    return _in_two(net, end.inputs[0], end)


def _in_two(net: Network, logits: str, sigmoid: Node) -> Network:
    """The network whose `sigmoid` reads -z and z instead of `logits`, the one channel z: made by the convolution that
    made z where nothing else reads it, else by one of its own."""
    output = sigmoid.name if sigmoid.name not in net.by_name else net.output
    between = [net.by_name[logits]]
    while between[-1].op == RESIZE.name:
        between.append(net.by_name[between[-1].inputs[0]])
    conv, alone = between[-1], all(net.readers[node.name] <= 1 for node in between)
    weights, pair = net.weights(), logits
    nodes = [node for node in net.nodes if node.name != sigmoid.name]
    place = [node.name for node in nodes].index(logits) + 1
    if conv.op == CONV.name and conv.attrs.groups == 1 and alone:
        weight, bias = weights[conv.name]
        weights[conv.name] = torch.cat([-weight, weight]), torch.cat([-bias, bias])
        more = []
    else:
        pair = "two_classes"
        weights[pair] = _pair_of(0.0)
        more = [Node(pair, CONV.name, (logits,), POINTWISE)]
    more.append(Node(sigmoid.name, SIGMOID.name, (pair,)))
    return net.rewritten(weights, [*nodes[:place], *more, *nodes[place:]], output)


def _pair_of(offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of offset - x and x."""
    return torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), torch.tensor([offset, 0.0])
