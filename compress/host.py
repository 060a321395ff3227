"""The processor of a host that several runs share: many compute at once, one measures alone.

The folder that COMPRESS_HOST_LOCK names, on a disk of this host, has a readers-writer lock of two files. Who computes
holds `busy` with others. Who measures closes `gate`, before which those that compute let go of `busy` at their next
step, and then holds `busy` alone. Both locks are the kernel's (flock): a process that dies holds none. Where the
variable is not set nobody waits.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.errors import CompressError

LOCK = "COMPRESS_HOST_LOCK"


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
    with _share.entered():
        yield


def give_way() -> None:
    """Between two steps of what takes long: where another process wants to measure, wait until it has."""
    if _share.inside and not _share.alone and _share.gate_is_closed():
        with aside():
            pass


@contextmanager
def aside() -> Iterator[None]:
    """While it lasts, this process waits for another one, and does not compute."""
    if not _share.inside or _share.alone:
        yield
        return
    with _share.waiting():
        _share.leave()
        try:
            yield
        finally:
            _share.enter()


@contextmanager
def measuring() -> Iterator[None]:
    """While it lasts, no other process computes that says when it does. Raises CompressError as `computing` does."""
    with _share.entered(), _share.measuring():
        yield


def clock() -> float:
    """Seconds, as time.monotonic(), but for those in which this process waited for others."""
    return time.monotonic() - _share.waited


class _Share:
    """What this process has of the lock."""

    def __init__(self) -> None:
        self.inside = self.alone = False
        self.waited = 0.0  # seconds

    @contextmanager
    def entered(self) -> Iterator[None]:
        folder = os.environ.get(LOCK)
        if not folder or self.inside:
            yield
            return
        try:
            self._gate, self._busy = (os.open(Path(folder, name), os.O_RDWR | os.O_CREAT, 0o600) for name in _FILES)
        except OSError as error:
            raise CompressError(f"{folder}: {error.strerror}; name another folder in {LOCK}") from None
        try:
            with self.waiting():
                self.enter()
            self.inside = True
            yield
        finally:
            self.inside = False
            os.close(self._gate)
            os.close(self._busy)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.waited += time.monotonic() - start

    def enter(self) -> None:
        import fcntl

        fcntl.flock(self._gate, fcntl.LOCK_SH)
        fcntl.flock(self._busy, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def leave(self) -> None:
        import fcntl

        fcntl.flock(self._busy, fcntl.LOCK_UN)

    def gate_is_closed(self) -> bool:
        import fcntl

        try:
            fcntl.flock(self._gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        return False

    @contextmanager
    def measuring(self) -> Iterator[None]:
        import fcntl

        if not self.inside or self.alone:
            yield
            return
        with self.waiting():
            self.leave()  # else two that want to measure would wait for each other
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            fcntl.flock(self._busy, fcntl.LOCK_EX)
        self.alone = True
        try:
            yield
        finally:
            self.alone = False
            fcntl.flock(self._busy, fcntl.LOCK_SH)  # before the gate opens, so that nobody is alone in between
            fcntl.flock(self._gate, fcntl.LOCK_UN)


_FILES = ("gate", "busy")
_share = _Share()
