"""A plan and a network -> the pruned copy."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from compress.graph.channels import Channels
from compress.graph.network import Network, Node, is_depthwise


def kept_channels(tensor: str, channels: Channels, kept: Mapping[str, tuple[int, ...]]) -> Tensor:
    """Indices into a tensor's channels (int64) that stay when each group keeps the indices `kept`."""
    parts, offset = [], 0
    for group in channels.segments[tensor]:
        parts.append(torch.tensor(kept[group], dtype=torch.long) + offset)
        offset += channels.groups[group].width
    return torch.cat(parts)


def cut(net: Network, channels: Channels, kept: Mapping[str, tuple[int, ...]]) -> Network:
    """A copy of `net` in which each group has only the channels `kept` (ascending indices by group)."""
    weights, nodes = {}, []
    for node in net.nodes:
        if node.kind.weights:
            weights[node.name], node = _cut_weights(net, node, channels, kept)
        nodes.append(node)
    return net.rewritten(weights, nodes)


def _cut_weights(
    net: Network, node: Node, channels: Channels, kept: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[Tensor, Tensor], Node]:
    weight, bias = net.weight(node.name), net.bias(node.name)
    outputs = kept_channels(node.name, channels, kept)
    inputs = kept_channels(node.inputs[0], channels, kept)
    if is_depthwise(node, weight):
        return (weight[outputs], bias[outputs]), replace(node, attrs=replace(node.attrs, groups=len(outputs)))
    if node.attrs.groups > 1:
        return (weight, bias), node
    layout = node.weights
    narrow = weight.index_select(layout.outputs, outputs).index_select(layout.inputs, inputs)
    return (narrow, bias[outputs]), node
