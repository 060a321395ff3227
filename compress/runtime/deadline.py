"""How long a file may take to answer: a graph with an endless loop never does.

A process that runs foreign native code sets itself an alarm, which ends it wherever it is.
"""

import signal
from contextlib import suppress
from pathlib import Path

SECONDS = 45
"""For one inference, or to open a file: seventy times what the heaviest segmenter measured here takes on one core, and
short enough that a command which meets such a file says so within a minute."""
_BYTES_A_SECOND = 4_000_000  # that much more time for a large file, on a slow disk and a busy machine


def limit_seconds(path: Path) -> int:
    """For one answer of a file."""
    return SECONDS + (path.stat().st_size // _BYTES_A_SECOND if path.is_file() else 0)


def prepare_child() -> None:
    """A process that opens a foreign file dies of its alarm and, where memory runs out, before any other does."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("1000")


def start(seconds: int) -> None:
    """From now on, in place of any time limit before; 0: without limit."""
    signal.alarm(seconds)


def ran_out(code: int) -> bool:
    """Whether a process that ended with this code did so at its limit."""
    return code == -signal.SIGALRM


def says(path: Path, seconds: int) -> str:
    return f"{path}: gave no answer in {seconds} s: its graph may never end; export it again"
