"""What the student keeps: a plan within the budget, checked on real files."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Literal

import numpy as np

from compress.budget import Budget
from compress.errors import BudgetError
from compress.graph.channels import Channels
from compress.graph.network import Network
from compress.measure.latency import take_turns
from compress.prune.baselines import Fits, choose_magnitude, choose_random, choose_uniform, random_widths
from compress.prune.branches import Branch, nested, without
from compress.prune.cost import LatencyModel, Workload, fit_latency, predicted_bytes
from compress.prune.cut import cut
from compress.prune.importance import GroupDamage
from compress.prune.widths import LatencyLimit, PrunePlan, choose, plan_of
from compress.quantize.convert import quantized_graph
from compress.quantize.placement import place
from compress.quantize.training import QuantizedNetwork
from compress.release.export import FileSettings, write_files
from compress.runtime.local import Child
from compress.terminal.progress import tqdm

log = logging.getLogger("compress")

CORRECTIONS = 4
PLANNED = 0.95
"""Share of the byte budget that a plan must use at least, where bytes are what binds."""

CANDIDATES = 16
"""Students that the latency model is fitted to."""

SIZES = (0.1, 1.6)
"""The least and the largest of theirs, as shares of the byte budget."""

AIM = 0.95
"""Share of the latency budget that a plan is made for. Timings of one file differ by 5 % from run to run."""

COUNTED = 4.0
"""Times that the expected damage of a branch counts beside that of channels: what stands in for one branch may go with
the next, or is cut itself. It is a guess: U²-Net was repaired without 0, 7, 11 and 37 branches, and trained without 0
and 11, which came to the same."""

ENOUGH = 2
"""Structures in a row that are worse than the best so far, after which no other is tried: timings are not exact, and so
one may look worse than it is."""

Timer = Callable[[Mapping[str, Path]], Mapping[str, float]]
"""Files by name -> median milliseconds of one inference, each in a process of its own, taking turns."""


@dataclass(frozen=True)
class PlanSettings:
    """How channels are chosen, and what decides the bytes and the speed of a student's files."""

    method: Literal["damage", "uniform", "magnitude", "random"]
    files: FileSettings
    keep_float: tuple[str, ...] = ()
    seed: int = 0

    def timed(self) -> "PlanSettings":
        return replace(self, files=self.files.timed())


def median_ms(files: Mapping[str, Path], seconds: float) -> dict[str, float]:
    return {name: latency.p50_ms for name, latency in take_turns(files, turns=5, seconds=seconds).items()}


FIT_TIMER: Timer = partial(median_ms, seconds=0.5)
CHECK_TIMER: Timer = partial(median_ms, seconds=2.0)


def plan_cut(
    net: Network,
    channels: Channels,
    damage: Mapping[str, GroupDamage],
    settings: PlanSettings,
    budget: Budget,
    macs_share: float,
    branches: Mapping[Branch, float] = MappingProxyType({}),
    *,
    fit_timer: Timer = FIT_TIMER,
    check_timer: Timer = CHECK_TIMER,
) -> PrunePlan:
    """The plan of `settings.method` within the budget; its `predicted_bytes` are those of the largest real file.

    Made again where the real files have other bytes, or more work, than predicted, and once more where one is slower
    than the limit on this machine. Where there is such a limit, it may do without some of the `branches`, of which each
    comes with its expected damage: ever more are left out, until that of branches and channels together has risen.
    Raises BudgetError where no student fits.
    """
    if budget.latency_ms is None:
        return _on_files(net, channels, damage, settings, budget, macs_share, None)
    best, least, worse, refused = None, math.inf, 0, None
    for way in nested(net, channels, branches):
        left, inside = without(net, channels, way)
        known = {name: each for name, each in damage.items() if name in inside.groups}
        try:
            plan = _in_time(left, inside, known, settings, budget, macs_share, fit_timer, check_timer)
        except BudgetError as error:  # with fewer operators there may be a plan
            refused = error
            continue
        total = sum(each.damage[len(plan.kept[name])] for name, each in known.items())
        total += COUNTED * sum(branches[branch] for branch in way)
        if branches:
            log.info("plan: without %d branches, %d operators: damage %.4g", len(way), len(left.nodes), total)
        if total < least:
            best, least, worse = replace(plan, gone=way), total, 0
        elif (worse := worse + 1) == ENOUGH:
            break
    if best is None:
        assert refused
        raise refused
    return best


def _in_time(
    net: Network,
    channels: Channels,
    damage: Mapping[str, GroupDamage],
    settings: PlanSettings,
    budget: Budget,
    macs_share: float,
    fit_timer: Timer,
    check_timer: Timer,
) -> PrunePlan:
    """The plan within the budget's latency, of this network's channels. Raises BudgetError."""
    assert budget.size_bytes is not None
    assert budget.latency_ms is not None
    model = latency_model(net, channels, settings, budget.size_bytes, fit_timer)
    workload = Workload(net, channels)
    limit = LatencyLimit(AIM * budget.latency_ms, model)
    for last in (False, True):
        plan = _on_files(net, channels, damage, settings, budget, macs_share, limit)
        predicted = model.predict(workload.total({name: len(kept) for name, kept in plan.kept.items()}))
        with TemporaryDirectory(prefix="compress-") as folder:
            files = untrained(cut(net, channels, plan.kept), settings.timed(), Path(folder))
            measured = check_timer({"student": files[0]})["student"]
            if measured > budget.latency_ms:  # which another program may have caused
                measured = min(measured, check_timer({"student": files[0]})["student"])
        log.info("plan: %.1f ms predicted, %.1f ms measured, %g ms allowed", predicted, measured, budget.latency_ms)
        if measured <= budget.latency_ms or last:
            break
        limit = replace(limit, limit_ms=AIM * budget.latency_ms * predicted / measured)
    return plan


def _on_files(
    net: Network,
    channels: Channels,
    damage: Mapping[str, GroupDamage],
    settings: PlanSettings,
    budget: Budget,
    macs_share: float,
    limit: LatencyLimit | None,
) -> PrunePlan:
    """Within the bytes and the multiply-accumulates of the budget, as the files have them."""
    assert budget.size_bytes is not None
    budget_bytes = target = budget.size_bytes
    most: float | None = budget.macs
    best, before, workload = None, None, Workload(net, channels)
    for _ in range(CORRECTIONS):
        plan = planned(net, channels, damage, settings, target, macs_share, limit, most)
        if before is not None and plan.kept == before.kept:
            break
        before = plan
        with TemporaryDirectory(prefix="compress-") as folder:
            files = untrained(cut(net, channels, plan.kept), settings, Path(folder))
            real = max(path.stat().st_size for path in files)
            work = _most_macs(files) if budget.macs else 0
        log.info("plan: %s bytes predicted, %s in the largest file", f"{plan.predicted_bytes:,}", f"{real:,}")
        if budget.macs and work > budget.macs:
            most = workload.macs({name: len(kept) for name, kept in plan.kept.items()}) * budget.macs / work
            continue
        if real <= budget_bytes and (best is None or real > best.predicted_bytes):
            best = PrunePlan(plan.kept, real)
        if PLANNED * budget_bytes <= real <= budget_bytes:
            break
        target += budget_bytes - real
        if real > budget_bytes:
            target = min(target, plan.predicted_bytes - 1)  # the same plan again would not fit either
    if best is None:
        limits = f"{budget_bytes:,} bytes" + (f" and {budget.macs:,} multiply-accumulates" if budget.macs else "")
        raise BudgetError(f"no student fits in {limits}: the nearest has {real:,} bytes")
    return best


def _most_macs(files: Sequence[Path]) -> int:
    """Multiply-accumulates of the heaviest of the files. Raises MeasureError."""
    counts = []
    for path in files:
        with Child(path, threads=1) as child:
            counts.append(child.macs())
    log.info("plan: %s multiply-accumulates in the heaviest file", f"{max(counts):,}")
    return max(counts)


def planned(
    net: Network,
    channels: Channels,
    damage: Mapping[str, GroupDamage],
    settings: PlanSettings,
    budget_bytes: int,
    macs_share: float,
    limit: LatencyLimit | None = None,
    most_macs: float | None = None,
) -> PrunePlan:
    """The plan of `settings.method` for a predicted size. Only "damage" looks at `damage` and `macs_share`."""
    if settings.method == "damage":
        return choose(net, channels, damage, budget_bytes, macs_share, limit, most_macs)
    workload = Workload(net, channels)

    def fits(widths: Mapping[str, int]) -> bool:
        if predicted_bytes(net, channels, widths) > budget_bytes:
            return False
        if most_macs is not None and workload.macs(widths) > most_macs:
            return False
        return limit is None or limit.model.predict(workload.total(widths)) <= limit.limit_ms

    controls: dict[str, Callable[[Network, Channels, Fits], PrunePlan]] = {
        "uniform": choose_uniform,
        "magnitude": choose_magnitude,
        "random": partial(choose_random, seed=settings.seed),
    }
    return controls[settings.method](net, channels, fits)


def latency_model(
    net: Network, channels: Channels, settings: PlanSettings, budget_bytes: int, timer: Timer = FIT_TIMER
) -> LatencyModel:
    """Fitted to the real timings, here, of students with random widths, from a small part of the budget's size to more
    than it."""
    rng = np.random.default_rng(settings.seed)
    workload = Workload(net, channels)
    every = channels.whole()
    work, files = [], {}
    with TemporaryDirectory(prefix="compress-") as folder:
        for index in tqdm(range(CANDIDATES), desc="candidates to time", unit="file", delay=1):
            size = budget_bytes * float(np.exp(rng.uniform(*np.log(SIZES))))
            widths = random_widths(
                channels,
                workload.pixels,
                rng,
                lambda widths, size=size: predicted_bytes(net, channels, widths) <= size,  # type: ignore[misc]
            )
            student = cut(net, channels, plan_of(net, channels, every, widths).kept)
            place_ = Path(folder) / str(index)
            place_.mkdir()
            files[str(index)] = untrained(student, settings.timed(), place_)[0]
            work.append(workload.total(widths))
        times = timer(files)
    model = fit_latency(work, [times[name] for name in files])
    log.info("latency: predicted with a median error of %.0f %% on students left out", 100 * model.error)
    return model


def untrained(student: Network, settings: PlanSettings, folder: Path) -> list[Path]:
    """Exported files as large and as fast as those that training will lead to: neither depends on the weights."""
    placement = place(student)
    ranges = dict.fromkeys(set(placement.group_of.values()) - set(placement.fixed), (0.0, 1.0))
    quantized = QuantizedNetwork(student, ranges, settings.keep_float)
    return write_files(quantized_graph(quantized, settings.files.card.name), settings.files, folder)
