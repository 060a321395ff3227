"""Where a registry lies: a folder here, or what fsspec opens by its URL. Libraries raise whatever they like: from here
on it is one line."""

import errno
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from compress.errors import CompressError, RegistryError
from compress.files import sha256_of, size_of, unwritten, write_whole

QUIET = 30.0
"""Seconds that a server may say nothing, and after which it must have been faster than `SLOWEST`."""
SLOWEST = 1024.0  # bytes a second
_CONNECT = 10.0  # seconds
_CHUNK = 1 << 18
_AT_ONCE = 8  # requests
_EXTRAS = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "hf": "hf"}
_WEB = ("http", "https")
_LINK = re.compile(rb"""href=["']([^"'?#/]+)/["']""", re.IGNORECASE)
_READ_ONLY = 0o444
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
"""What a server calls a write that came too late."""

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
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = dict(zip(paths, pool.map(lambda path: self.read(path, most), paths), strict=True))
        return {path: data for path, data in found.items() if data is not None}

    def check_to_write(self) -> None:
        """Raises RegistryError for what can only be read."""
        return

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


def open_place(text: str) -> Place:
    """A folder, or a URL. Raises RegistryError for a URL that is not opened here, or needs a library."""
    scheme, _, rest = text.partition("://")
    if not rest and "://" not in text:
        return Folder(Path(text))
    if scheme == "file":
        return Folder(Path(unquote(urlsplit(text).path)))
    if scheme not in (*_WEB, *_EXTRAS):
        known = ", ".join(f"{each}://" for each in (*_WEB, *dict.fromkeys(_EXTRAS.values())))
        raise RegistryError(f"{without_password(text)}: no registry is opened by {scheme[:20]}://; there are {known}")
    return Remote(text)


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.password else url


class Folder(Place):
    """On this machine's disk. A publish is written beside its place and renamed."""

    def __init__(self, root: Path):
        self.root, self.words = root, str(root)

    def read(self, path: str, most: int) -> bytes | None:
        with _on_disk(f"{self}/{path}"), suppress(FileNotFoundError):
            with self._opened(path) as file:
                data = file.read(most + 1)
            return _within(data, most, f"{self}/{path}")
        return None

    def download(self, path: str, to: Path, size_bytes: int) -> None:
        with _on_disk(f"{self}/{path}"), self._opened(path) as file, to.open("ab") as kept:
            file.seek(kept.tell())
            for data in iter(lambda: file.read(_CHUNK), b""):
                _keep(data, kept, to)
                _within(b"", size_bytes - kept.tell(), f"{self}/{path}")

    def names(self, path: str) -> list[str] | None:
        with _on_disk(f"{self}/{path}".rstrip("/")):
            if path:
                folder = self.root / path
                return os.listdir(folder) if folder.is_dir() else []
            return [each.name for each in self.root.iterdir() if (each / "index.json").exists()]

    def read_each(self, paths: Sequence[str], most: int) -> dict[str, bytes]:
        return {path: data for path in paths if (data := self.read(path, most)) is not None}

    def _opened(self, path: str) -> BinaryIO:
        """A file that is no link, nor behind one."""
        place = self.root / path
        if place.exists() and place.resolve() != self.root.resolve() / path:
            raise RegistryError(f"{place}: is a link; only what lies in the registry itself is read")
        size_of(place)
        return place.open("rb")

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        from filelock import FileLock

        with _on_disk(str(self)):
            (self.root / name).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / name / ".lock")
            lock.acquire()
        try:
            with _on_disk(str(self)):
                self._forget_halves(name)
            yield
        finally:
            lock.release()

    def _forget_halves(self, name: str) -> None:
        """What a publish that died was writing."""
        for each in list((self.root / name).glob("**/*.partial")):
            shutil.rmtree(each) if each.is_dir() else each.unlink()

    def lay(self, folder: str, last: str, data: bytes, files: Mapping[str, Path], twins: Mapping[str, str]) -> bool:
        place = self.root / folder
        with _on_disk(str(place)):
            if place.exists():
                return self.read(f"{folder}/{last}", len(data)) == data
            partial = place.with_name(f".{place.name}.partial")
            try:
                partial.mkdir()
                for name, path in files.items():
                    self._lay_one(path, twins.get(name), partial / name)
                write_whole(partial / last, data)
                for each in partial.iterdir():
                    each.chmod(_READ_ONLY)
                _to_disk(partial)
                os.rename(partial, place)
                _to_disk(place.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return True

    def _lay_one(self, path: Path, twin: str | None, place: Path) -> None:
        """A file that is here already is not stored again."""
        if twin and (self.root / twin).is_file() and sha256_of(self.root / twin) == sha256_of(path):
            with suppress(OSError):  # a disk without hard links
                os.link(self.root / twin, place)
                return
        shutil.copyfile(path, place)
        _to_disk(place)

    def add(self, path: str, data: bytes) -> None:
        with _on_disk(f"{self}/{path}"):
            (self.root / path).parent.mkdir(exist_ok=True)
            write_whole(self.root / path, data)

    def tag(self, path: str) -> Tag:
        return None

    def replace(self, path: str, data: bytes, tag: Tag) -> bool:
        with _on_disk(f"{self}/{path}"):
            write_whole(self.root / path, data)
        return True


class Remote(Place):
    """Behind a URL. There a file is written whole or not at all, but no folder is: of a version the manifest comes
    first, which no other one then replaces, and the index last."""

    def __init__(self, url: str):
        self.words = without_password(url).rstrip("/")
        self.scheme = url.partition("://")[0]
        with _answered(self.words):
            self.fs, root = _file_system(url)
        self.root = root.rstrip("/")

    def read(self, path: str, most: int) -> bytes | None:
        where, parts = f"{self}/{path}", bytearray()

        def take(data: bytes) -> None:
            parts.extend(data)
            _within(b"", most - len(parts), where)

        with _answered(where):
            try:
                self._stream(path, 0, parts.clear, take)
            except (FileNotFoundError, IsADirectoryError):
                return None
        return bytes(parts)

    def download(self, path: str, to: Path, size_bytes: int) -> None:
        where = f"{self}/{path}"
        with _answered(where), to.open("ab") as kept:

            def begin() -> None:
                kept.truncate(0)

            def take(data: bytes) -> None:
                _keep(data, kept, to)
                _within(b"", size_bytes - kept.tell(), where)

            self._stream(path, kept.tell(), begin, take)

    def _stream(self, path: str, start: int, begin: Callable[[], object], take: Callable[[bytes], None]) -> None:
        """Give what follows `start` to `take`; after `begin`, all of it, where a server gives no parts."""
        pace = _Pace()

        def taken(data: bytes) -> None:
            pace.passed(len(data))
            take(data)

        if self.scheme in _WEB:
            from fsspec.asyn import sync

            sync(self.fs.loop, self._web, path, start, begin, taken)
            return
        with self.fs.open(self._at(path), "rb") as file:
            file.seek(start)
            for data in iter(lambda: file.read(_CHUNK), b""):
                taken(data)

    async def _web(self, path: str, start: int, begin: Callable[[], object], take: Callable[[bytes], None]) -> None:
        session = await self.fs.set_session()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        async with session.get(self.fs.encode_url(self._at(path)), headers=headers) as answer:
            _check_answer(answer.status, answer.reason)
            if self.scheme == "https" and answer.url.scheme != "https":
                raise OSError(f"leads to {answer.url.scheme}://, which anyone on the way can change")
            if start and answer.status != _PART:
                begin()
            if answer.status == _PAST_END:
                return
            async for data in answer.content.iter_chunked(_CHUNK):
                take(data)

    def names(self, path: str) -> list[str] | None:
        with _answered(f"{self}/{path}".rstrip("/")):
            if self.scheme in _WEB:
                page = self.read(f"{path}/".lstrip("/"), _MOST_PAGE) or b""
                return sorted({unquote(link.decode("latin-1")) for link in _LINK.findall(page)}) or None
            try:
                found = self.fs.ls(self._at(path), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            kind = "file" if path else "directory"
            return [each["name"].rstrip("/").rpartition("/")[2] for each in found if each["type"] == kind]

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def check_to_write(self) -> None:
        if self.scheme in _WEB:
            raise RegistryError(
                f"{self}: {self.scheme}:// is to read from; publish to a folder, s3://, gs://, az:// or hf://"
            )

    def alone(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def lay(self, folder: str, last: str, data: bytes, files: Mapping[str, Path], twins: Mapping[str, str]) -> bool:
        claimed = f"{folder}/{last}"
        with _answered(f"{self}/{claimed}"):
            self._create(claimed, data)
        if self.read(claimed, len(data)) != data:
            return False
        for name, path in files.items():
            with _answered(f"{self}/{folder}/{name}"):
                self.fs.put_file(str(path), self._at(f"{folder}/{name}"))
        return True

    def _create(self, path: str, data: bytes) -> None:
        """Unless there is such a file."""
        if self.scheme == "hf":  # which knows no such write
            if not self.fs.exists(self._at(path), refresh=True):
                self.fs.pipe_file(self._at(path), data)
            return
        try:
            self.fs.pipe_file(self._at(path), data, mode="create")
        except Exception as error:
            if not _came_too_late(error):
                raise

    def add(self, path: str, data: bytes) -> None:
        with _answered(f"{self}/{path}"):
            self.fs.pipe_file(self._at(path), data)

    def tag(self, path: str) -> Tag:
        if self.scheme != "s3":
            return None
        with _answered(f"{self}/{path}"):
            try:
                return str(self.fs.info(self._at(path), refresh=True)["ETag"])
            except FileNotFoundError:
                return ""

    def replace(self, path: str, data: bytes, tag: Tag) -> bool:
        only = {} if tag is None else {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        with _answered(f"{self}/{path}"):
            try:
                self.fs.pipe_file(self._at(path), data, **only)
            except Exception as error:
                if not _came_too_late(error):
                    raise
                return False
        return True


_PART, _PAST_END = 206, 416
_MISSING, _FORBIDDEN = (404, 410), (401, 403, 407)
_MOST_PAGE = 16 * 2**20


class _Pace:
    """Stops what is so slow that it would go on for ever."""

    def __init__(self) -> None:
        self.start, self.bytes = time.monotonic(), 0

    def passed(self, count: int) -> None:
        self.bytes += count
        spent = time.monotonic() - self.start
        if spent > QUIET and self.bytes / spent < SLOWEST:
            raise TimeoutError


def _keep(data: bytes, kept: BinaryIO, to: Path) -> None:
    try:
        kept.write(data)
    except OSError as error:
        raise unwritten(to.parent, error) from None


def _within(data: bytes, most: int, where: str) -> bytes:
    """Raises RegistryError for more than so many bytes."""
    if len(data) > most or most < 0:
        raise RegistryError(f"{where}: is larger than it may be; nothing of it is used")
    return data


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    scheme = url.partition("://")[0]
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in _WEB:
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=QUIET)
        options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
    if scheme == "s3":
        options["config_kwargs"] = {"connect_timeout": _CONNECT, "read_timeout": QUIET, "retries": {"max_attempts": 2}}
    try:
        fs, root = url_to_fs(url, **options)
    except ImportError:
        extra = _EXTRAS.get(scheme, scheme)
        raise RegistryError(f"{scheme}:// needs a library: pip install 'compress-mobile[{extra}]'") from None
    return fs, str(root)


def _check_answer(status: int, reason: str | None) -> None:
    if status in _MISSING:
        raise FileNotFoundError
    if status in _FORBIDDEN:
        raise PermissionError
    if status >= 400 and status != _PAST_END:
        raise OSError(f"the server answers {status} {reason or ''}".rstrip())


def _came_too_late(error: Exception) -> bool:
    if isinstance(error, FileExistsError):
        return True
    response = getattr(error.__cause__ or error, "response", None)
    return isinstance(response, dict) and str(response.get("Error", {}).get("Code")) in _LOST


@contextmanager
def _on_disk(where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise RegistryError(f"{where}: no such folder or file; name a registry") from None
    except OSError as error:
        raise RegistryError(f"{where}: {error.strerror or error}") from None


@contextmanager
def _answered(where: str) -> Iterator[None]:
    """Whatever a library raises inside becomes one line."""
    try:
        yield
    except CompressError:
        raise
    except Exception as error:
        raise RegistryError(f"{where}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "does not answer, or too slowly; try again later"
    if isinstance(error, PermissionError):
        said = str(error).partition("\n")[0]
        return f"no permission{f' ({said:.120})' if said else ''}; check the address and the credentials"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return str(error.strerror)
    said = str(error).partition("\n")[0] or type(error).__name__
    if type(error).__name__ == "NonHttpUrlRedirectClientError":
        return f"is led to {said:.120}, which is no web address: refused"
    return f"{said:.200}; check the address, and try again"


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
