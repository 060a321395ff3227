"""A sweep whose workers, nodes and driver are killed at random has the files of one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import parent_of, processes_with

from compress.files import sha256_of
from compress.sweep.page import FILE

KILLS = 20
BUDGETS = "12kB,15kB,18kB,21kB,24kB"


class Sweep:
    """The command, in a process that can be killed and started again."""

    def __init__(self, model: Path, data: Path, out: Path, *more: str):
        given = ["sweep", str(model), "--data", str(data), "--budget", BUDGETS, "--out", str(out), "--jobs", "2"]
        self.command, self.out = [sys.executable, "-m", "compress", *given, *more], out
        self.said = out.parent / f"{out.name}.said"
        self.start()

    def start(self) -> None:
        with self.said.open("ab") as said:
            self.driver = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def kill_driver(self) -> None:
        self.driver.kill()
        self.driver.wait()
        self.start()

    def kill_worker(self, chance: random.Random, *, its_parent: bool) -> None:
        """A run; or what runs it, which takes it along."""
        folders = [path for path in (self.out / "trials").glob("*") if path.is_dir()]
        running = [process for folder in folders for process in processes_with(str(folder))]
        running = [process for process in running if process != self.driver.pid]
        if running:
            process = chance.choice(running)
            os.kill(parent_of(process) if its_parent else process, signal.SIGKILL)

    def saved(self) -> set[tuple[str, int]]:
        """Every checkpoint, by its name and the time when it was written."""
        found = set()
        for path in (self.out / "trials").glob("*/checkpoints/*"):
            try:
                found.add((str(path), path.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
        return found

    def wait_for_checkpoints(self, count: int) -> None:
        seen = before = self.saved()
        until = time.monotonic() + 120  # where runs are killed before they get so far
        while len(seen - before) < count and self.driver.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
            seen = seen | self.saved()


def files_of(out: Path) -> dict[str, str]:
    """sha256 of what each trial exported."""
    return {str(path.relative_to(out)): sha256_of(path) for path in sorted((out / "trials").glob("*/model.*"))}


def told(out: Path) -> list[tuple[object, ...]]:
    """Of each trial all but what is measured anew each time, its milliseconds."""
    trials = json.loads((out / FILE).read_text())["trials"]
    return [tuple(trial[key] for key in ("name", "state", "size_bytes", "iou", "meets_all_limits")) for trial in trials]


@contextmanager
def nodes(executor: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """The options of a sweep on two nodes, and what kills one and starts another in its place."""
    if executor == "local":
        yield (), None
        return
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    there = [cluster.add_node(num_cpus=1) for _ in range(2)]

    def kill_node(chance: random.Random) -> None:
        cluster.remove_node(there.pop(chance.randrange(2)), allow_graceful=False)
        there.append(cluster.add_node(num_cpus=1))

    try:
        yield ("--executor", "ray", "--ray-address", cluster.address), kill_node
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes on a quiet machine
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_after_20_random_kills_no_trial_is_lost_none_is_done_twice_and_the_files_are_the_same(
    executor, tmp_path, tiny_model, tiny_data, monkeypatch
):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    chance, count = random.Random(0), 0
    with nodes(executor) as (options, kill_node):
        calm = Sweep(tiny_model, tiny_data, tmp_path / "calm", "--cpus", "1", *options)
        assert calm.driver.wait() in (0, 1)
        shaken = Sweep(tiny_model, tiny_data, tmp_path / "shaken", "--cpus", "1", *options)
        while count < KILLS:
            shaken.wait_for_checkpoints(chance.randrange(4))
            time.sleep(chance.random())
            assert shaken.driver.poll() is None, f"ended after {count} kills"
            kind = chance.choice(["run", "run", "driver"] if kill_node is None else ["run", "worker", "node", "driver"])
            if kind == "driver":
                shaken.kill_driver()
            elif kind == "node":
                kill_node(chance)
            else:
                shaken.kill_worker(chance, its_parent=kind == "worker")
            count += 1
        shaken.driver.wait(900)
    assert shaken.driver.returncode == calm.driver.returncode
    assert files_of(shaken.out) == files_of(calm.out)
    assert len(files_of(calm.out)) >= 6
    assert told(shaken.out) == told(calm.out)
    for sweep in (calm, shaken):
        logs = [log.read_text() for log in (sweep.out / "trials").glob("*.log")]
        assert [log.count("\nreport: ") for log in logs] == [1] * len(BUDGETS.split(","))
        assert "raylet" not in sweep.said.read_text()
