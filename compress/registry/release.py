"""A release before and after it is published: a run's folder, and a version in a registry."""

import hashlib
from pathlib import Path
from typing import Any

from compress.errors import RegistryError
from compress.registry.index import FILE, Index, find_index, read_index
from compress.registry.names import Wanted, check_name
from compress.registry.open import open_place
from compress.registry.place import Place
from compress.release.manifest import FILE as MANIFEST
from compress.release.manifest import REPORT, SCHEMA, change, entries, parsed_manifest, read_manifest

STATE = ".fetched.json"
"""What was fetched into a folder."""
_NOT_USED = "nothing of it is used"


def sum_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sums_of(manifest: dict[str, Any], data: bytes) -> dict[str, str]:
    """The sha256 of every file of a release, by its name; `data`: what manifest.json holds."""
    return {MANIFEST: sum_of(data)} | {entry["file"]: entry["sha256"] for entry in entries(manifest)}


def of_folder(folder: Path) -> dict[str, Any]:
    """The manifest of a run's folder in today's schema, made of its report where it has an older one; one without a
    report stays as it is. Raises a CompressError."""
    manifest = read_manifest(folder)
    if manifest["schema"] == SCHEMA or not (folder / REPORT).exists():
        return manifest
    from compress.report.manifest import manifest as made_of
    from compress.report.read import read_record

    return made_of(read_record(folder), folder)


def named(text: str, registry: str | None) -> dict[str, Any]:
    """The manifest of a run's folder, or of NAME@VERSION in a registry. Raises a CompressError."""
    if Path(text).is_dir() and "@" not in text:
        return of_folder(Path(text))
    if registry is None:
        raise RegistryError(f"{text}: no such folder; name one, or NAME@VERSION with --from REGISTRY")
    wanted, place = Wanted.parse(text), open_place(registry)
    index = read_index(place, wanted.name)
    return read_release(place, index, index.version_for(wanted, f"{place}/{wanted.name}"))[0]


def to_publish(folder: Path) -> dict[str, Any]:
    """The same, if every file is there and is the one that was measured. Raises a CompressError."""
    _check_files(folder, read_manifest(folder))
    manifest = of_folder(folder)
    if manifest["schema"] != SCHEMA:
        raise RegistryError(f"{folder}: has a manifest of schema 1 and no {REPORT} to make today's of; run it again")
    _check_files(folder, manifest)
    return manifest


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
    for entry in entries(manifest):
        if (folder / entry["file"]).is_symlink():
            raise RegistryError(f"{folder / entry['file']}: is a link; publish the file itself")
        if line := change(folder, entry):
            raise RegistryError(f"{line}; publish the folder as compress run left it")


def check_as_published(folder: Path, registry: str) -> None:
    """Raises RegistryError where the folder says that it is a version that is published with other bytes."""
    place, manifest, path = open_place(registry), read_manifest(folder), folder / MANIFEST
    name, version = check_name(str(manifest.get("name"))), manifest.get("version")
    index = find_index(place, name)
    release = index.releases.get(str(version)) if index else None
    if release and sum_of(path.read_bytes()) != release.sha256:
        raise RegistryError(
            f"{path}: is not the {version} that {place} has, and a published version never changes; restore it, or "
            "publish it under another number with --version"
        )


def read_release(place: Place, index: Index, version: str) -> tuple[dict[str, Any], bytes]:
    """The manifest of a published version, which is the one that the index has, and its bytes. Raises RegistryError,
    and ExportError for what cannot be."""
    release, path = index.releases[version], f"{index.name}/{version}/{MANIFEST}"
    where = f"{place}/{path}"
    data = place.read(path, release.size_bytes)
    if data is None:
        raise RegistryError(f"{where}: is not there, though {FILE} names it; publish it again")
    if len(data) != release.size_bytes or sum_of(data) != release.sha256:
        raise RegistryError(f"{where}: is not the file that {FILE} names: its sha256 differs; {_NOT_USED}")
    manifest = parsed_manifest(data, where, _NOT_USED)
    if (manifest.get("name"), manifest.get("version")) != (index.name, version):
        raise RegistryError(f"{where}: is of another name or version; {_NOT_USED}")
    return manifest, data
