"""A record read back from report.json."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from compress.budget import fields_of_name
from compress.errors import DataError
from compress.files import read_json
from compress.measure.values import Measurement, impossible
from compress.report.palette import is_palette
from compress.report.record import Earlier, RunRecord

FILE = "report.json"
EARLIER = 5
"""Runs that a report remembers at most."""


def read_record(folder: Path) -> RunRecord:
    """The record in `folder`/report.json; paths in it are file names alone, and what was not finite is not there.

    Every value has the type that the record states (text and true are no numbers) and is one that a run can have
    measured. Raises DataError, naming the key, for a file that is missing or no record.
    """
    from pydantic import ValidationError

    path = folder / FILE
    try:
        document = read_json(path)
        if not isinstance(document, dict) or document.get("schema") != 1:
            raise DataError(f"{path}: not a report that compress run wrote; name its output folder")
        text = json.dumps(_renamed(_finite(_with_fields(document))), ensure_ascii=False)
        record = _adapter().validate_json(text.encode(errors="replace"), strict=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such report; name an output folder of compress run") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {key}: {first['msg']}; run compress again") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise DataError(f"{path}: {error}; run compress again") from None
    if wrong := next(_impossible(record), None):
        raise DataError(f"{path}: {wrong}; run compress again")
    return record


def _impossible(record: RunRecord) -> Iterator[str]:
    """What no run can have given, by its key."""
    for where, measurements in _measured(record):
        for name, measurement in measurements.items():
            if reason := impossible(measurement):
                yield f"{where}.{name}.{reason}"
    if record.palette and not is_palette(record.palette, record.classes):
        yield "palette: a colour such as #804080 for each class is expected"
    for index, point in enumerate(record.history):
        if point.minutes < 0 or not 0 <= point.iou <= 1:
            yield f"history.{index}: {point.minutes} minutes, IoU {point.iou}: cannot be"
    for name, minutes in record.minutes.items():
        if minutes < 0:
            yield f"minutes.{name}: {minutes} is no duration"
    for index, layer in enumerate(record.layers):
        if min(layer.before_bytes, layer.after_bytes, layer.before_channels, layer.after_channels) < 0:
            yield f"layers.{index}: less than nothing"
    for key in ("train", "val", "unlabelled", "held_out", "left_out"):
        if (getattr(record.data, key) or 0) < 0:
            yield f"data.{key}: less than nothing"


def _measured(record: RunRecord) -> Iterator[tuple[str, dict[str, Measurement]]]:
    yield "measurements", record.measurements
    yield "controls", record.controls
    for index, earlier in enumerate(record.earlier):
        yield f"earlier.{index}.measurements", earlier.measurements


def earlier_runs(folder: Path, teacher_sha256: str) -> tuple[Earlier, ...]:
    """What earlier runs of the same teacher into `folder` measured, oldest first; none where there is no record."""
    try:
        last = read_record(folder)
    except DataError:
        return ()
    if last.source.sha256 != teacher_sha256:
        return ()
    measurements = {
        name: replace(each, latency=each.latency and replace(each.latency, samples_ms=()))
        for name, each in last.measurements.items()
    }
    return (*last.earlier, Earlier(last.created, last.data, measurements))[-EARLIER:]


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    """With today's words for what older versions called otherwise."""
    earlier = document.get("earlier")
    for holder in (document, *(earlier if isinstance(earlier, list) else [])):
        if isinstance(holder, dict) and isinstance(data := holder.get("data"), dict) and "doubt" in data:
            data["uncertainty"] = data.pop("doubt")
    return document


def _finite(value: Any) -> Any:
    """Without the points of the history and the intervals that were not finite, which JSON holds as null."""
    if isinstance(value, list):
        return [_finite(item) for item in value if not _is_lost_point(item)]
    if isinstance(value, dict):
        inside = {key: _finite(item) for key, item in value.items()}
        return None if value.keys() == {"mean", "low", "high"} and None in value.values() else inside
    return value


def _is_lost_point(item: Any) -> bool:
    return isinstance(item, dict) and "stage" in item and item.get("iou", item) is None


def _with_fields(document: Any) -> Any:
    """With format, metric and reference of every check, which older reports have in its name alone."""
    verdict = document.get("verdict")
    checks = verdict.get("checks") if isinstance(verdict, dict) else None
    for check in checks if isinstance(checks, list) else []:
        if isinstance(check, dict) and "metric" not in check and isinstance(check.get("name"), str):
            check |= fields_of_name(check["name"])
    return document


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)
