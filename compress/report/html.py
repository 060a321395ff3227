"""report.html: one file with its style, charts and images inside, readable offline, on a phone, by day and night."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from compress.data.images import Reading
from compress.measure.values import Measurement
from compress.report import charts
from compress.report.contradictions import FLOAT, between_runs, in_run
from compress.report.gallery import gallery, legend, sides
from compress.report.pictures import Picture
from compress.report.record import Data, Earlier, Machine, RunRecord, Source
from compress.report.result import figures, lead, next_steps, remarks
from compress.report.summary import NOT_MEASURED, columns, headline, verdict_line
from compress.report.tables import (
    Row,
    budget_rows,
    class_rows,
    confused_rows,
    iou_cell,
    macs_cell,
    measured_rows,
    median_cell,
    size_cell,
    speed_cell,
    trial_rows,
)
from compress.report.trade_off import Dot, dot_of, trade_off
from compress.report.words import TITLES

_OUTSIDE = re.compile(r"(?P<name>.*) \((?P<operator>[^()]*)\)(?:: (?P<reason>.*))?", re.DOTALL)
_FEW = 6  # lines that are shown; where there are more, the rest is folded


@dataclass(frozen=True)
class Group:
    """Layers that stay float for one reason."""

    words: str
    names: tuple[str, ...]


def render(record: RunRecord, pictures: Sequence[Picture]) -> str:
    """The page as text."""
    measured = columns(record)
    first = lead(record.measurements)
    shown = gallery(pictures, record.measurements[first].per_image_iou if first else (), record.colours)
    dots = dots_of(record)
    profiled = {format: charts.times_by_layer(layers) for format, layers in record.layer_times.items()}
    timed = [(TITLES.get(format, format), chart) for format, chart in profiled.items() if chart]
    pulls = contradictions(record)
    plot = trade_off(dots)
    checks = sorted(record.verdict.checks, key=lambda check: check.passed)
    return (
        environment()
        .get_template("report.html")
        .render(
            record=record,
            headline=headline(record.verdict),
            outcome=outcome_of(record),
            figures=figures(record),
            of=TITLES.get(first, first) if first else "",
            remarks=remarks(record),
            steps=next_steps(record),
            check_lines=[(check.passed, verdict_line(check)) for check in checks],
            sections=_sections(record, pulls=bool(pulls), plot=bool(plot), timed=[title for title, _ in timed]),
            contradictions=pulls,
            few=_FEW,
            titles=TITLES,
            columns=[TITLES.get(name, name) for name in measured],
            rows=measured_rows(measured),
            budget_rows=budget_rows(record, list(measured)),
            class_titles=("Share of pixels", *(f"IoU, {TITLES.get(name, name)}" for name in measured)),
            classes=class_rows(record, measured),
            confused=confused_rows(measured, first),
            iou_images=max((len(each.per_image_iou) for each in measured.values()), default=0),
            predicted=_predicted(record),
            dots=dots,
            trade_off=plot,
            others=_others(record),
            other_titles=("Size", "Multiply-accumulates", "Latency", "Speedup", "Mean IoU"),
            gallery=shown,
            sides=sides(shown.shown),
            legend=legend(record.classes, pictures, record.colours, record.multilabel),
            trials=trial_rows(record.trials),
            trial_titles=("IoU", "Against the one taken", "Size", "Multiply-accumulates"),
            curve=charts.curve(record.history, measured["teacher"]),
            layers=charts.sizes_by_layer(record.layers),
            layer_times=timed,
            outside={format: grouped(kernels.outside) for format, kernels in record.kernels.items()},
            facts=_facts(record),
            recipe=json.dumps(record.recipe, indent=2, ensure_ascii=False, default=str),
            commands=[f"compress {word} DIR" for word in ("verify", "report")],
        )
    )


def _sections(record: RunRecord, *, pulls: bool, plot: bool, timed: Sequence[str]) -> list[tuple[str, str]]:
    """Anchor and title of every section under the first screen, as the table of contents lists them."""
    count = len(record.warnings)
    sections = [
        (pulls, "contradictions", "Contradictions"),
        (count > 0, "warnings", f"{count} warning{'' if count == 1 else 's'}"),
        (True, "figures", "All figures"),
        (any(each.by_class for each in record.measurements.values()), "classes", "Class by class"),
        (True, "pictures", "Pictures"),
        (plot, "trade-off", "Trade-off"),
        (True, "training", "Training"),
        (True, "sizes", "Size by layer"),
        *((True, f"latencies-{place}", f"Latency by layer, {title}") for place, title in enumerate(timed, 1)),
        (record.parity is not None, "parity", "One network in every file"),
        (bool(record.kernels), "float", "What stayed float"),
        (True, "reproduce", "How to reproduce"),
    ]
    return [(anchor, title) for there, anchor, title in sections if there]


@cache
def environment() -> Environment:
    return Environment(
        loader=PackageLoader("compress.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def outcome_of(record: RunRecord) -> str:
    """The CSS class of a verdict."""
    return "none" if not record.verdict.checks else "good" if record.verdict.passed else "bad"


def contradictions(record: RunRecord) -> list[str]:
    """Where a run's figures contradict each other, or those of the last run before it."""
    sentences = in_run(record.measurements, record.verdict, record.controls)
    for last in record.earlier[-1:]:
        name = f"the run of {last.created[:10]}"
        same = record.data.same_images(last.data)
        sentences += between_runs(record.measurements, last.measurements, name, same_images=same)
    return sentences


def grouped(outside: Sequence[str]) -> list[Group]:
    """ "layer (operator): reason" of many layers as one group for each operator and reason, the largest first."""
    names: dict[str, list[str]] = {}
    for line in outside:
        found = _OUTSIDE.fullmatch(line)
        name, operator, reason = found.group("name", "operator", "reason") if found else (line, "", None)
        names.setdefault(f"{operator}{': ' if reason else ''}{reason or ''}", []).append(name)
    return sorted((Group(words, tuple(each)) for words, each in names.items()), key=lambda group: -len(group.names))


def dots_of(record: RunRecord) -> list[Dot]:
    """The trade-off plot of one run: teacher, student, controls, and the first format of each earlier run."""
    teacher = record.measurements.get("teacher", Measurement())
    found = [
        dot_of(TITLES.get(name, name), "teacher" if name in FLOAT else "student", each)
        for name, each in record.measurements.items()
    ]
    found += [dot_of(letter, "control", each, name=name) for letter, name, each in _controls(record)]
    found += [
        dot_of(letter, "earlier", _student(run), teacher, name=_minute(run.created)) for letter, run in _earlier(record)
    ]
    return [dot for dot in found if dot is not None]


def _controls(record: RunRecord) -> list[tuple[str, str, Measurement]]:
    return [(_letter(place), name, each) for place, (name, each) in enumerate(record.controls.items())]


def _earlier(record: RunRecord) -> list[tuple[str, Earlier]]:
    return [(_letter(place), run) for place, run in enumerate(record.earlier, len(record.controls))]


def _letter(place: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    rest, last = divmod(place, 26)
    return (_letter(rest - 1) if rest else "") + chr(ord("a") + last)


def _student(run: Earlier) -> Measurement:
    first = lead(run.measurements)
    return run.measurements[first] if first else Measurement()


def _others(record: RunRecord) -> list[Row]:
    """The controls and the earlier runs in words, by the letters of their dots."""
    runs = [(f"{letter}: {name}", each) for letter, name, each in _controls(record)]
    runs += [(f"{letter}: {_minute(run.created)}", _student(run)) for letter, run in _earlier(record)]
    return [
        (
            name,
            [
                size_cell(each.size_bytes),
                macs_cell(each),
                median_cell(each),
                speed_cell(each.speedup),
                iou_cell(each.iou),
            ],
        )
        for name, each in runs
    ]


def _minute(created: str) -> str:
    return created[:16].replace("T", " ")


def _predicted(record: RunRecord) -> str:
    predicted = f"{record.predicted_bytes:,} bytes"
    errors = [
        f"{artifact.size_bytes / record.predicted_bytes - 1:+.1%} ({TITLES.get(artifact.format, artifact.format)})"
        for artifact in record.artifacts
        if record.predicted_bytes
    ]
    return f"{predicted}, which the files differ from by {', '.join(errors)}" if errors else predicted


def _facts(record: RunRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of how the run was made."""
    groups: list[tuple[str, dict[str, Any]]] = [
        ("Run", {"created": record.created, "seed": record.seed}),
        ("Source", _known(record.source)),
        ("Data", _known(record.data) | _pixels(record)),
        ("Minutes per stage", {stage: f"{minutes:.1f}" for stage, minutes in record.minutes.items()}),
        ("Machine", _known(record.machine)),
        ("Versions", record.tools),
    ]
    return [
        (title, [(key.replace("_", " "), _plain(value)) for key, value in group.items()])
        for title, group in groups
        if group
    ]


def _pixels(record: RunRecord) -> dict[str, str]:
    """How the values of images became pixels, where that need be said."""
    words = Reading(record.artifacts[0].channels, record.data.range).words if record.artifacts else ""
    return {"pixels": words} if words else {}


def _known(value: Source | Data | Machine) -> dict[str, Any]:
    """What an older report did not say is left out."""
    return {key: each for key, each in asdict(value).items() if each not in (None, "")}


def _plain(value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
