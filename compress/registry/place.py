"""Where a registry lies, as it is read and written. Libraries raise whatever they like: from here on it is one line."""

import errno
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from compress.errors import CompressError, RegistryError
from compress.files import unwritten

QUIET = 30.0
"""Seconds that a server may say nothing, and after which it must have been faster than `SLOWEST`."""
SLOWEST = 1024.0  # bytes a second
CONNECT = 10.0  # seconds
CHUNK = 1 << 18
AT_ONCE = 8  # requests
_SLOW = ("ReadTimeoutError", "ConnectTimeoutError")
_NO_WEB = ("URLSchemeUnknown", "LocationValueError", "LocationParseError")

Tag = str | None
"""Which state of a file a write is to replace; None: it says nothing of that."""


class Place(ABC):
    """A registry. Paths in it are relative, with slashes; all methods raise RegistryError."""

    words: str

    def __str__(self) -> str:
        return self.words

    @abstractmethod
    def read(self, path: str, most: int) -> bytes | None:
        """A file of at most so many bytes; None: there is none."""

    @abstractmethod
    def download(self, path: str, to: Path, size_bytes: int) -> None:
        """Write the rest of a file of so many bytes to `to`, which may hold the beginning of it."""

    @abstractmethod
    def names(self, path: str) -> list[str] | None:
        """What lies in a folder; of the registry itself the folders that can be names. None: it does not say."""

    def read_each(self, paths: Sequence[str], most: int) -> dict[str, bytes]:
        """Those of the files that are there."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(paths, pool.map(lambda path: self.read(path, most), paths), strict=True))
        return {path: data for path, data in found.items() if data is not None}


class Writable(Place):
    """One that can be published to."""

    @abstractmethod
    def alone(self, name: str) -> AbstractContextManager[None]:
        """While it lasts no other process publishes under this name, where the place can see to that."""

    @abstractmethod
    def lay(self, folder: str, last: str, data: bytes, files: Mapping[str, Path], twins: Mapping[str, str]) -> bool:
        """Make a folder of these files and of `last`, which holds `data`, if there is none with another `last`; whether
        that was so. `twins`: files that are the same already, by the name that they have here."""

    @abstractmethod
    def add(self, path: str, data: bytes) -> None:
        """Write a file whose name no one else gives."""

    @abstractmethod
    def tag(self, path: str) -> Tag: ...

    @abstractmethod
    def replace(self, path: str, data: bytes, tag: Tag) -> bool:
        """Write a file whole in place of what had this tag; False: another one is there meanwhile."""


class Streamed(Place):
    """A place whose files come piece by piece."""

    def read(self, path: str, most: int) -> bytes | None:
        where, parts = f"{self}/{path}", bytearray()

        def take(data: bytes) -> None:
            parts.extend(data)
            within(b"", most - len(parts), where)

        with answered(where):
            try:
                self._stream(path, 0, parts.clear, take)
            except (FileNotFoundError, IsADirectoryError):
                return None
        return bytes(parts)

    def download(self, path: str, to: Path, size_bytes: int) -> None:
        where = f"{self}/{path}"
        with answered(where), to.open("ab") as kept:

            def begin() -> None:
                kept.truncate(0)

            def take(data: bytes) -> None:
                keep(data, kept, to)
                within(b"", size_bytes - kept.tell(), where)

            self._stream(path, kept.tell(), begin, take)

    @abstractmethod
    def _stream(self, path: str, start: int, begin: Callable[[], object], take: Callable[[bytes], None]) -> None:
        """Give what follows `start` to `take`; after `begin`, all of it, where a server gives no parts."""


class Pace:
    """Stops what is so slow that it would go on for ever."""

    def __init__(self) -> None:
        self.start, self.bytes = time.monotonic(), 0

    def passed(self, count: int) -> None:
        self.bytes += count
        spent = time.monotonic() - self.start
        if spent > QUIET and self.bytes / spent < SLOWEST:
            raise TimeoutError


def keep(data: bytes, kept: BinaryIO, to: Path) -> None:
    try:
        kept.write(data)
    except OSError as error:
        raise unwritten(to.parent, error) from None


def within(data: bytes, most: int, where: str) -> bytes:
    """Raises RegistryError for more than so many bytes."""
    if len(data) > most or most < 0:
        raise RegistryError(f"{where}: is larger than it may be; nothing of it is used")
    return data


@contextmanager
def answered(where: str) -> Iterator[None]:
    """Whatever a library raises inside becomes one line."""
    try:
        yield
    except CompressError:
        raise
    except Exception as error:
        raise RegistryError(f"{where}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    error = inner if isinstance(inner, Exception) else error
    kind, said = type(error).__name__, str(error).partition("\n")[0]
    if isinstance(error, TimeoutError) or kind in _SLOW:
        return "does not answer, or too slowly; try again later"
    if isinstance(error, PermissionError):
        return f"no permission{f' ({said:.120})' if said else ''}; check the address and the credentials"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return str(error.strerror)
    if kind in _NO_WEB:
        return "is no address of the web, or leads to one that is none: refused"
    return f"{said or kind:.200}; check the address, and try again"
