"""Write the tables of benchmarks/README.md from the files in benchmarks/results/.

    python benchmarks/tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->` and is made of results/NAME.json: a title, a sentence
about it, columns, and runs. A run has rows of figures, and says where they come from: the command, the commit that
wrote them down, the machine (null where it was not recorded), and, where newer code would give others, why they are
old. A figure is a number, a text, null, or {"mean", "low", "high"}: a mean with its 95 % interval. `--check` writes
nothing; exit code 1 where a table is not what its results say, or results have no table.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def cell(value: Any, column: dict[str, Any]) -> str:
    """A figure as its column shows it: so many digits, with a sign where the column is of differences."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return f"{cell(value['mean'], column)} [{cell(value['low'], column)}, {cell(value['high'], column)}]"
    return f"{value:{'+' if column.get('signed') else ''},.{column.get('digits', 0)}f}"


def source(run: dict[str, Any]) -> str:
    """Where the figures of a run come from, in a line."""
    machine = run["machine"] or {}
    name = machine.get("processor") or "x86, model not recorded"
    parts = [
        f"`{run['command']}`" if run["command"] else "command not recorded",
        f"commit {run['commit']}, {run['date']}" if run["commit"] else "commit not recorded",
        f"{machine['cores']} cores, {machine['instructions']} ({name})" if machine else "machine not recorded",
    ]
    old = f" **Old code:** {run['old']}." if run["old"] else ""
    note = f" {run['note'][0].upper()}{run['note'][1:]}." if run["note"] else ""
    return "; ".join(parts) + "." + note + old


def table(result: dict[str, Any]) -> str:
    """One result as Markdown: heading, sentence, table, and a numbered line for each run, which its rows point to."""
    columns = [*result["columns"], {"name": "run"}]
    lines = [f"### {result['title']}", "", result["about"], ""]
    lines += ["| " + " | ".join(column["name"] for column in columns) + " |", "|" + "---|" * len(columns)]
    for number, run in enumerate(result["runs"], start=1):
        mark = f"{number}, old" if run["old"] else str(number)
        for row in run["rows"]:
            lines.append("| " + " | ".join([cell(one, column) for one, column in zip(row, columns)] + [mark]) + " |")
    sources = [f"{number}. {source(run)}" for number, run in enumerate(result["runs"], start=1)]
    return "\n".join([*lines, "", *sources]) + "\n"


def of_optimizers(found: dict[str, Any]) -> dict[str, Any]:
    """results/optimizer.json, which holds an IoU for each image, in the form of the other results."""
    from compress.measure.statistics import SHARE, bootstrap_mean, paired_difference

    def interval(value: Any) -> dict[str, float]:
        return {"mean": value.mean, "low": value.low, "high": value.high}

    results, ratio = found["results"], found["step_ratio"]
    first = next(iter(results))
    rows = [
        [
            name,
            f"{one['learning_rate']:g}",
            one["steps"],
            one["size_bytes"],
            interval(bootstrap_mean(one["iou"], within=SHARE)),
        ]
        + [None if name == first else interval(paired_difference(one["iou"], results[first]["iou"]))]
        for name, one in results.items()
    ]
    about = (
        "The same student, data and minutes with each optimizer: IoU of the exported int8 file, and its difference "
        f"from that of {first}, paired by image. A step of {first} takes {ratio['mean']:.2f} "
        f"[{ratio['low']:.2f}, {ratio['high']:.2f}] times as long as one of Adam."
    )
    names = ["optimizer", "learning rate", "steps", "bytes"]
    columns = [*({"name": name} for name in names), {"name": "IoU", "digits": 3}]
    columns.append({"name": f"difference from {first}", "digits": 3, "signed": True})
    run = {key: found.get(key) for key in ("command", "commit", "date", "machine", "old", "note")}
    return {"title": "The optimizer beside Adam", "about": about, "columns": columns, "runs": [{**run, "rows": rows}]}


def read_result(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    return of_optimizers(found) if "results" in found else found


def written(page: str, results: Path) -> str:
    """The page with every table as its result gives it; one whose file is missing stays empty."""

    def fill(match: re.Match[str]) -> str:
        path = results / f"{match[2]}.json"
        return match[1] + (table(read_result(path)) if path.exists() else "") + match[3]

    return TABLE.sub(fill, page)


def without_table(page: str, results: Path) -> list[str]:
    """Results that the page has no place for."""
    places = {match[2] for match in TABLE.finditer(page)}
    return sorted(path.stem for path in results.glob("*.json") if path.stem not in places)


def main(check: bool) -> int:
    path = HERE / "README.md"
    page = path.read_text()
    for name in without_table(page, HERE / "results"):
        print(f"results/{name}.json has no table in {path.name}: add <!-- table: {name} --> and <!-- end -->")
    new = written(page, HERE / "results")
    if check:
        if new != page:
            print(f"{path.name} is not what results/ says: run python benchmarks/tables.py")
        return int(new != page or bool(without_table(page, HERE / "results")))
    path.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
