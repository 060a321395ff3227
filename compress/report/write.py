"""The files of a result, each written beside its place and then renamed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.files import write_whole
from compress.release.manifest import PAGE, restate, write_manifest
from compress.report.card import FILE as CARD
from compress.report.card import render_card
from compress.report.comparison import conclusions_of, contradictions_of, names_of, render_comparison
from compress.report.html import render
from compress.report.manifest import manifest
from compress.report.pictures import FILE as PICTURES
from compress.report.pictures import Picture, read_pictures, to_npz
from compress.report.read import read_record
from compress.report.record import RunRecord


def write_report(record: RunRecord, pictures: Sequence[Picture], out: Path) -> None:
    """Writes report.json, report.html, MODEL_CARD.md, pictures.npz, labels.txt and manifest.json into the folder `out`.

    Raises ExportError where a file cannot be written; nothing is left half written.
    """
    texts = {
        "report.json": _json(record.to_json()),
        "report.html": render(record, pictures),
        CARD: render_card(record, pictures),
        "labels.txt": "".join(f"{label}\n" for label in record.classes),
    }
    for name, text in texts.items():
        write_whole(out / name, _encoded(text))
    write_whole(out / PICTURES, to_npz(pictures))
    write_manifest(manifest(record, out), out)  # last, since it has the sums of all others


def _encoded(text: str) -> bytes:
    """A file name on disk need not be Unicode, and a run must not fail on its last step for that."""
    return text.encode(errors="backslashreplace")


def rebuild(folder: Path, page: Path | None = None) -> Path:
    """Writes report.html and MODEL_CARD.md anew from report.json and pictures.npz in `folder`, or the page alone to
    `page`; returns where the page is. The manifest then has the sums of the new ones.

    Raises DataError where the report cannot be read, ExportError where the page cannot be written.
    """
    record, pictures = read_record(folder), read_pictures(folder / PICTURES)
    if page is None:
        write_whole(folder / CARD, _encoded(render_card(record, pictures)))
    written = page or folder / PAGE
    write_whole(written, _encoded(render(record, pictures)))
    if written.name == PAGE:
        restate(written, *([] if page else [folder / CARD]))
    return written


def write_comparison(folders: Sequence[Path], page: Path) -> list[str]:
    """Writes one page that compares the runs in `folders` with the first of them; returns the contradictions, and
    in the end a conclusion on each of the others."""
    names = names_of(folders)
    runs = dict(zip(names, map(read_record, folders), strict=True))
    pictures = {name: read_pictures(folder / PICTURES) for name, folder in zip(names, folders, strict=True)}
    write_whole(page, _encoded(render_comparison(runs, pictures)))
    return [*contradictions_of(runs), *(each.words for each in conclusions_of(runs))]


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
