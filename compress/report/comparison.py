"""One page that compares several runs with the first of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.measure.values import Measurement
from compress.report import charts
from compress.report.charts import Dot
from compress.report.contradictions import FLOAT, between_runs, iou_gain, relative_speed, tail_gain
from compress.report.html import TITLES, Cell, dot_of, environment, iou_cell, times
from compress.report.record import RunRecord
from compress.report.summary import NOT_MEASURED, headline, megabytes


def names_of(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: the last parts of their folders, as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def render_comparison(runs: Mapping[str, RunRecord]) -> str:
    """The page as text; the first run is what the others are compared with."""
    first = next(iter(runs.values()))
    dots = _dots(runs)
    return (
        environment()
        .get_template("comparison.html")
        .render(
            names=list(runs),
            contradictions=contradictions_of(runs),
            verdicts=[
                (
                    name,
                    headline(run.verdict),
                    "none" if not run.verdict.checks else "good" if run.verdict.passed else "bad",
                )
                for name, run in runs.items()
            ],
            apart=[name for name, run in runs.items() if not run.data.same_images(first.data)],
            teachers=[name for name, run in runs.items() if run.source.sha256 != first.source.sha256],
            rows=_rows(runs),
            dots=dots,
            trade_off=charts.trade_off(dots),
            settings=_settings(runs),
            commands=[(name, run.command) for name, run in runs.items()],
        )
    )


def contradictions_of(runs: Mapping[str, RunRecord]) -> list[str]:
    """Of every other run against the first one; runs of another teacher say nothing about each other."""
    (name, first), *others = runs.items()
    return [
        f"{other}: {sentence}"
        for other, run in others
        if run.source.sha256 == first.source.sha256
        for sentence in between_runs(
            run.measurements, first.measurements, name, same_images=run.data.same_images(first.data)
        )
    ]


def _dots(runs: Mapping[str, RunRecord]) -> list[Dot]:
    """The first run's teacher, and every file of every run; latencies of other runs by their speedup."""
    first = next(iter(runs.values()))
    teacher = first.measurements.get("teacher", Measurement())
    found = [dot_of("Teacher", "teacher", teacher, teacher)]
    for name, run in runs.items():
        kind = "student" if run is first else "earlier"
        for format, measured in run.measurements.items():
            if format not in FLOAT:
                found.append(dot_of(f"{name}, {TITLES.get(format, format)}", kind, measured, teacher))
    return [dot for dot in found if dot is not None]


def _rows(runs: Mapping[str, RunRecord]) -> list[dict[str, Any]]:
    """One row for each file, format by format, so that what is compared stands together."""
    first = next(iter(runs.values()))
    formats = dict.fromkeys(name for run in runs.values() for name in run.measurements if name not in FLOAT)
    rows = []
    for format in formats:
        for name, run in runs.items():
            measured, base = run.measurements.get(format), first.measurements.get(format)
            if measured is None:
                continue
            paired = run is not first and base is not None and run.data.same_images(first.data)
            cells = [
                _size(measured, base if run is not first else None),
                times(measured.speedup),
                times(relative_speed(measured, base)) if run is not first and base else ("", ""),
                iou_cell(measured.iou),
                iou_cell(iou_gain(measured, base)) if paired and base else ("", ""),
                iou_cell(tail_gain(measured, base)) if paired and base else ("", ""),
            ]
            rows.append({"run": name, "format": TITLES.get(format, format), "cells": cells})
    return rows


def _size(measured: Measurement, base: Measurement | None) -> Cell:
    if measured.size_bytes is None:
        return NOT_MEASURED, ""
    change = f"{measured.size_bytes / base.size_bytes - 1:+.1%}" if base and base.size_bytes else ""
    return megabytes(measured.size_bytes), change.replace("%", " %")


def _settings(runs: Mapping[str, RunRecord]) -> list[tuple[str, list[str]]]:
    """What the runs were told otherwise, key by key, and what they were made with."""
    flat = [
        {
            **_flat(run.recipe),
            **{f"version of {name}": version for name, version in run.tools.items()},
            "seed": str(run.seed),
            "created": run.created,
            "cpu": run.machine.cpu,
        }
        for run in runs.values()
    ]
    keys = dict.fromkeys(key for each in flat for key in each)
    return [(key, values) for key in keys if len(set(values := [each.get(key, "") for each in flat])) > 1]


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in recipe.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found
