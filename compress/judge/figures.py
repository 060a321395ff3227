"""What a report.json says of exported files: read by hand, so that a gate on sizes imports nothing heavy, and believed
only where it can be."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from compress.errors import DataError
from compress.files import read_json, sha256_of, size_of
from compress.judge.shipped import ShippedFile
from compress.measure.values import Interval, Latency, Measurement, impossible
from compress.release.manifest import REPORT

_ROUNDING = 1e-6
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Figures:
    """What a report says of the file with this sum."""

    sha256: str = ""
    measured: Measurement = Measurement()


@dataclass(frozen=True)
class Report:
    """report.json beside some files. `vouched`: whether their manifest has its sum; older versions wrote none."""

    path: Path
    by_format: Mapping[str, Figures]
    vouched: bool

    def of(self, file: ShippedFile) -> Figures:
        return self.by_format.get(file.format, Figures())

    def describes(self, file: ShippedFile) -> bool:
        """Whether its figures are of these very bytes. Of weights that lie outside it has no sum."""
        return self.of(file).sha256 == file.sha256 and not file.outside


def report_beside(target: Path, files: Sequence[ShippedFile]) -> Report | None:
    """The report in the folder of the files; None where there is none.

    Raises DataError as `read_figures` does, and for a report that is not the one that the manifest was written with.
    """
    path = (target if os.path.isdir(target) else target.parent) / REPORT
    if not os.path.lexists(path):
        return None
    report = Report(path, read_figures(path), any(file.report_sha256 for file in files))
    if report.vouched and {file.report_sha256 for file in files} != {sha256_of(path)}:
        raise DataError(
            f"{path}: is not the report that was written: its sha256 differs from the manifest's; run it again"
        )
    for file in files:
        size_bytes, there = report.of(file).measured.size_bytes, size_of(file.path)
        if report.describes(file) and size_bytes not in (None, there):
            raise DataError(f"{path}: measurements.{file.format}.size_bytes: {size_bytes}, but the file has {there}")
    return report


def read_figures(path: Path) -> dict[str, Figures]:
    """By format, also of a report that an older version wrote.

    Raises DataError, in one line, for any other file, and for what cannot have been measured, by its key.
    """
    try:
        document = read_json(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name the {REPORT} of a run") from None
    except ValueError as error:
        raise DataError(f"{path}: not a report of compress run: {error}; name its {REPORT}") from None
    try:
        return _figures(document)
    except _NoReportError as error:
        raise DataError(f"{path}: not a report of compress run: {error}; name its {REPORT}") from None


class _NoReportError(Exception):
    """A key that is missing, of another type, or cannot be."""


def _figures(document: Any) -> dict[str, Figures]:
    if not isinstance(document, dict) or document.get("schema", 1) != 1:
        raise _NoReportError("no table of schema 1")
    measurements = _of(dict, document, "measurements")
    found: dict[str, Figures] = {}
    for index, artifact in enumerate(_of(list, document, "artifacts")):
        where = f"artifacts.{index}"
        if not isinstance(artifact, dict):
            raise _NoReportError(f"{where}: a table is expected")
        name = _of(str, artifact, "format", where)
        if name in found:
            raise _NoReportError(f"{where}: a second {name} file")
        measured = _measurement(measurements.get(name, {}), f"measurements.{name}")
        if artifact.get("size_bytes") not in (None, measured.size_bytes) and measured.size_bytes is not None:
            raise _NoReportError(f"{where}.size_bytes: {artifact['size_bytes']!r:.40} and {measured.size_bytes} differ")
        found[name] = Figures(_of(str, artifact, "sha256", where), measured)
    return found


def _of(kind: type[Kind], table: Mapping[str, Any], key: str, where: str = "") -> Kind:
    value = table.get(key)
    if not isinstance(value, kind):
        raise _NoReportError(f"{where}{'.' * bool(where)}{key}: a {kind.__name__} is expected")
    return value


def _measurement(document: Any, where: str) -> Measurement:
    if not isinstance(document, dict):
        raise _NoReportError(f"{where}: a table is expected")
    images = document.get("per_image_iou", [])
    if not isinstance(images, list):
        raise _NoReportError(f"{where}.per_image_iou: a list is expected")
    measured = Measurement(
        size_bytes=_whole(document, "size_bytes", where),
        macs=_whole(document, "macs", where),
        latency=_latency(document, where),
        iou=_interval(document, "iou", where),
        per_image_iou=tuple(_needed({str(i): iou for i, iou in enumerate(images)}, f"{where}.per_image_iou")),
        speedup=_interval(document, "speedup", where),
        iou_drop=_interval(document, "iou_drop", where),
        miou=_interval(document, "miou", where),
        miou_drop=_interval(document, "miou_drop", where),
    )
    if reason := impossible(measured):
        raise _NoReportError(f"{where}.{reason}")
    if measured.iou and images:
        mean = math.fsum(measured.per_image_iou) / len(images)
        if abs(mean - measured.iou.mean) > _ROUNDING:
            raise _NoReportError(f"{where}.iou.mean: {measured.iou.mean}, but the images' mean is {mean:.6f}")
    return measured


def _latency(document: dict[str, Any], where: str) -> Latency | None:
    found = document.get("latency")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise _NoReportError(f"{where}.latency: a table is expected")
    p50_ms, p90_ms = _number(found, "p50_ms", f"{where}.latency"), _number(found, "p90_ms", f"{where}.latency")
    return None if p50_ms is None or p90_ms is None else Latency(p50_ms, p90_ms, (), 0, "")


def _interval(document: dict[str, Any], key: str, where: str) -> Interval | None:
    """None also for one that was not finite, which JSON holds as null."""
    found = document.get(key)
    if found is None:
        return None
    if not isinstance(found, dict) or found.keys() != {"mean", "low", "high"}:
        raise _NoReportError(f"{where}.{key}: mean, low and high are expected")
    if None in found.values():
        return None
    mean, low, high = _needed({name: found[name] for name in ("mean", "low", "high")}, f"{where}.{key}")
    return Interval(mean, low, high)


def _needed(table: Mapping[str, Any], where: str) -> list[float]:
    numbers = [_number(table, key, where) for key in table]
    return [math.nan if number is None else number for number in numbers]


def _whole(table: Mapping[str, Any], key: str, where: str) -> int | None:
    value = _number(table, key, where)
    if value is None or value == int(value):
        return None if value is None else int(value)
    raise _NoReportError(f"{where}.{key}: a whole number is expected, not {value}")


def _number(table: Mapping[str, Any], key: str, where: str) -> float | None:
    """True and text are no numbers."""
    value = table.get(key)
    if value is None or (type(value) in (int, float) and math.isfinite(value)):
        return value
    raise _NoReportError(f"{where}.{key}: a number is expected, not {value!r:.40}")
