"""Which trials of a sweep no other is better than, and which of their differences were shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from compress.machine import busy
from compress.measure.statistics import change
from compress.measure.values import Change, Interval
from compress.report.contradictions import MARGIN, iou_gain
from compress.sweep.trials import Trial


@dataclass(frozen=True)
class Difference:
    """IoU of one trial more than that of a smaller one, `paired` by image, or else from intervals of both."""

    larger: str
    smaller: str
    gain: Interval
    paired: bool

    @property
    def shown(self) -> bool:
        return self.gain.low > 0 or self.gain.high < 0

    @property
    def words(self) -> str:
        if change(self.gain, MARGIN) is Change.SAME:
            return Change.SAME.value
        return ("better" if self.gain.mean > 0 else "worse") if self.shown else "none was shown: more images would tell"


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Those of which no other is at least as small, as fast and as accurate, and better in one of these; the smallest
    first. It is told by estimates: `differences` says which of them are sure."""
    known = {one.name: (one, values) for one in trials if (values := one.values())}
    costs = {name: (size, ms, -iou) for name, (_, (size, ms, iou)) in known.items()}
    best = [name for name, cost in costs.items() if not any(_beats(other, cost) for other in costs.values())]
    return [known[name][0] for name in sorted(best, key=lambda name: costs[name])]


def _beats(other: tuple[float, ...], cost: tuple[float, ...]) -> bool:
    return other != cost and all(a <= b for a, b in zip(other, cost))


def differences(ordered: Sequence[Trial]) -> list[Difference]:
    """Of each trial against the one before it."""
    return [found for before, after in pairwise(ordered) if (found := _difference(after, before))]


def _difference(larger: Trial, smaller: Trial) -> Difference | None:
    a, b = larger.iou, smaller.iou
    if larger.record is None or smaller.record is None or a is None or b is None:
        return None
    paired = larger.record.data.same_images(smaller.record.data)
    if paired and (gain := iou_gain(larger.measured, smaller.measured)):
        return Difference(larger.name, smaller.name, gain, True)
    apart = Interval(a.mean - b.mean, a.low - b.high, a.high - b.low)
    return Difference(larger.name, smaller.name, apart, False)


def smallest(trials: Sequence[Trial]) -> Trial | None:
    """Of those that meet all limits; of equal ones the most accurate."""
    passed = [(values, one) for one in trials if one.passed and (values := one.values())]
    return min(passed, key=lambda each: (each[0][0], -each[0][2]), default=(None, None))[1]


def cautions(trials: Sequence[Trial]) -> list[str]:
    """What keeps their latencies, or their IoU, from being compared, a sentence each."""
    done = [(one.name, one.record) for one in trials if one.record]
    machines = {f"{record.machine.cpu}, {record.machine.cores} cores" for _, record in done}
    loaded = [name for name, record in done if record.machine.load and busy(record.machine.load, record.machine.cores)]
    images = {(record.data.val_sha256, record.data.reference) for _, record in done}
    found = []
    if len(machines) > 1:
        found.append(
            f"Latencies were taken on {len(machines)} different machines, so milliseconds are not compared: look at "
            f"how many times faster than the heavy model each is ({'; '.join(sorted(machines))})."
        )
    if loaded:
        found.append(
            f"Measured while the machine was busy, so times are not to be trusted: {_listed(loaded)}; "
            "compress bench measures them side by side."
        )
    if len(images) > 1:
        found.append("Not all were measured on the same images: their IoU is compared by intervals alone.")
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
