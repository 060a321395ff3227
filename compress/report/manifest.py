"""The manifest of a run, made of its record."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from compress.data.images import Reading
from compress.formats.artifact import Artifact
from compress.formats.oldest import oldest_runtime
from compress.measure.values import Interval, Latency, Measurement
from compress.release.contract import input_contract, output_contract
from compress.release.manifest import SCHEMA, beside
from compress.report.record import RunRecord, plain
from compress.report.summary import verdict_line

_INPUT_KEYS = ("name", "shape", "dtype", "layout", "mean", "std", "scale", "zero_point")
_OUTPUT_KEYS = ("name", "shape", "dtype", "layout", "scale", "zero_point", "activation")


def manifest(record: RunRecord, folder: Path) -> dict[str, Any]:
    """What an app must know to use the files in `folder`: their names, sums, inputs and outputs; what was measured; and
    the sums of what lies beside them, of the report too, so that a gate knows its figures for those that were measured.
    Which version it replaces is known when it is published. Raises ExportError where a file cannot be read."""
    source, recipe = record.source, record.recipe
    files = [_entry(artifact, Reading(artifact.channels, record.data.range), folder) for artifact in record.artifacts]
    classes = list(record.classes)
    document = {
        "schema": SCHEMA,
        "name": record.name,
        "version": record.version,
        **{key: str(recipe.get(key) or "") for key in ("description", "author", "licence")},
        "created": record.created,
        "replaces": None,
        "compatible_with": [],
        "classes": classes,
        "palette": [colour or None for colour in record.colours],
        "multilabel": record.multilabel,
        "source": {"file": Path(source.file).name, "sha256": source.sha256, "size_bytes": source.size_bytes},
        "input": input_contract(files[0]["input"]) if files else {},
        "output": output_contract(files[0]["output"], classes, record.multilabel) if files else {},
        "files": files,
        "beside": beside(folder),
        "verdict": {"passed": record.verdict.passed, "checks": list(map(verdict_line, record.verdict.checks))},
        "measurements": _measurements(record),
        "tools": record.tools,
    }
    return {key: plain(value) for key, value in document.items()}


def _entry(artifact: Artifact, reading: Reading, folder: Path) -> dict[str, Any]:
    given, made = asdict(artifact.input), asdict(artifact.output)
    said = {"pixels": reading.words, "range": reading.range}
    path = folder / artifact.path.name
    return {
        "format": artifact.format,
        "file": artifact.path.name,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        **({"runtime": oldest_runtime(path)} if path.is_file() else {}),
        "input": {key: given[key] for key in _INPUT_KEYS} | {key: value for key, value in said.items() if value},
        "output": {key: made[key] for key in _OUTPUT_KEYS},
    }


def _measurements(record: RunRecord) -> dict[str, Any]:
    """Of the heavy model and of every file, without the samples and the images, which the report has."""
    return {
        "images": record.data.val,
        "reference": record.data.reference,
        "images_sha256": record.data.val_sha256,
        "cpu": record.machine.cpu,
        "cores": record.machine.cores,
        "of": {name: _measured(found) for name, found in record.measurements.items()},
    }


def _measured(found: Measurement) -> dict[str, Any]:
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    intervals = {name: asdict(value) for name, value in values.items() if isinstance(value, Interval)}
    return {
        **({"size_bytes": found.size_bytes} if found.size_bytes is not None else {}),
        **({"latency": _latency(found.latency)} if found.latency else {}),
        **intervals,
    }


def _latency(found: Latency) -> dict[str, Any]:
    return {key: getattr(found, key) for key in ("p50_ms", "p90_ms", "threads", "runtime")}
