"""The processor of a host that several runs share: many compute at once, one measures alone.

The folder that COMPRESS_HOST_LOCK names, on a disk of this host, has a readers-writer lock of two files. Who computes
holds `busy` with others. Who measures closes `gate`, at which those that compute let go of `busy` between two steps,
and then holds `busy` alone. Both locks are the kernel's (flock): a process that dies holds none. Where the variable is
not set nobody waits. For runs of one process each.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from compress.errors import CompressError

with suppress(ImportError):  # Windows, where nothing is shared
    import fcntl

LOCK = "COMPRESS_HOST_LOCK"


@dataclass
class _Held:
    """The files of the lock, of which this process has `busy`; `alone`: has both to itself."""

    gate: IO[bytes]
    busy: IO[bytes]
    alone: bool = False

    def enter(self) -> None:
        fcntl.flock(self.gate, fcntl.LOCK_SH)
        fcntl.flock(self.busy, fcntl.LOCK_SH)
        fcntl.flock(self.gate, fcntl.LOCK_UN)

    def gate_is_closed(self) -> bool:
        try:
            fcntl.flock(self.gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self.gate, fcntl.LOCK_UN)
        return False


_held: _Held | None = None
_waited = 0.0  # seconds


def lock_folder() -> Path:
    """This user's, of this host: what COMPRESS_HOST_LOCK is to name for runs that share it. Is made. Raises
    CompressError where another user has made it."""
    folder = Path(tempfile.gettempdir(), f"compress-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise CompressError(f"{folder}: is another user's; name a folder of your own in {LOCK}")
    return folder


@contextmanager
def computing() -> Iterator[None]:
    """While it lasts, this process computes, and pauses where it gives way. Raises CompressError where the folder of
    the lock cannot be written."""
    global _held
    folder = os.environ.get(LOCK)
    if not folder or _held:
        yield
        return
    with ExitStack() as stack:
        try:
            gate, busy = (stack.enter_context(Path(folder, name).open("ab")) for name in ("gate", "busy"))
        except OSError as error:
            raise CompressError(f"{folder}: {error.strerror}; name another folder in {LOCK}") from None
        held = _Held(gate, busy)
        with _waiting():
            held.enter()
        _held = held
        try:
            yield
        finally:
            _held = None


def give_way() -> None:
    """Between two steps of what takes long: where another process wants to measure, wait until it has."""
    if _held and not _held.alone and _held.gate_is_closed():
        with aside():
            pass


@contextmanager
def aside() -> Iterator[None]:
    """While it lasts, this process waits for another one, and does not compute."""
    if not _held or _held.alone:
        yield
        return
    with _waiting():
        fcntl.flock(_held.busy, fcntl.LOCK_UN)
        try:
            yield
        finally:
            _held.enter()


@contextmanager
def measuring() -> Iterator[None]:
    """While it lasts, no other process computes that says when it does. Raises CompressError as `computing` does."""
    with computing():
        if not _held or _held.alone:
            yield
            return
        with _waiting():
            fcntl.flock(_held.busy, fcntl.LOCK_UN)  # else two that want to measure would wait for each other
            fcntl.flock(_held.gate, fcntl.LOCK_EX)
            fcntl.flock(_held.busy, fcntl.LOCK_EX)
        _held.alone = True
        try:
            yield
        finally:
            _held.alone = False
            fcntl.flock(_held.busy, fcntl.LOCK_SH)  # before the gate opens, so that no other is alone in between
            fcntl.flock(_held.gate, fcntl.LOCK_UN)


def clock() -> float:
    """Seconds, as time.monotonic(), but for those in which this process waited for others."""
    return time.monotonic() - _waited


@contextmanager
def _waiting() -> Iterator[None]:
    global _waited
    start = time.monotonic()
    try:
        yield
    finally:
        _waited += time.monotonic() - start
