"""Which channels stay: the damage that each cut does, against the bytes that it saves."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from compress.errors import BudgetError
from compress.graph.channels import Channels
from compress.graph.network import CONVS, Network, Node
from compress.prune.cost import MACS, WORK, LatencyModel, Workload

STEP = 8
"""Widths are multiples of this: int8 kernels work in blocks of 8, a narrower layer saves no time."""

CHANNEL_BYTES = 13
"""Of each output channel of a convolution, measured on exported files: bias, scales and zero points."""

OPERATOR_BYTES = 260
"""Of each node, measured on exported files: tables, tensors, names and options."""


@dataclass(frozen=True)
class PrunePlan:
    """The indices that each group keeps, ascending, and the predicted bytes of the exported file."""

    kept: Mapping[str, tuple[int, ...]]
    predicted_bytes: int


@dataclass(frozen=True)
class GroupDamage:
    """order[i] is the channel that is kept as the (i+1)-th; damage[k] the expected rise of the loss when the
    first k are kept and what they tell of the others is used (damage[width] = 0)."""

    order: tuple[int, ...]
    damage: tuple[float, ...]


def measure_damage(net: Network, channels: Channels, images: Sequence[Tensor]) -> dict[str, GroupDamage]:
    """Expected damage for each prunable group, from real images: real values [N, 3, H, W], about 32 of them.

    A channel's loss matters as far as the kept ones cannot stand in for it, since the repair that follows
    refits every reader of a group by least squares. So channels are taken in the order of a pivoted Cholesky
    decomposition of their covariance, each variance weighted by how much the output's log likelihood depends
    on it: the diagonal of the Fisher information (Molchanov et al. 2019, arXiv 1906.10771, use it for single
    channels), with labels drawn from the network's own output, so that no label is needed.
    """
    generator = torch.Generator().manual_seed(0)
    statistics = _Statistics(net, channels)
    for image in tqdm(images, desc="importance", unit="image", delay=1):
        statistics.add(image, generator)
    return {group.name: _pivoted(*statistics.of(group.name)) for group in channels.prunable()}


class _Statistics:
    """Sums over images of channel covariance and of squared gradients, for the tensors that readers see."""

    def __init__(self, net: Network, channels: Channels):
        self.net, self.channels, self.count = net, channels, 0
        prunable = {group.name for group in channels.prunable()}
        fused = {n.inputs[0] for n in net.nodes if n.op in ("relu", "relu6") and net.readers[n.inputs[0]] == 1}
        self.tensors = [
            node.name
            for node in net.nodes
            if node.op in (*CONVS, "relu", "relu6", "add", "mul") and node.name not in fused
            if len(channels.segments[node.name]) == 1 and channels.segments[node.name][0] in prunable
        ]
        self.second: dict[str, Tensor] = {}
        self.first: dict[str, Tensor] = {}
        self.fisher: dict[str, Tensor] = {}
        self.positions: dict[str, int] = {}

    def add(self, image: Tensor, generator: torch.Generator) -> None:
        image = image.clone().requires_grad_(True)
        values = self.net.run(image, keep=self.tensors)
        probabilities = values[self.net.output].clamp(1e-6, 1 - 1e-6)
        share = probabilities / probabilities.sum(1, keepdim=True)
        drawn = torch.multinomial(share.detach().permute(0, 2, 3, 1).flatten(0, 2), 1, generator=generator)
        picked = share.permute(0, 2, 3, 1).flatten(0, 2).gather(1, drawn)
        gradients = torch.autograd.grad(picked.log().sum(), [values[name] for name in self.tensors])
        for name, gradient in zip(self.tensors, gradients):
            value = values[name].detach().transpose(0, 1).flatten(1)
            self._sum(self.second, name, (value @ value.T).double())
            self._sum(self.first, name, value.sum(1).double())
            self._sum(self.fisher, name, gradient.square().sum((0, 2, 3)).double())
            self.positions[name] = self.positions.get(name, 0) + value.shape[1]
        self.count += len(image)

    @staticmethod
    def _sum(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
        sums[name] = sums[name] + value if name in sums else value

    def of(self, group: str) -> tuple[list[Tensor], list[Tensor]]:
        """Covariances [C, C] and Fisher sums for an image [C], one each for every tensor of the group."""
        names = [name for name in self.tensors if self.channels.segments[name][0] == group]
        covariances = []
        for name in names:
            mean = self.first[name] / self.positions[name]
            covariances.append(self.second[name] / self.positions[name] - torch.outer(mean, mean))
        return covariances, [self.fisher[name] / self.count for name in names]


def _pivoted(covariances: list[Tensor], fishers: list[Tensor]) -> GroupDamage:
    """Keep, one after the other, the channel that leaves the least damage in the variance not yet explained."""
    residual, fisher = torch.stack(covariances), torch.stack(fishers)
    floor = 1e-6 * residual.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + 1e-12
    free = torch.ones(fisher.shape[1], dtype=torch.bool)
    order: list[int] = []
    damage: list[float] = []
    while free.any():
        variance = residual.diagonal(dim1=1, dim2=2).clamp_min(0)
        damage.append(float((fisher * variance).sum()))
        gain = (torch.einsum("tc,tcj->tj", fisher, residual.square()) / (variance + floor)).sum(0)
        best = int(gain.masked_fill(~free, -1.0).argmax())
        order.append(best)
        free[best] = False
        column = residual[:, :, best]
        pivot = (variance[:, best] + floor[:, 0]).reshape(-1, 1, 1)
        residual = residual - column[:, :, None] * column[:, None, :] / pivot
    return GroupDamage(tuple(order), (*damage, 0.0))


def predicted_bytes(net: Network, channels: Channels, widths: Mapping[str, int]) -> int:
    """Bytes of the exported int8 file when the groups have these widths."""
    return OPERATOR_BYTES * len(net.nodes) + sum(conv_bytes(net, channels, widths, node) for node in net.convs())


def check_budget(net: Network, channels: Channels, budget_bytes: int) -> None:
    """Raises BudgetError, with the smallest size possible, for a budget that no width can meet."""
    smallest = predicted_bytes(net, channels, _narrowest(channels))
    if smallest > budget_bytes:
        raise BudgetError(f"no student fits in {budget_bytes:,} bytes: the smallest possible has about {smallest:,}")


def _narrowest(channels: Channels) -> dict[str, int]:
    return {g.name: g.width if g.frozen else min(STEP, g.width) for g in channels.groups.values()}


def conv_bytes(net: Network, channels: Channels, widths: Mapping[str, int], node: Node) -> int:
    """Bytes of one convolution's int8 weights, bias and scales."""
    weight = net.weight(node.name)
    inputs = weight.shape[1] if node.attrs["groups"] > 1 else channels.width(node.inputs[0], widths)
    return channels.width(node.name, widths) * (inputs * weight.shape[2] * weight.shape[3] + CHANNEL_BYTES)


@dataclass(frozen=True)
class LatencyLimit:
    """At most `limit_ms` for one inference, as `model` predicts it."""

    limit_ms: float
    model: LatencyModel


def choose(
    net: Network,
    channels: Channels,
    damage: Mapping[str, GroupDamage],
    budget_bytes: int,
    macs_share: float,
    latency: LatencyLimit | None = None,
) -> PrunePlan:
    """Widths of little total damage within a budget of bytes and a share of the given network's
    multiply-accumulates. Where that is not fast enough for `latency`, the predicted milliseconds take the place
    of the multiply-accumulates.

    Greedy: from full width, always the step of 8 channels that does the least damage for what it saves, where a
    byte and a multiply-accumulate (a millisecond) are exchanged at the rate that lets both budgets run out together
    (a Lagrange multiplier, found by bisection). Raises BudgetError, with the least that is possible, for a budget
    that no width can meet.
    """
    check_budget(net, channels, budget_bytes)
    full = {group.name: group.width for group in channels.groups.values()}
    workload = Workload(net, channels)
    costs = _Costs(workload)
    widths = _exchanged(costs, damage, full, _Cost(budget_bytes, macs_share * costs.total(full).work))
    if latency:
        timed, limits = _Costs(workload, latency.model), _Cost(budget_bytes, latency.limit_ms)
        if (fastest := timed.total(_narrowest(channels)).work) > limits.work:
            raise BudgetError(
                f"no student runs in {limits.work:g} ms: the fastest possible takes about {fastest:.2g} ms here"
            )
        if timed.total(widths).work > limits.work:
            widths = _exchanged(timed, damage, full, limits)
            widths = _descend(timed, damage, widths, limits, 1.0)  # where time alone decides, bytes are left over
    return plan_of(net, channels, {n: damage[n].order if n in damage else tuple(range(full[n])) for n in full}, widths)


def _exchanged(
    costs: "_Costs", damage: Mapping[str, GroupDamage], full: Mapping[str, int], limits: "_Cost"
) -> dict[str, int]:
    """Widths that meet the limit of bytes, and that of work if the rate of exchange alone can do it."""
    bytes_alone = limits._replace(work=float("inf"))
    best = _descend(costs, damage, full, bytes_alone, 0.0)
    if costs.total(best).work <= limits.work:
        return best
    low, high = 0.0, 1.0
    for _ in range(12):
        rate = (low + high) / 2
        best = _descend(costs, damage, full, bytes_alone, rate)
        low, high = (rate, high) if costs.total(best).work > limits.work else (low, rate)
    return _descend(costs, damage, full, bytes_alone, high)


def _descend(
    costs: "_Costs", damage: Mapping[str, GroupDamage], start: Mapping[str, int], limits: "_Cost", rate: float
) -> dict[str, int]:
    """From the widths `start` to such as meet the limits; `rate` in 0..1 is how much of a step's saving is counted
    in work, the rest being counted in bytes."""
    widths, whole = dict(start), costs.total(start)
    size, work = whole

    def price(name: str) -> float:
        after = next_width(widths[name])
        if after == 0:
            return float("inf")
        saved = costs.saved(name, widths)
        share = (1 - rate) * saved.size_bytes / whole.size_bytes + rate * saved.work / whole.work
        return (damage[name].damage[after] - damage[name].damage[widths[name]]) / max(share, 1e-12)

    queue = [(price(name), name) for name in damage]
    heapq.heapify(queue)
    while size > limits.size_bytes or work > limits.work:
        stale, name = heapq.heappop(queue)
        now = price(name)
        if now == float("inf"):  # nothing left to cut
            break
        if now > stale and queue and now > queue[0][0]:
            heapq.heappush(queue, (now, name))
            continue
        saved = costs.saved(name, widths)
        size, work = size - saved.size_bytes, work - saved.work
        widths[name] = next_width(widths[name])
        heapq.heappush(queue, (price(name), name))
    return widths


def plan_of(
    net: Network, channels: Channels, order: Mapping[str, tuple[int, ...]], widths: Mapping[str, int]
) -> PrunePlan:
    kept = {name: tuple(sorted(order[name][:width])) for name, width in widths.items()}
    return PrunePlan(kept, predicted_bytes(net, channels, widths))


def next_width(width: int) -> int:
    """The next narrower multiple of 8; 0 when there is none."""
    return (width - 1) // STEP * STEP


class _Cost(NamedTuple):
    """Bytes of the file, and work: multiply-accumulates, or milliseconds where a latency is limited."""

    size_bytes: float
    work: float


class _Costs:
    """What a network of given widths costs, and what one step saves, from the operators that it touches alone."""

    def __init__(self, workload: Workload, model: LatencyModel | None = None):
        self.net, self.channels, self.workload = workload.net, workload.channels, workload
        self.constant = model.constant_ms if model else 0.0
        self.prices = model.prices_ms if model else (1.0,) * MACS + (0.0,) * (len(WORK) - MACS)
        self.touched: dict[str, list[Node]] = {name: [] for name in self.channels.groups}
        for node in self.net.nodes if model else self.net.convs():
            for group in {group for name in (node.name, *node.inputs) for group in self.channels.segments[name]}:
                self.touched[group].append(node)

    def total(self, widths: Mapping[str, int]) -> _Cost:
        work = self.constant + sum(self._work(node, widths) for node in self.net.nodes)
        return _Cost(predicted_bytes(self.net, self.channels, widths), work)

    def saved(self, name: str, widths: Mapping[str, int]) -> _Cost:
        narrower = {**widths, name: next_width(widths[name])}
        before, after = self._of(name, widths), self._of(name, narrower)
        return _Cost(before.size_bytes - after.size_bytes, before.work - after.work)

    def _of(self, name: str, widths: Mapping[str, int]) -> _Cost:
        touched = self.touched[name]
        size = sum(conv_bytes(self.net, self.channels, widths, node) for node in touched if node.op in CONVS)
        return _Cost(size, sum(self._work(node, widths) for node in touched))

    def _work(self, node: Node, widths: Mapping[str, int]) -> float:
        return sum(self.prices[kind] * count for kind, count in self.workload.of(node, widths))
