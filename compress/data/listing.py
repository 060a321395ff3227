"""The picture files of a folder; whatever else lies there is counted, so that nothing is left out without a word."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from compress.data.images import IMAGE_SUFFIXES, SUFFIXES
from compress.errors import DataError

MASKS = ("masks", "labels")
"""What folders of masks are called."""
_NAMED = 4


@dataclass(frozen=True)
class Listing:
    """`pictures` by path. `left_out`: a line about whatever else is in the folder, or none where nothing is."""

    pictures: tuple[Path, ...]
    left_out: tuple[str, ...]


def images_in(folder: Path) -> Listing:
    """Those that lie in `folder` itself; none where it is missing. Raises DataError where it cannot be read."""
    return _those_in(folder, IMAGE_SUFFIXES)


def masks_in(folder: Path) -> Listing:
    """The same of masks, which are pictures."""
    return _those_in(folder, SUFFIXES)


def _those_in(folder: Path, suffixes: Collection[str]) -> Listing:
    others = Counter[str]()
    found = [path for path in _entries(folder) if _is_one(path, suffixes, others)] if os.path.isdir(folder) else []
    return Listing(tuple(sorted(found)), _left_out(folder, suffixes, others))


def pictures_under(folder: Path) -> Listing:
    """At any depth of `folder`, but for folders of masks, which are pictures too, and hidden ones. Links to folders are
    followed, and no folder is read twice. Raises DataError for one that cannot be read."""
    others = Counter[str]()
    found, waiting, seen = list[Path](), [folder], set[tuple[int, int]]()
    while waiting:
        here = waiting.pop()
        place = (here.stat().st_dev, here.stat().st_ino)
        for path in sorted(_entries(here)) if place not in seen else ():
            if path.is_dir() and not path.name.startswith("."):
                if path.name not in MASKS:
                    waiting.insert(0 if path.is_symlink() else len(waiting), path)  # what is linked is read last
            elif _is_one(path, IMAGE_SUFFIXES, others):
                found.append(path)
        seen.add(place)
    return Listing(tuple(sorted(found)), _left_out(folder, IMAGE_SUFFIXES, others))


def folders_in(folder: Path) -> list[str]:
    """Names of folders in `folder`, but for hidden ones; none where it is missing."""
    entries = _entries(folder) if os.path.isdir(folder) else ()
    return sorted(path.name for path in entries if path.is_dir() and not path.name.startswith("."))


def what_is_in(folder: Path) -> str:
    """For an error: what a folder holds that is not laid out as it should be."""
    folders, pictures = [f"{name}/" for name in folders_in(folder)], len(images_in(folder).pictures)
    more = [f"{len(folders) - _NAMED} more folders"] if len(folders) > _NAMED else []
    return ", ".join([*folders[:_NAMED], *more, *([f"{pictures} pictures"] if pictures else [])]) or "nothing of use"


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; make it readable or take it away") from None


def _is_one(path: Path, suffixes: Collection[str], others: Counter[str]) -> bool:
    """Whether it is a file with one of the suffixes; if not, `others` counts it by what it is."""
    kind = _other_kind(path, suffixes)
    if kind:
        others[kind] += 1
    return kind is None


def _other_kind(path: Path, suffixes: Collection[str]) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return "folders"
    if path.suffix.lower() not in suffixes:
        return path.suffix.lower() or "no suffix"
    return None if path.is_file() else "no regular files"


def _left_out(folder: Path, suffixes: Collection[str], others: Counter[str]) -> tuple[str, ...]:
    kinds = others.most_common()
    named = [f"{kind} ({count})" for kind, count in kinds[:_NAMED]]
    more = [f"others ({sum(count for _, count in kinds[_NAMED:])})"] if len(kinds) > _NAMED else []
    if not kinds:
        return ()
    read = "BMP, GIF, JPEG, PNG, PNM, TIFF and WebP" + ", and arrays (.npy)" * (".npy" in suffixes)
    return (f"{folder}: left out: {', '.join([*named, *more])}; read are {read}",)
