"""Where the figures of a result contradict each other, in one sentence each.

A difference counts only where it was shown: its 95 % interval excludes "no difference", and, for IoU, is not all within
`margin`, which nobody would notice. So a sentence never rests on noise, and a figure that is missing says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

from compress.budget import Verdict
from compress.measure.statistics import paired_difference, tail_difference
from compress.measure.values import Interval, Measurement

MARGIN = 0.01
SAME_SIZE = 0.01
"""Share by which two sizes must differ to be called different."""
TITLES = {"teacher": "the teacher", "onnx": "ONNX", "tflite": "TFLite", "ort": "ORT"}
FLOAT = ("teacher", "source")
"""Measurements that are no exported file: the teacher's, and the source's where others teach."""
_RESAMPLES = 2_000

# Against the teacher, smaller and faster but less accurate is the bargain itself, and no contradiction.
_OF_STUDENT = (("size", "latency"), ("mean", "tail"), ("mean", "outline"))
_OF_EQUALS = (*_OF_STUDENT, ("size", "mean"), ("latency", "mean"))


@dataclass(frozen=True)
class Finding:
    """One figure of a file against another file's: shown to be better or worse, and in which words."""

    better: bool
    words: str


def in_run(
    measurements: Mapping[str, Measurement],
    verdict: Verdict,
    controls: Mapping[str, Measurement] | None = None,
    margin: float = MARGIN,
) -> list[str]:
    """Sentences on the files of one run: "teacher" and one for each format, measured on the same images and in the
    same turns; then, of the TFLite file or the first one, on what else was made of the same teacher."""
    formats = {name: each for name, each in measurements.items() if name not in FLOAT}
    sentences = of_checks(verdict)
    sentences += _across_runtimes("the teacher", {name: each.speedup for name, each in formats.items()})
    teacher = measurements.get("teacher", Measurement())
    for name, each in formats.items():
        found = findings(each, teacher, each.speedup, margin)
        sentences += _opposites(_name(name), "the teacher", found, _OF_STUDENT)
    first = [(name, formats[name]) for name in sorted(formats, key=lambda name: name != "tflite")[:1]]
    pairs = list(combinations(formats.items(), 2)) + list(product(first, (controls or {}).items()))
    for (name, each), (other, theirs) in pairs:
        found = findings(each, theirs, relative_speed(each, theirs), margin)
        sentences += _opposites(_name(name), _name(other), found, _OF_EQUALS)
    return sentences


def between_runs(
    ours: Mapping[str, Measurement],
    theirs: Mapping[str, Measurement],
    name: str,
    *,
    same_images: bool,
    margin: float = MARGIN,
) -> list[str]:
    """Sentences on a run against another one of the same teacher, called `name`, format by format. IoU is compared only
    where both were measured on the same images."""
    shared = [key for key in ours if key in theirs and key not in FLOAT]
    speeds = {key: relative_speed(ours[key], theirs[key]) for key in shared}
    sentences = _across_runtimes(name, speeds)
    for key in shared:
        found = findings(ours[key], theirs[key], speeds[key], margin, same_images=same_images)
        sentences += _opposites(_name(key), f"{_name(key)} of {name}", found, _OF_EQUALS)
    return sentences


def of_checks(verdict: Verdict) -> list[str]:
    """Files that meet one limit and miss another."""
    met: dict[str, list[str]] = {}
    missed: dict[str, list[str]] = {}
    for check in verdict.checks:
        if check.passed:
            met.setdefault(check.format, []).append(check.kind)
        elif check.measured is not None and not check.undecided:
            missed.setdefault(check.format, []).append(check.kind)
    return [
        f"{_name(name)} meets its budget for {listed(met[name])}, but not for {listed(kinds)}."
        for name, kinds in missed.items()
        if name in met
    ]


def findings(
    ours: Measurement, theirs: Measurement, speed: Interval | None, margin: float, *, same_images: bool = True
) -> dict[str, Finding]:
    """What was shown about `ours` against `theirs`, by kind: size, latency, mean, tail, outline. `speed`: how many
    times faster `ours` is."""
    found = {"size": _size(ours, theirs), "latency": _faster(speed)}
    if same_images:
        found |= {
            "mean": _shown(iou_gain(ours, theirs), margin, "on average", "mean IoU"),
            "tail": _shown(tail_gain(ours, theirs), margin, "on its worst tenth of images", "their IoU"),
            "outline": _shown(outline_gain(ours, theirs), margin, "along outlines", "boundary IoU"),
        }
    return {kind: finding for kind, finding in found.items() if finding is not None}


def relative_speed(ours: Measurement, theirs: Measurement) -> Interval | None:
    """How many times faster ours is, from two speedups over the same teacher: the interval is the widest that both of
    theirs allow, because the two need not have taken turns."""
    a, b = ours.speedup, theirs.speedup
    if a is None or b is None or min(a.low, a.mean, b.low, b.mean, b.high) <= 0:
        return None
    return Interval(a.mean / b.mean, a.low / b.high, a.high / b.low)


@lru_cache(maxsize=256)  # a page asks more than once for what takes a tenth of a second
def iou_gain(ours: Measurement, theirs: Measurement) -> Interval | None:
    """Mean IoU of ours minus theirs, paired by image; None where the images cannot be the same."""
    a, b = ours.per_image_iou, theirs.per_image_iou
    return paired_difference(a, b, resamples=_RESAMPLES) if a and len(a) == len(b) else None


@lru_cache(maxsize=256)
def tail_gain(ours: Measurement, theirs: Measurement) -> Interval | None:
    """The same of the mean over each file's own worst tenth of images."""
    a, b = ours.per_image_iou, theirs.per_image_iou
    return tail_difference(a, b, resamples=_RESAMPLES) if a and len(a) == len(b) else None


def outline_gain(ours: Measurement, theirs: Measurement) -> Interval | None:
    """Boundary IoU of ours minus theirs, by what both lose to the teacher, which itself loses nothing: the interval is
    the widest that both of theirs allow."""
    if ours.boundary_iou is None or theirs.boundary_iou is None:
        return None
    nothing = Interval(0, 0, 0)
    a, b = ours.boundary_iou_drop or nothing, theirs.boundary_iou_drop or nothing
    return Interval(b.mean - a.mean, b.low - a.high, b.high - a.low)


def _size(ours: Measurement, theirs: Measurement) -> Finding | None:
    if not ours.size_bytes or not theirs.size_bytes:
        return None
    small, large = sorted((ours.size_bytes, theirs.size_bytes))
    if large / small - 1 < SAME_SIZE:
        return None
    better = ours.size_bytes == small
    word = "smaller" if better else "larger"
    if large / small >= 2:
        return Finding(better, f"{large / small:.3g} times {word}")
    return Finding(better, f"{abs(ours.size_bytes / theirs.size_bytes - 1):.0%} {word}".replace("%", " %"))


def _faster(ratio: Interval | None) -> Finding | None:
    if ratio is None or ratio.low <= 1 <= ratio.high:
        return None
    faster = ratio.low > 1
    return Finding(
        faster, f"{'faster' if faster else 'slower'} ({ratio.mean:.2f} times the speed, {_brackets(ratio, 2)})"
    )


def _shown(gain: Interval | None, margin: float, where: str, what: str) -> Finding | None:
    """None too where a difference was shown, but one that nobody would notice."""
    if gain is None or gain.low <= 0 <= gain.high or (-margin <= gain.low and gain.high <= margin):
        return None
    better = gain.low > 0
    return Finding(better, f"{'better' if better else 'worse'} {where} ({what} {gain.mean:+.3f}, {_brackets(gain, 3)})")


def _opposites(name: str, other: str, found: Mapping[str, Finding], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """One sentence, of every finding that another one of its pairs contradicts."""
    good: dict[str, str] = {}
    bad: dict[str, str] = {}
    for kinds in pairs:
        both = {kind: found[kind] for kind in kinds if kind in found}
        if len({finding.better for finding in both.values()}) == 2:
            for kind, finding in both.items():
                (good if finding.better else bad)[kind] = finding.words
    return [f"{name} against {other}: {listed(list(good.values()))}, but {listed(list(bad.values()))}."] if good else []


def _across_runtimes(other: str, speeds: Mapping[str, Interval | None]) -> list[str]:
    """Faster in one runtime and slower in another."""
    shown = {name: finding for name, speed in speeds.items() if (finding := _faster(speed))}
    faster = [f"{_name(name)} is {each.words}" for name, each in shown.items() if each.better]
    slower = [f"{_name(name)} is {each.words}" for name, each in shown.items() if not each.better]
    if not faster or not slower:
        return []
    return [f"Against {other}, {listed(faster)}, but {listed(slower)}."]


def _brackets(value: Interval, digits: int) -> str:
    sign = "+" if value.low < 0 or digits == 3 else ""
    return f"95 % between {value.low:{sign}.{digits}f} and {value.high:{sign}.{digits}f}"


def _name(format: str) -> str:
    return TITLES.get(format, format)


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
