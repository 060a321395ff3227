"""Which channels stay: the damage that each cut does, against the bytes that it saves."""

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from compress.errors import BudgetError
from compress.graph.channels import Channels
from compress.graph.network import Network, Node
from compress.prune.branches import Way
from compress.prune.cost import MACS, WORK, LatencyModel, Workload, predicted_bytes, weight_bytes
from compress.prune.importance import GroupDamage
from compress.prune.units import next_width, step_of


@dataclass(frozen=True)
class PrunePlan:
    """The indices that each group keeps, ascending, and the predicted bytes of the exported file; `gone`: the branches
    that are left out, with which groups may go that keep nothing then."""

    kept: Mapping[str, tuple[int, ...]]
    predicted_bytes: int
    gone: Way = ()


def check_budget(net: Network, channels: Channels, budget_bytes: int, most_macs: float | None = None) -> None:
    """Raises BudgetError, with the least that is possible and what holds the most bytes, for a budget that no width can
    meet."""
    smallest = predicted_bytes(net, channels, narrowest(channels))
    if smallest > budget_bytes:
        held = "; ".join(f"{reason}: {size:,}" for reason, size in list(held_bytes(net, channels).items())[:3])
        raise BudgetError(
            f"no student fits in {budget_bytes:,} bytes: the smallest possible has about {smallest:,}"
            + (f", of which stay whole, by reason: {held}" if held else "")
        )
    if most_macs is None:
        return
    least = 1e6 * _Costs(Workload(net, channels)).total(narrowest(channels)).work
    if least > most_macs:
        raise BudgetError(
            f"no student has at most {most_macs:,.0f} multiply-accumulates: the narrowest has about {least:,.0f}; give "
            "smaller plan.input_sizes"
        )


def held_bytes(net: Network, channels: Channels) -> dict[str, int]:
    """Bytes of the weights that no plan cuts, by why their channels stay; the most first. The input's and the output's
    channels, which every network has, are not among them."""
    widths, held = narrowest(channels), Counter[str]()
    for node in net.weighted():
        reasons = {channels.groups[name].frozen for name in channels.segments[node.name]}
        for reason in reasons - {"", "input image", "class map"}:
            held[reason.partition(" by ")[0] + _what(reason)] += weight_bytes(net, channels, widths, node)
    return dict(held.most_common())


def _what(reason: str) -> str:
    """Of "read by encoder.3.norm, a layer_norm" the kind alone, so that many are one."""
    return f" by {reason.rpartition(', ')[2]}" if " by " in reason else ""


def narrowest(channels: Channels) -> dict[str, int]:
    return {g.name: g.width if g.frozen else min(step_of(g), g.width) for g in channels.groups.values()}


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
    most_macs: float | None = None,
) -> PrunePlan:
    """Widths of little total damage within a budget of bytes and a share of the given network's
    multiply-accumulates, and of `most_macs` in any case. Where that is not fast enough for `latency`, the predicted
    milliseconds take the place of the share.

    Greedy: from full width, always the step (of 8 channels, or as many as go together) that does the least damage for
    what it saves, where a byte and a multiply-accumulate (a millisecond) are exchanged at the rate that lets both
    budgets run out together (a Lagrange multiplier, found by bisection). Raises BudgetError, with the least that is
    possible, for a budget that no width can meet.
    """
    check_budget(net, channels, budget_bytes, most_macs)
    full = channels.widths()
    workload = Workload(net, channels)
    costs = _Costs(workload)
    most = math.inf if most_macs is None else most_macs / 1e6
    work = min(most, macs_share * costs.total(full).work)
    widths = _exchanged(costs, damage, full, _Cost(budget_bytes, work))
    if latency:
        timed, limits = _Costs(workload, latency.model), _Cost(budget_bytes, latency.limit_ms)
        if (fastest := timed.total(narrowest(channels)).work) > limits.work:
            raise BudgetError(
                f"no student runs in {limits.work:g} ms: the fastest possible takes about {fastest:.2g} ms here"
            )
        if timed.total(widths).work > limits.work:
            widths = _exchanged(timed, damage, full, limits)
            widths = _descend(timed, damage, widths, limits, 1.0)  # where time alone decides, bytes are left over
    widths = _descend(costs, damage, widths, _Cost(budget_bytes, most), 1.0)  # and so where work alone does
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
        after = costs.next_width(name, widths)
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
        widths[name] = costs.next_width(name, widths)
        heapq.heappush(queue, (price(name), name))
    return widths


def plan_of(
    net: Network, channels: Channels, order: Mapping[str, tuple[int, ...]], widths: Mapping[str, int]
) -> PrunePlan:
    kept = {name: tuple(sorted(order[name][:width])) for name, width in widths.items()}
    return PrunePlan(kept, predicted_bytes(net, channels, widths))


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
        self.steps = {name: step_of(group) for name, group in self.channels.groups.items()}
        self.touched: dict[str, list[Node]] = {name: [] for name in self.channels.groups}
        for node in self.net.nodes if model else self.net.weighted():
            for group in {group for name in (node.name, *node.inputs) for group in self.channels.segments[name]}:
                self.touched[group].append(node)

    def total(self, widths: Mapping[str, int]) -> _Cost:
        work = self.constant + sum(self._work(node, widths) for node in self.net.nodes)
        return _Cost(predicted_bytes(self.net, self.channels, widths), work)

    def next_width(self, name: str, widths: Mapping[str, int]) -> int:
        return next_width(widths[name], self.steps[name])

    def saved(self, name: str, widths: Mapping[str, int]) -> _Cost:
        narrower = {**widths, name: self.next_width(name, widths)}
        before, after = self._of(name, widths), self._of(name, narrower)
        return _Cost(before.size_bytes - after.size_bytes, before.work - after.work)

    def _of(self, name: str, widths: Mapping[str, int]) -> _Cost:
        touched = self.touched[name]
        size = sum(weight_bytes(self.net, self.channels, widths, node) for node in touched if node.kind.weights)
        return _Cost(size, sum(self._work(node, widths) for node in touched))

    def _work(self, node: Node, widths: Mapping[str, int]) -> float:
        return sum(self.prices[kind] * count for kind, count in self.workload.of(node, widths))
