"""What was measured, as values."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval: of a mean or another statistic of images, or of a ratio of latencies."""

    mean: float
    low: float
    high: float


class Change(StrEnum):
    """What a paired difference, taken together with its interval and a margin, lets one say."""

    SAME = "no difference that a user could notice"
    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided: more images would tell"


@dataclass(frozen=True)
class Latency:
    """Milliseconds of single inferences, batch 1, in a child process of its own. The samples are in
    order of the turns that the file took with others, equally many in each."""

    p50_ms: float
    p90_ms: float
    samples_ms: tuple[float, ...]
    threads: int
    runtime: str
    turns: int = 1


@dataclass(frozen=True)
class Cold:
    """Opening a file in a fresh process, medians of several: what the runtime takes to open it, what the first
    inference takes, and the most that the process grew by meanwhile (None where the system does not say)."""

    load_ms: float
    first_ms: float
    memory_bytes: int | None


@dataclass(frozen=True)
class ClassFigures:
    """One class, background too, over the pixels of all images together. `iou` None: it is neither in a mask nor
    predicted. `share`: of all labelled pixels, those of this class. `taken_for`: the other classes that most of its
    pixels are predicted as, the most first, each with the share of its pixels."""

    name: str
    iou: Interval | None
    share: float
    taken_for: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Measurement:
    """What one exported file does: read from the file alone. None: not measured."""

    size_bytes: int | None = None
    latency: Latency | None = None
    iou: Interval | None = None
    per_image_iou: tuple[float, ...] = ()
    speedup: Interval | None = None  # over the teacher: ratio of medians, same turns
    iou_drop: Interval | None = None  # teacher minus this, paired by image
    boundary_iou: Interval | None = None
    boundary_iou_drop: Interval | None = None  # as iou_drop
    worst_decile_iou: Interval | None = None  # mean of the tenth of the images with the lowest IoU
    worst_decile_iou_drop: Interval | None = None  # as iou_drop
    small_object_recall: Interval | None = None  # None also where the masks hold no small object
    small_objects: int | None = None  # how many those are
    shift_flips: Interval | None = None  # share of mask pixels that change class when the picture moves by one pixel
    jpeg_flips: Interval | None = None  # ... when it is compressed as JPEG once more
    miou: Interval | None = None  # mean over the classes of their IoU over the pixels of all images together
    miou_drop: Interval | None = None  # as iou_drop
    by_class: tuple[ClassFigures, ...] = ()  # of more than two classes
    macs: int | None = None  # multiply-accumulates of one inference


_ROUNDING = 1e-6
_BOUNDS = {"speedup": (0.0, math.inf)} | {
    f"{name}_drop": (-1.0, 1.0) for name in ("iou", "boundary_iou", "worst_decile_iou", "miou")
}
_BIASED = ("worst_decile_iou", "worst_decile_iou_drop", "miou", "miou_drop")
"""Whose estimate can lie outside of its interval: a tail of resampled images is not centred on the images' own, and a
class that one image alone shows is in few of their draws."""


def impossible(found: Measurement) -> str | None:
    """The first figure that nothing can have been measured as, by its key; None where all of them can."""
    return next(_impossible(found), None)


def _impossible(found: Measurement) -> Iterator[str]:
    if found.size_bytes is not None and found.size_bytes <= 0:
        yield f"size_bytes: {found.size_bytes} is no size of a model"
    if found.macs is not None and found.macs < 0:
        yield f"macs: {found.macs} is less than nothing"
    for field in fields(found):
        value = getattr(found, field.name)
        if isinstance(value, Interval):
            yield from _outside(field.name, value)
    for index, iou in enumerate(found.per_image_iou):
        if not 0 <= iou <= 1:
            yield f"per_image_iou.{index}: {iou} is not within 0 to 1"
    for index, each in enumerate(found.by_class):
        yield from _no_class(f"by_class.{index}", each)
    if found.latency:
        yield from _no_latency(found.latency)


def _outside(name: str, value: Interval) -> Iterator[str]:
    lowest, highest = _BOUNDS.get(name, (0.0, 1.0))
    for end in ("mean", "low", "high"):
        figure = getattr(value, end)
        if not (lowest <= figure <= highest and math.isfinite(figure)) or (name == "speedup" and figure == 0):
            yield f"{name}.{end}: {figure} is not within {lowest:g} to {highest:g}"
    if value.low > value.high:
        yield f"{name}.low: {value.low} is above high, {value.high}"
    if name not in _BIASED and not value.low - _ROUNDING <= value.mean <= value.high + _ROUNDING:
        yield f"{name}.mean: {value.mean} is not within low and high, {value.low} to {value.high}"


def _no_class(where: str, found: ClassFigures) -> Iterator[str]:
    if found.iou:
        yield from _outside(f"{where}.iou", found.iou)
    for share in (found.share, *(share for _, share in found.taken_for)):
        if not 0 <= share <= 1:
            yield f"{where}: {share} is no share"


def _no_latency(found: Latency) -> Iterator[str]:
    for name, figure in (("p50_ms", found.p50_ms), ("p90_ms", found.p90_ms)):
        if not 0 < figure < math.inf:
            yield f"latency.{name}: {figure} is no duration"
    if found.p50_ms > found.p90_ms:
        yield f"latency.p50_ms: {found.p50_ms} is above p90_ms, {found.p90_ms}"
    if not all(0 < sample < math.inf for sample in found.samples_ms):
        yield "latency.samples_ms: not all are durations"
    if found.turns < 1 or len(found.samples_ms) % found.turns:
        yield f"latency.turns: {found.turns} do not divide {len(found.samples_ms)} samples"
