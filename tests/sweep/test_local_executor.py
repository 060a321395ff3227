"""Trials as processes: how they end, and that none outlives its sweep."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from compress.sweep.executor import Ended, Job
from compress.sweep.local import LocalExecutor, last_line, log_of


def job(tmp_path, *arguments: str, name: str = "a", cpus: int = 1) -> Job:
    return Job(name, arguments, tmp_path / "trials" / name, cpus)


def ended(executor: LocalExecutor, seconds: float = 60) -> Ended:
    (one,) = executor.wait(seconds)
    return one


def waiting(tmp_path: Path) -> tuple[str, ...]:
    """Arguments with which the command waits for what never comes: a FIFO that nobody writes."""
    fifo = tmp_path / "recipe.toml"
    os.mkfifo(fifo)
    return "bench", str(tmp_path / "a.onnx"), "--recipe", str(fifo)


def test_a_command_ends_with_its_code_and_its_last_line(tmp_path):
    executor = LocalExecutor(2)
    executor.submit(job(tmp_path, "--version"))
    assert ended(executor).code == 0
    executor.submit(job(tmp_path, "gate", str(tmp_path / "nothing"), "--budget", "1MB"))
    failed = ended(executor)
    assert failed.code == 2
    assert failed.said.startswith("compress: ")
    assert str(tmp_path / "nothing") in failed.said
    assert executor.wait(0) == []


def test_a_command_that_is_killed_has_no_code(tmp_path):
    executor = LocalExecutor(1)
    executor.submit(job(tmp_path, *waiting(tmp_path)))
    ((_, process),) = executor._running.values()
    os.killpg(process.pid, signal.SIGKILL)
    assert ended(executor).code is None


def test_close_ends_what_runs(tmp_path):
    executor = LocalExecutor(1)
    executor.submit(job(tmp_path, *waiting(tmp_path)))
    ((_, process),) = executor._running.values()
    executor.close()
    assert process.poll() is not None


def test_a_sweep_that_is_killed_leaves_no_process_behind(tmp_path):
    code = """if True:
        import sys, time
        from pathlib import Path
        from compress.sweep.executor import Job
        from compress.sweep.local import LocalExecutor
        executor = LocalExecutor(1)
        executor.submit(Job("a", tuple(sys.argv[2:]), Path(sys.argv[1])))
        print(next(iter(executor._running.values()))[1].pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", code, str(tmp_path / "trials" / "a"), *waiting(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        child = int(driver.stdout.readline())
        driver.kill()
    for _ in range(100):
        if not alive(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("it computes on")


def alive(process: int) -> bool:
    """Whether it runs: one that has ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_last_line_that_says_something_is_the_last_line(tmp_path):
    log = log_of(tmp_path / "1.5mb")
    assert log.name == "1.5mb.log"
    assert last_line(log) == ""
    log.write_text("first\ncompress: second\n\n")
    assert last_line(log) == "compress: second"
