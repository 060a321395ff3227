"""A run that was killed at any time goes on to the files that it would have had."""

import hashlib
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny import ticking

import compress.pipeline.student
from compress.cli import main
from compress.pipeline.checkpoints import Checkpoints, Start
from compress.train.loop import fit

BEFORE = ["tune", "tuned teacher", "plan", "repair", "features"]
STAGES = [*BEFORE, "distil", "ptq", "qat", "export", "verify", "measure"]


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model with a recipe that tunes it first."""
    folder = tmp_path_factory.mktemp("steps")
    for name in ("tiny.pt", "tiny.py", "tiny.toml"):
        (folder / name).write_bytes((tiny_model.parent / name).read_bytes())
    with (folder / "tiny.toml").open("a") as recipe:
        recipe.write("\n[tune]\nsteps = 10\n")
    return folder / "tiny.pt"


def arguments(model: Path, data: Path, out: Path) -> list[str]:
    return ["run", str(model), "--budget", "20KB", "--data", str(data), "--out", str(out)]


def digests(out: Path) -> dict[str, str]:
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in ("model.onnx", "model.tflite")}


def read_report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def whole(model, tiny_data, tmp_path_factory) -> dict[str, str]:
    """Digests of the files of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(arguments(model, tiny_data, out)) == 0
    return digests(out)


def killed(model: Path, data: Path, out: Path, stage: str) -> None:
    """Start a run and kill it with SIGKILL when it says that it is at `stage`."""
    command = [sys.executable, "-m", "compress.cli", *arguments(model, data, out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith(f"{stage} ..."):
            process.send_signal(signal.SIGKILL)
            break
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage == "qat" else pytest.mark.slow) for stage in STAGES]
)
def test_a_run_killed_in_any_stage_goes_on_to_the_same_files(stage, model, tiny_data, tmp_path, whole, capsys):
    out = tmp_path / "out"
    killed(model, tiny_data, out, stage)
    assert main(["run", "--resume", str(out)]) == 0
    assert digests(out) == whole
    assert not list(out.rglob("*.partial"))
    command = read_report(out)["command"]  # which names folders, but not where they are on this machine
    assert command == f"compress run tiny.pt --budget 20KB --data {tiny_data.name} --out out"


@pytest.mark.slow
def test_finished_stages_are_not_done_again(model, tiny_data, tmp_path, whole, caplog):
    out = tmp_path / "out"
    killed(model, tiny_data, out, "export")
    with caplog.at_level("INFO", "compress"):
        assert main(["run", "--resume", str(out)]) == 0
    stages = [
        record.getMessage().split()[0].rstrip(":") for record in caplog.records if " from " in record.getMessage()
    ]
    assert stages == ["tune", "plan", "repair", "distil", "ptq", "qat"]
    assert digests(out) == whole


def test_other_images_or_another_model_are_no_reason_to_go_on(model, tiny_data, two_class_data, tmp_path, capsys):
    out = tmp_path / "out"
    killed(model, tiny_data, out, "repair")
    recipe = out / "checkpoints" / "run.json"
    recipe.write_text(recipe.read_text().replace(str(tiny_data), str(two_class_data)))
    assert main(["run", "--resume", str(out)]) == 2
    assert "start it anew, without --resume" in capsys.readouterr().err


def test_a_longer_training_keeps_what_came_before_it(tmp_path):
    def checkpoints(minutes, resume):
        start = Start("model.pt", {"train": {"minutes": minutes}}, "recipe", "command")
        return Checkpoints(tmp_path, start, resume)

    first = checkpoints(1, False)
    first.open("identity")
    for stage, at in (("repair", 0.0), ("between-1", 0.5), ("distil", 1.0), ("ptq", 0.0), ("qat", 1.5)):
        first.once(stage, partial(first.history.add, stage, 0.5, at), lambda _: 1, lambda _: None)
        (tmp_path / f"{stage}.state").touch()
    first.history.minutes = 1.5
    assert [*checkpoints(1, True).minutes] == ["repair", "between-1", "distil", "ptq", "qat"]
    longer = checkpoints(2, True)
    longer.open("identity")
    assert [*longer.minutes] == ["repair", "between-1"]
    assert [point.stage for point in longer.history.points] == ["repair", "between-1"]
    assert longer.history.minutes == 0.5
    assert (tmp_path / "distil.state").exists()
    assert not (tmp_path / "qat.state").exists()


def test_a_stage_takes_the_minutes_that_it_trained_before_a_kill_too(tmp_path):
    checkpoints = Checkpoints(tmp_path, Start("model.pt", {}, "recipe", "command"), False)
    checkpoints.open("identity")
    checkpoints.history.minutes = 1.0

    def distil():  # goes on from a state of 59 minutes, and ends a second later
        checkpoints.history.add("distil", 0.5, 60.0)
        checkpoints.history.end_training()

    checkpoints.once("distil", distil, lambda _: 1, lambda _: None)
    checkpoints.once("ptq", lambda: None, lambda _: 1, lambda _: None)
    assert checkpoints.minutes["distil"] == 60.0
    assert 0 <= checkpoints.minutes["ptq"] < 1


def test_a_stage_that_fails_leaves_no_trace_in_the_history(tmp_path):
    checkpoints = Checkpoints(tmp_path, Start("model.pt", {}, "recipe", "command"), False)
    checkpoints.open("identity")

    def fails():
        checkpoints.history.add("distil", 0.5, 60.0)
        checkpoints.history.end_training()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.once("distil", fails, lambda _: 1, lambda _: None)
    assert (checkpoints.history.points, checkpoints.history.minutes) == ([], 0.0)


@pytest.mark.slow
def test_a_finished_run_trains_on_from_where_its_distillation_was(model, tiny_data, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(compress.pipeline.student, "fit", partial(fit, clock=ticking(0.1)))
    out = tmp_path / "out"
    assert main(arguments(model, tiny_data, out)) == 0
    before, short = digests(out), read_report(out)
    with caplog.at_level("INFO", "compress"):
        assert main(["run", "--resume", str(out), "--minutes", "0.2"]) == 0
    stages = [
        record.getMessage().split()[0].rstrip(":") for record in caplog.records if " from " in record.getMessage()
    ]
    assert stages == ["tune", "plan", "repair"]
    long = read_report(out)
    trained = {
        name: [point for point in report["history"] if point["stage"] == "distil"]
        for name, report in {"short": short, "long": long}.items()
    }
    assert trained["long"][: len(trained["short"])] == trained["short"]
    assert len(trained["long"]) > len(trained["short"])
    assert long["history"][-1]["stage"] == "qat"
    assert long["recipe"]["train"]["minutes"] == 0.2
    assert digests(out) != before


def test_a_folder_without_a_run_is_one_line(tmp_path, capsys):
    assert main(["run", "--resume", str(tmp_path)]) == 2
    assert "run.json: no such file" in capsys.readouterr().err


def test_flags_that_a_resumed_run_would_not_follow_are_refused(tmp_path, capsys):
    assert main(["run", "--resume", str(tmp_path), "--budget", "4MB", "--keep-float", "a"]) == 2
    assert "leave out --budget, --keep-float" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag", ["--seed=0", "--out=a", "--recipe=a.toml", "--tta=", "--formats=", "--controls", "--sensitivity", "--plan="]
)
def test_no_flag_is_ignored_for_being_zero_or_empty(flag, tmp_path, capsys):
    assert main(["run", "--resume", str(tmp_path), flag]) == 2
    assert f"leave out {flag.partition('=')[0]}, or start it anew" in capsys.readouterr().err


def test_no_model_and_no_folder_is_one_line(capsys):
    assert main(["run", "--budget", "4MB"]) == 2
    assert "compress run MODEL" in capsys.readouterr().err
