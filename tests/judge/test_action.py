"""The shell of action.yml, run as GitHub's runner runs it: bash, -e, pipefail, outputs and summary in files."""

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ACTION = (ROOT / "action.yml").read_text()
RELEASE = ROOT / "export" / "u2net-1mb"


def script(name: str) -> str:
    """What the step of that name runs."""
    step = re.search(rf"    - name: {name}\n(.*?)(?=\n    - |\Z)", ACTION, re.DOTALL)[1]
    return textwrap.dedent(step.split("      run: |\n")[1])


@pytest.fixture
def runner(tmp_path):
    """Runs a step; its environment is what the action would give it, and `gh` is what the test writes."""
    commands = tmp_path / "compress-gate" / "bin"
    commands.mkdir(parents=True)
    (commands / "compress").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec {sys.executable} -m compress "$@"\n')
    (commands / "compress").chmod(0o755)
    inputs = dict.fromkeys(("BUDGET", "DATA", "BASE", "JUNIT", "LENIENT", "PYTHONPATH"), "")
    places = {"GITHUB_OUTPUT": tmp_path / "output", "GITHUB_STEP_SUMMARY": tmp_path / "summary"}
    for place in places.values():
        place.write_text("before\n")
    given = inputs | {"SECONDS_AT_MOST": "60", "RUNNER_TEMP": str(tmp_path), "GITHUB_ACTIONS": "true"}
    given |= {name: str(place) for name, place in places.items()} | {"PATH": f"{commands}:{os.environ['PATH']}"}

    def run(name: str, **more: str):
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script(name)]
        done = subprocess.run(
            command, env={**os.environ, **given, **more}, cwd=tmp_path, capture_output=True, text=True
        )
        outputs = dict(line.split("=", 1) for line in places["GITHUB_OUTPUT"].read_text().splitlines()[1:])
        return done, outputs, places["GITHUB_STEP_SUMMARY"].read_text()

    return run


def test_a_green_gate_says_so_in_its_outputs_and_adds_to_the_summary(runner):
    done, outputs, summary = runner("Gate", TARGET=str(RELEASE), BUDGET="  \n2MB\niou>=0.85\n")
    assert done.returncode == 0, done.stderr
    assert outputs["passed"] == "true"
    assert json.loads(Path(outputs["json"]).read_text())["passed"] is True
    assert summary.startswith("before\n### ✅")
    assert "::notice" in done.stdout
    assert "::warning" not in done.stdout


def test_a_gate_over_budget_fails_the_step_after_its_outputs(runner):
    done, outputs, summary = runner("Gate", TARGET=str(RELEASE), BUDGET="1MB")
    assert (done.returncode, outputs["passed"]) == (1, "false")
    assert "### ❌" in summary
    assert "over budget" in summary


def test_a_gate_that_cannot_run_leaves_a_summary_an_annotation_and_an_error_for_junit(runner, tmp_path):
    done, outputs, summary = runner("Gate", TARGET=str(tmp_path / "none"), BUDGET="1MB", JUNIT=str(tmp_path / "j.xml"))
    assert (done.returncode, outputs["passed"]) == (2, "false")
    assert "could not be judged" in summary
    assert done.stdout.startswith("::error title=compress gate::")
    assert "<error" in (tmp_path / "j.xml").read_text()
    done, outputs, summary = runner("Gate", TARGET=str(RELEASE), SECONDS_AT_MOST="soon")
    assert (done.returncode, outputs["passed"]) == (2, "false")
    assert "could not run, see its log" in summary


def test_inputs_are_never_part_of_the_script(runner, tmp_path):
    done, _, _ = runner("Gate", TARGET='"; touch made #', BUDGET='4MB"; touch made #\n$(touch made)')
    assert done.returncode == 2
    assert not (tmp_path / "made").exists()


GH = """#!/bin/sh
echo "$@" >> "$RUNNER_TEMP/calls"
case "$*" in
  *--paginate*) echo "$FOUND" ;;
  *) exit "${REFUSES:-0}" ;;
esac
"""


@pytest.mark.parametrize(("found", "call"), [("", "--method POST all"), ("7\n8", "--method PATCH one/7")])
def test_a_pull_request_has_one_comment_for_each_target(runner, tmp_path, found, call):
    (tmp_path / "compress-gate" / "bin" / "gh").write_text(GH)
    (tmp_path / "compress-gate" / "bin" / "gh").chmod(0o755)
    (tmp_path / "gate.md").write_text("### fine\n")
    places = {"MARKDOWN": str(tmp_path / "gate.md"), "COMMENTS": "all", "COMMENT": "one", "MARK": "<!-- gate: a -->"}
    done, _, _ = runner("Comment", FOUND=found, **places)
    assert done.returncode == 0, done.stderr
    assert call in (tmp_path / "calls").read_text()
    assert (tmp_path / "gate.md.comment").read_text() == "<!-- gate: a -->\n### fine\n"
    done, _, _ = runner("Comment", FOUND=found, REFUSES="1", **places)
    assert done.returncode == 0
    assert "::notice title=compress gate::no comment: the token needs" in done.stdout


def test_the_cache_is_named_by_the_constraints(runner):
    _, outputs, _ = runner("Name the cache", ACTION=str(ROOT))
    assert re.fullmatch("[0-9a-f]{16}", outputs["sum"])


def test_every_output_is_one_that_a_step_writes():
    for step, output in re.findall(r"steps\.(\w+)\.outputs\.(\w+)", ACTION):
        (block,) = re.findall(rf"      id: {step}\n(.*?)(?=\n    - |\Z)", ACTION, re.DOTALL)
        assert f'echo "{output}=' in block


def test_the_docs_pin_the_version_that_this_is():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"uses: OWNER/compress@v{version}" in (ROOT / "docs" / "gate.md").read_text()
