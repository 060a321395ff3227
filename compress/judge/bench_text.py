"""What was found out about some files, for the terminal and as JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.measure.values import Change, Cold, Interval, Measurement
from compress.report.record import plain
from compress.report.summary import confused, interval, megabytes
from compress.report.words import short_count
from compress.runtime.kernels import Kernels

OUTSIDE = 8  # operators that are named


@dataclass(frozen=True)
class Bench:
    """One file's figures. In `measurement`, speed-up and drops are against the file named with --against; so are
    `agreement`, the share of mask pixels on which both agree, and `changes`, what each drop means."""

    file: Path
    runtime: str
    deflated_bytes: int
    cold: Cold
    kernels: Kernels | None
    measurement: Measurement
    class_iou: dict[str, Interval | None] = field(default_factory=dict)
    worst_images: tuple[str, ...] = ()  # the tenth of the images with the lowest IoU, worst first
    agreement: Interval | None = None
    changes: dict[str, Change] = field(default_factory=dict)
    folds: tuple[float, ...] = ()  # IoU of each


@dataclass(frozen=True)
class BenchRecord:
    """`files` by name; the one that they are measured against, `against`, is the last."""

    files: dict[str, Bench]
    against: str | None
    margin: float
    images: int
    threads: int
    load: float
    cores: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; paths become file names."""
        return {"schema": 1, **plain(asdict(self))}


def describe_bench(record: BenchRecord) -> str:
    """A table of one column for each file; what differs, and whether anyone would notice; warnings."""
    rows = [["", *record.files]]
    for title, cell in _rows(record).items():
        cells = [cell(each) for each in record.files.values()]
        if any(cells):
            rows.append([title, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for name, each in record.files.items():
        lines += [f"{name}: {sentence}" for sentence in _sentences(each, record)]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in record.warnings)])


def _rows(record: BenchRecord) -> dict[str, Callable[[Bench], str]]:
    classes = dict.fromkeys(name for each in record.files.values() for name in each.class_iou)
    return {
        "size": lambda each: f"{each.measurement.size_bytes:,} bytes",
        "multiply-accumulates": lambda each: (
            "" if each.measurement.macs is None else short_count(each.measurement.macs)
        ),
        "deflated, as in an APK": lambda each: f"{each.deflated_bytes:,} bytes",
        "runtime": lambda each: each.runtime,
        f"latency p50, {record.threads} threads": lambda each: _ms(each, "p50_ms"),
        "latency p90": lambda each: _ms(each, "p90_ms"),
        f"times faster than {record.against}": lambda each: _maybe(each.measurement.speedup, 2),
        "cold load": lambda each: f"{each.cold.load_ms:.1f} ms",
        "first inference": lambda each: f"{each.cold.first_ms:.1f} ms",
        "peak memory": lambda each: "" if each.cold.memory_bytes is None else megabytes(each.cold.memory_bytes),
        "operators": lambda each: "" if each.kernels is None else str(sum(each.kernels.counts.values())),
        "  outside the delegate": lambda each: "" if each.kernels is None else str(len(each.kernels.outside)),
        f"IoU, mean of {record.images} images": lambda each: _maybe(each.measurement.iou),
        f"mIoU of {len(classes)} classes": lambda each: _maybe(
            each.measurement.miou if each.measurement.by_class else None
        ),
        **{f"  {name}, all pixels": _class_cell(name) for name in classes},
        "boundary IoU": lambda each: _maybe(each.measurement.boundary_iou),
        "IoU of the worst tenth": lambda each: _maybe(each.measurement.worst_decile_iou),
        "recall of small objects": lambda each: _maybe(each.measurement.small_object_recall),
        f"same pixels as {record.against}": lambda each: _maybe(each.agreement, 4),
        "pixels that flip: shift by 1": lambda each: _maybe(each.measurement.shift_flips, 4),
        "pixels that flip: JPEG": lambda each: _maybe(each.measurement.jpeg_flips, 4),
        "IoU of each fold": lambda each: " ".join(f"{iou:.3f}" for iou in each.folds),
        "  standard deviation": lambda each: f"{np.std(each.folds, ddof=1):.3f}" if each.folds else "",
    }


def drops(measured: Measurement) -> dict[str, Interval]:
    """Those that were measured, by what is lower; mIoU is said of more than two classes alone."""
    found = {
        "IoU": measured.iou_drop,
        "boundary IoU": measured.boundary_iou_drop,
        "IoU of the worst tenth": measured.worst_decile_iou_drop,
        "mIoU": measured.miou_drop if measured.by_class else None,
    }
    return {name: drop for name, drop in found.items() if drop}


def _class_cell(name: str) -> Callable[[Bench], str]:
    return lambda each: _maybe(each.class_iou.get(name))


def _maybe(value: Interval | None, digits: int = 3) -> str:
    return "" if value is None else interval(value, digits)


def _ms(each: Bench, percentile: str) -> str:
    return "" if each.measurement.latency is None else f"{getattr(each.measurement.latency, percentile):.2f} ms"


def _sentences(each: Bench, record: BenchRecord) -> list[str]:
    found = []
    for name, drop in drops(each.measurement).items():
        if record.against is not None:
            size = f"{abs(drop.mean):.3f} {'lower' if drop.mean >= 0 else 'higher'}"
            found.append(
                f"{name} {size} than that of {record.against}, drop [{drop.low:.3f}, {drop.high:.3f}], "
                f"margin {record.margin:g}: {each.changes[name]}"
            )
    if each.folds and record.against and each.file != record.files[record.against].file:
        lower = sum(ours < theirs for ours, theirs in zip(each.folds, record.files[record.against].folds))
        found.append(f"IoU lower than that of {record.against} in {lower} of {len(each.folds)} folds")
    if words := confused(each.measurement):
        found.append(words)
    if each.worst_images:
        found.append(f"worst images: {', '.join(each.worst_images[:OUTSIDE])}")
    if each.kernels is not None and each.kernels.outside:
        more = len(each.kernels.outside) - OUTSIDE
        found.append(
            f"outside the delegate: {', '.join(each.kernels.outside[:OUTSIDE])}" + (f" and {more} more" * (more > 0))
        )
    return found
