"""The words of a result, and the plain text that ends a run."""

import math
import shlex
from pathlib import Path

from compress.budget import Check, Metric, Verdict
from compress.measure.values import Interval, Measurement
from compress.report.record import RunRecord

NOT_MEASURED = "not measured"

_HELPS: dict[Metric, str] = {
    "size": "allow more bytes, or leave fewer layers float",
    "latency": "allow fewer bytes with --budget, or a smaller model.input_size in the recipe",
    "iou": "more images (--unlabelled takes those without masks), or more bytes with --budget",
    "iou_drop": "more images (--unlabelled takes those without masks), or more bytes with --budget",
}
"""What brings a student nearer to its limit."""


def ending(record: RunRecord, out: Path) -> str:
    """All that the terminal says of a finished run: its figures, what they mean, and what to do next."""
    lines = [table(record, out / "report.html"), "", *map(_sentence, _gains(record))]
    lines += [f"{check.name}: {_shortfall(check, record, out)}" for check in record.verdict.checks if not check.passed]
    lines += [f"note: {warning}" for warning in record.warnings]
    folder, limits = shlex.quote(str(out)), "".join(f" --budget {shlex.quote(text)}" for text in _limits(record))
    next_steps = [
        ("open the report, which shows the images that it does worst on", f"{out / 'report.html'}"),
        ("check that the files are one network", f"compress verify {folder}"),
        ("hold them to their budget in CI", f"compress gate {folder}{limits}"),
    ]
    return "\n".join([*lines, "next:", *(f"  {what}: {how}" for what, how in next_steps)])


def _limits(record: RunRecord) -> list[str]:
    return [str(limit) for limit in record.recipe.get("budget", ())]


def _gains(record: RunRecord) -> list[tuple[str, Measurement, Measurement]]:
    """Name of each exported file, its figures and the teacher's."""
    teacher = record.measurements.get("teacher", Measurement())
    found = ((each.path.name, record.measurements.get(each.format)) for each in record.artifacts)
    return [(name, measured, teacher) for name, measured in found if measured]


def _sentence(gain: tuple[str, Measurement, Measurement]) -> str:
    """For example "model.tflite: 45.0 times smaller; 8.5 [8.3, 8.7] times faster; IoU 0.896 beside the teacher's 0.902:
    0.006 [0.002, 0.010] lower"."""
    name, ours, teacher = gain
    parts = []
    if ours.size_bytes and teacher.size_bytes:
        parts.append(f"{teacher.size_bytes / ours.size_bytes:.1f} times smaller")
    if ours.speedup:
        parts.append(f"{interval(ours.speedup, 1)} times faster")
    if ours.iou and teacher.iou:
        parts.append(f"IoU {ours.iou.mean:.3f} beside the teacher's {teacher.iou.mean:.3f}{_drop(ours.iou_drop)}")
    return f"{name}: {'; '.join(parts) or NOT_MEASURED}"


def _drop(drop: Interval | None) -> str:
    if drop is None or not math.isfinite(drop.mean):
        return ""
    if drop.mean >= 0:
        return f": {interval(drop)} lower"
    return f": {interval(Interval(-drop.mean, -drop.high, -drop.low))} higher"


def _shortfall(check: Check, record: RunRecord, out: Path) -> str:
    """By how much a limit was missed, and what would help."""
    if check.measured is None:
        return "not measured, so it cannot pass"
    if check.undecided:
        more = "a quieter machine, or more measure.seconds" if check.metric == "latency" else "more images in val/"
        return f"the interval holds the limit; {more} would decide it"
    apart = abs(check.measured - check.limit)
    digits = 0 if check.unit == "bytes" else 2 if check.metric == "latency" else 3
    longer = f"longer training ({_longer(record, out)}), " if check.metric in ("iou", "iou_drop") else ""
    missed = _with_unit(f"{apart:,.{digits}f}", check.unit)
    share = f" ({100 * apart / check.limit:.0f} %)" if check.limit else ""
    where = "below" if check.at_least else "above"
    return f"{missed}{share} {where} the limit; what helps: {longer}{_HELPS[check.metric]}"


def _longer(record: RunRecord, out: Path) -> str:
    """How a run is trained on: for twice the minutes, where the recipe counts minutes."""
    train = record.recipe.get("train", {})
    minutes = f"{2 * train['minutes']:g}" if train.get("minutes") else "N"
    return f"compress run --resume {shlex.quote(str(out))} --minutes {minutes}"


def table(record: RunRecord, report: Path | None = None) -> str:
    """Teacher and every exported file, one line each, then one line per check and the path of the report."""
    rows = [["", "size", "latency p50", "speedup", "IoU [95 % interval]"]]
    for name, measured in columns(record).items():
        rows.append([name, _size(measured), _latency(measured), _speedup(measured), interval(measured.iou)])
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
    limit = f"{check.limit:,.0f}" if check.unit == "bytes" else f"{check.limit:g}"
    return f"{'at least ' if check.at_least else ''}{_with_unit(limit, check.unit)}"


def measured_of(check: Check) -> str:
    """For example "3,912,344", "17.21 [17.05, 17.43]"."""
    if check.measured is None:
        return NOT_MEASURED
    if check.unit == "bytes":
        return f"{check.measured:,.0f}"
    digits = 2 if check.unit == "ms" else 4
    if check.low is None or check.high is None:
        return f"{check.measured:.{digits}f}"
    return interval(Interval(check.measured, check.low, check.high), digits)


def _with_unit(figure: str, unit: str) -> str:
    return f"{figure}{'' if unit == 'x' else ' '}{unit}".rstrip()


def megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB"


def interval(value: Interval | None, digits: int = 3) -> str:
    if value is None or not math.isfinite(value.mean):
        return NOT_MEASURED
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _size(measured: Measurement) -> str:
    if measured.size_bytes is None:
        return NOT_MEASURED
    return f"{megabytes(measured.size_bytes)} ({measured.size_bytes:,} bytes)"


def _latency(measured: Measurement) -> str:
    return NOT_MEASURED if measured.latency is None else f"{measured.latency.p50_ms:.1f} ms"


def _speedup(measured: Measurement) -> str:
    if measured.speedup is None:
        return ""
    faster = measured.speedup
    return f"{faster.mean:.1f}x [{faster.low:.1f}, {faster.high:.1f}]"
