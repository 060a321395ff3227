"""manifest.json of a run's output, read back. What it says never leads out of the folder that it lies in."""

import json
from pathlib import Path
from typing import Any

from compress.errors import ExportError
from compress.files import sha256_of

FILE = "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an output folder. Each entry of "files" has a format, a file name and a sha256, all text.

    Raises ExportError for a folder that is no run's output, or of another schema, and for a file that is named by
    more than its name.
    """
    path = folder / FILE
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; give the output folder of `compress run`") from None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != 1:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ExportError(f"{path}: schema {found} is not the schema 1 that this version reads; run it again")
    files = manifest.get("files")
    if not isinstance(files, list) or not files or not all(_is_entry(entry) for entry in files):
        raise ExportError(f"{path}: every file needs a format, a name and a sha256; run it again")
    for entry in files:
        name = entry["file"]
        if name in ("", ".", "..") or Path(name).name != name or "\0" in name or (folder / name).is_symlink():
            raise ExportError(f"{path}: {name!r} is no file in its own folder; run it again")
    return manifest


def changed_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The files that the manifest does not describe any more, one line each."""
    changed = []
    for entry in manifest["files"]:
        path = folder / entry["file"]
        if not path.is_file():
            changed.append(f"{path}: is missing")
        elif sha256_of(path) != entry["sha256"]:
            changed.append(f"{path}: is not the file that was exported: its sha256 differs from the manifest's")
    return changed


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("format", "file", "sha256"))
