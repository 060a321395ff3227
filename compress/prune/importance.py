"""What each channel is worth: the damage that cutting it does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from compress.graph.channels import ChannelGroup, Channels
from compress.graph.network import Network, Node
from compress.graph.operators.operator import Channels as From
from compress.machine import give_way
from compress.prune.units import in_units
from compress.terminal.progress import tqdm

Key = TypeVar("Key")

EXHAUSTED = 1e-5
COMPARED_ONE_BY_ONE = 64
"""From twice as many channels on, several are taken at a time."""
CANDIDATES = 4
"""For each that is taken, so many are compared."""


@dataclass(frozen=True)
class GroupDamage:
    """order[i] is the channel that is kept as the (i+1)-th; damage[k] the expected rise of the loss when the
    first k are kept and what they tell of the others is used (damage[width] = 0)."""

    order: tuple[int, ...]
    damage: tuple[float, ...]


def measure_damage(
    net: Network, channels: Channels, images: Sequence[Tensor], multilabel: bool = False
) -> dict[str, GroupDamage]:
    """Expected damage for each prunable group, from real images: real values [N, channels, H, W], about 32 of them.

    A channel's loss matters as far as the kept ones cannot stand in for it, since the repair that follows
    refits every reader of a group by least squares. So channels are taken in the order of a pivoted Cholesky
    decomposition of their covariance, each variance weighted by how much the output's log likelihood depends
    on it: the diagonal of the Fisher information (Molchanov et al. 2019, arXiv 1906.10771, use it for single
    channels), with labels drawn from the network's own output, so that no label is needed: with `multilabel` each of
    them by itself.
    """
    if not channels.prunable():
        return {}
    generator = torch.Generator().manual_seed(0)
    statistics = _Statistics(net, channels, multilabel)
    for image in tqdm(images, desc="importance", unit="image", delay=1):
        give_way()
        statistics.add(image, generator)
    groups = tqdm(channels.prunable(), desc="ranking channels", unit="group", delay=1)
    return {group.name: _in_units(group, *statistics.of(group.name)) for group in groups}


def likelihood_gradients(
    net: Network, image: Tensor, names: Sequence[str], multilabel: bool, generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors `names`, and the gradients there of the log likelihood of labels drawn from the network's output."""
    values = net.run(image.clone().requires_grad_(True), keep=names)
    likelihood = _likelihood_of_labels if multilabel else _likelihood_of_classes
    drawn = likelihood(values[net.output].clamp(1e-6, 1 - 1e-6), generator)
    return values, dict(zip(names, torch.autograd.grad(drawn.log().sum(), [values[name] for name in names])))


def accumulate(sums: dict[Key, Tensor], key: Key, value: Tensor) -> None:
    """Adds to what `sums` has there, if anything."""
    sums[key] = sums[key] + value if key in sums else value


class _Statistics:
    """Sums over images of channel covariance and of squared gradients, for the tensors that readers see."""

    def __init__(self, net: Network, channels: Channels, multilabel: bool):
        self.net, self.channels, self.count, self.multilabel = net, channels, 0, multilabel
        activated = {n.inputs[0] for n in net.nodes if n.kind.activation and net.readers[n.inputs[0]] == 1}
        self.tensors = [name for name in self._made_as_one() if name not in activated]
        self.second: dict[str, Tensor] = {}
        self.first: dict[str, Tensor] = {}
        self.fisher: dict[str, Tensor] = {}
        self.positions: dict[str, int] = {}

    def _made_as_one(self) -> list[str]:
        """Tensors whose channels, as far as they can be cut, one layer, sum or product makes, and not a concat."""
        made: list[str] = []
        groups = self.channels.groups
        for node in self.net.nodes:
            parts = self.channels.segments[node.name]
            if not (node.kind.weights or node.kind.activation or node.kind.channels is From.TIES):
                continue
            as_one = node.inputs[0] in made if node.kind.activation else self._makes(node)
            if (len(parts) == 1 or as_one) and not all(groups[name].frozen for name in parts):
                made.append(node.name)
        return made

    def _makes(self, node: Node) -> bool:
        return not node.kind.weights or self.channels.segments[node.name] != self.channels.segments[node.inputs[0]]

    def add(self, image: Tensor, generator: torch.Generator) -> None:
        values, gradients = likelihood_gradients(self.net, image, self.tensors, self.multilabel, generator)
        for name, gradient in gradients.items():
            value = values[name].detach().transpose(0, 1).flatten(1)
            accumulate(self.second, name, (value @ value.T).double())
            accumulate(self.first, name, value.sum(1).double())
            accumulate(self.fisher, name, gradient.square().sum((0, 2, 3)).double())
            self.positions[name] = self.positions.get(name, 0) + value.shape[1]
        self.count += len(image)

    def of(self, group: str) -> tuple[list[Tensor], list[Tensor]]:
        """Covariances [C, C] and Fisher sums for an image [C], one each for every tensor of the group."""
        covariances, fishers = [], []
        for name in self.tensors:
            for part in self._places(name, group):
                mean = self.first[name][part] / self.positions[name]
                covariances.append(self.second[name][part, part] / self.positions[name] - torch.outer(mean, mean))
                fishers.append(self.fisher[name][part] / self.count)
        return covariances, fishers

    def _places(self, name: str, group: str) -> Iterator[slice]:
        first = 0
        for part in self.channels.segments[name]:
            last = first + self.channels.groups[part].width
            if part == group:
                yield slice(first, last)
            first = last


def _in_units(group: ChannelGroup, covariances: list[Tensor], fishers: list[Tensor]) -> GroupDamage:
    """Ranked channel by channel; where they go in units, those are ranked by what their channels explained, and the
    damage is that of their order."""
    single = _pivoted(covariances, fishers)
    if group.unit == 1:
        return single
    worth = [0.0] * group.width
    for place, channel in enumerate(single.order):
        worth[channel] = single.damage[place] - single.damage[place + 1]
    order = in_units(group, single.order, worth)
    return GroupDamage(order, _damage_of(order, torch.stack(covariances), torch.stack(fishers)))


def _damage_of(order: tuple[int, ...], residual: Tensor, fisher: Tensor) -> tuple[float, ...]:
    """What is left unexplained when channels are kept in this order, as `_pivoted` counts it. [T, C, C], [T, C]."""
    picked = list(order)
    residual, fisher = residual[:, picked][:, :, picked].clone(), fisher[:, picked]
    rounding, damage = _Rounding.of(residual), []
    for place in range(len(picked)):
        left = residual[:, place:, place:]
        variance = _variance(left)
        damage.append(float((fisher[:, place:] * variance).sum()))
        factor = rounding.factor(left[:, :, 0], variance[:, :1])
        left -= factor[:, :, None] * factor[:, None, :]
    return (*damage, 0.0)


def _variance(residual: Tensor) -> Tensor:
    """[T, C, C] -> [T, C]"""
    return residual.diagonal(dim1=1, dim2=2).clamp_min(0)


@dataclass(frozen=True)
class _Rounding:
    """What of a variance is rounding, by tensor [T, 1]: all that is left of it up to `exhausted`; `floor` is added to
    what is divided by."""

    floor: Tensor
    exhausted: Tensor

    @classmethod
    def of(cls, covariances: Tensor) -> "_Rounding":
        variance = _variance(covariances)
        return cls(1e-6 * variance.mean(1, keepdim=True) + 1e-12, EXHAUSTED * variance.amax(1, keepdim=True))

    def factor(self, column: Tensor, pivot: Tensor) -> Tensor:
        """The column of the Cholesky factor, from that of the covariances [T, C] and the variance there [T, 1]."""
        return torch.where(pivot > self.exhausted, column / (pivot + self.floor).sqrt(), 0.0)


def _likelihood_of_classes(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Of [N, classes, H, W]: the probability of a class that is drawn by it for each pixel."""
    share = probabilities / probabilities.sum(1, keepdim=True)
    drawn = torch.multinomial(share.detach().permute(0, 2, 3, 1).flatten(0, 2), 1, generator=generator)
    return share.permute(0, 2, 3, 1).flatten(0, 2).gather(1, drawn)


def _likelihood_of_labels(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Of [N, labels, H, W]: the probability of what is drawn by it for each label of each pixel, there or not."""
    there = torch.bernoulli(probabilities.detach(), generator=generator).bool()
    return torch.where(there, probabilities, 1 - probabilities)


def _pivoted(covariances: list[Tensor], fishers: list[Tensor]) -> GroupDamage:
    """Keep, one after the other, the channel that leaves the least damage in the variance not yet explained.

    What is left of a channel's variance below EXHAUSTED of the largest is rounding: it explains nothing. Wide groups
    are worked through in blocks: all channels are compared at the start of each, those that then promise most at
    every step.
    """
    residual, fisher = torch.stack(covariances), torch.stack(fishers)
    rounding = _Rounding.of(residual)
    left = torch.arange(fisher.shape[1])
    block = max(1, len(left) // COMPARED_ONE_BY_ONE)
    order: list[int] = []
    damage: list[float] = []

    def promise(columns: Tensor, variance: Tensor) -> Tensor:
        """How much damage each of these columns [T, C, n], of that variance [T, n], would explain."""
        explained = torch.einsum("tc,tcj->tj", fisher, columns.square()) / (variance + rounding.floor)
        return torch.where(variance > rounding.exhausted, explained, 0.0).sum(0)

    while len(left):
        variance = _variance(residual)
        rows = promise(residual, variance).topk(min(CANDIDATES * block, len(left))).indices
        columns, free = residual[:, :, rows].clone(), torch.ones(len(rows), dtype=torch.bool)
        factors = []
        for _ in range(min(block, len(left))):
            damage.append(float((fisher * variance).sum()))
            best = int(promise(columns, variance[:, rows]).masked_fill(~free, -1.0).argmax())
            free[best] = False
            order.append(int(left[rows[best]]))
            factor = rounding.factor(columns[:, :, best], variance[:, rows[best]].unsqueeze(1))
            columns -= factor[:, :, None] * factor[:, None, rows]
            variance = (variance - factor.square()).clamp_min(0)
            variance[:, rows[best]] = 0.0
            factors.append(factor)
        chosen = rows[~free]
        residual = residual - torch.stack(factors, 2) @ torch.stack(factors, 1)
        stay = torch.ones(len(left), dtype=torch.bool)
        stay[chosen] = False
        residual, fisher, left = residual[:, stay][:, :, stay], fisher[:, stay], left[stay]
    return GroupDamage(tuple(order), (*damage, 0.0))
