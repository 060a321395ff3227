"""A plan and a network -> the pruned copy, and the proof that it is one."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from compress.errors import ModelError
from compress.graph.channels import Channels
from compress.graph.network import Network, Node
from compress.graph.operators.operator import Channels as From

EQUAL = 1e-4
"""Of a layer's largest value: how far the same sum in another order may be off."""

Kept = Mapping[str, tuple[int, ...]]
"""The indices that each group keeps, ascending."""


def kept_channels(tensor: str, channels: Channels, kept: Kept) -> Tensor:
    """Indices into a tensor's channels (int64) that stay when each group keeps the indices `kept`."""
    parts, offset = [], 0
    for group in channels.segments[tensor]:
        parts.append(torch.tensor(kept[group], dtype=torch.long) + offset)
        offset += channels.groups[group].width
    return torch.cat(parts)


def cut(net: Network, channels: Channels, kept: Kept) -> Network:
    """A copy of `net` in which each group has only the channels `kept`."""
    weights, nodes = {}, []
    for node in net.nodes:
        if node.kind.weights:
            weights[node.name], node = _cut_weights(net, node, channels, kept)
        elif node.kind.channels is From.GROUPS:
            node = _cut_groups(node, channels, kept)
        nodes.append(node)
    return net.rewritten(weights, nodes)


def _cut_groups(node: Node, channels: Channels, kept: Kept) -> Node:
    """A norm of as many groups as are left."""
    if node.attrs.groups == 1:
        return node
    whole = sum(channels.groups[group].width for group in channels.segments[node.name])
    left = len(kept_channels(node.name, channels, kept)) * node.attrs.groups // whole
    return replace(node, attrs=replace(node.attrs, groups=left))


def _cut_weights(net: Network, node: Node, channels: Channels, kept: Kept) -> tuple[tuple[Tensor, Tensor], Node]:
    weight, bias, layout = net.weight(node.name), net.bias(node.name), node.weights
    outputs = kept_channels(node.name, channels, kept)
    inputs = kept_channels(node.inputs[0], channels, kept)
    if node.attrs.groups == 1:
        narrow = weight.index_select(layout.outputs, outputs).index_select(layout.inputs, inputs)
        return (narrow, bias[outputs]), node
    rows, columns = (inputs, outputs) if layout.transposed else (outputs, inputs)
    parts = _by_group(weight, node.attrs.groups, rows, columns)
    return (torch.cat(parts), bias[outputs]), replace(node, attrs=replace(node.attrs, groups=len(parts)))


def _by_group(weight: Tensor, groups: int, rows: Tensor, columns: Tensor) -> list[Tensor]:
    """What stays of each group that has any rows left: `rows` count on from group to group along the weight's first
    axis, and so do `columns`, of which each group has as many as the second axis."""
    high, wide = len(weight) // groups, weight.shape[1]
    return [
        weight[rows[rows // high == group]][:, columns[columns // wide == group] % wide]
        for group in torch.unique(rows // high).tolist()
    ]


def check_cut(net: Network, student: Network, channels: Channels, kept: Kept, image: Tensor) -> None:
    """Raises ModelError, naming the first layer of the student that does not give, of a real image [1, channels, H, W],
    what that of `net` gives where the channels that were cut are zero. A norm over channels looks at those that are
    left."""
    narrow = {net.input.name: image}

    def compare(node: Node, whole: Tensor) -> Tensor:
        given = [narrow[name] for name in node.inputs]
        result = student.compute(student.by_name[node.name], given, (image.shape[2], image.shape[3]))
        stays = kept_channels(node.name, channels, kept)
        if not _looks_at_all(node):
            _compare(node, result, whole[:, stays])
        narrow[node.name] = result
        return torch.zeros_like(whole).index_copy_(1, stays, result)

    with torch.no_grad():
        net.run(image, visit=compare)


def _looks_at_all(node: Node) -> bool:
    kind = node.kind.channels
    return kind is From.MIXES or (kind is From.GROUPS and node.attrs.groups == 1)


def _compare(node: Node, result: Tensor, wanted: Tensor) -> None:
    if result.shape != wanted.shape:
        raise _wrong(node, f"{tuple(result.shape)} instead of {tuple(wanted.shape)}")
    apart, peak = float((result - wanted).abs().max()), float(wanted.abs().max())
    if not apart <= EQUAL * peak + 1e-7:
        raise _wrong(node, f"values that are up to {apart:.2g} off, of {peak:.2g} at most")


def _wrong(node: Node, what: str) -> ModelError:
    return ModelError(
        f"{node.name}: the cut {node.op} gives {what}; this is a fault of compress, which no recipe can mend: please "
        "report it with the model's architecture"
    )
