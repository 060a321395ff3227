"""Files: what they hold, how one is written, and the cache: what a result was made from names where it is kept."""

import errno
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compress.errors import DataError, WriteError

log = logging.getLogger("compress")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of an output folder. Raises WriteError where the folder cannot be written or the disk is full."""
    try:
        with written(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror}; choose another folder") from error


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
        lock.acquire()
    try:
        Path(lock.lock_file).write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


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
        os.replace(partial, path)
    else:
        with written(path) as partial:
            make(partial)


def content_hash(path: Path) -> str:
    """sha256 of a file that a user named. Raises DataError where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
