"""What the pages say of the repository: links, commands and figures."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from compress.cli import _parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
PAGES += [*ROOT.glob("export/*/README.md")]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link: lower case, words joined by hyphens, other signs left out."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_to_a_file_and_to_a_heading_in_it(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert ROOT in [place, *place.parents], target
        assert not anchor or anchor in anchors(place), target


def test_the_readme_is_a_page_and_says_how_to_install_and_to_begin():
    text = (ROOT / "README.md").read_bytes()
    assert len(text) <= 9_000
    for words in (b"pip install", b"make demo", b"make test", b"compress run", b"compress bench", b"compress gate"):
        assert words in text


def test_every_page_of_docs_can_be_reached_from_the_readme():
    text = (ROOT / "README.md").read_text()
    assert [named(page) for page in ROOT.glob("docs/*.md") if f"({named(page)})" not in text] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=named)
def test_every_command_that_a_page_shows_is_one_that_the_program_takes(page):
    lines = re.findall(r"^(?:    |\$ | +- )(compress .+)$|`(compress \w+ [^`]+)`", page.read_text(), re.MULTILINE)
    for line in map("".join, lines):
        words = shlex.split(re.split(" #|   ", line)[0])[1:]
        try:
            _parser().parse_args(words)
        except SystemExit as error:
            raise AssertionError(f"{named(page)}: {line}") from error


def workflows() -> list[dict]:
    """Those that docs/continuous.md shows."""
    text = (ROOT / "docs" / "continuous.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_workflows_are_yaml_with_triggers_permissions_and_commands_that_the_program_takes():
    assert [each["name"] for each in workflows()] == ["nightly", "gate", "recipe"]
    for each in workflows():
        assert each[True]  # YAML 1.1 reads "on" so
        [job] = each["jobs"].values()
        assert each.get("permissions", job.get("permissions"))["contents"] == "read"
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            for line in re.findall(r"^ *(compress .+)$", step.get("run", ""), re.MULTILINE):
                _parser().parse_args(shlex.split(re.split(r" > | \|\| ", line)[0])[1:])


def test_the_action_of_the_workflows_has_the_inputs_that_they_give():
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    steps = [step for each in workflows() for job in each["jobs"].values() for step in job["steps"]]
    given = [step["with"] for step in steps if step.get("uses", "").startswith("OWNER/compress@")]
    assert given
    assert all(set(each) <= set(inputs) for each in given)


def test_the_architecture_names_every_room_and_few_modules_stand_loose():
    text = (ROOT / "docs" / "architecture.md").read_text()
    inside = [path for path in (ROOT / "compress").iterdir() if not path.name.startswith((".", "__"))]
    rooms, loose = (
        {path.name for path in inside if path.is_dir()},
        {path.name for path in inside if path.suffix == ".py"},
    )
    assert [name for name in loose if f"\n  {name} " not in text] == []
    assert [name for name in rooms if f"\n  {name}/ " not in text] == []
    assert len(loose) <= 8


@pytest.fixture
def tables(monkeypatch):
    """benchmarks/tables.py, which is no part of the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables

    yield tables
    del sys.modules["tables"]


def test_the_tables_of_the_benchmarks_are_what_their_results_say(tables):
    page, results = (ROOT / "benchmarks" / "README.md").read_text(), ROOT / "benchmarks" / "results"
    assert tables.written(page, results) == page
    assert tables.without_table(page, results) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/results/*.json")), ids=lambda path: path.stem)
def test_a_result_says_where_its_figures_come_from(path, tables):
    result = tables.read_result(path)
    for run in result["runs"]:
        assert {"command", "commit", "date", "machine", "old", "note"} <= set(run)
        for row in run["rows"]:
            assert len(row) == len(result["columns"])
            for figure in row:
                assert not isinstance(figure, dict) or figure["low"] <= figure["mean"] <= figure["high"]


def test_the_releases_figures_are_those_of_their_reports():
    results = [json.loads((ROOT / f"benchmarks/results/{name}.json").read_text()) for name in ("releases", "craft")]
    figures = {row[0]: row[1:] for result in results for run in result["runs"] for row in run["rows"]}
    for name in ("u2net-4mb", "u2net-1mb", "craft-4mb"):
        report = json.loads((ROOT / "export" / name / "report.json").read_text())
        for kind in ("onnx", "tflite"):
            measured = report["measurements"][kind]
            size, iou, times = figures[f"{name} `model.{kind}`"]
            assert size == measured["size_bytes"]
            assert iou == {key: round(measured["iou"][key], 4) for key in iou}
            assert times == {key: round(measured["speedup"][key], 2) for key in times}


def test_optimizers_are_compared_image_by_image(tables, tmp_path):
    results = {
        "ours": {"size_bytes": 4_000_000, "iou": [0.5, 0.7, 0.9], "steps": 100, "learning_rate": 6e-3},
        "Adam": {"size_bytes": 4_000_000, "iou": [0.4, 0.6, 0.8], "steps": 120, "learning_rate": 1e-3},
    }
    ratio = {"mean": 1.2, "low": 1.1, "high": 1.3}
    (tmp_path / "optimizer.json").write_text(json.dumps({"step_ratio": ratio, "results": results}))
    page = "before\n<!-- table: optimizer -->\n<!-- end -->\nafter\n"
    text = tables.written(page, tmp_path)
    assert text.startswith("before\n<!-- table: optimizer -->\n### ")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "| Adam | 0.001 | 120 | 4,000,000 | 0.600 [0.103, 1.000] | -0.100 [-0.737, +0.678] | 1 |" in text
    assert "1.20 [1.10, 1.30] times as long" in text
    assert tables.written(text, tmp_path) == text
    assert tables.without_table(page, tmp_path) == []
    (tmp_path / "other.json").write_text("{}")
    assert tables.without_table(page, tmp_path) == ["other"]
