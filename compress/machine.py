"""The machine: threads, processor, versions, what a process is prepared with, and who measures alone.

Runs that share a machine all compute at once, and take turns to measure. The folder that COMPRESS_HOST_LOCK names, on a
disk of this machine, has a readers-writer lock of two files. Who computes holds `busy` with others. Who measures closes
`gate`, at which those that compute let go of `busy` between two steps, and then holds `busy` alone. Both locks are the
kernel's (flock): a process that dies holds none. Where the variable is not set nobody waits. For runs of one process
each.
"""

import os
import platform
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


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = min(2, cores())
"""As many as a phone has fast cores, but no more than there are here."""


_FULL = 0.75
"""Load on each core from which the inferences of two threads wait for others."""


def load() -> float:
    """Processes that wanted to compute during the last minute, on average; 0 where the system does not say."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return 0.0


def load_now(samples: int = 20, seconds: float = 1.0) -> float:
    """Processes that want to compute while this one sleeps for some `seconds`. Unlike the average it knows nothing of
    what this process did the minute before; where the system does not say, it is that average."""
    found = []
    for _ in range(samples):
        time.sleep(seconds / samples)
        try:
            running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
            found.append(max(0, int(running) - 1))  # this process, which reads it
        except (OSError, ValueError, IndexError):
            return load()
    return round(sum(found) / len(found), 2)


def busy(noted: float | None = None, of: int | None = None) -> str | None:
    """A sentence where other programs keep this machine busy; None: they do not. `noted`: a load that was seen before,
    on `of` cores."""
    found, here = load() if noted is None else noted, of or cores()
    if found < _FULL * here:
        return None
    return (
        f"the machine is busy: load {found:.1f} on {here} cores; times are not to be trusted: close other programs and "
        "measure again"
    )


def prepare_process() -> None:
    """For training and for heavy networks in torch; to be called before the first convolution.

    oneDNN compiles each convolution for each size of images, and keeps 1,024 of them unless told otherwise before the
    first: fewer than a network of a hundred layers has at five sizes, forwards and backwards, so that every step at
    another size than the last would compile them all anew. What the user's environment says stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


def processor() -> str:
    """Its model, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what a run gives, by name."""
    from importlib.metadata import version

    names = ("compress-mobile", "torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


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


def are_several() -> bool:
    """Whether torchrun started this process beside others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


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
    """While it lasts, this process computes, and pauses where it gives way. One of several that torchrun started never
    does: the others would wait for it, and not give way. Raises CompressError where the folder of the lock cannot be
    written."""
    global _held
    folder = os.environ.get(LOCK)
    if not folder or _held or are_several():
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
