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
from functools import cached_property
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
    return Web(text) if scheme in _WEB else Remote(text)


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


class _Streamed(Place):
    """A place whose files come piece by piece."""

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

    @abstractmethod
    def _stream(self, path: str, start: int, begin: Callable[[], object], take: Callable[[bytes], None]) -> None:
        """Give what follows `start` to `take`; after `begin`, all of it, where a server gives no parts."""


class Web(_Streamed):
    """Behind http:// or https://, to read from."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self.words = without_password(url).rstrip("/")
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        self.https = parts.scheme == "https"
        self.login = unquote(parts.netloc.rpartition("@")[0])

    @cached_property
    def _pool(self) -> Any:
        from urllib.request import getproxies, proxy_bypass

        import urllib3

        parts = urlsplit(self.url)
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=_CONNECT, read=QUIET),
            "retries": urllib3.Retry(connect=1, read=0, redirect=5, status=0, other=0),
            "headers": urllib3.make_headers(basic_auth=self.login) if self.login else None,
            "maxsize": _AT_ONCE,
        }
        return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)

    def _stream(self, path: str, start: int, begin: Callable[[], object], take: Callable[[bytes], None]) -> None:
        pace, pool = _Pace(), self._pool
        headers = {**pool.headers, "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={start}-"} if start else {}
        answer = pool.request("GET", f"{self.url}/{path}", headers=headers, preload_content=False)
        try:
            self._check(answer)
            if start and answer.status != _PART:
                begin()
            if answer.status != _PAST_END:
                for data in iter(lambda: answer.read1(_CHUNK), b""):
                    pace.passed(len(data))
                    take(data)
        except BaseException:
            answer.close()
            raise
        answer.release_conn()

    def _check(self, answer: Any) -> None:
        led = [str(each.redirect_location) for each in answer.retries.history if each.redirect_location]
        if self.https and any(each.lower().startswith("http:") for each in led):
            raise OSError("leads to http://, which anyone on the way can change")
        if answer.status in _MISSING:
            raise FileNotFoundError
        if answer.status in _FORBIDDEN:
            raise PermissionError
        if answer.status >= 400 and answer.status != _PAST_END:
            raise OSError(f"the server answers {answer.status} {answer.reason or ''}".rstrip())

    def names(self, path: str) -> list[str] | None:
        page = self.read(f"{path}/".lstrip("/"), _MOST_PAGE) or b""
        return sorted({unquote(link.decode("latin-1")) for link in _LINK.findall(page)}) or None

    def check_to_write(self) -> None:
        raise RegistryError(f"{self}: is to read from; publish to a folder, s3://, gs://, az:// or hf://")

    def alone(self, name: str) -> AbstractContextManager[None]:
        raise NotImplementedError

    def lay(self, folder: str, last: str, data: bytes, files: Mapping[str, Path], twins: Mapping[str, str]) -> bool:
        raise NotImplementedError

    def add(self, path: str, data: bytes) -> None:
        raise NotImplementedError

    def tag(self, path: str) -> Tag:
        raise NotImplementedError

    def replace(self, path: str, data: bytes, tag: Tag) -> bool:
        raise NotImplementedError


class Remote(_Streamed):
    """What fsspec opens. There a file is written whole or not at all, but no folder is: of a version the manifest comes
    first, which no other one then replaces, and the index last."""

    def __init__(self, url: str):
        self.words = without_password(url).rstrip("/")
        self.scheme = url.partition("://")[0]
        with _answered(self.words):
            self.fs, root = _file_system(url)
        self.root = root.rstrip("/")

    def _stream(self, path: str, start: int, begin: Callable[[], object], take: Callable[[bytes], None]) -> None:
        pace = _Pace()
        with self.fs.open(self._at(path), "rb") as file:
            file.seek(start)
            for data in iter(lambda: file.read(_CHUNK), b""):
                pace.passed(len(data))
                take(data)

    def names(self, path: str) -> list[str] | None:
        with _answered(f"{self}/{path}".rstrip("/")):
            try:
                found = self.fs.ls(self._at(path), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            kind = "file" if path else "directory"
            return [each["name"].rstrip("/").rpartition("/")[2] for each in found if each["type"] == kind]

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

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


_SLOW = ("ReadTimeoutError", "ConnectTimeoutError")
_NO_WEB = ("URLSchemeUnknown", "LocationValueError", "LocationParseError")
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
    scheme = url.partition("://")[0]
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {"connect_timeout": _CONNECT, "read_timeout": QUIET, "retries": {"max_attempts": 2}}
    try:
        from fsspec.core import url_to_fs

        fs, root = url_to_fs(url, **options)
    except ImportError:
        extra = _EXTRAS[scheme]
        raise RegistryError(f"{scheme}:// needs a library: pip install 'compress-mobile[{extra}]'") from None
    return fs, str(root)


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
    error = getattr(error, "reason", None) if isinstance(getattr(error, "reason", None), Exception) else error
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


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
