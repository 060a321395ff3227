"""Whole branches that a student may do without: an input of a concat or a sum, and all that leads to nothing else."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.graph.channels import Channels
from compress.graph.network import Network, Node, needed
from compress.graph.operators.operator import Channels as From
from compress.machine import give_way
from compress.prune.cost import MACS, Workload
from compress.prune.importance import accumulate, likelihood_gradients
from compress.terminal.progress import tqdm

RIDGE = 0.01
"""Of the mean diagonal of the normal equations."""

WAYS = 8
"""Sets of branches that are planned without, and compared."""


class Branch(NamedTuple):
    """The input `gone` of the concat or sum `at`."""

    at: str
    gone: str


Way = tuple[Branch, ...]
"""Branches that are left out together."""


def branches(net: Network) -> list[Branch]:
    """All that could be left out. Convolutions alone read such a concat, so that their weights tell which channels are
    whose."""
    shapes = net.shapes()
    found = []
    for node in net.nodes:
        distinct = len(set(node.inputs)) == len(node.inputs) > 1
        if not distinct or node.name == net.output:
            continue
        alike = node.op == "add" and len({shapes[name] for name in node.inputs}) == 1
        if alike or (node.kind.channels is From.JOINS and _convolutions_read(net, node)):
            found += [Branch(node.name, name) for name in node.inputs]
    return found


def _convolutions_read(net: Network, node: Node) -> bool:
    readers = [other for other in net.nodes if node.name in other.inputs]
    return all(reader.kind.weights and reader.attrs.groups == 1 for reader in readers)


def measure_branches(net: Network, images: Sequence[Tensor], multilabel: bool = False) -> dict[Branch, float]:
    """The expected rise of the loss without each branch, as `compress.prune.importance.GroupDamage` counts it, from
    real images: real values [N, channels, H, W].

    The layers that read the other inputs are refitted by the repair that follows; so what those tell of the branch, at
    the same place, is not lost. That is fitted by least squares on one half of the images, and what it leaves of the
    branch's variance is measured on the other. One that is enlarged before it is joined is looked at before that, and
    the others averaged to its size: errors in an enlarged map are alike in a whole neighbourhood, and add up.
    """
    found = {branch: _made(net, branch) for branch in branches(net)}
    seen = {name for branch, made in found.items() for name in (made, branch.at, *net.by_name[branch.at].inputs)}
    generator = torch.Generator().manual_seed(0)
    halves: tuple[dict[Branch, Tensor], dict[Branch, Tensor]] = ({}, {})
    dependence: dict[Branch, Tensor] = {}
    for number, image in enumerate(tqdm(images if found else [], desc="branches", unit="image", delay=1)):
        give_way()
        values, gradients = likelihood_gradients(net, image, sorted(seen), multilabel, generator)
        for branch, made in found.items():
            own, names = values[made], net.by_name[branch.at].inputs
            others = [
                F.adaptive_avg_pool2d(values[name], (own.shape[2], own.shape[3]))
                for name in names
                if name != branch.gone
            ]
            accumulate(halves[number % 2], branch, _products([*others, own]))
            gradient = gradients[made] if net.readers[made] == 1 else _part(gradients[branch.at], branch, names, values)
            accumulate(dependence, branch, gradient.square().sum((0, 2, 3)).double() / len(images))
    checked = halves[1] or halves[0]
    return {
        branch: float(each @ _left(halves[0][branch], checked[branch], len(each)))
        for branch, each in dependence.items()
    }


def _made(net: Network, branch: Branch) -> str:
    """The branch's tensor, before it is enlarged for nothing else."""
    name = branch.gone
    while net.by_name[name].op == "resize" and net.readers[name] == 1:
        (name,) = net.by_name[name].inputs
    return name if net.readers[name] == 1 else branch.gone


def _part(gradient: Tensor, branch: Branch, names: Sequence[str], values: Mapping[str, Tensor]) -> Tensor:
    """What of a concat's or a sum's gradient is the branch's."""
    widths = [values[name].shape[1] for name in names]
    if gradient.shape[1] != sum(widths):
        return gradient
    return gradient.split(widths, 1)[names.index(branch.gone)]


def _products(values: Sequence[Tensor]) -> Tensor:
    """Of the channels of several tensors, and of a 1 behind them, summed over positions: float64 [C + 1, C + 1]."""
    rows = torch.cat([value.detach().transpose(0, 1).flatten(1) for value in values])
    rows = torch.cat([rows, torch.ones(1, rows.shape[1])])
    return (rows @ rows.T).double()


def _left(fitted: Tensor, checked: Tensor, count: int) -> Tensor:
    """What is left of the variance of the last `count` channels when the others tell what they can of them."""
    mean = fitted[:-1, -1] / fitted[-1, -1]
    covariance = fitted[:-1, :-1] / fitted[-1, -1] - torch.outer(mean, mean)
    given, both = covariance[:-count, :-count], covariance[-count:, :-count]
    ridge = RIDGE * given.diagonal().mean() + 1e-9
    weight = torch.linalg.solve(given + ridge * torch.eye(len(given), dtype=given.dtype), both.mT).mT
    level = mean[-count:] - weight @ mean[:-count]
    off = torch.cat([-weight, torch.eye(count, dtype=weight.dtype), -level[:, None]], 1)
    return torch.einsum("oc,cd,od->o", off, checked / checked[-1, -1], off).clamp_min(0)


def nested(net: Network, channels: Channels, damage: Mapping[Branch, float]) -> list[Way]:
    """Ever more branches, none at first, of which the shares of the network that they save are evenly spread: always
    the one next that does the least damage for the operators and multiply-accumulates that go with it."""
    workload, widths = Workload(net, channels), channels.widths()
    macs = {node.name: sum(count for kind, count in workload.of(node, widths) if kind < MACS) for node in net.nodes}
    whole = sum(macs.values()) or 1.0

    def saved(way: Way) -> float:
        nodes = _rest(net, way)
        return 1 - (len(nodes) / len(net.nodes) + sum(macs[node.name] for node in nodes) / whole) / 2

    path: list[Way] = [()]
    shares = [0.0]
    while True:
        more = {(*path[-1], branch): damage[branch] for branch in _still_there(net, path[-1], damage)}
        prices = {way: each / gain for way, each in more.items() if (gain := saved(way) - shares[-1]) > 0}
        if not prices:
            break
        path.append(min(prices, key=lambda way: prices[way]))
        shares.append(saved(path[-1]))
    wanted = [shares[-1] * place / (WAYS - 1) for place in range(WAYS)]
    nearest = [min(range(len(shares)), key=lambda i, each=each: abs(shares[i] - each)) for each in wanted]  # type: ignore[misc]
    return [path[index] for index in dict.fromkeys(nearest)]


def _still_there(net: Network, way: Way, among: Iterable[Branch]) -> Iterator[Branch]:
    """Branches of what is left, one of each concat and sum: of several inputs each may tell what the others do."""
    left, taken = {node.name for node in _rest(net, way)}, {branch.at for branch in way}
    yield from (branch for branch in among if branch.at in left and branch.at not in taken)


def _rest(net: Network, way: Collection[Branch]) -> tuple[Node, ...]:
    """The operators that are left. Of a concat or sum with one input left that takes the place."""
    renamed: dict[str, str] = {}
    nodes = []
    for node in net.nodes:
        inputs = tuple(renamed.get(name, name) for name in node.inputs if (node.name, name) not in way)
        if len(inputs) == 1 < len(node.inputs):
            (renamed[node.name],) = inputs
        else:
            nodes.append(replace(node, inputs=inputs))
    return needed(nodes, net.output)


def without(net: Network, channels: Channels, way: Way) -> tuple[Network, Channels]:
    """The network without some branches, and which of its channels are which; what reads them keeps its other
    weights."""
    if not way:
        return net, channels
    nodes, weights, widths = _rest(net, way), net.weights(), channels.widths()
    segments = {name: channels.segments[name] for name in (node.name for node in nodes)}
    concats = {at for at, _ in way if net.by_name[at].kind.channels is From.JOINS}
    for concat in [node for node in net.nodes if node.name in concats]:
        stays = [name for name in concat.inputs if (concat.name, name) not in way]
        if concat.name in segments:
            segments[concat.name] = tuple(group for name in stays for group in channels.segments[name])
        parts = [torch.full((channels.width(name, widths),), name in stays) for name in concat.inputs]
        kept = torch.cat(parts).nonzero().flatten()
        for reader in net.nodes:
            if concat.name in reader.inputs:
                weight, bias = weights[reader.name]
                weights[reader.name] = weight.detach().index_select(reader.weights.inputs, kept), bias
    groups = {}
    for name, group in channels.groups.items():
        if producers := tuple(each for each in group.producers if each in segments):
            groups[name] = replace(group, producers=producers)
    return net.rewritten(weights, nodes), Channels(groups, segments)
