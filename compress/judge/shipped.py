"""What a folder or a file ships, counted in full: nothing passes for being small or for saying so."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import MeasureError
from compress.files import sha256_of, size_of
from compress.formats.whole import FORMATS, check_whole
from compress.registry.fetch import fetched_files
from compress.release.manifest import FILE as MANIFEST
from compress.release.manifest import REPORT, change, entries, range_of, read_manifest, report_sum

Colours = tuple[float, ...]


@dataclass(frozen=True)
class ShippedFile:
    """A model as it ships. `size_bytes` with `outside`, the files that hold weights of it. `mean` and `std`: what its
    manifest says that a float32 input reads, of 0 to 255 pixels. `range`: the values of more than 8 bits that became
    pixels 0 and 255. `report_sha256`: the manifest's, of report.json."""

    path: Path
    format: str
    sha256: str
    size_bytes: int
    outside: tuple[Path, ...] = ()
    classes: tuple[str, ...] | None = None
    mean: Colours | None = None
    std: Colours | None = None
    range: tuple[float, float] | None = None
    report_sha256: str | None = None
    multilabel: bool = False


def shipped(target: Path, references: Collection[Path] = ()) -> list[ShippedFile]:
    """The file, or every model file of the folder, which its manifest must name; but for `references`, files that
    others are compared with.

    Raises MeasureError, or ExportError, for what is no model, is not as the manifest says, or is not in it.
    """
    if not os.path.lexists(target):
        raise MeasureError(f"{target}: no such file or folder; name an exported file or the output of compress run")
    try:
        return _of_folder(target, references) if os.path.isdir(target) else [_alone(target)]
    except FileNotFoundError as error:
        where = error.filename or target
        raise MeasureError(
            f"{where}: no such file or folder; name an exported file or the output of compress run"
        ) from None
    except OSError as error:
        raise MeasureError(
            f"{error.filename or target}: {error.strerror}; name an exported file, or a folder"
        ) from None


def _of_folder(folder: Path, references: Collection[Path]) -> list[ShippedFile]:
    manifest = _as_fetched(folder, read_manifest(folder))
    _check_unchanged([change(folder, entry) for entry in entries(manifest) if entry["file"] != REPORT])
    _check_all_named(folder, manifest, references)
    paths = [folder / entry["file"] for entry in manifest["files"]]
    return [
        _shipped(path, entry["sha256"], check_whole(path), manifest, entry)
        for path, entry in zip(paths, manifest["files"], strict=True)
    ]


def _as_fetched(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Without what was left in the registry, where one format alone was fetched."""
    there = fetched_files(folder)
    if there is None:
        return manifest
    named = {key: [each for each in manifest.get(key, []) if each["file"] in there] for key in ("files", "beside")}
    if not named["files"]:
        raise MeasureError(f"{folder}: no model was fetched into it; fetch it again")
    return manifest | named


def _alone(path: Path) -> ShippedFile:
    """With what the manifest beside it knows, if that describes the very file."""
    outside = check_whole(path)  # first, since what is no model may have no end
    sha256 = sha256_of(path)
    if not os.path.lexists(path.parent / MANIFEST):
        return _shipped(path, sha256, outside, {}, {})
    manifest = read_manifest(path.parent)
    for entry in manifest["files"]:
        if (entry["file"], entry["sha256"]) == (path.name, sha256):
            _check_unchanged([change(path.parent, entry)])
            return _shipped(path, sha256, outside, manifest, entry)
    return _shipped(path, sha256, outside, {key: manifest[key] for key in ("report", "beside") if key in manifest}, {})


def _check_unchanged(lines: Sequence[str | None]) -> None:
    if line := next(filter(None, lines), None):
        raise MeasureError(f"{line}; gate the folder as compress run left it")


def _check_all_named(folder: Path, manifest: dict[str, Any], references: Collection[Path]) -> None:
    named = {entry["file"] for entry in manifest["files"]}
    apart = {reference.resolve() for reference in references}
    for path in sorted(folder.iterdir()):
        if path.suffix[1:].lower() in FORMATS and path.name not in named and path.resolve() not in apart:
            raise MeasureError(f"{path}: ships, but {MANIFEST} does not name it; remove it, or run compress again")


def _shipped(
    path: Path, sha256: str, outside: tuple[Path, ...], manifest: dict[str, Any], entry: dict[str, Any]
) -> ShippedFile:
    if path.suffix == ".ort":
        from compress.runtime.local import describe_in_child

        describe_in_child(path)
    classes, given = manifest.get("classes"), entry.get("input", {})
    return ShippedFile(
        path,
        path.suffix[1:],
        sha256,
        size_of(path) + sum(map(size_of, outside)),
        outside,
        tuple(classes) if classes else None,
        _colours(given.get("mean")),
        _colours(given.get("std")),
        range_of(entry),
        report_sum(manifest),
        manifest.get("multilabel", False),
    )


def _colours(values: list[float] | None) -> Colours | None:
    return tuple(values) if values else None
