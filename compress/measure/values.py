"""What was measured, as values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean, or a ratio of medians, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


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
class Measurement:
    """What one exported file does: read from the file alone. None: not measured."""

    size_bytes: int | None = None
    latency: Latency | None = None
    iou: Interval | None = None
    per_image_iou: tuple[float, ...] = ()
    speedup: Interval | None = None  # over the teacher: ratio of medians, same turns
    iou_drop: Interval | None = None  # teacher minus this, paired by image
