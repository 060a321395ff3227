"""What the machine says of itself, and who measures alone on one that processes share."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress import machine
from compress.errors import CompressError
from compress.files import cached

COMPUTES = """
import sys, time
from compress.machine import computing, give_way
with computing(), open(sys.argv[1], "ab", buffering=0) as steps:
    while True:
        give_way()
        steps.write(b".")
        time.sleep(0.001)
"""
MEASURES = """
from compress.machine import computing, measuring
with computing(), measuring():
    print("alone", flush=True)
    input()
"""
MAKES = """
import sys
from pathlib import Path
from compress.files import cached
from compress.machine import computing
with computing():
    print("begins", flush=True)
    cached(Path(sys.argv[1]), lambda partial: partial.write_text("theirs"))
"""


@pytest.mark.parametrize(("load", "cores"), [(1.5, 2), (10.7, 2), (3.0, 4)])
def test_three_quarters_of_the_cores_taken_is_a_busy_machine(load, cores):
    assert f"load {load} on {cores} cores; times are not to be trusted" in machine.busy(load, cores)


@pytest.mark.parametrize(("load", "cores"), [(0.0, 1), (1.4, 2), (2.9, 4)])
def test_a_machine_with_room_says_nothing(load, cores):
    assert machine.busy(load, cores) is None


def test_a_system_that_knows_no_load_is_not_called_busy(monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (_ for _ in ()).throw(OSError()))
    assert machine.busy() is None


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Begins a script in a process that shares the lock with this one."""
    monkeypatch.setenv(machine.LOCK, str(tmp_path))
    running = []

    def start(script: str, *arguments: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def goes_on(steps: Path) -> bool:
    """Whether steps are made: waits for one."""
    before = steps.stat().st_size if steps.exists() else 0
    for _ in range(2000):
        if steps.exists() and steps.stat().st_size > before:
            return True
        time.sleep(0.01)
    return False


def stands_still(steps: Path) -> bool:
    before = steps.stat().st_size
    time.sleep(0.3)
    return steps.stat().st_size == before


def test_no_neighbour_makes_a_step_while_one_measures(start, tmp_path):
    steps = [tmp_path / "a", tmp_path / "b"]
    for each in steps:
        start(COMPUTES, each)
    assert all(goes_on(each) for each in steps)
    with machine.measuring():
        assert all(stands_still(each) for each in steps)
    assert all(goes_on(each) for each in steps)


def test_two_that_compute_and_want_to_measure_do_so_one_after_the_other(start, tmp_path):
    first = start(MEASURES)
    assert first.stdout.readline() == "alone\n"
    second = start(MEASURES)
    first.stdin.write("\n")
    first.stdin.flush()
    assert second.stdout.readline() == "alone\n"


def test_a_measurer_that_is_killed_holds_nobody_up(start, tmp_path):
    steps = tmp_path / "steps"
    start(COMPUTES, steps)
    assert goes_on(steps)
    measurer = start(MEASURES)
    assert measurer.stdout.readline() == "alone\n"
    assert stands_still(steps)
    measurer.kill()
    assert goes_on(steps)


def test_a_pause_is_not_in_the_minutes(start, tmp_path):
    with machine.computing():
        measurer = start(MEASURES)
        while not machine._held.gate_is_closed():
            time.sleep(0.01)
        own, all_of_it = machine.clock(), time.monotonic()
        with machine.aside():
            assert measurer.stdout.readline() == "alone\n"
            time.sleep(0.2)
            measurer.stdin.write("\n")
            measurer.stdin.flush()
        assert time.monotonic() - all_of_it >= machine.clock() - own + 0.2


def test_training_counts_its_minutes_without_pauses():
    from compress.train.loop import fit

    assert fit.__kwdefaults__["clock"] is machine.clock


def test_one_that_waits_for_a_file_of_the_cache_lets_its_maker_measure(start, tmp_path):
    """Else the maker would wait for all that compute, and they for the maker."""
    with machine.computing():

        def make(partial: Path) -> None:
            waits = start(MAKES, tmp_path / "kept")
            assert waits.stdout.readline() == "begins\n"
            with machine.measuring():
                partial.write_text("ours")

        cached(tmp_path / "kept", make)
    assert (tmp_path / "kept").read_text() == "ours"


def test_without_a_lock_nobody_waits(start, tmp_path, monkeypatch):
    steps = tmp_path / "steps"
    monkeypatch.delenv(machine.LOCK)
    start(COMPUTES, steps)
    with machine.measuring():
        assert goes_on(steps)


def test_one_of_several_that_torchrun_started_gives_way_to_none(start, tmp_path, monkeypatch):
    """The others would wait for it in the middle of a step."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    start(COMPUTES, steps := tmp_path / "steps")
    assert goes_on(steps)
    monkeypatch.delenv("WORLD_SIZE")
    with machine.measuring():
        assert goes_on(steps)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(machine.LOCK, str(tmp_path / "none"))
    says = r"none: No such file or directory; name another folder in COMPRESS_HOST_LOCK"
    with pytest.raises(CompressError, match=says), machine.computing():
        pass


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / f"compress-{os.getuid()}").symlink_to(other)
    with pytest.raises(CompressError, match="is another user's; name a folder of your own in COMPRESS_HOST_LOCK"):
        machine.lock_folder()
