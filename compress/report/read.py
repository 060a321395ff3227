"""A record read back from report.json."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from compress.budget import fields_of_name
from compress.errors import DataError
from compress.report.record import Earlier, RunRecord

FILE = "report.json"
EARLIER = 5
"""Runs that a report remembers at most."""


def read_record(folder: Path) -> RunRecord:
    """The record in `folder`/report.json; paths in it are file names alone, and what was not finite is not there.

    Raises DataError, naming the key, for a file that is missing or no record.
    """
    from pydantic import ValidationError

    path = folder / FILE
    try:
        document = json.loads(path.read_text())
        if not isinstance(document, dict) or document.get("schema") != 1:
            raise DataError(f"{path}: not a report that compress run wrote; name its output folder")
        return _adapter().validate_python(_renamed(_finite(_with_fields(document))))
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
    for holder in (document, *document.get("earlier", ())):
        if isinstance(data := holder.get("data"), dict) and "doubt" in data:
            data["uncertainty"] = data.pop("doubt")
    return document


def _finite(value: Any) -> Any:
    """Without the points of the history and the intervals that were not finite, which JSON holds as null."""
    if isinstance(value, list):
        known = (item for item in value if not isinstance(item, dict) or "stage" not in item or item["iou"] is not None)
        return [_finite(item) for item in known]
    if isinstance(value, dict):
        inside = {key: _finite(item) for key, item in value.items()}
        return None if value.keys() == {"mean", "low", "high"} and None in value.values() else inside
    return value


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
