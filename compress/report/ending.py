"""The plain text that ends a run."""

import shlex
from pathlib import Path

from compress.budget import ACCURACY, Check, Metric
from compress.report.record import RunRecord
from compress.report.result import figures, lead, limit_flags, remarks
from compress.report.summary import confused, table, with_unit
from compress.report.words import TITLES, short_count

_HELPS: dict[Metric, str] = {
    "size": "allow more bytes, or leave fewer layers float",
    "latency": "allow fewer bytes with --budget, or smaller plan.input_sizes in the recipe",
    "macs": "smaller plan.input_sizes in the recipe, or fewer bytes with --budget",
    **dict.fromkeys(ACCURACY, "more images (--unlabelled takes those without masks), or more bytes with --budget"),
}
"""What brings a student nearer to its limit."""


def ending(record: RunRecord, out: Path) -> str:
    """All that the terminal says of a finished run: its figures, what they mean, and what to do next."""
    title = TITLES.get(lead(record.measurements) or "", "")
    told = [(title, ", ".join(figure.line for figure in figures(record))), *remarks(record)]
    lines = [table(record, out / "report.html"), "", *(f"{what}: {words}" for what, words in told)]
    first = lead(record.measurements)
    lines += [words] if first and (words := confused(record.measurements[first])) else []
    lines += [f"{check.name}: {_shortfall(check, record, out)}" for check in record.verdict.checks if not check.passed]
    lines += [f"note: {warning}" for warning in record.warnings]
    folder = shlex.quote(str(out))
    next_steps = [
        ("open the report, which shows the images that it does worst on", f"{out / 'report.html'}"),
        ("check that the files are one network", f"compress verify {folder}"),
        ("hold them to their budget in CI", f"compress gate {folder}{limit_flags(record)}"),
    ]
    return "\n".join([*lines, "next:", *(f"  {what}: {how}" for what, how in next_steps)])


def _shortfall(check: Check, record: RunRecord, out: Path) -> str:
    """By how much a limit was missed, and what would help."""
    if check.measured is None:
        return "not measured, so it cannot pass"
    if check.undecided:
        more = "a quieter machine, or more measure.seconds" if check.metric == "latency" else "more images in val/"
        return f"the interval holds the limit; {more} would decide it"
    apart = abs(check.measured - check.limit)
    longer = f"longer training ({_longer(record, out)}), " if check.metric in ACCURACY else ""
    missed = with_unit(_apart(apart, check), check.unit)
    share = f" ({100 * apart / check.limit:.0f} %)" if check.limit else ""
    where = "below" if check.at_least else "above"
    return f"{missed}{share} {where} the limit; what helps: {longer}{_HELPS[check.metric]}"


def _apart(apart: float, check: Check) -> str:
    if check.unit == "macs":
        return short_count(apart)
    digits = 0 if check.unit == "bytes" else 2 if check.metric == "latency" else 3
    return f"{apart:,.{digits}f}"


def _longer(record: RunRecord, out: Path) -> str:
    """How a run is trained on: for twice the minutes, where the recipe counts minutes."""
    train = record.recipe.get("train", {})
    minutes = f"{2 * train['minutes']:g}" if train.get("minutes") else "N"
    return f"compress run --resume {shlex.quote(str(out))} --minutes {minutes}"
