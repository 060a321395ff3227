"""Files: what they hold, where the cache is, and how one is written."""

import contextlib
import errno
import hashlib
import os
from pathlib import Path

from compress.errors import DataError, WriteError


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write beside and move into place, so that a file under this name is never half a file.

    Raises WriteError where the folder cannot be written or the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror}; choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


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


def digest(*parts: object) -> str:
    """Names in the cache what depends on plain values: on what `repr` shows of them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def content_hash(path: Path) -> str:
    """sha256 of a file. Raises DataError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
