"""One page that compares several runs with the first of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.measure.values import Measurement
from compress.report.contradictions import (
    FLOAT,
    MARGIN,
    between_runs,
    findings,
    iou_gain,
    listed,
    relative_speed,
    tail_gain,
)
from compress.report.gallery import side_by_side
from compress.report.html import environment, outcome_of
from compress.report.pictures import Picture
from compress.report.record import RunRecord
from compress.report.result import lead
from compress.report.summary import NOT_MEASURED, headline, megabytes
from compress.report.tables import Cell, iou_cell, speed_cell
from compress.report.trade_off import Dot, dot_of, trade_off
from compress.report.words import TITLES

_LOOKS = 6  # colours that tell runs apart; their numbers do, however many there are


@dataclass(frozen=True)
class Row:
    """One file of one run; `run` is its name."""

    run: str
    format: str
    cells: list[Cell]


@dataclass(frozen=True)
class Conclusion:
    """What was shown of a run against another one, and what follows or stays open."""

    shown: str
    follows: str = ""

    @property
    def words(self) -> str:
        return f"{self.shown} {self.follows}".strip()


def names_of(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: the last parts of their folders, as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def render_comparison(runs: Mapping[str, RunRecord], pictures: Mapping[str, Sequence[Picture]]) -> str:
    """The page as text; the first run is what the others are compared with."""
    first = next(iter(runs.values()))
    dots = _dots(runs)
    sets = side_by_side(pictures, {name: run.colours for name, run in runs.items()})
    return (
        environment()
        .get_template("comparison.html")
        .render(
            names=list(runs),
            conclusions=conclusions_of(runs),
            contradictions=contradictions_of(runs),
            verdicts=[(name, headline(run.verdict), outcome_of(run)) for name, run in runs.items()],
            apart=[name for name, run in runs.items() if not run.data.same_images(first.data)],
            teachers=[name for name, run in runs.items() if not _one_teacher(run, first)],
            titles=_titles(next(iter(runs))),
            rows=_rows(runs),
            looks=[_look(place) for place in range(len(runs))],
            trade_off=trade_off(dots),
            sets=sets,
            layers=[layer for each in sets for layer in (each["photo"], *(mask for *_, mask in each["masks"]))],
            settings=_settings(runs),
            commands=[(name, run.command) for name, run in runs.items()],
        )
    )


def conclusions_of(runs: Mapping[str, RunRecord]) -> list[Conclusion]:
    """A sentence on every other run against the first one, by the file that results are told by."""
    (name, first), *others = runs.items()
    return [_conclusion(other, run, name, first) for other, run in others]


def _conclusion(other: str, run: RunRecord, name: str, first: RunRecord) -> Conclusion:
    format = lead(run.measurements)
    if format is None or format not in first.measurements:
        return Conclusion(f"{other} and {name} have no file of one format that was measured: nothing is compared.")
    ours, theirs = run.measurements[format], first.measurements[format]
    speed = relative_speed(ours, theirs) if _one_teacher(run, first) else None
    gain = iou_gain(ours, theirs) if run.data.same_images(first.data) else None
    found = findings(ours, theirs, speed, MARGIN, same_images=gain is not None)
    better = [each.words for each in found.values() if each.better]
    worse = [each.words for each in found.values() if not each.better]
    doubts = [] if speed else ["Speed was not compared."]
    if gain is None:
        doubts.append("IoU was not compared.")
    elif "mean" not in found and gain.low < -MARGIN:
        doubts.append(
            f"IoU {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] can be chance: more images would tell."
        )
    said = f"{other} against {name}, {TITLES.get(format, format)}: {_but(better, worse)}."
    return Conclusion(said, " ".join([*doubts, _advice(other, name, better, worse, sure=not doubts)]))


def _but(better: Sequence[str], worse: Sequence[str]) -> str:
    if not better and not worse:
        return "no difference was shown"
    return ", but ".join(listed(words) for words in (better, worse) if words)


def _advice(other: str, name: str, better: Sequence[str], worse: Sequence[str], *, sure: bool) -> str:
    if better and worse:
        return "Which one to take depends on the limit that binds."
    if better:
        return f"Nothing was shown to be worse{f': take {other}' if sure else ''}."
    return f"Nothing was shown to be better: keep {name}."


def contradictions_of(runs: Mapping[str, RunRecord]) -> list[str]:
    """Of every other run against the first one; runs of another teacher say nothing about each other."""
    (name, first), *others = runs.items()
    return [
        f"{other}: {sentence}"
        for other, run in others
        if _one_teacher(run, first)
        for sentence in between_runs(
            run.measurements, first.measurements, name, same_images=run.data.same_images(first.data)
        )
    ]


def _one_teacher(run: RunRecord, first: RunRecord) -> bool:
    return run.source.sha256 == first.source.sha256


def _look(place: int) -> str:
    return f"run-{place % _LOOKS + 1}"


def _dots(runs: Mapping[str, RunRecord]) -> list[Dot]:
    """The first run's teacher, and every file of every run; latencies of other runs by their speedup, which says
    nothing where another teacher was measured."""
    first = next(iter(runs.values()))
    teacher = first.measurements.get("teacher", Measurement())
    found = [dot_of("Teacher", "teacher", teacher)]
    for place, (name, run) in enumerate(runs.items()):
        base = None if run is first else teacher if _one_teacher(run, first) else Measurement()
        for format, measured in run.measurements.items():
            if format not in FLOAT:
                title = TITLES.get(format, format)
                dot = dot_of(title, _look(place), measured, base, mark=str(place + 1), name=f"{name}, {title}")
                found.append(dot)
    return [dot for dot in found if dot is not None]


def _titles(name: str) -> tuple[str, ...]:
    """Of the cells of a row."""
    against = f"Speed against {name}"
    return ("Size", "Speedup over teacher", against, "Mean IoU", "IoU gained, paired", "Worst tenth gained, paired")


def _rows(runs: Mapping[str, RunRecord]) -> list[Row]:
    """One row for each file, format by format, so that what is compared stands together."""
    first = next(iter(runs.values()))
    formats = dict.fromkeys(name for run in runs.values() for name in run.measurements if name not in FLOAT)
    return [
        Row(name, TITLES.get(format, format), _cells(run, first, format))
        for format in formats
        for name, run in runs.items()
        if format in run.measurements
    ]


def _cells(run: RunRecord, first: RunRecord, format: str) -> list[Cell]:
    measured, base = run.measurements[format], first.measurements.get(format)
    if run is first or base is None:
        return [
            _size(measured, None),
            speed_cell(measured.speedup),
            ("", ""),
            iou_cell(measured.iou),
            ("", ""),
            ("", ""),
        ]
    paired = run.data.same_images(first.data)
    return [
        _size(measured, base),
        speed_cell(measured.speedup),
        speed_cell(relative_speed(measured, base)) if _one_teacher(run, first) else ("", ""),
        iou_cell(measured.iou),
        iou_cell(iou_gain(measured, base)) if paired else ("", ""),
        iou_cell(tail_gain(measured, base)) if paired else ("", ""),
    ]


def _size(measured: Measurement, base: Measurement | None) -> Cell:
    if measured.size_bytes is None:
        return NOT_MEASURED, ""
    change = f"{measured.size_bytes / base.size_bytes - 1:+.1%}" if base and base.size_bytes else ""
    return megabytes(measured.size_bytes), change.replace("%", "\u00a0%")


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
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": _said(value)}
    return found


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
