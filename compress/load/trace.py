"""torch module -> Network: exported to ATen operators, batch normalisation folded, the class map as output, and
compared with the module."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.errors import ModelError
from compress.graph.network import Network, Node
from compress.graph.operators.conv import CONV
from compress.load.class_map import with_class_map
from compress.load.faithful import Original, first_line, made_up_pictures
from compress.load.idioms import name_idioms
from compress.load.walk import Walk
from compress.terminal.quiet import quietly

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
    name_idioms(exported)
    given = _outputs(exported)
    walk = Walk(exported, _deployed(given, output), size, mean, std)
    if walk.unknown:
        raise _refused(walk.unknown)
    last = walk.result()
    net = Network(walk.nodes, walk.weights, last)
    shapes = tuple(tuple(one.meta["val"].shape) for one in given if _is_tensor(one))
    original = Original(module, exported, net, output, walk.layers, mean, std)
    original.check(made_up_pictures(size))
    return with_class_map(net, output, classes), shapes, original


def _outputs(exported: torch.export.ExportedProgram) -> tuple[Any, ...]:
    """What the module returns, as nodes; None and numbers stay what they are."""
    return tuple(next(node for node in exported.graph.nodes if node.op == "output").args[0])


def _is_tensor(output: Any) -> bool:
    return isinstance(output, fx.Node) and isinstance(output.meta["val"], Tensor)


def _deployed(given: tuple[Any, ...], index: int) -> fx.Node:
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


SHOWN = 8
"""Of the kinds of calls that cannot be read, so many are named."""


def _refused(unknown: Mapping[str, list[str]]) -> ModelError:
    several, rest = len(unknown) > 1, len(unknown) - SHOWN
    texts = [
        f"{places[0]}: {what}" + (f" and {len(places) - 1} more like it" if len(places) > 1 else "")
        for what, places in unknown.items()
    ]
    named = "; ".join(texts[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
    return ModelError(
        f"{named} {'are' if several else 'is'} not supported; replace {'them' if several else 'it'} with what "
        "docs/operators.md names"
    )


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
