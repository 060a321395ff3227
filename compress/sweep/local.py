"""Trials as processes of this machine."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from compress.files import wait_for_others
from compress.machine import LOCK, lock_folder
from compress.sweep.executor import Ended, Job

_POLL = 0.1  # seconds
_STOPPING = 5.0
"""Seconds in which a run that was interrupted can take its temporary files away."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class LocalExecutor:
    """So many processes at once, each of a group of its own, which die with this one."""

    def __init__(self, jobs: int):
        self._jobs, self._running = jobs, dict[str, tuple[Job, subprocess.Popen[bytes]]]()

    def slots(self) -> int:
        return self._jobs

    def submit(self, job: Job) -> None:
        log = log_of(job.folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        wait_for_others(job.folder / "checkpoints")
        parent = os.getpid()
        with log.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "compress", *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment(job.cpus),
                start_new_session=True,
                preexec_fn=lambda: _die_with(parent),
            )
        self._running[job.name] = (job, process)

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while not (ended := self._ended()) and self._running and time.monotonic() < until:
            time.sleep(_POLL)
        return ended

    def close(self) -> None:
        self._signal(signal.SIGINT)
        until = time.monotonic() + _STOPPING
        while any(process.poll() is None for _, process in self._running.values()) and time.monotonic() < until:
            time.sleep(_POLL)
        self._signal(signal.SIGKILL)
        for _, process in self._running.values():
            process.wait()
        self._running.clear()

    def _ended(self) -> list[Ended]:
        found = [job for job, process in self._running.values() if process.poll() is not None]
        return [self._end(job, self._running.pop(job.name)[1].returncode) for job in found]

    def _end(self, job: Job, code: int) -> Ended:
        return Ended(job.name, code if code in (0, 1, 2) else None, last_line(log_of(job.folder)))

    def _signal(self, number: int) -> None:
        for _, process in self._running.values():
            if process.poll() is None:
                os.killpg(process.pid, number)


def environment(cpus: int) -> dict[str, str]:
    """Of a run that computes with so many threads, and takes turns with others of this host to measure."""
    return {LOCK: os.environ.get(LOCK) or str(lock_folder()), **os.environ, "OMP_NUM_THREADS": str(cpus)}


def log_of(folder: Path) -> Path:
    """Where a trial's own words are, beside its folder."""
    return folder.with_name(f"{folder.name}.log")


def last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _die_with(parent: int) -> None:
    """Between fork and exec: let the system kill this process when its parent ends, however that does."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
