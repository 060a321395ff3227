"""report.html: one file with its style, charts and images inside, readable offline, on a phone, by day and night."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from compress.measure.values import Interval, Measurement
from compress.report import charts
from compress.report.charts import Dot
from compress.report.contradictions import FLOAT, between_runs, in_run
from compress.report.pictures import IGNORED, Picture, colour_of, mask_uri, photo_uri, size_of
from compress.report.record import Data, Earlier, Machine, RunRecord, Source
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

TITLES = {"teacher": "Teacher", "source": "Source", "onnx": "ONNX", "tflite": "TFLite", "ort": "ORT"}
Cell = tuple[str, str]  # what is read first, and what is read under it


def render(record: RunRecord, pictures: Sequence[Picture]) -> str:
    """The page as text. Pictures appear worst first."""
    measured = columns(record)
    shown = _pictures(pictures)
    dots = dots_of(record)
    profiled = {format: charts.times_by_layer(layers) for format, layers in record.layer_times.items()}
    return (
        environment()
        .get_template("report.html")
        .render(
            record=record,
            headline=headline(record.verdict),
            outcome="none" if not record.verdict.checks else "good" if record.verdict.passed else "bad",
            check_lines=[(check.passed, verdict_line(check)) for check in record.verdict.checks],
            contradictions=contradictions(record),
            titles=TITLES,
            columns=[TITLES.get(name, name) for name in measured],
            rows=_table(measured),
            budget_rows=_budget_rows(record, list(measured)),
            iou_images=max((len(each.per_image_iou) for each in measured.values()), default=0),
            predicted=_predicted(record),
            dots=dots,
            trade_off=charts.trade_off(dots),
            others=_others(record),
            pictures=shown,
            sides=_sides(shown),
            legend=_legend(record.classes, pictures),
            curve=charts.curve(record.history, measured["teacher"]),
            layers=charts.sizes_by_layer(record.layers),
            layer_times=[(TITLES.get(format, format), chart) for format, chart in profiled.items() if chart],
            facts=_facts(record),
            recipe=json.dumps(record.recipe, indent=2, ensure_ascii=False, default=str),
            commands=[f"compress {word} DIR" for word in ("verify", "report")],
        )
    )


@cache
def environment() -> Environment:
    return Environment(
        loader=PackageLoader("compress.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def contradictions(record: RunRecord) -> list[str]:
    """Where a run's figures contradict each other, or those of the last run before it."""
    sentences = in_run(record.measurements, record.verdict, record.controls)
    for last in record.earlier[-1:]:
        name = f"the run of {_day(last.created)}"
        same = record.data.same_images(last.data)
        sentences += between_runs(record.measurements, last.measurements, name, same_images=same)
    return sentences


def dots_of(record: RunRecord) -> list[Dot]:
    """The trade-off plot of one run: teacher, student, controls, and the first format of each earlier run."""
    teacher = record.measurements.get("teacher", Measurement())
    found = [
        *(
            (TITLES.get(name, name), "teacher" if name in FLOAT else "student", each)
            for name, each in record.measurements.items()
        ),
        *((name, "control", each) for name, each in record.controls.items()),
        *((_day(run.created), "earlier", _student(run)) for run in record.earlier),
    ]
    dots = [dot_of(label, kind, each, teacher) for label, kind, each in found]
    return [dot for dot in dots if dot is not None]


def dot_of(label: str, kind: str, measured: Measurement, teacher: Measurement) -> Dot | None:
    """None without an IoU. The latency of an earlier run is what its speedup makes of this run's teacher."""
    if measured.iou is None:
        return None
    latency = measured.latency.p50_ms if measured.latency else None
    if kind == "earlier" and measured.speedup and teacher.latency:
        latency = teacher.latency.p50_ms / measured.speedup.mean
    return Dot(label, kind, measured.iou, measured.size_bytes, latency)


def _student(run: Earlier) -> Measurement:
    formats = {name: each for name, each in run.measurements.items() if name not in FLOAT}
    return formats.get("tflite") or next(iter(formats.values()), Measurement())


def _others(record: RunRecord) -> list[tuple[str, list[Cell]]]:
    """The controls and the earlier runs in words."""
    runs = [*record.controls.items(), *((_minute(run.created), _student(run)) for run in record.earlier)]
    return [
        (name, [_size(each.size_bytes), _median(each), times(each.speedup), iou_cell(each.iou)]) for name, each in runs
    ]


def _day(created: str) -> str:
    return created[:10]


def _minute(created: str) -> str:
    return created[:16].replace("T", " ")


def _table(measured: dict[str, Measurement]) -> list[tuple[str, list[Cell]]]:
    values = list(measured.values())
    speedups = [("", "") if name == "teacher" else times(each.speedup) for name, each in measured.items()]
    drops = [("", "") if name == "teacher" else iou_cell(each.iou_drop) for name, each in measured.items()]
    return [
        ("Size", [_size(each.size_bytes) for each in values]),
        ("Latency, median", [_median(each) for each in values]),
        ("Latency, 90 % under", [_tail(each) for each in values]),
        ("Speedup over teacher", speedups),
        ("Mean IoU", [iou_cell(each.iou) for each in values]),
        ("IoU lost", drops),
        *_rows_where_measured(
            {
                "IoU of the worst tenth": [each.worst_decile_iou for each in values],
                "Boundary IoU": [each.boundary_iou for each in values],
                "Small objects found": [each.small_object_recall for each in values],
                "Pixels that flip when shifted": [each.shift_flips for each in values],
                "Pixels that flip as JPEG": [each.jpeg_flips for each in values],
            }
        ),
    ]


def _rows_where_measured(figures: dict[str, list[Interval | None]]) -> list[tuple[str, list[Cell]]]:
    return [(title, [iou_cell(value) for value in values]) for title, values in figures.items() if any(values)]


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


def times(speedup: Interval | None) -> Cell:
    main, _, detail = interval(speedup, 1).partition(" ")
    return (NOT_MEASURED, "") if speedup is None else (main + "×", detail)


def iou_cell(value: Interval | None) -> Cell:
    text = interval(value)
    if text == NOT_MEASURED:
        return text, ""
    main, _, detail = text.partition(" ")
    return main, detail.replace(" ", "\u00a0")


def _budget_rows(record: RunRecord, names: list[str]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """One row per kind of check, such as "size"."""
    checks = {(check.format, check.kind): check for check in record.verdict.checks}
    kinds = dict.fromkeys(kind for _, kind in checks)

    def cell(name: str, kind: str) -> dict[str, Any] | None:
        check = checks.get((name, kind))
        if check is None:
            return None
        return {"passed": check.passed, "word": outcome(check).removesuffix(" budget"), "limit": limit_of(check)}

    return [(f"Budget: {kind}", [cell(name, kind) for name in names]) for kind in kinds]


def _predicted(record: RunRecord) -> str:
    predicted = f"{record.predicted_bytes:,} bytes"
    errors = [
        f"{artifact.size_bytes / record.predicted_bytes - 1:+.1%} ({TITLES.get(artifact.format, artifact.format)})"
        for artifact in record.artifacts
        if record.predicted_bytes
    ]
    return f"{predicted}, which the files differ from by {', '.join(errors)}" if errors else predicted


def _pictures(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    shown = []
    for picture in sorted(pictures, key=lambda picture: picture.student_iou):
        width, height = size_of(picture.photo)
        labelled = picture.reference is not None
        shown.append(
            {
                "name": picture.name,
                "iou": f"{picture.student_iou:.3f}",
                "words": "student IoU" if labelled else "agreement with the teacher, IoU",
                "labelled": labelled,
                "width": width,
                "height": height,
                "photo": photo_uri(picture.photo),
                "teacher": mask_uri(picture.teacher),
                "student": mask_uri(picture.student),
                "labels": "" if picture.reference is None else mask_uri(picture.reference),
            }
        )
    return shown


def _sides(shown: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the left half of the browser can show."""
    labels = [("labels", "labels")] if any(picture["labelled"] for picture in shown) else []
    return [("teacher", "teacher"), *labels, ("photo", "photo")]


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
        ("Source", _known(record.source)),
        ("Data", _known(record.data)),
        ("Minutes per stage", {stage: f"{minutes:.1f}" for stage, minutes in record.minutes.items()}),
        ("Machine", _known(record.machine)),
        ("Versions", record.tools),
    ]
    return [
        (title, [(key.replace("_", " "), _plain(value)) for key, value in group.items()])
        for title, group in groups
        if group
    ]


def _known(value: Source | Data | Machine) -> dict[str, Any]:
    """What an older report did not say is left out."""
    return {key: each for key, each in asdict(value).items() if each not in (None, "")}


def _plain(value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
