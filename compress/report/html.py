"""report.html: one file with its style, charts and images inside, readable offline, on a phone, by day and night.

Charts are drawn in percent of their box, so that lines stretch with the page while letters keep their size.
"""

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any

from jinja2 import Environment, StrictUndefined

from compress.measure.values import Measurement
from compress.report.pictures import IGNORED, Picture, colour_of, thumbnail
from compress.report.record import LayerSize, Moment, RunRecord
from compress.report.summary import (
    NOT_MEASURED,
    columns,
    headline,
    interval,
    limit_of,
    megabytes,
    outcome,
    verdict_line,
)

LAYERS_SHOWN = 40
_TITLES = {"teacher": "Teacher", "onnx": "ONNX", "tflite": "TFLite"}
_STAGES = {
    "cut": "after the cut",
    "repair": "after the repair",
    "distil": "distillation",
    "ptq": "int8 without training",
    "qat": "QAT",
}

Cell = tuple[str, str]  # what is read first, and what is read under it


def render(record: RunRecord, pictures: Sequence[Picture]) -> str:
    """The page as text. Pictures appear worst first."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("compress.report").joinpath("report.html").read_text("utf-8"))
    measured = columns(record)
    return template.render(
        record=record,
        headline=headline(record.verdict),
        outcome="none" if not record.verdict.checks else "good" if record.verdict.passed else "bad",
        check_lines=[(check.passed, verdict_line(check)) for check in record.verdict.checks],
        columns=[_TITLES.get(name, name) for name in measured],
        rows=_table(measured),
        budget_rows=_budget_rows(record, list(measured)),
        iou_images=max((len(each.per_image_iou) for each in measured.values()), default=0),
        predicted=_predicted(record),
        curve=_curve(record.history, measured["teacher"]),
        layers=_layers(record.layers),
        pictures=_pictures(pictures),
        legend=_legend(record.classes, pictures),
        facts=_facts(record),
        recipe=json.dumps(record.recipe, indent=2, ensure_ascii=False, default=str),
    )


def _table(measured: dict[str, Measurement]) -> list[tuple[str, list[Cell]]]:
    values = list(measured.values())
    blank_teacher = [name == "teacher" for name in measured]
    speedups = [_times(each, blank) for each, blank in zip(values, blank_teacher, strict=True)]
    drops = [("", "") if blank else _iou(each.iou_drop) for each, blank in zip(values, blank_teacher, strict=True)]
    return [
        ("Size", [_size(each.size_bytes) for each in values]),
        ("Latency, median", [_median(each) for each in values]),
        ("Latency, 90 % under", [_tail(each) for each in values]),
        ("Speedup over teacher", speedups),
        ("Mean IoU", [_iou(each.iou) for each in values]),
        ("IoU lost", drops),
    ]


def _size(size_bytes: int | None) -> Cell:
    return (NOT_MEASURED, "") if size_bytes is None else (megabytes(size_bytes), f"{size_bytes:,} bytes")


def _median(measured: Measurement) -> Cell:
    latency = measured.latency
    if latency is None:
        return NOT_MEASURED, ""
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    return f"{latency.p50_ms:.1f} ms", f"{latency.runtime}, {threads}"


def _tail(measured: Measurement) -> Cell:
    latency = measured.latency
    return (NOT_MEASURED, "") if latency is None else (f"{latency.p90_ms:.1f} ms", f"of {len(latency.samples_ms)} runs")


def _times(measured: Measurement, blank: bool) -> Cell:
    if blank:
        return "", ""
    main, _, detail = interval(measured.speedup, 1).partition(" ")
    return (NOT_MEASURED, "") if measured.speedup is None else (main + "×", detail)


def _iou(value: Any) -> Cell:
    text = interval(value)
    if text == NOT_MEASURED:
        return text, ""
    main, _, detail = text.partition(" ")
    return main, detail.replace(" ", "\u00a0")


def _budget_rows(record: RunRecord, names: list[str]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """One row per kind of check, such as "size"; checks are named "<format> <kind>"."""
    checks = {tuple(check.name.split(" ", 1)): check for check in record.verdict.checks}
    kinds = dict.fromkeys(key[-1] for key in checks)

    def cell(name: str, kind: str) -> dict[str, Any] | None:
        check = checks.get((name, kind))
        if check is None:
            return None
        return {"passed": check.passed, "word": outcome(check).removesuffix(" budget"), "limit": limit_of(check)}

    return [(f"Budget: {kind}", [cell(name, kind) for name in names]) for kind in kinds]


def _predicted(record: RunRecord) -> str:
    predicted = f"{record.predicted_bytes:,} bytes"
    errors = [
        f"{artifact.size_bytes / record.predicted_bytes - 1:+.1%} ({_TITLES.get(artifact.format, artifact.format)})"
        for artifact in record.artifacts
        if record.predicted_bytes
    ]
    return f"{predicted}, which the files differ from by {', '.join(errors)}" if errors else predicted


def _curve(history: Sequence[Moment], teacher: Measurement) -> dict[str, Any] | None:
    """The line chart in percent of its box: x from the left, y from the top."""
    moments = [moment for moment in history if math.isfinite(moment.iou)]
    if not moments:
        return None
    level = teacher.iou.mean if teacher.iou and math.isfinite(teacher.iou.mean) else None
    heights = [moment.iou for moment in moments] + ([level] if level is not None else [])
    low = max(0.0, math.floor(min(heights) * 10 - 0.5) / 10)
    high = min(1.0, math.ceil(max(heights) * 10 + 0.2) / 10)
    width = max(moment.minutes for moment in moments) or 1.0

    def x(minutes: float) -> float:
        return round(100 * minutes / width, 2)

    def y(iou: float) -> float:
        return round(100 * (high - iou) / (high - low), 2)

    points = [{"x": x(each.minutes), "y": y(each.iou), "stage": each.stage, "text": _moment(each)} for each in moments]
    return {
        "points": points,
        "lines": _lines(points),
        "marks": _marks(points),
        "best": _best(moments),
        "x_ticks": [(x(tick), f"{tick:g}") for tick in _ticks(0, width)],
        "y_ticks": [(y(tick), f"{tick:.2g}") for tick in _ticks(low, high)],
        "teacher": None if level is None else {"y": y(level), "text": f"{level:.3f}"},
    }


def _lines(points: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A line per stage, each starting where the stage before ended."""
    lines, last = [], None
    for stage, group in groupby(points, key=lambda point: point["stage"]):
        here = [f"{point['x']} {point['y']}" for point in group]
        lines.append({"stage": stage, "path": "M" + " L".join([last, *here] if last else here)})
        last = here[-1]
    return [line for line in lines if "L" in line["path"]]


def _marks(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that are named in the chart: below the point, clear of the curve, unless the one before is there."""
    marks: list[dict[str, Any]] = []
    for point in points:
        if point["stage"] in ("cut", "repair"):
            crowded = bool(marks) and 0 <= marks[-1]["y"] - point["y"] < 10
            marks.append({**point, "place": "above" if crowded else "below"})
    return marks


def _best(moments: Sequence[Moment]) -> list[dict[str, str]]:
    stages = dict.fromkeys(moment.stage for moment in moments)
    best = {stage: max(moment.iou for moment in moments if moment.stage == stage) for stage in stages}
    counts = {stage: sum(moment.stage == stage for moment in moments) for stage in stages}
    return [
        {
            "stage": stage,
            "label": _STAGES.get(stage, stage) + (", best" if counts[stage] > 1 else ""),
            "iou": f"{best[stage]:.3f}",
        }
        for stage in stages
    ]


def _moment(moment: Moment) -> str:
    loss = "" if moment.loss is None else f", loss {moment.loss:.4g}"
    return f"{_STAGES.get(moment.stage, moment.stage)}: IoU {moment.iou:.3f} at {moment.minutes:.1f} min{loss}"


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from low to high."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(unit * factor for factor in (1, 2, 5, 10) if (high - low) / (unit * factor) <= 6)
    first = math.ceil(low / step - 1e-6)
    return [round(number * step, 9) for number in range(first, math.floor(high / step + 1e-6) + 1)]


def _layers(layers: Sequence[LayerSize]) -> dict[str, Any] | None:
    """Rows of the size chart, on a logarithmic axis: a bar from zero would hide every layer of the student."""
    ranked = sorted(layers, key=lambda layer: -layer.before_bytes)
    shown = [(layer.name, layer.before_bytes, layer.after_bytes, _channels(layer)) for layer in ranked[:LAYERS_SHOWN]]
    rest = ranked[LAYERS_SHOWN:]
    if rest:
        before, after = sum(layer.before_bytes for layer in rest), sum(layer.after_bytes for layer in rest)
        shown.append((f"the {len(rest)} smaller layers together", before, after, ""))
    sizes = [size for _, before, after, _ in shown for size in (before, after) if size > 0]
    if not sizes:
        return None
    low, high = math.floor(math.log10(min(sizes))), math.floor(math.log10(max(sizes))) + 1

    def x(size_bytes: int) -> float:
        return round(100 * (math.log10(max(size_bytes, 10**low)) - low) / (high - low), 2)

    every = 1 if high - low < 6 else 2  # so that the words of the axis do not touch
    return {
        "ticks": [(x(10**p), "" if (p - low) % every else short_bytes(10**p)) for p in range(low, high + 1)],
        "rows": [
            {
                "name": name,
                "before": x(before),
                "after": x(after),
                "text": f"{short_bytes(before)} → {short_bytes(after) if after else 'removed'}",
                "channels": channels,
            }
            for name, before, after, channels in shown
        ],
        "total": tuple(
            short_bytes(sum(getattr(each, key) for each in layers)) for key in ("before_bytes", "after_bytes")
        ),
    }


def _channels(layer: LayerSize) -> str:
    if layer.before_channels == layer.after_channels:
        return f"{layer.before_channels} channel{'' if layer.before_channels == 1 else 's'}"
    return f"{layer.before_channels} → {layer.after_channels} channels"


def short_bytes(size_bytes: int) -> str:
    """Three digits, for example "4.72 MB", "96.1 kB", "850 B"."""
    for unit, factor in (("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return f"{size_bytes} B"


def _pictures(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    def views(picture: Picture) -> list[tuple[str, str]]:
        masks = [("labels", picture.reference), ("teacher", picture.teacher), ("student", picture.student)]
        painted = [(title, thumbnail(picture.image, mask)) for title, mask in masks if mask is not None]
        return [("image", thumbnail(picture.image)), *painted]

    return [
        {"name": picture.name, "iou": f"{picture.student_iou:.3f}", "views": views(picture)}
        for picture in sorted(pictures, key=lambda picture: picture.student_iou)
    ]


def _legend(classes: Sequence[str], pictures: Sequence[Picture]) -> list[tuple[str, str]]:
    """Every class label with the CSS colour of its paint ("": unpainted)."""
    legend = [
        (label, "rgb({}, {}, {})".format(*colour_of(number)) if number else "") for number, label in enumerate(classes)
    ]
    if any(picture.reference is not None and (picture.reference == IGNORED).any() for picture in pictures):
        legend.append(("ignored in the labels", "rgb({}, {}, {})".format(*colour_of(IGNORED))))
    return legend


def _facts(record: RunRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of how the run was made."""
    groups: list[tuple[str, dict[str, Any]]] = [
        ("Run", {"created": record.created, "seed": record.seed}),
        ("Source", record.source),
        ("Data", record.data),
        ("Minutes per stage", {stage: f"{minutes:.1f}" for stage, minutes in record.minutes.items()}),
        ("Machine", record.machine),
        ("Versions", record.tools),
    ]
    return [
        (title, [(key.replace("_", " "), _plain(value)) for key, value in group.items()])
        for title, group in groups
        if group
    ]


def _plain(value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
