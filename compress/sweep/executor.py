"""What a sweep asks of whatever runs its trials: processes of this machine, or of a cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Job:
    """An ordinary `compress run` in a process of its own. `arguments` follow `compress`; `folder` is what it writes, an
    absolute path; it needs so many processor cores and GPUs."""

    name: str
    arguments: tuple[str, ...]
    folder: Path
    cpus: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class Ended:
    """`code`: the exit code of the command (0 within budget, 1 over budget, 2 could not run); None where it was not the
    command that ended it (a worker or a node that died, a signal): it is started again. `said`: the last line of its
    stderr."""

    name: str
    code: int | None
    said: str


class Executor(Protocol):
    def slots(self) -> int:
        """How many jobs may run at once now (of `cpus` and `gpus` each)."""

    def submit(self, job: Job) -> None: ...

    def wait(self, seconds: float) -> list[Ended]:
        """Those that ended since, at the latest after so many seconds; empty then."""

    def close(self) -> None:
        """Stops what runs, which can be gone on with."""
