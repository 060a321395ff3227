"""The gate: do the exported files keep to their budget? Sizes need no runtime and no array; the rest is imported late.

Judged are the files alone. A latency is measured here, side by side with the reference where the limit names one; IoU
is measured on labelled images where there are any, or taken from the report of the very file.
"""

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.budget import Budget, Limit, Subject, Verdict, check, measured_in_run
from compress.errors import BudgetError, DataError, MeasureError
from compress.files import sha256_of
from compress.judge.gate_text import GateResult
from compress.measure.values import Interval, Latency, Measurement
from compress.release.manifest import FILE as MANIFEST
from compress.release.manifest import changed_files, read_manifest

if TYPE_CHECKING:
    from compress.data.folders import Dataset
    from compress.formats.artifact import Artifact
    from compress.measure.evaluate import Evaluation, LabelledImages

CONFIG = "compress.toml"
REPORT = "report.json"
SECONDS = 60.0
"""How long latencies are measured at most before an undecided one stays so."""
_ROUND = 5.0  # seconds for each file, in the first round
_TURNS = 10
_MAGIC = {"tflite": (4, b"TFL3"), "ort": (4, b"ORTM")}  # offset and bytes: FlatBuffers' file identifiers
_FORMATS = ("onnx", "ort", "tflite")

Pixels = tuple[float, float, float]
TakeTurns = Callable[..., dict[str, Latency]]


@dataclass(frozen=True)
class Rules:
    """What to gate by. `mean` and `std` are of the 0 to 255 pixels that a float32 input without a manifest reads."""

    limits: tuple[str, ...] = ()
    folder: Path = Path()  # that the references are named from
    mean: Pixels | None = None
    std: Pixels | None = None


@dataclass(frozen=True)
class _File:
    path: Path
    format: str
    sha256: str
    classes: tuple[str, ...] | None = None
    mean: Pixels | None = None
    std: Pixels | None = None


def read_rules(target: Path) -> Rules | None:
    """Those of compress.toml beside the target's files, or else in the current folder; None where there is neither.

    Raises RecipeError as `read_recipe` does, with the line and column of malformed TOML.
    """
    beside = target if target.is_dir() else target.parent
    path = next((folder / CONFIG for folder in (beside, Path()) if (folder / CONFIG).is_file()), None)
    if path is None:
        return None
    from compress.recipe import GateFile
    from compress.settings import read_toml, validated

    read = validated(GateFile, read_toml(path, "write one"), str(path))
    if read.preprocess is None:
        return Rules(tuple(read.budget.limits), path.parent)
    return Rules(tuple(read.budget.limits), path.parent, *read.preprocess.of_pixels())


def gate(
    target: Path,
    rules: Rules,
    *,
    data: Path | None = None,
    seconds: float = SECONDS,
    lenient: bool = False,
    base: Path | None = None,
    take_turns: TakeTurns | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> GateResult:
    """Judge a file, or every file of an output folder of `compress run`, by the limits.

    `data`: a folder with val/images and val/masks. `base`: the report.json of another run to state the change since.
    Raises a CompressError for what cannot be read or measured.
    """
    start = clock()
    budget = Budget.parse(rules.limits)
    if not budget.limits:
        raise BudgetError(f"no budget: give one, such as --budget 4MB, or write [budget] limits = [...] in {CONFIG}")
    files = _files(target)
    before = None if base is None else _base_figures(base, budget, files)
    notes = [
        f"{limit.text}: an absolute latency depends on the machine; on shared CI machines a ratio measured side by "
        "side, such as latency<=0.12x teacher.onnx, can be relied on"
        for limit in budget.limits
        if limit.metric == "latency" and not limit.reference
    ]
    found: dict[tuple[str, Limit], Interval] = {}
    wanted = {(file.format, limit): file for limit in budget.limits for file in files if _concerns(limit, file, files)}
    for (name, limit), file in wanted.items():
        if limit.metric == "size":
            size_bytes = file.path.stat().st_size
            found[name, limit] = Interval(size_bytes, size_bytes, size_bytes)
    references = {limit.reference for _, limit in wanted if limit.reference}
    paths = {reference: _reference(rules, reference) for reference in sorted(references)}
    accuracy = {key: file for key, file in wanted.items() if key[1].metric in ("iou", "iou_drop")}
    if accuracy:
        measured, said = _accuracy(accuracy, paths, rules, target, data)
        found |= measured
        notes += said
    speed = {key: file for key, file in wanted.items() if key[1].metric == "latency"}
    if speed:
        measured, said = _latencies(speed, paths, seconds, lenient, take_turns, clock)
        found |= measured
        notes += said
    checks = tuple(check(format, limit, found[format, limit], lenient=lenient) for format, limit in wanted)
    return GateResult(str(target), Verdict(checks), tuple(notes), before, clock() - start)


def _concerns(limit: Limit, file: _File, files: list[_File]) -> bool:
    return limit.concerns(file.format, [other.format for other in files])


def _files(target: Path) -> list[_File]:
    """The file, or those that the folder's manifest names, each as it says."""
    if not target.exists():
        raise MeasureError(f"{target}: no such file or folder; name an exported file or the output of compress run")
    if target.is_dir():
        return [_checked(file) for file in _described(target)]
    sha256 = sha256_of(target)
    if (target.parent / MANIFEST).is_file():
        for file in _described(target.parent, all_unchanged=False):
            if file.path.name == target.name and file.sha256 == sha256:
                return [_checked(replace(file, path=target))]
    return [_checked(_File(target, target.suffix[1:], sha256))]


def _described(folder: Path, all_unchanged: bool = True) -> list[_File]:
    manifest = read_manifest(folder)
    if all_unchanged and (changed := changed_files(folder, manifest)):
        raise MeasureError(f"{changed[0]}; gate the folder as compress run left it")
    classes = manifest.get("classes")
    named = tuple(map(str, classes)) if isinstance(classes, list) and len(classes) > 1 else None
    files = []
    for entry in manifest["files"]:
        given = entry.get("input") if isinstance(entry.get("input"), dict) else {}
        mean, std = _pixels(given.get("mean")), _pixels(given.get("std"))
        files.append(_File(folder / entry["file"], entry["format"], entry["sha256"], named, mean, std))
    return files


def _pixels(values: Any) -> Pixels | None:
    if isinstance(values, list) and len(values) == 3 and all(isinstance(value, int | float) for value in values):
        return (values[0], values[1], values[2])
    return None


def _checked(file: _File) -> _File:
    """Nothing that is plainly no model passes for being small."""
    if file.path.suffix[1:] not in _FORMATS:
        raise MeasureError(f"{file.path}: not a model that can be measured; use .onnx, .ort, .tflite")
    with file.path.open("rb") as opened:
        head = opened.read(16)
    offset, magic = _MAGIC.get(file.path.suffix[1:], (0, b""))
    if not head or head[offset : offset + len(magic)] != magic:
        raise MeasureError(f"{file.path}: {'not a model' if head else 'zero bytes'}; export it again")
    return file


def _reference(rules: Rules, reference: str) -> _File:
    path = rules.folder / reference
    if not path.is_file():
        raise MeasureError(f"{path}: no such file to compare with; mend the budget that names it")
    (file,) = _files(path)
    return file


def _latencies(
    wanted: Mapping[tuple[str, Limit], _File],
    references: Mapping[str, _File],
    seconds: float,
    lenient: bool,
    take_turns: TakeTurns | None,
    clock: Callable[[], float],
) -> tuple[dict[tuple[str, Limit], Interval], list[str]]:
    """Each in its limit's unit. While a limit is undecided, all is measured afresh for twice as long."""
    from compress.measure import latency
    from compress.measure.statistics import speedup

    measure = take_turns or latency.take_turns
    files = {name: file.path for (name, _), file in wanted.items()}
    files |= {
        f"reference {limit.reference}": references[limit.reference].path for _, limit in wanted if limit.reference
    }
    length, turns, start = min(_ROUND, seconds / len(files)), _TURNS, clock()
    while True:
        measured = measure(files, seconds=length, turns=turns)
        found = {}
        for name, limit in wanted:
            other = measured[f"reference {limit.reference}"] if limit.reference else _one_ms(measured[name])
            found[name, limit] = speedup(measured[name], other)
        undecided = [limit.text for name, limit in wanted if check(name, limit, found[name, limit]).undecided]
        spent = clock() - start
        if not undecided:
            return found, []
        if spent + 2 * length * len(files) > seconds:
            advice = "let pass, as --lenient asks" if lenient else "measure longer with --seconds, or leave more room"
            return found, [f"{text}: still undecided after {spent:.0f} s of measuring; {advice}" for text in undecided]
        length, turns = 2 * length, 2 * turns


def _one_ms(like: Latency) -> Latency:
    """So that milliseconds are a ratio too, and have the same interval."""
    return replace(like, p50_ms=1.0, p90_ms=1.0, samples_ms=(1.0,) * len(like.samples_ms))


def _accuracy(
    wanted: Mapping[tuple[str, Limit], _File],
    references: Mapping[str, _File],
    rules: Rules,
    target: Path,
    data: Path | None,
) -> tuple[dict[tuple[str, Limit], Interval], list[str]]:
    """IoU and its drop, measured on `data`; what cannot be measured here, from the report of the very file."""
    report = (target if target.is_dir() else target.parent) / REPORT
    known = _report(report) if report.is_file() else {}
    run = {key: _to_run(key[1], file, references) if data else () for key, file in wanted.items()}
    evaluations, said = _evaluations([file for files in run.values() for file in files], rules, data)
    found: dict[tuple[str, Limit], Interval] = {}
    notes = []
    for (name, limit), file in wanted.items():
        if run[name, limit]:
            found[name, limit] = _interval([evaluations[one.path] for one in run[name, limit]])
            continue
        sha256, measured = known.get(name, ("", Measurement()))
        figure = measured_in_run(limit, measured)
        if figure is None or sha256 != file.sha256:
            missing = "give --data DIR" if data is None else "name a file to compare with: iou_drop<=0.01 FILE"
            why = f"{report} describes another file" if figure else "it is not measured"
            raise MeasureError(f"{limit.text}: IoU of {file.path.name} is not known, since {why}; {missing}")
        found[name, limit] = figure
        notes.append(f"{name} {limit.kind}: from {report}, which describes this very file (sha256 {sha256[:12]})")
    notes += said
    notes += [
        f"{limit.text}: the limit lies within what {name} may have on other images: more images in val/ narrow it, "
        "and so does a drop against a reference file, image by image"
        for name, limit in wanted
        if check(name, limit, found[name, limit]).undecided
    ]
    return found, list(dict.fromkeys(notes))


def _to_run(limit: Limit, file: _File, references: Mapping[str, _File]) -> tuple[_File, ...]:
    """The files whose answers tell the figure. A drop is against the file that its limit names, or the only one that
    any limit names; where there is none, nothing tells it."""
    if limit.metric == "iou":
        return (file,)
    if limit.reference:
        return file, references[limit.reference]
    return (file, *references.values()) if len(references) == 1 else ()


def _interval(evaluations: Sequence["Evaluation"]) -> Interval:
    """IoU of one file, or how much lower it is than that of the second."""
    from compress.measure.statistics import SHARE, bootstrap_mean, paired_difference

    ours, *base = [evaluation.iou for evaluation in evaluations]
    return paired_difference(base[0], ours) if base else bootstrap_mean(ours, within=SHARE)


def _evaluations(
    files: Sequence[_File], rules: Rules, folder: Path | None
) -> tuple[dict[Path, "Evaluation"], list[str]]:
    """What each file answers on the labelled images in `folder`, and what is to be said of those images."""
    if not files or folder is None:
        return {}, []
    from compress.data.folders import open_labelled
    from compress.measure.evaluate import evaluate_each
    from compress.measure.statistics import few_images

    artifacts = {str(file.path): _artifact(file, rules) for file in files}
    classes = files[0].classes or tuple(map(str, range(artifacts[str(files[0].path)].classes)))
    for artifact in artifacts.values():
        channels = artifact.output.side("C")
        if channels not in (1, len(classes)):
            raise MeasureError(
                f"{artifact.path}: {channels} classes, others have {len(classes)}; compare files of one task"
            )
    dataset = open_labelled(folder, classes)
    found = evaluate_each(artifacts, _to_measure_on(dataset))
    notes = [f"IoU is of {len(dataset.val)} images in {folder}", *dataset.warnings, *few_images(len(dataset.val))]
    return {Path(path): evaluation for path, evaluation in found.items()}, notes


def _artifact(file: _File, rules: Rules) -> "Artifact":
    """What the file is. What a float32 input reads it says itself, or its manifest, or the rules."""
    from compress.runtime.local import describe_in_child

    artifact = describe_in_child(file.path).reading(file.mean, file.std).reading(rules.mean, rules.std)
    if artifact.unknown_input:
        raise MeasureError(
            f"{file.path}: a float32 input needs to be told what it reads; write [preprocess] with mean and std in "
            f"{CONFIG}"
        )
    return artifact


def _to_measure_on(dataset: "Dataset") -> "LabelledImages":
    """The images in memory, once for each size; a gate writes nothing into the cache."""
    import numpy as np

    from compress.data.images import read_image
    from compress.measure.evaluate import LabelledImages

    @functools.cache
    def pixels(size: tuple[int, int]) -> np.ndarray:
        return np.stack([read_image(sample.image, size) for sample in dataset.val])

    return LabelledImages.of(dataset, pixels)


def _base_figures(path: Path, budget: Budget, files: list[_File]) -> dict[Subject, float]:
    """What the checks of this gate gave in another run, where its report knows."""
    measured = _report(path)
    found: dict[Subject, float] = {}
    for limit in budget.limits:
        for file in files:
            figure = measured_in_run(limit, measured.get(file.format, ("", Measurement()))[1])
            if figure is not None and _concerns(limit, file, files):
                found[file.format, limit.metric, limit.reference] = figure.mean
    return found


def _report(path: Path) -> dict[str, tuple[str, Measurement]]:
    """sha256 and measurement of every format in a report.json, also one that an older version wrote.

    Raises DataError for any other file.
    """
    try:
        document = json.loads(path.read_text())
        measurements = document["measurements"]
        sums = {artifact["format"]: artifact["sha256"] for artifact in document["artifacts"]}
        return {name: (sums[name], _measurement(measurements.get(name) or {})) for name in sums}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name the {REPORT} of a run") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: not a report of compress run; name its {REPORT}") from None


def _measurement(document: dict[str, Any]) -> Measurement:
    def interval(key: str) -> Interval | None:
        found = document.get(key)
        if found is None or None in found.values():
            return None
        return Interval(float(found["mean"]), float(found["low"]), float(found["high"]))

    size, latency = document.get("size_bytes"), document.get("latency") or {}
    p50_ms, p90_ms = latency.get("p50_ms"), latency.get("p90_ms")
    return Measurement(
        size_bytes=None if size is None else int(size),
        latency=None if p50_ms is None or p90_ms is None else Latency(float(p50_ms), float(p90_ms), (), 0, ""),
        iou=interval("iou"),
        speedup=interval("speedup"),
        iou_drop=interval("iou_drop"),
    )
