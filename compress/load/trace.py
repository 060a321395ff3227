"""torch module -> Network: exported to ATen operators, batch normalisation folded, the class map as output, and
compared with the module."""

import logging
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from compress.errors import ModelError, UnknownOperators
from compress.graph.network import Network, Node
from compress.graph.operators.conv import CONV
from compress.load.class_map import with_class_map
from compress.load.faithful import Original, made_up_pictures
from compress.load.idioms import name_idioms
from compress.load.outputs import Key, deployed, is_tensor, known_to_torch, named
from compress.load.untraced import why_not_traced
from compress.load.walk import NORMALISE, Walk
from compress.terminal.quiet import quietly

log = logging.getLogger("compress")


def trace(
    module: nn.Module,
    size: tuple[int, int],
    output: Key,
    classes: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    multilabel: bool | None = None,
) -> tuple[Network, Original]:
    """The network that maps an image, real values pixel / 255, to class probabilities; and what it can be compared with
    on other pictures.

    `module` maps normalised images [1, channels, H, W], of as many as `mean` has values, to one map, or to a dict,
    dataclass, tuple or list in which there are maps, of which `output` is deployed; what that does not need is left
    out, and so is an argmax or a threshold at its end. `classes`: how many there are, None for as many as the map tells
    apart; `multilabel` as `with_class_map` has it. Raises ModelError naming the layer and the operator that is not
    known here, or the layer whose values are not those of the module.
    """
    exported = _exported(module.eval(), torch.zeros(1, len(mean), *size))
    name_idioms(exported)
    outputs = _outputs(exported)
    chosen = deployed(outputs, output)
    walk = Walk(exported, chosen.node, size, mean, std)
    if walk.unknown:
        raise _refused(walk)
    last = walk.result()
    shapes = {name: tuple(one.meta["val"].shape) for name, one in outputs.items() if is_tensor(one)}
    net = Network(walk.nodes, walk.weights, last)
    original = Original(module, exported, net, shapes, chosen, walk.layers, mean, std)
    original.check(made_up_pictures(size, len(mean)))
    if chosen.decision:
        log.info("output %s: the %s at its end is taken off; its map is deployed", chosen.name, chosen.decision)
    return with_class_map(original, classes, multilabel), original


def _exported(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    try:
        with quietly():
            program = _knowing_its_types(module, example)
            inner = any(str(node.target).startswith("wrap_with_") for node in program.graph.nodes)
            return program.run_decompositions({}) if inner else program  # what a `with` in forward() holds is a part
    except Exception as error:  # the module is anybody's code
        height, width = example.shape[2:]
        raise ModelError(f"the model cannot be traced at {height}x{width}: {why_not_traced(error, module)}") from error


def _knowing_its_types(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The dataclasses that it returns become known to torch if need be: to find them, it is run."""
    try:
        return torch.export.export(module, (example,), strict=False)
    except RuntimeError as error:
        if "not a known type" not in str(error) or not known_to_torch(module(example)):
            raise
    return torch.export.export(module, (example,), strict=False)


def _outputs(exported: torch.export.ExportedProgram) -> dict[str, Any]:
    """What the module returns, by name, as nodes; None and numbers stay what they are."""
    returned = next(node for node in exported.graph.nodes if node.op == "output").args[0]
    return named(_pytree.tree_unflatten(list(returned), exported.call_spec.out_spec))


SHOWN = 8
"""Of the kinds of calls that cannot be read, so many are named."""


def _refused(walk: Walk) -> UnknownOperators:
    unknown = walk.unknown
    several, rest = len(unknown) > 1, len(unknown) - SHOWN
    texts = [
        f"{places[0]}: {what}" + (f" and {len(places) - 1} more like it" if len(places) > 1 else "")
        for what, places in unknown.items()
    ]
    named = "; ".join(texts[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
    return UnknownOperators(
        f"{named} {'are' if several else 'is'} not supported; replace {'them' if several else 'it'} with what "
        "docs/operators.md names",
        [f"{place}: {what}" for what, places in unknown.items() for place in places],
        Counter(node.op for node in walk.nodes),
    )


def fold_normalisation(net: Network) -> Network:
    """A copy that reads pixels with one scale and zero point, the normalisation folded into the convolutions
    that read it. Their padding then stands for the mean grey instead of each channel's own mean, which
    training absorbs. Where something other than a convolution reads it, it stays an operator of its own.
    """
    normalise = net.by_name.get(NORMALISE)
    readers = [node for node in net.nodes if NORMALISE in node.inputs]
    if normalise is None or any(r.op != CONV.name or r.attrs.groups != 1 for r in readers):
        return net
    scale, shift = net.weight(NORMALISE).flatten(), net.bias(NORMALISE)
    zero_point = int((-shift / scale * 255).mean().round().clamp(0, 255))
    weights = net.weights()
    for reader in readers:
        weight, bias = weights[reader.name]
        grey = (shift + scale * zero_point / 255).reshape(1, -1, 1, 1)
        weights[reader.name] = (weight * scale.reshape(1, -1, 1, 1), bias + (weight * grey).sum((1, 2, 3)))
    image = replace(net.input, attrs=replace(net.input.attrs, zero_point=zero_point))
    nodes = [image if n is net.input else n for n in net.nodes if n.name != NORMALISE]
    nodes = [Node(n.name, n.op, tuple("image" if i == NORMALISE else i for i in n.inputs), n.attrs) for n in nodes]
    return net.rewritten(weights, nodes)
