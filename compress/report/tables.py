"""The tables of a page: rows of cells, each with what is read first and what is read under it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.measure.values import Interval, Measurement
from compress.report.record import RunRecord, Trial
from compress.report.summary import (
    NOT_MEASURED,
    interval,
    limit_of,
    macs,
    megabytes,
    outcome,
    percent,
    taken_for,
    worst_classes,
)
from compress.report.words import exact_factor

Cell = tuple[str, str]
Row = tuple[str, list[Cell]]
CONFUSED = 5
"""Classes whose confusion is told."""


@dataclass(frozen=True)
class Outcome:
    """A check in its cell."""

    passed: bool
    word: str
    limit: str


def measured_rows(measured: Mapping[str, Measurement]) -> list[Row]:
    """A row for each figure, a cell for each file. What no file was measured by has no row."""
    values = list(measured.values())
    speedups = [("", "") if name == "teacher" else speed_cell(each.speedup) for name, each in measured.items()]
    drops = [("", "") if name == "teacher" else iou_cell(each.iou_drop) for name, each in measured.items()]
    return [
        ("Size", [size_cell(each.size_bytes) for each in values]),
        *([("Multiply-accumulates", list(map(macs_cell, values)))] if any(each.macs for each in values) else []),
        ("Latency, median", [median_cell(each) for each in values]),
        ("Latency, 90 % under", [_tail_cell(each) for each in values]),
        ("Speedup over teacher", speedups),
        ("Mean IoU", [iou_cell(each.iou) for each in values]),
        ("IoU lost", drops),
        *_over_classes(measured),
        *_rows_where_measured(
            {
                "IoU of the worst tenth": [each.worst_decile_iou for each in values],
                "Boundary IoU": [each.boundary_iou for each in values],
                **_small_objects(values),
                "Pixels that flip when shifted": [each.shift_flips for each in values],
                "Pixels that flip as JPEG": [each.jpeg_flips for each in values],
            }
        ),
    ]


def _over_classes(measured: Mapping[str, Measurement]) -> list[Row]:
    """Of more than two classes."""
    if not any(each.by_class for each in measured.values()):
        return []
    lost = [("", "") if name == "teacher" else iou_cell(each.miou_drop) for name, each in measured.items()]
    return [("mIoU over classes", [iou_cell(each.miou) for each in measured.values()]), ("mIoU lost", lost)]


def class_rows(record: RunRecord, measured: Mapping[str, Measurement]) -> list[tuple[str, str, list[Cell]]]:
    """A row for each class: its name and colour, its share of the labelled pixels, its IoU in each file. None of two
    classes."""
    by_file = [{each.name: each for each in figures.by_class} for figures in measured.values()]
    shares = {each.name: each.share for figures in measured.values() for each in figures.by_class}
    return [
        (
            name,
            colour,
            [(percent(shares[name]), ""), *(iou_cell(found[name].iou if name in found else None) for found in by_file)],
        )
        for name, colour in zip(record.classes, record.colours, strict=True)
        if name in shares
    ]


def confused_rows(measured: Mapping[str, Measurement], name: str | None) -> list[tuple[str, list[Cell]]]:
    """The worst classes of the file `name`, each with its IoU there and what its pixels are taken for, by the file and
    by the teacher."""
    figures = measured.get(name or "", Measurement())
    teacher = {each.name: each for each in measured.get("teacher", Measurement()).by_class}
    return [
        (
            each.name,
            [
                iou_cell(each.iou),
                (taken_for(each) or "nothing else", ""),
                ((taken_for(teacher[each.name]) or "nothing else") if each.name in teacher else NOT_MEASURED, ""),
            ],
        )
        for each in worst_classes(figures)[:CONFUSED]
    ]


def _small_objects(values: list[Measurement]) -> dict[str, list[Interval | None]]:
    """Nothing where no file found any and it is not known, as in older reports, how many there were to find."""
    found, count = [each.small_object_recall for each in values], max(each.small_objects or 0 for each in values)
    if not count and not any(each.mean for each in found if each):
        return {}
    return {f"Small objects found, of {count}" if count else "Small objects found": found}


def budget_rows(record: RunRecord, names: list[str]) -> list[tuple[str, list[Outcome | None]]]:
    """One row per kind of check, such as "size"."""
    checks = {(check.format, check.kind): check for check in record.verdict.checks}
    kinds = dict.fromkeys(kind for _, kind in checks)

    def cell(name: str, kind: str) -> Outcome | None:
        check = checks.get((name, kind))
        return None if check is None else Outcome(check.passed, outcome(check).removesuffix(" budget"), limit_of(check))

    return [(f"Budget: {kind}", [cell(name, kind) for name in names]) for kind in kinds]


def trial_rows(trials: Sequence[Trial]) -> list[Row]:
    """The students that were tried, the one that was taken said to be."""
    return [
        (
            f"{one.name}, taken" if one.taken else one.name,
            [
                (f"{one.iou:.3f}", ""),
                iou_cell(one.apart) if one.apart else ("", ""),
                size_cell(one.size_bytes),
                macs_cell(Measurement(macs=one.macs)),
            ],
        )
        for one in trials
    ]


def size_cell(size_bytes: int | None) -> Cell:
    return (NOT_MEASURED, "") if size_bytes is None else (megabytes(size_bytes), f"{size_bytes:,} bytes")


def macs_cell(measured: Measurement) -> Cell:
    return macs(measured), "" if measured.macs is None else f"{measured.macs:,}"


def median_cell(measured: Measurement) -> Cell:
    latency = measured.latency
    if latency is None:
        return NOT_MEASURED, ""
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    return f"{latency.p50_ms:.1f} ms", f"{latency.runtime}, {threads}"


def speed_cell(speedup: Interval | None) -> Cell:
    if speedup is None:
        return NOT_MEASURED, ""
    return exact_factor(speedup.mean) + "×", f"[{exact_factor(speedup.low)},\u00a0{exact_factor(speedup.high)}]"


def iou_cell(value: Interval | None) -> Cell:
    main, _, detail = interval(value).partition(" [")
    return (NOT_MEASURED, "") if not detail else (main, f"[{detail}".replace(" ", "\u00a0"))


def _tail_cell(measured: Measurement) -> Cell:
    latency = measured.latency
    return (NOT_MEASURED, "") if latency is None else (f"{latency.p90_ms:.1f} ms", f"of {len(latency.samples_ms)} runs")


def _rows_where_measured(figures: Mapping[str, list[Interval | None]]) -> list[Row]:
    return [(title, [iou_cell(value) for value in values]) for title, values in figures.items() if any(values)]
