"""The network whose channels are silenced where a plan cuts them: what the one that is cut must equal."""

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.graph.channels import ChannelGroup, Channels
from compress.graph.network import Network


def every_other(group: ChannelGroup) -> tuple[int, ...]:
    """Half of a group's channels: of each of its parts every second block; all where it cannot be cut."""
    if group.frozen:
        return tuple(range(group.width))
    inner = group.width // group.parts
    return tuple(c for c in range(group.width) if (c % inner) // group.block % 2 == 0)


def masked(net: Network, channels: Channels, kept: dict[str, tuple[int, ...]], image: Tensor) -> Tensor:
    """Every channel that is not kept is zero, in every tensor; a norm over all channels is one over those kept."""
    stays = {}
    for node in net.nodes:
        parts = [torch.zeros(channels.groups[name].width) for name in channels.segments[node.name]]
        for name, part in zip(channels.segments[node.name], parts, strict=True):
            part[list(kept[name])] = 1
        stays[node.name] = torch.cat(parts).bool()
    values = {net.input.name: image}

    def silenced(node, value):
        mine = stays[node.name]
        if node.op == "layer_norm":
            given = values[node.inputs[0]][:, mine].movedim(1, -1)
            value = value.index_copy(1, mine.nonzero()[:, 0], F.layer_norm(given, given.shape[-1:], eps=node.attrs.eps)
                                     .movedim(-1, 1))  # fmt: skip
        if node.op == "group_norm" and node.attrs.groups == 1:
            given = values[node.inputs[0]][:, mine]
            value = value.index_copy(1, mine.nonzero()[:, 0], F.group_norm(given, 1, eps=node.attrs.eps))
        values[node.name] = value * mine.reshape(1, -1, 1, 1)
        return values[node.name]

    with torch.no_grad():
        return net.run(image, visit=silenced)[net.output]
