"""sweep.json and sweep.html: every trial, the front, and what to do next."""

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from compress.files import write_whole
from compress.measure.statistics import median_interval
from compress.measure.values import Interval, Measurement
from compress.report.html import environment
from compress.report.record import plain
from compress.report.summary import NOT_MEASURED, headline, interval
from compress.report.tables import Cell, iou_cell, size_cell, speed_cell
from compress.report.trade_off import Dot, dot_of, trade_off
from compress.report.words import short_bytes, short_ms
from compress.sweep.front import Difference, cautions, differences, front, smallest
from compress.sweep.trials import FOLDER, Trial

FILE, PAGE = "sweep.json", "sweep.html"
TITLES = ("Size", "Latency, median", "Speedup over teacher", "Mean IoU", "Limits")
_LABELLED = 9
"""Trials of the front that the plot has room to name."""


def write_page(trials: Sequence[Trial], described: Mapping[str, Any], wanted: int, out: Path) -> None:
    """Raises WriteError."""
    best = front(trials)
    apart, named, notes = differences(best), smallest(trials), cautions(trials)
    document = {
        "schema": 1,
        "sweep": dict(described),
        "wanted": wanted,
        "trials": [_plain(one) for one in trials],
        "front": [one.name for one in best],
        "differences": [_apart(each) for each in apart],
        "smallest": named.name if named else None,
        "cautions": notes,
    }
    page = _render(trials, best, apart, named, notes, described, wanted)
    write_whole(out / FILE, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode(errors="replace"))
    write_whole(out / PAGE, page.encode(errors="backslashreplace"))


def latency(found: Measurement) -> Interval | None:
    return median_interval(found.latency) if found.latency else None


def next_steps(named: Trial, folder: str) -> list[tuple[str, str]]:
    """What one does with a trial, and the command."""
    where = shlex.quote(folder)
    return [
        ("show that its files are one network", f"compress verify {where}"),
        ("put it where apps fetch it from", f"compress publish {where} --to REGISTRY"),
    ]


def summary(trials: Sequence[Trial], out: Path) -> str:
    """For the terminal: the front, and the smallest that meets all limits."""
    rows = [("front", "size", "latency", "IoU [95 % interval]", "limits")]
    for one in front(trials):
        size, ms = one.measured.size_bytes or 0, latency(one.measured)
        said = (short_bytes(size), short_ms(ms.mean) if ms else NOT_MEASURED, interval(one.iou))
        rows.append((one.name, *said, "met" if one.passed else "missed"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines += [f"{each.larger} against {each.smaller}: {_said(each)}" for each in differences(front(trials))]
    lines += [f"note: {each}" for each in cautions(trials)]
    failed = [one for one in trials if one.state == "failed"]
    lines += [f"{one.name} failed: {one.message}" for one in failed]
    if named := smallest(trials):
        folder = out / FOLDER / named.name
        lines += [f"the smallest that meets all limits: {named.name}, in {folder}", "next:"]
        lines += [f"  {what}: {how}" for what, how in next_steps(named, str(folder))]
    else:
        lines += ["no trial meets all limits"]
    return "\n".join([*lines, f"report: {out / PAGE}"])


def _said(each: Difference) -> str:
    how = "paired by image" if each.paired else "by intervals"
    return f"IoU {each.gain.mean:+.3f} [{each.gain.low:+.3f}, {each.gain.high:+.3f}], {how}: {each.words}"


def _plain(one: Trial) -> dict[str, Any]:
    found, record = one.measured, one.record
    document = {"name": one.name, "folder": f"{FOLDER}/{one.name}", "setting": dict(one.setting), "state": one.state}
    if record is None:
        return document | {"message": one.message}
    ms = latency(found)
    figures = {"size_bytes": found.size_bytes, "latency_ms": ms, "speedup": found.speedup, "iou": found.iou}
    asdicts = {key: vars(value) if isinstance(value, Interval) else value for key, value in figures.items()}
    return plain(document | asdicts | {"meets_all_limits": one.passed, "machine": vars(record.machine)})


def _apart(each: Difference) -> dict[str, Any]:
    gain = vars(each.gain)
    return {"of": each.larger, "against": each.smaller, "iou": gain, "paired": each.paired, "shown": each.words}


def _render(
    trials: Sequence[Trial],
    best: Sequence[Trial],
    apart: Sequence[Difference],
    named: Trial | None,
    notes: Sequence[str],
    described: Mapping[str, Any],
    wanted: int,
) -> str:
    template = environment().from_string(files("compress.sweep").joinpath("sweep.html").read_text("utf-8"))
    on_front = [one.name for one in best]
    done = sorted((one for one in trials if one.record), key=lambda one: one.measured.size_bytes or 0)
    numbers = {name: str(number) for number, name in enumerate(on_front, 1)}
    return template.render(
        described=described,
        wanted=wanted,
        counts={state: sum(one.state == state for one in trials) for state in ("done", "running", "failed")},
        named=named,
        figures=[(title, cell) for title, cell in zip(TITLES, _cells(named))] if named else [],
        steps=next_steps(named, f"DIR/{FOLDER}/{named.name}") if named else [],
        notes=notes,
        apart=[(each, _said(each)) for each in apart],
        titles=TITLES,
        rows=[(one.name, numbers.get(one.name, ""), _outcome(one), _cells(one)) for one in done],
        failed=[one for one in trials if one.state == "failed"],
        open=[one for one in trials if one.state in ("running", "waiting")],
        lost=[one for one in trials if one.state == "done" and not one.record],
        trade_off=trade_off(_dots(done, numbers)),
    )


def _cells(one: Trial) -> list[Cell]:
    found, ms = one.measured, latency(one.measured)
    verdict = headline(one.record.verdict) if one.record else ""
    timed = (short_ms(ms.mean), f"[{short_ms(ms.low)},\u00a0{short_ms(ms.high)}]") if ms else (NOT_MEASURED, "")
    return [size_cell(found.size_bytes), timed, speed_cell(found.speedup), iou_cell(found.iou), (verdict, "")]


def _outcome(one: Trial) -> str:
    return "good" if one.passed else "bad"


def _dots(done: Sequence[Trial], numbers: Mapping[str, str]) -> list[Dot]:
    """Those behind the front first, so that they lie under it."""
    found = []
    for one in sorted(done, key=lambda one: one.name in numbers):
        number = numbers.get(one.name, "")
        mark = number if number and int(number) <= _LABELLED else ""
        kind = "run-1" if number else "earlier"
        found.append(dot_of("", kind, one.measured, mark=mark, name=one.name))
    return [dot for dot in found if dot]
