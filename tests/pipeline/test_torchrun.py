"""`compress run` in two processes that torchrun starts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compress.cli import main

COMMAND = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "compress"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = ENVIRONMENT | {"COMPRESS_CACHE": os.environ["COMPRESS_CACHE"]}
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def own(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("compress:")]


@pytest.mark.slow
def test_a_mistake_is_one_line_and_not_one_of_each_process():
    out, err = started("run", "no-such-file.pt", "--budget", "1MB").communicate(timeout=120)
    assert own(err) == ["compress: no-such-file.pt: no such file; name the model's file of weights"]
    assert out == ""


@pytest.mark.slow
def test_a_run_whose_second_process_is_killed_goes_on_in_one(tiny_model, tiny_data, tmp_path):
    out = tmp_path / "out"
    arguments = ["run", tiny_model, "--budget", "20KB", "--data", tiny_data, "--out", out]
    process = started(*arguments)
    for line in process.stderr:
        if line.startswith("qat ..."):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert [line for line in own(err) if "another process" not in line] == []
    distilled = (out / "checkpoints" / "distil.pt").stat().st_mtime_ns
    assert main(["run", "--resume", str(out)]) == 0
    assert (out / "checkpoints" / "distil.pt").stat().st_mtime_ns == distilled
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
def test_two_processes_make_one_run_with_one_report(tiny_model, tiny_data, tmp_path):
    out = tmp_path / "out"
    with (tmp_path / "some.toml").open("w") as recipe:
        recipe.write(tiny_model.with_suffix(".toml").read_text().replace("steps = 40", "steps = 12"))
    (tmp_path / "tiny.py").write_text((tiny_model.parent / "tiny.py").read_text())
    arguments = ["run", tiny_model, "--recipe", tmp_path / "some.toml", "--budget", "20KB", "--data", tiny_data]
    process = started(*arguments, "--out", out, "--controls")
    printed, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    for stage in ("load", "teacher", "export", "controls", "measure"):
        assert sum(line.startswith(f"{stage} ...") for line in err.splitlines()) == 1
    assert printed.count("verdict: within budget") == 1
    report = json.loads((out / "report.json").read_text())
    assert report["command"].startswith("torchrun --nproc-per-node 2 -m compress run tiny.pt")
    assert set(report["controls"]) == {"random pruning"}
