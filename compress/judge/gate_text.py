"""What a gate found, for people and for what runs it: a table, JSON, JUnit XML, Markdown, GitHub annotations."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

from compress.budget import Check, Subject, Verdict
from compress.report.summary import headline, limit_of, measured_of, outcome, verdict_line

_NOT_JUDGED = "could not be judged"


@dataclass(frozen=True)
class GateResult:
    """`notes` say where figures come from and what to be careful with, `base` what the same checks gave on the base
    branch, by what they limit; None: no base to compare with."""

    target: str
    verdict: Verdict
    notes: tuple[str, ...] = ()
    base: Mapping[Subject, float] | None = None
    spent_seconds: float = field(default=0.0, compare=False)


def gate_table(result: GateResult) -> str:
    """One line per check in columns, the notes, and the outcome last."""
    rows = [["", "measured", "limit", *(["since base"] if result.base is not None else []), ""]]
    for check in result.verdict.checks:
        since = [change_since(check, result.base)] if result.base is not None else []
        rows.append([check.name, measured_of(check), limit_of(check), *since, outcome(check)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *result.notes, f"gate: {result.target}: {headline(result.verdict)}"])


def gate_json(result: GateResult) -> dict[str, Any]:
    """Plain values; what is not finite becomes null."""
    checks = []
    for check in result.verdict.checks:
        entry = check.to_json() | {"outcome": outcome(check)}
        if result.base is not None:
            entry["base"] = result.base.get(check.subject)
        checks.append({key: _finite(value) for key, value in entry.items()})
    return {
        "schema": 1,
        "target": result.target,
        "passed": result.verdict.passed,
        "headline": headline(result.verdict),
        "checks": checks,
        "notes": list(result.notes),
    }


def junit(result: GateResult) -> str:
    """JUnit XML as Jenkins, GitLab and GitHub's reporters read it: a test case per check."""
    failed = sum(not check.passed for check in result.verdict.checks)
    counts = {"tests": str(len(result.verdict.checks)), "failures": str(failed), "errors": "0"}
    time = f"{result.spent_seconds:.3f}"
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "compress gate", "time": time, **counts})
    for check in result.verdict.checks:
        attributes = {"classname": _xml(result.target), "name": _xml(f"{check.name} {limit_of(check)}")}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        line = _xml(verdict_line(check))
        if check.passed:
            ElementTree.SubElement(case, "system-out").text = line
        else:
            ElementTree.SubElement(case, "failure", {"type": outcome(check), "message": line}).text = line
    if result.notes:
        ElementTree.SubElement(suite, "system-out").text = _xml("\n".join(result.notes))
    return _document(suites)


def _document(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def annotations(result: GateResult) -> str:
    """Workflow commands, one a line: an error for each check that fails, a notice for each note."""
    lines = [
        _command("error", f"{result.target}: {verdict_line(check)}")
        for check in result.verdict.checks
        if not check.passed
    ]
    return "\n".join([*lines, *(_command("notice", note) for note in result.notes)])


def markdown(result: GateResult) -> str:
    """A summary for a pull request, with the change since the base branch where there is one."""
    with_base = result.base is not None
    lines = [
        f"### {'✅' if result.verdict.passed else '❌'} {_escaped(result.target)}: {headline(result.verdict)}",
        "",
        f"| check | measured | limit |{' since base |' if with_base else ''} |",
        f"|---|---|---|{'---|' if with_base else ''}---|",
    ]
    for check in result.verdict.checks:
        cells = [check.name, measured_of(check), limit_of(check)]
        cells += [change_since(check, result.base)] if with_base else []
        cells.append(f"{'✓' if check.passed else '✗'} {outcome(check)}")
        lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
    return "\n".join([*lines, "", *(f"- {_escaped(note)}" for note in result.notes)]).rstrip() + "\n"


@dataclass(frozen=True)
class NotJudged:
    """A gate that could not run, in the same four forms: what reads them must not take silence for a pass."""

    target: str
    reason: str

    def json(self) -> dict[str, Any]:
        return {"schema": 1, "target": self.target, "passed": False, "headline": _NOT_JUDGED, "error": self.reason}

    def junit(self) -> str:
        counts = {"tests": "1", "failures": "0", "errors": "1"}
        suites = ElementTree.Element("testsuites", counts)
        suite = ElementTree.SubElement(suites, "testsuite", {"name": "compress gate", "time": "0.000", **counts})
        case = ElementTree.SubElement(suite, "testcase", {"classname": _xml(self.target), "name": _NOT_JUDGED})
        ElementTree.SubElement(case, "error", {"message": _xml(self.reason)}).text = _xml(self.reason)
        return _document(suites)

    def annotations(self) -> str:
        return _command("error", f"{_NOT_JUDGED}: {self.reason}")

    def markdown(self) -> str:
        return f"### ❌ {_escaped(self.target)}: {_NOT_JUDGED}\n\n{_escaped(self.reason)}\n"


def change_since(check: Check, base: Mapping[Subject, float] | None) -> str:
    """For example "+5.1 % (3,912,344)", "-0.0120 (0.8640)"; IoU changes by points, everything else by its share."""
    before = (base or {}).get(check.subject)
    if before is None or check.measured is None or not math.isfinite(before):
        return "unknown"
    was = measured_of(replace(check, measured=before, low=None, high=None))
    if not check.unit:
        return f"{check.measured - before:+.4f} ({was})"
    return f"{(check.measured / before - 1) * 100:+.1f} % ({was})" if before else "unknown"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\ufffd", text)


def _command(kind: str, message: str) -> str:
    """Percent signs and line ends are escaped as the runner undoes it."""
    message = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{kind} title=compress gate::{message}"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", text.replace("\n", " "))
