"""The words of a result, and its table in plain text."""

import math
from pathlib import Path

from compress.budget import Check, Verdict
from compress.measure.values import ClassFigures, Interval, Measurement
from compress.report.record import RunRecord
from compress.report.words import short_count

NOT_MEASURED = "not measured"
_WORST = 3
"""Classes that are named."""
_SEEN = 0.005
"""Share of a class's pixels from which what they are taken for is told."""


def table(record: RunRecord, report: Path | None = None) -> str:
    """Teacher and every exported file, one line each, then one line per check and the path of the report."""
    measurements = columns(record)
    many = any(measured.by_class for measured in measurements.values())
    counted = any(measured.macs is not None for measured in measurements.values())
    work = ["MACs"] if counted else []
    rows = [["", "size", *work, "latency p50", "speedup", "IoU [95 % interval]", *(["mIoU"] if many else [])]]
    for name, measured in measurements.items():
        accuracy = [interval(measured.iou), *([interval(measured.miou)] if many else [])]
        work = [macs(measured)] if counted else []
        rows.append([name, _size(measured), *work, _latency(measured), _speedup(measured), *accuracy])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if record.data.reference == "teacher":
        lines.append("IoU is agreement with the teacher's masks: there are no labels.")
    lines += ["", *(verdict_line(check) for check in record.verdict.checks), f"verdict: {headline(record.verdict)}"]
    if report is not None:
        lines.append(f"report: {report}")
    return "\n".join(lines)


def columns(record: RunRecord) -> dict[str, Measurement]:
    """The teacher and every format, in this order; what was exported but not measured is there, empty."""
    names = ["teacher", *(artifact.format for artifact in record.artifacts), *record.measurements]
    return {name: record.measurements.get(name, Measurement()) for name in dict.fromkeys(names)}


def headline(verdict: Verdict) -> str:
    if not verdict.checks:
        return "no budget given"
    if verdict.passed:
        return "within budget"
    if all(check.passed or check.undecided or check.measured is None for check in verdict.checks):
        return "not shown to be within budget"
    return "over budget"


def verdict_line(check: Check) -> str:
    """For example "tflite size 3,912,344 of 4,000,000 bytes: within budget"."""
    if check.measured is None:
        return f"{check.name} {outcome(check)}, limit {limit_of(check)}: not passed"
    return f"{check.name} {measured_of(check)} of {limit_of(check)}: {outcome(check)}"


def outcome(check: Check) -> str:
    if check.measured is None:
        return NOT_MEASURED
    if check.undecided:
        return "undecided, let pass" if check.passed else "undecided"
    return "within budget" if check.passed else "short of budget" if check.at_least else "over budget"


def limit_of(check: Check) -> str:
    """For example "4,000,000 bytes" or "at least 0.86"."""
    return f"{'at least ' if check.at_least else ''}{with_unit(_limit(check), check.unit)}"


def _limit(check: Check) -> str:
    if check.unit == "macs":
        return short_count(check.limit)
    return f"{check.limit:,.0f}" if check.unit == "bytes" else f"{check.limit:g}"


def measured_of(check: Check) -> str:
    """For example "3,912,344", "17.21 [17.05, 17.43]"."""
    if check.measured is None:
        return NOT_MEASURED
    if check.unit == "bytes":
        return f"{check.measured:,.0f}"
    if check.unit == "macs":
        return short_count(check.measured)
    digits = 2 if check.unit == "ms" else 4
    if check.low is None or check.high is None:
        return f"{check.measured:.{digits}f}"
    return interval(Interval(check.measured, check.low, check.high), digits)


def with_unit(figure: str, unit: str) -> str:
    """Multiply-accumulates are told by what they count."""
    return figure if unit == "macs" else f"{figure}{'' if unit == 'x' else ' '}{unit}".rstrip()


def megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB"


def interval(value: Interval | None, digits: int = 3) -> str:
    if value is None or not math.isfinite(value.mean):
        return NOT_MEASURED
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def worst_classes(measured: Measurement) -> list[ClassFigures]:
    """Those that occur, the one with the lowest IoU first."""
    return sorted((each for each in measured.by_class if each.iou), key=lambda each: each.iou.mean if each.iou else 0.0)


def confused(measured: Measurement) -> str:
    """The worst classes in a sentence, with what they are taken for; empty of two classes."""
    worst = [
        f"{each.name} {each.iou.mean:.3f}" + (f" (taken for {taken})" if (taken := taken_for(each)) else "")
        for each in worst_classes(measured)[:_WORST]
        if each.iou
    ]
    return f"worst classes: {', '.join(worst)}" if worst else ""


def taken_for(each: ClassFigures) -> str:
    """For example "tree 34 %, building 12 %"."""
    return ", ".join(f"{name} {percent(share)}" for name, share in each.taken_for if share >= _SEEN)


def percent(share: float) -> str:
    """For example "34 %", "0.3 %"."""
    return f"{100 * share:.{0 if share >= 0.1 else 1 if share >= 0.001 else 2}f} %"


def _size(measured: Measurement) -> str:
    if measured.size_bytes is None:
        return NOT_MEASURED
    return f"{megabytes(measured.size_bytes)} ({measured.size_bytes:,} bytes)"


def macs(measured: Measurement) -> str:
    return NOT_MEASURED if measured.macs is None else short_count(measured.macs)


def _latency(measured: Measurement) -> str:
    return NOT_MEASURED if measured.latency is None else f"{measured.latency.p50_ms:.1f} ms"


def _speedup(measured: Measurement) -> str:
    if measured.speedup is None:
        return ""
    faster = measured.speedup
    return f"{faster.mean:.1f}x [{faster.low:.1f}, {faster.high:.1f}]"
