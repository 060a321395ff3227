"""manifest.json of a run's output, read back. What it says never leads out of the folder that it lies in."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.errors import ExportError
from compress.files import read_json, sha256_of, size_of
from compress.flags import MOST_CHANNELS

FILE = "manifest.json"
REPORT = "report.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an output folder. Each entry of "files" has a format, a file name and a sha256, all text; no two
    are of one file or of one format. "report", where it is there, has the name and the sha256 of report.json.

    Raises ExportError for a folder that is no run's output, or of another schema, and for a file that is named by
    more than its name. A file of that name may be a link, as tools that keep large files elsewhere put it there: it is
    what it should be if its sha256 is.
    """
    path = folder / FILE
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; give the output folder of `compress run`") from None
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}; run it again") from None
    except ValueError as error:
        raise ExportError(f"{path}: cannot be read: {error}; run it again") from None
    if not isinstance(manifest, dict) or type(manifest.get("schema")) is not int or manifest["schema"] != 1:
        found = json.dumps(manifest.get("schema") if isinstance(manifest, dict) else None)[:40]
        raise ExportError(f"{path}: schema {found} is not the schema 1 that this version reads; run it again")
    files = manifest.get("files")
    if not isinstance(files, list) or not files or not all(_is_entry(entry, ("format",)) for entry in files):
        raise ExportError(f"{path}: every file needs a format, a name and a sha256; run it again")
    for entry in files:
        _check_entry(path, entry)
    for key in ("file", "format"):
        if len({entry[key] for entry in files}) < len(files):
            raise ExportError(f"{path}: two files have the same {key}; run it again")
    if "report" in manifest and not (_is_entry(manifest["report"]) and manifest["report"]["file"] == REPORT):
        raise ExportError(f"{path}: report: {REPORT} and its sha256 are expected; run it again")
    _check_classes(path, manifest.get("classes"))
    if type(manifest.get("multilabel", False)) is not bool:
        raise ExportError(f"{path}: multilabel: true or false is expected; run it again")
    return manifest


def tells_labels(path: Path) -> bool:
    """Whether the manifest beside a file says that a pixel of its map can have several labels."""
    try:
        manifest = read_manifest(path.parent)
    except ExportError:
        return False
    named = any(entry["file"] == path.name for entry in manifest["files"])
    return named and manifest.get("multilabel", False)


def range_of(entry: dict[str, Any]) -> tuple[float, float] | None:
    """The values of more than 8 bits that became pixels 0 and 255, where an entry of its files states them."""
    ends = entry.get("input", {}).get("range")
    return (ends[0], ends[1]) if ends else None


def changed_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The files that the manifest does not describe any more, one line each."""
    return [line for entry in manifest["files"] if (line := change(folder, entry)) is not None]


def change(folder: Path, entry: dict[str, Any]) -> str | None:
    """What is otherwise of one of its files than the manifest says, as a line; None: nothing."""
    path = folder / entry["file"]
    try:
        size_bytes = size_of(path)
        if sha256_of(path) != entry["sha256"]:
            return f"{path}: is not the file that was exported: its sha256 differs from the manifest's"
    except FileNotFoundError:
        return f"{path}: is missing"
    except OSError as error:
        return f"{path}: {error.strerror}"
    if entry.get("size_bytes", size_bytes) != size_bytes:
        return f"{path}: has {size_bytes:,} bytes, not those that the manifest states"
    return None


def _is_entry(entry: Any, more: Sequence[str] = ()) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("file", "sha256", *more))


def _check_entry(path: Path, entry: dict[str, Any]) -> None:
    name = entry["file"]
    _check_name(path, name)
    if Path(name).suffix != f".{entry['format']}":
        raise ExportError(f"{path}: {name!r:.60} is no file of format {entry['format']!r:.60}; run it again")
    if type(entry.get("size_bytes", 1)) is not int:
        raise ExportError(f"{path}: {name!r}: size_bytes {entry['size_bytes']!r:.40} is no number; run it again")
    for key in ("input", "output"):
        if not isinstance(entry.get(key, {}), dict):
            raise ExportError(f"{path}: {name!r}: {key}: a table is expected; run it again")
    given = entry.get("input", {})
    for key in ("mean", "std"):
        _check_colours(path, name, key, given.get(key))
    if not _is_range(given.get("range")):
        raise ExportError(f"{path}: {name!r}: input.range {given['range']!r:.40}: cannot be; run it again")


def _check_name(path: Path, name: str) -> None:
    if name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise ExportError(f"{path}: {name!r:.60} is no file in its own folder; run it again")


def _check_colours(path: Path, name: str, key: str, values: Any) -> None:
    """Finite numbers, one for each channel, or none at all; a standard deviation is more than 0."""
    if not (values is None or (_are_numbers(values) and (key != "std" or min(values) > 0))):
        raise ExportError(f"{path}: {name!r}: input.{key} {values!r:.40}: cannot be; run it again")


def _is_range(ends: Any) -> bool:
    return ends is None or (_are_numbers(ends) and len(ends) == 2 and ends[0] < ends[1])


def _are_numbers(values: Any) -> bool:
    return (
        isinstance(values, list)
        and 0 < len(values) <= MOST_CHANNELS
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )


def _check_classes(path: Path, classes: Any) -> None:
    if classes is None:
        return
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(each, str) for each in classes):
        raise ExportError(f"{path}: classes: two names or more are expected; run it again")
