"""The words of a result, and the plain-text table that ends a run."""

import math
from pathlib import Path

from compress.budget import Check, Verdict
from compress.measure.values import Interval, Measurement
from compress.report.record import RunRecord

NOT_MEASURED = "not measured"


def table(record: RunRecord, report: Path | None = None) -> str:
    """Teacher and every exported file, one line each, then one line per check and the path of the report."""
    rows = [["", "size", "latency p50", "speedup", "IoU [95 % interval]"]]
    for name, measured in columns(record).items():
        rows.append([name, _size(measured), _latency(measured), _speedup(measured), interval(measured.iou)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if record.data.get("reference") == "teacher":
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
    if all(check.passed or check.measured is None for check in verdict.checks):
        return "not shown to be within budget"
    return "over budget"


def verdict_line(check: Check) -> str:
    """For example "tflite size 3,912,344 of 4,000,000 bytes: within budget"."""
    if check.measured is None:
        return f"{check.name} {NOT_MEASURED}, limit {check.limit:,} {check.unit}: not passed"
    outcome = "within budget" if check.passed else "over budget"
    return f"{check.name} {check.measured:,} of {check.limit:,} {check.unit}: {outcome}"


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
    return "" if measured.speedup is None else f"{measured.speedup.mean:.1f}x"
