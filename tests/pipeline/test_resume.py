"""A run that was killed at any time goes on to the files that it would have had."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny import ticking

import compress.pipeline.student
from compress.cli import main
from compress.files import Sealed, alone_in
from compress.pipeline.checkpoints import Checkpoints, Start
from compress.recipe import read_recipe
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


def test_other_images_or_another_model_are_no_reason_to_go_on(model, tiny_data, tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "data"
    killed(model, tiny_data, out, "repair")
    recipe = out / "checkpoints" / "run.json"
    shutil.copytree(tiny_data, other)
    image = min((other / "train" / "images").iterdir())
    image.unlink()
    (other / "train" / "masks" / f"{image.stem}.png").unlink()
    recipe.write_text(recipe.read_text().replace(str(tiny_data), str(other)))
    assert main(["run", "--resume", str(out), "--trust-code"]) == 2
    assert "start it anew, without --resume" in capsys.readouterr().err


def test_a_longer_training_keeps_what_came_before_it(tmp_path):
    def checkpoints(minutes, resume):
        start = Start("model.pt", {"train": {"minutes": minutes}}, "recipe", "command")
        return Checkpoints(tmp_path, start, resume)

    first = checkpoints(1, False)
    first.open("identity")
    stages = {"repair": 0.0, "between-1": 0.5, "distil": 0.5, "ptq": 0.0, "qat": 0.5}

    def make(stage):
        first.history.add(stage, 0.5, stages[stage])
        if stages[stage]:
            first.history.end_training()

    for stage in stages:
        first.once(stage, partial(make, stage), lambda _: 1, lambda _: None)
        (tmp_path / f"{stage}.state").touch()
    for minutes, kept in ((1, [*stages]), (2, ["repair", "between-1"])):
        again, made = checkpoints(minutes, True), []
        again.open("identity")
        for stage in stages:
            again.once(stage, partial(made.append, stage), lambda _: 1, lambda _: None)
        assert made == [stage for stage in stages if stage not in kept]
        assert [point.stage for point in again.history.points] == kept
    assert again.history.minutes == 0.5
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


def staged(folder: Path, resume: bool, made: list[str], names=("plan", "repair", "distil")) -> Checkpoints:
    """The checkpoints of a run of three stages, which adds to `made` those that it makes."""
    checkpoints = Checkpoints(
        folder / "checkpoints", Start("model.pt", {}, "recipe", ""), resume, folder / "history.csv"
    )
    checkpoints.open("identity")

    def make(name):
        made.append(name)
        checkpoints.history.add(name, 0.5)
        return len(made)

    for name in names:
        checkpoints.once(name, partial(make, name), lambda result: result, lambda kept: kept)
    return checkpoints


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def other_stage(path):
    path.write_bytes((path.parent / "plan.pt").read_bytes())


def other_run(path):
    Sealed(path, "something else").write(b"")


def made_to_do_harm(path):
    """With the right seal, and yet no checkpoint."""
    sealed = Checkpoints(path.parent, Start("model.pt", {}, "recipe", ""), True)
    sealed.identity = "identity"
    sealed._sealed(path.name, path.stem == "distil").write(b"no torch file")


DAMAGES = [emptied, cut, changed, other_stage, other_run, made_to_do_harm, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("stage", ["repair", "distil"])
def test_a_damaged_stage_and_all_after_it_are_made_anew(tmp_path, damage, stage, caplog):
    staged(tmp_path, False, [])
    state = tmp_path / "checkpoints" / "distil.state"
    state.touch()
    damage(tmp_path / "checkpoints" / f"{stage}.pt")
    made: list[str] = []
    again = staged(tmp_path, True, made)
    assert made == (["repair", "distil"] if stage == "repair" else ["distil"])
    assert state.exists() == (stage == "distil")  # a training from another network is not gone on with
    assert [point.stage for point in again.history.points] == ["plan", "repair", "distil"]
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == (damage is not Path.unlink)
    assert all(f"{stage}.pt" in line for line in said)
    later: list[str] = []
    staged(tmp_path, True, later)
    assert later == []


def test_the_history_is_a_table_as_it_is_known_and_once_more_where_it_was_damaged(tmp_path):
    staged(tmp_path, False, [], ("plan", "repair"))
    table = "stage,minutes,iou,loss\nplan,0.0,0.5,\nrepair,0.0,0.5,\n"
    assert (tmp_path / "history.csv").read_text() == table
    (tmp_path / "history.csv").write_bytes(b"\xff")
    staged(tmp_path, True, [], ("plan", "repair", "distil"))
    assert (tmp_path / "history.csv").read_text() == table + "distil,0.0,0.5,\n"


RECORD = {"identity": "i", "model": "m.pt", "recipe": {}, "recipe_folder": ".", "command": ""}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", "[" * 100_000, "\xff", '{"identity": NaN}']
    + [json.dumps(RECORD | {key: value}) for key in RECORD for value in (None, 3, [], "a\0b", "\ud800", {"a": "\0"})]
    + [json.dumps({key: RECORD[key] for key in RECORD if key != gone}) for gone in RECORD]
    + [json.dumps(RECORD | {"recipe": {"train": [1]}}), json.dumps(RECORD | {"recipe": {"seed": float("inf")}})],
    ids=str.__len__,
)
def test_a_record_of_other_types_is_one_line_that_names_it(text, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "run.json").write_text(text, "latin-1")
    assert main(["run", "--resume", str(tmp_path), "--trust-code"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run.json" in line


def test_a_folder_in_place_of_a_record_is_one_line(tmp_path, capsys):
    (tmp_path / "checkpoints" / "run.json").mkdir(parents=True)
    assert main(["run", "--resume", str(tmp_path)]) == 2
    assert "run.json: is no file" in capsys.readouterr().err


@pytest.fixture
def foreign(model, tiny_data, tmp_path) -> Path:
    """The folder of a run that somebody else made, whose record names code inside it."""
    out = tmp_path / "foreign"
    out.mkdir()
    (out / "evil.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')\n")
    recipe = read_recipe(model.with_suffix(".toml")).with_flags(data=tiny_data, budget=["20KB"]).model_dump(mode="json")
    recipe["model"]["architecture"] = "evil.py:Net"
    (out / "checkpoints").mkdir()
    record = RECORD | {"model": str(model), "recipe": recipe, "recipe_folder": str(out)}
    (out / "checkpoints" / "run.json").write_text(json.dumps(record))
    return out


def test_a_run_of_somebody_else_runs_no_code_of_its_own(foreign, tmp_path, capsys):
    assert main(["run", "--resume", str(foreign)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"would run {foreign / 'evil.py'}" in line
    assert "--trust-code" in line
    assert not (tmp_path / "was here").exists()
    assert main(["run", "--resume", str(foreign), "--trust-code"]) == 2
    assert "evil.py: Net() failed" in capsys.readouterr().err
    assert (tmp_path / "was here").exists()


@pytest.mark.parametrize("key", ["recipe_folder", "model"])
def test_what_was_changed_in_the_record_of_an_own_run_makes_it_somebody_elses(key, tmp_path):
    start = Start("model.pt", {"seed": 0}, "recipe", "compress run")
    start.remember()
    assert Start(**asdict(start)).own
    assert not replace(start, **{key: "elsewhere"}).own


@pytest.mark.parametrize("place", ["../tiny.py", "/tmp/tiny.py", "a/../../tiny.py"])
def test_an_architecture_outside_the_recipes_folder_is_not_run(place, model, tmp_path, capsys):
    recipe = (model.parent / "tiny.toml").read_text().replace("tiny.py:", f"{place}:")
    (tmp_path / "recipe.toml").write_text(recipe)
    assert main(["inspect", str(model), "--recipe", str(tmp_path / "recipe.toml")]) == 2
    assert "lies elsewhere; name a file in the recipe's folder" in capsys.readouterr().err


def test_a_second_run_in_a_folder_is_refused_and_leaves_the_first_alone(model, tiny_data, tmp_path, capsys):
    out = tmp_path / "out"
    with alone_in(out / "checkpoints", out):
        assert main(arguments(model, tiny_data, out)) == 2
        assert main(["run", "--resume", str(tmp_path / "no run")]) == 2
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["run.lock"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compress: ")]
    assert lines[0].startswith(f"compress: {out}: another run writes here")
    assert not out.exists()


def test_trust_without_a_run_to_resume_is_refused(model, capsys):
    assert main(["run", str(model), "--budget", "20KB", "--trust-code"]) == 2
    assert "--trust-code goes with --resume" in capsys.readouterr().err


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
