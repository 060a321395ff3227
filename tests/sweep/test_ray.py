"""Jobs on a real Ray cluster of this host; in the slow tests, of several nodes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.errors import ClusterError
from compress.sweep.executor import Ended, Job

pytest.importorskip("ray")
from compress.sweep.ray import RayExecutor

STEPS = 400  # of training: a kill comes in the middle


def all_ended(executor: RayExecutor, count: int) -> dict[str, Ended]:
    found: dict[str, Ended] = {}
    for _ in range(120):
        found |= {each.name: each for each in executor.wait(1.0)}
        if len(found) == count:
            break
    return found


def runs_in(folder: Path) -> list[int]:
    """Processes of `compress run` that write to the folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(folder) in words and b"compress" in words:
            found.append(int(each.parent.name))
    return found


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until(holds) -> None:
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("never came true")


def job(name: str, model: Path, data: Path, folder: Path) -> Job:
    """As a sweep begins a run, or goes on with one."""
    if (folder / "checkpoints" / "run.json").is_file():
        return Job(name, ("run", "--resume", str(folder)), folder)
    given = ("run", str(model), "--data", str(data), "--budget", "20kB", "--steps", str(STEPS), "--out", str(folder))
    return Job(name, given, folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_jobs_end_with_the_codes_and_last_words_of_their_commands_and_a_killed_worker_with_none(here):
    executor = RayExecutor(None, here)
    try:
        assert executor.slots() >= 1
        executor.submit(Job("version", ("--version",), here / "version"))
        executor.submit(Job("none", ("run", "none.onnx", "--budget", "1MB", "--out", str(here / "none")), here / "none"))
        ended = all_ended(executor, 2)
        assert ended["version"].code == 0
        assert ended["none"].code == 2
        assert ended["none"].said == "compress: none.onnx: no such file; name the model's file of weights"

        fifo = here / "fifo.onnx"
        os.mkfifo(fifo)
        executor.submit(Job("endless", ("bench", "-", "--data", str(here / "x")), here / "x"))
    finally:
        executor.close()
