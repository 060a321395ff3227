"""Files: what they hold, how one is written, and the cache: what a result was made from names where it is kept."""

import errno
import hashlib
import json
import logging
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import DataError, WriteError
from compress.machine import aside

log = logging.getLogger("compress")

_LARGEST_JSON = 1 << 28  # bytes
_LONGEST_NUMBER = 40  # digits of a whole number
_ALONE = "run.lock"
_NO_FILES = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a FIFO",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, through links. Raises OSError, also for a folder and what has no end: a FIFO, a device, a
    socket."""
    try:
        found = path.stat()
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    what = next((words for is_it, words in _NO_FILES.items() if is_it(found.st_mode)), None)
    if what:
        raise OSError(errno.EINVAL, f"is {what}, not a file", str(path))
    return found.st_size


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises OSError as `size_of` does, and ValueError for what is no JSON, for NaN,
    infinite and absurdly long numbers, and for an object that names a key twice: readers take one or the other."""
    if size_of(path) > _LARGEST_JSON:
        raise ValueError(f"more than {_LARGEST_JSON:,} bytes")
    return parsed_json(path.read_bytes())


def parsed_json(data: bytes) -> Any:
    """What JSON in UTF-8 says. Raises ValueError as `read_json` does."""
    try:
        return json.loads(
            data.decode("utf-8"),
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_each_once,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.20} is no number of JSON")
    return number


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"{text:.20}... is too large")
    return int(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is named twice")
    return found


def identity(kind: str, version: int, **made_from: object) -> str:
    """The name of a result that is kept: `kind` says what it is, `version` is raised whenever the code makes another
    one of the same, and `made_from` is everything that goes in, as plain values; of a file the hash of its content.

    Two results have the same name if and only if all of this is equal. A value without a plain form, such as a path,
    which says nothing about what lies there, is a TypeError.
    """
    document = json.dumps([kind, version, made_from], sort_keys=True, allow_nan=False)
    return hashlib.sha256(document.encode()).hexdigest()[:32]


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A name of its own beside `path`, to write to, which becomes `path` at the end: so a file of that name is never
    half a file, however many processes write it at once. Raises OSError."""
    partial = path.parent / f"{path.name}.{secrets.token_hex(4)}.partial"
    try:
        yield partial
        _become(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


def _become(partial: Path, path: Path) -> None:
    """Rename, once all that was written is on the disk: else a power cut could leave the name with nothing in it."""
    to_disk(partial)
    os.replace(partial, path)
    to_disk(path.parent)


def to_disk(*paths: Path) -> None:
    """Wait until what was written to files or folders is on the disk. Raises OSError."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of an output folder. Raises WriteError where the folder cannot be written or the disk is full."""
    try:
        if path.exists():
            size_of(path)  # a device or a FIFO is not replaced by a file
        with written(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror}; choose another folder") from error


@dataclass(frozen=True)
class Sealed:
    """A file with a seal at its end, by which one that was cut, changed, or made of something else is known.

    of  what its content was made from and what it is, as `identity` has it
    """

    path: Path
    of: str

    def write(self, content: bytes) -> None:
        """Raises WriteError."""
        write_whole(self.path, content + self._seal(content))

    def read(self) -> bytes | None:
        """None where there is no file, or one whose seal is not its own, which is said."""
        try:
            whole = self.path.read_bytes() if self.path.is_file() else None
        except OSError as error:
            log.warning("%s: %s: it is made anew", self.path, error.strerror)
            return None
        if whole is None:
            return None
        size = hashlib.sha256().digest_size
        content = whole[:-size]
        if whole[-size:] == self._seal(content):
            return content
        log.warning("%s: damaged, or of other settings: it is made anew", self.path)
        return None

    def _seal(self, content: bytes) -> bytes:
        return hashlib.sha256(identity("seal", 1, of=self.of).encode() + content).digest()


def check_writable(out: Path) -> None:
    """Raises WriteError where the folder `out` cannot be made or written, before hours go into what it is for."""
    folder = out
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"{out}: cannot be written; choose another folder")


def cache_folder() -> Path:
    """$COMPRESS_CACHE, or the user's cache folder. Raises DataError where it cannot be made."""
    import platformdirs

    folder = Path(os.environ.get("COMPRESS_CACHE") or platformdirs.user_cache_dir("compress-mobile"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; name another cache folder in COMPRESS_CACHE") from None
    return folder


def unwritten(folder: Path, error: OSError, wanted: str = "") -> DataError:
    """What to say of a file of the cache that could not be written; `wanted` follows "no space left"."""
    what = f"no space left{wanted}" if error.errno == errno.ENOSPC else error.strerror
    return DataError(f"{folder}: {what}; free some or name another folder in COMPRESS_CACHE")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While it lasts, no other process is inside for the same `path`: they wait. A process that dies, however, lets
    the next one in at once: the lock is the operating system's, not the file `path`.lock, which stays and is empty
    but for the number of the last process. Raises OSError where the folder cannot be written."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = Path(lock.lock_file).read_text(errors="replace")
        log.info("%s: process %s is making it; waiting", path.name, holder)
        with aside():
            lock.acquire()
    try:
        Path(lock.lock_file).write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


@contextmanager
def alone_in(folder: Path, owner: Path) -> Iterator[None]:
    """While it lasts, no other process is inside for the same `folder`, which is made; `owner` is what the user calls
    it. Folders that were made and in which nothing was left are gone at the end. Raises WriteError where another
    process is inside, or the folder cannot be made."""
    from filelock import FileLock, Timeout

    made = [each for each in (folder, *folder.parents) if not each.exists()]
    lock = FileLock(folder / _ALONE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise WriteError(f"{owner}: another run writes here; wait for it, or choose another folder") from None
    except OSError as error:
        raise WriteError(f"{owner}: cannot be written: {error.strerror}; choose another folder") from None
    try:
        yield
    finally:
        _leave(made, Path(lock.lock_file))
        lock.release()


def wait_for_others(folder: Path) -> None:
    """Wait until no other process is in `alone_in` for the same `folder`, such as one that is being killed."""
    from filelock import FileLock

    if (folder / _ALONE).exists():
        with suppress(FileNotFoundError), FileLock(folder / _ALONE):  # it may have taken the folder away
            pass


def _leave(made: Sequence[Path], lock: Path) -> None:
    """Take those of the folders `made`, the innermost first, away that hold nothing but the lock."""
    with suppress(OSError):
        if made and [each.name for each in lock.parent.iterdir()] == [lock.name]:
            lock.unlink()
        for folder in made:
            folder.rmdir()


def cached(path: Path, make: Callable[[Path], object], *, resumable: bool = False, wanted: str = "") -> Path:
    """The file `path` of the cache, whose name must hold the `identity` of its content; made where it is not there, by
    one process, for which others wait. `make` gets the name to write to. With `resumable` that name is the same each
    time and is kept after an interruption, so that `make` can go on with what is there.

    Raises DataError where the folder cannot be written; `wanted` follows "no space left" then.
    """
    try:
        if not path.exists():
            with locked(path):
                if not path.exists():
                    _make(path, make, resumable)
    except OSError as error:
        raise unwritten(path.parent, error, wanted) from None
    return path


def _make(path: Path, make: Callable[[Path], object], resumable: bool) -> None:
    if resumable:
        partial = path.with_name(f"{path.name}.partial")
        make(partial)
        _become(partial, path)
    else:
        with written(path) as partial:
            make(partial)


def content_hash(path: Path) -> str:
    """sha256 of a file that a user named. Raises DataError where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
