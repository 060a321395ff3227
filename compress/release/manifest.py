"""manifest.json of a run's output: what is in it of every file, and how it is read back, in both schemas. What it says
never leads out of the folder that it lies in."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from compress.errors import ExportError
from compress.files import parsed_json, read_json, sha256_of, size_of, write_whole
from compress.flags import MOST_CHANNELS

FILE = "manifest.json"
SIGNATURE = "model.sig"
"""It signs the manifest, which can therefore not name it."""
REPORT = "report.json"
PAGE = "report.html"
SCHEMA = 2
BESIDE = {
    "labels": "labels.txt",
    "golden": "golden.npz",
    "report": REPORT,
    "page": PAGE,
    "pictures": "pictures.npz",
    "card": "MODEL_CARD.md",
}
"""What belongs to a release beside the models, by its role."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AGAIN = "run it again"


class _WrongError(Exception):
    """What a manifest says that cannot be."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an output folder, as `checked` has it.

    Raises ExportError for a folder that is no run's output, or of another schema, and for a file that is named by
    more than its name. A file of that name may be a link, as tools that keep large files elsewhere put it there: it is
    what it should be if its sha256 is.
    """
    path = folder / FILE
    try:
        document = read_json(path)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; give the output folder of `compress run`") from None
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}; {_AGAIN}") from None
    except ValueError as error:
        raise ExportError(f"{path}: cannot be read: {error}; {_AGAIN}") from None
    return checked(document, str(path))


def parsed_manifest(data: bytes, where: str, advice: str) -> dict[str, Any]:
    """That of a release whose manifest is `data`, as `checked` has it. Raises ExportError."""
    try:
        document = parsed_json(data)
    except ValueError as error:
        raise ExportError(f"{where}: cannot be read: {error}; {advice}") from None
    return checked(document, where, advice)


def checked(document: Any, where: str, advice: str = _AGAIN) -> dict[str, Any]:
    """The document, if it is a manifest. Each entry of "files" has a format, a file name and a sha256, all text; no two
    are of one file or of one format. Schema 1: "report", where it is there, has the name and the sha256 of report.json.
    Schema 2: "beside" has a role, a file name, a sha256 and a size of every other file. Raises ExportError.
    """
    try:
        return _checked(document)
    except _WrongError as wrong:
        raise ExportError(f"{where}: {wrong}; {advice}") from None


def entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of every file that it names, models first."""
    report = [manifest["report"]] if "report" in manifest else []
    return [*manifest.get("files", ()), *manifest.get("beside", report)]


def report_sum(manifest: dict[str, Any]) -> str | None:
    """The sha256 of report.json, where the manifest has it."""
    return next((entry["sha256"] for entry in entries(manifest) if entry["file"] == REPORT), None)


def beside(folder: Path) -> list[dict[str, Any]]:
    """Entries of what lies beside the models in a run's folder now. Raises ExportError."""
    found = [(role, folder / name) for role, name in BESIDE.items() if (folder / name).exists()]
    return [{"role": role, **stated(path)} for role, path in found]


def stated(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: its name, sha256 and size. Raises ExportError."""
    try:
        return {"file": path.name, "sha256": sha256_of(path), "size_bytes": size_of(path)}
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from None


def write_manifest(manifest: dict[str, Any], folder: Path) -> None:
    """Raises WriteError."""
    write_whole(folder / FILE, encoded(manifest))


def encoded(manifest: dict[str, Any]) -> bytes:
    """A file name on disk need not be Unicode, and a run must not fail on its last step for that."""
    return (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def restate(*paths: Path) -> None:
    """Let the manifest beside files of one folder that were written anew say what they are now, where it names them.
    Raises ExportError."""
    folder = paths[0].parent
    if not (folder / FILE).exists():
        return
    manifest = read_manifest(folder)
    written = {path.name for path in paths}
    if named := [entry for entry in entries(manifest) if entry["file"] in written]:
        for entry in named:
            entry |= stated(folder / entry["file"])
        write_manifest(manifest, folder)


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
    return [line for entry in entries(manifest) if (line := change(folder, entry)) is not None]


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


def _checked(manifest: Any) -> dict[str, Any]:
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if type(found) is not int or found not in (1, SCHEMA):
        raise _WrongError(f"schema {json.dumps(found)[:40]} is not 1 or {SCHEMA}, which this version reads")
    files = manifest.get("files")
    if not isinstance(files, list) or not files or not all(_is_entry(entry, ("format",)) for entry in files):
        raise _WrongError("every file needs a format, a name and a sha256")
    for entry in files:
        _check_model(entry)
    if found == SCHEMA:
        _check_release(manifest)
    elif "report" in manifest and not (_is_entry(manifest["report"]) and manifest["report"]["file"] == REPORT):
        raise _WrongError(f"report: {REPORT} and its sha256 are expected")
    _check_each_once("file", entries(manifest))
    _check_each_once("format", files)
    _check_classes(manifest.get("classes"))
    if type(manifest.get("multilabel", False)) is not bool:
        raise _WrongError("multilabel: true or false is expected")
    return manifest


def _check_release(manifest: dict[str, Any]) -> None:
    """What schema 2 has beyond schema 1."""
    others = manifest.get("beside")
    if not isinstance(others, list) or not all(_is_entry(entry, ("role",)) for entry in others):
        raise _WrongError("beside: each needs a role, a name and a sha256")
    if "report" in manifest:
        raise _WrongError("report: stands under beside in schema 2")
    for entry in entries(manifest):
        _check_name(entry["file"])
        _check_sum(entry)
    wanted: tuple[tuple[str, Any, str], ...] = (
        *((key, str, "text") for key in ("name", "version", "description", "author", "licence", "created")),
        *((key, dict, "a table") for key in ("input", "output", "verdict", "measurements")),
        ("compatible_with", list, "a list of versions"),
        ("replaces", (str, type(None)), "a version or null"),
    )
    for key, kind, words in wanted:
        if not isinstance(manifest.get(key, 0), kind):
            raise _WrongError(f"{key}: {words} is expected")
    if type(manifest["verdict"].get("passed")) is not bool:
        raise _WrongError("verdict.passed: true or false is expected")
    if not all(isinstance(each, str) for each in manifest["compatible_with"]):
        raise _WrongError("compatible_with: a list of versions is expected")


def _check_sum(entry: dict[str, Any]) -> None:
    if not _SHA256.fullmatch(entry["sha256"]):
        raise _WrongError(f"{entry['file']!r:.60}: sha256: 64 hexadecimal digits are expected")
    if type(entry.get("size_bytes")) is not int or entry["size_bytes"] < 0:
        raise _WrongError(f"{entry['file']!r:.60}: size_bytes {entry.get('size_bytes')!r:.40} is no number of bytes")


def _check_each_once(key: str, found: Iterable[dict[str, Any]]) -> None:
    values = [entry[key] for entry in found]
    if len(set(values)) < len(values):
        raise _WrongError(f"two files have the same {key}")


def _is_entry(entry: Any, more: Sequence[str] = ()) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("file", "sha256", *more))


def _check_model(entry: dict[str, Any]) -> None:
    name = entry["file"]
    _check_name(name)
    if Path(name).suffix != f".{entry['format']}":
        raise _WrongError(f"{name!r:.60} is no file of format {entry['format']!r:.60}")
    if type(entry.get("size_bytes", 1)) is not int:
        raise _WrongError(f"{name!r}: size_bytes {entry['size_bytes']!r:.40} is no number")
    for key in ("input", "output"):
        if not isinstance(entry.get(key, {}), dict):
            raise _WrongError(f"{name!r}: {key}: a table is expected")
    given = entry.get("input", {})
    for key in ("mean", "std"):
        _check_colours(name, key, given.get(key))
    if not _is_range(given.get("range")):
        raise _WrongError(f"{name!r}: input.range {given['range']!r:.40}: cannot be")


def _check_name(name: str) -> None:
    """One that begins with a dot is not the manifest's to give; "." and ".." are among those."""
    outside = Path(name).name != name or "\\" in name or "\0" in name
    if outside or name == "" or name.startswith(".") or name in (FILE, SIGNATURE):
        raise _WrongError(f"{name!r:.60} is no file in its own folder")


def _check_colours(name: str, key: str, values: Any) -> None:
    """Finite numbers, one for each channel, or none at all; a standard deviation is more than 0."""
    if not (values is None or (_are_numbers(values) and (key != "std" or min(values) > 0))):
        raise _WrongError(f"{name!r}: input.{key} {values!r:.40}: cannot be")


def _is_range(ends: Any) -> bool:
    return ends is None or (_are_numbers(ends) and len(ends) == 2 and ends[0] < ends[1])


def _are_numbers(values: Any) -> bool:
    return (
        isinstance(values, list)
        and 0 < len(values) <= MOST_CHANNELS
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )


def _check_classes(classes: Any) -> None:
    if classes is None:
        return
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(each, str) for each in classes):
        raise _WrongError("classes: two names or more are expected")
