"""What was measured, as values."""

from dataclasses import dataclass
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
