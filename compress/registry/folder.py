"""A registry in a folder on this machine's disk."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from compress.errors import RegistryError
from compress.files import sha256_of, size_of, to_disk, write_whole
from compress.registry.place import CHUNK, Tag, Writable, keep, within

_READ_ONLY = 0o444


class Folder(Writable):
    """A publish is written beside its place and renamed."""

    def __init__(self, root: Path):
        self.root, self.words = root, str(root)

    def read(self, path: str, most: int) -> bytes | None:
        with _on_disk(f"{self}/{path}"), suppress(FileNotFoundError):
            with self._opened(path) as file:
                data = file.read(most + 1)
            return within(data, most, f"{self}/{path}")
        return None

    def download(self, path: str, to: Path, size_bytes: int) -> None:
        with _on_disk(f"{self}/{path}"), self._opened(path) as file, to.open("ab") as kept:
            file.seek(kept.tell())
            for data in iter(lambda: file.read(CHUNK), b""):
                keep(data, kept, to)
                within(b"", size_bytes - kept.tell(), f"{self}/{path}")

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
            shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)

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
                to_disk(partial)
                os.rename(partial, place)
                to_disk(place.parent)
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
        to_disk(place)

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


@contextmanager
def _on_disk(where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise RegistryError(f"{where}: no such folder or file; name a registry") from None
    except OSError as error:
        raise RegistryError(f"{where}: {error.strerror or error}") from None
