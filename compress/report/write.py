"""The files of a result, each written beside its place and then renamed."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.data.images import Reading
from compress.files import write_whole
from compress.formats.artifact import Artifact
from compress.report.card import FILE as CARD
from compress.report.card import render_card
from compress.report.comparison import conclusions_of, contradictions_of, names_of, render_comparison
from compress.report.html import render
from compress.report.pictures import FILE as PICTURES
from compress.report.pictures import Picture, read_pictures, to_npz
from compress.report.read import read_record
from compress.report.record import RunRecord

_INPUT_KEYS = ("name", "shape", "dtype", "layout", "mean", "std", "scale", "zero_point")
_OUTPUT_KEYS = ("name", "shape", "dtype", "layout", "scale", "zero_point", "activation")


def write_report(record: RunRecord, pictures: Sequence[Picture], out: Path) -> None:
    """Writes report.json, report.html, MODEL_CARD.md, pictures.npz, labels.txt and manifest.json into the folder `out`.

    Raises ExportError where a file cannot be written; nothing is left half written.
    """
    report = _encoded(_json(record.to_json()))
    texts = {
        "report.json": report,
        "report.html": _encoded(render(record, pictures)),
        CARD: _encoded(render_card(record, pictures)),
        "labels.txt": _encoded("".join(f"{label}\n" for label in record.classes)),
        "manifest.json": _encoded(_json(manifest(record, hashlib.sha256(report).hexdigest()))),
    }
    for name, text in texts.items():
        write_whole(out / name, text)
    write_whole(out / PICTURES, to_npz(pictures))


def _encoded(text: str) -> bytes:
    """A file name on disk need not be Unicode, and a run must not fail on its last step for that."""
    return text.encode(errors="backslashreplace")


def rebuild(folder: Path, page: Path | None = None) -> Path:
    """Writes report.html and MODEL_CARD.md anew from report.json and pictures.npz in `folder`, or the page alone to
    `page`; returns where the page is.

    Raises DataError where the report cannot be read, ExportError where the page cannot be written.
    """
    record, pictures = read_record(folder), read_pictures(folder / PICTURES)
    if page is None:
        write_whole(folder / CARD, _encoded(render_card(record, pictures)))
    page = page or folder / "report.html"
    write_whole(page, _encoded(render(record, pictures)))
    return page


def write_comparison(folders: Sequence[Path], page: Path) -> list[str]:
    """Writes one page that compares the runs in `folders` with the first of them; returns the contradictions, and
    in the end a conclusion on each of the others."""
    names = names_of(folders)
    runs = dict(zip(names, map(read_record, folders), strict=True))
    pictures = {name: read_pictures(folder / PICTURES) for name, folder in zip(names, folders, strict=True)}
    write_whole(page, _encoded(render_comparison(runs, pictures)))
    return [*contradictions_of(runs), *(each.words for each in conclusions_of(runs))]


def manifest(record: RunRecord, report_sha256: str) -> dict[str, Any]:
    """What an app must know to use the files: their names, sums, inputs and outputs; and the sum of the report, so that
    a gate knows its figures for those that were measured."""
    source = record.source
    return {
        "schema": 1,
        "name": record.name,
        "version": record.version,
        "classes": list(record.classes),
        "palette": [colour or None for colour in record.colours],
        **({"multilabel": True} if record.multilabel else {}),
        "source": {"file": Path(source.file).name, "sha256": source.sha256, "size_bytes": source.size_bytes},
        "files": [_entry(artifact, Reading(artifact.channels, record.data.range)) for artifact in record.artifacts],
        "report": {"file": "report.json", "sha256": report_sha256},
        "tools": record.tools,
    }


def _entry(artifact: Artifact, reading: Reading) -> dict[str, Any]:
    given, made = asdict(artifact.input), asdict(artifact.output)
    said = {"pixels": reading.words, "range": reading.range}
    return {
        "format": artifact.format,
        "file": artifact.path.name,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "input": {key: given[key] for key in _INPUT_KEYS} | {key: value for key, value in said.items() if value},
        "output": {key: made[key] for key in _OUTPUT_KEYS},
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
