"""A registry in a store of objects, which fsspec opens."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from compress.errors import RegistryError
from compress.registry.place import CHUNK, CONNECT, QUIET, Pace, Streamed, Tag, Writable, answered

EXTRAS = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "hf": "hf"}
"""By scheme, what is installed for it."""
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
"""What a server calls a write that came too late."""


class Remote(Streamed, Writable):
    """A file is written whole or not at all, but no folder is: of a version the manifest comes
    first, which no other one then replaces, and the index last."""

    def __init__(self, url: str):
        self.words = url.rstrip("/")
        self.scheme = url.partition("://")[0]
        with answered(self.words):
            self.fs, root = _file_system(url)
        self.root = root.rstrip("/")

    def _stream(self, path: str, start: int, begin: Callable[[], object], take: Callable[[bytes], None]) -> None:
        pace = Pace()
        with self.fs.open(self._at(path), "rb") as file:
            file.seek(start)
            for data in iter(lambda: file.read(CHUNK), b""):
                pace.passed(len(data))
                take(data)

    def names(self, path: str) -> list[str] | None:
        with answered(f"{self}/{path}".rstrip("/")):
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
        with answered(f"{self}/{claimed}"):
            self._create(claimed, data)
        if self.read(claimed, len(data)) != data:
            return False
        for name, path in files.items():
            with answered(f"{self}/{folder}/{name}"):
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
        with answered(f"{self}/{path}"):
            self.fs.pipe_file(self._at(path), data)

    def tag(self, path: str) -> Tag:
        if self.scheme != "s3":
            return None
        with answered(f"{self}/{path}"):
            try:
                return str(self.fs.info(self._at(path), refresh=True)["ETag"])
            except FileNotFoundError:
                return ""

    def replace(self, path: str, data: bytes, tag: Tag) -> bool:
        only = {} if tag is None else {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        with answered(f"{self}/{path}"):
            try:
                self.fs.pipe_file(self._at(path), data, **only)
            except Exception as error:
                if not _came_too_late(error):
                    raise
                return False
        return True


def _file_system(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {"connect_timeout": CONNECT, "read_timeout": QUIET, "retries": {"max_attempts": 2}}
    try:
        from fsspec.core import url_to_fs

        fs, root = url_to_fs(url, **options)
    except ImportError:
        extra = EXTRAS[scheme]
        raise RegistryError(f"{scheme}:// needs a library: pip install 'compress-mobile[{extra}]'") from None
    return fs, str(root)


def _came_too_late(error: Exception) -> bool:
    if isinstance(error, FileExistsError):
        return True
    response = getattr(error.__cause__ or error, "response", None)
    return isinstance(response, dict) and str(response.get("Error", {}).get("Code")) in _LOST
