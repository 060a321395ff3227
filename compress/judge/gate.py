"""The gate: do the exported files keep to their budget? Sizes need no runtime; the rest is imported late.

Judged are the files alone. A latency is measured here, side by side with the reference where the limit names one; IoU
is measured on labelled images where there are any, or taken from the report of the very file.
"""

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compress.budget import ACCURACY, AT_LEAST, Budget, Limit, Subject, Verdict, check, exactly, measured_in_run
from compress.errors import BudgetError, MeasureError, RecipeError
from compress.judge.figures import Figures, Report, read_figures, report_beside
from compress.judge.gate_text import GateResult
from compress.judge.shipped import Colours, ShippedFile, shipped
from compress.machine import busy
from compress.measure.values import Interval, Latency

if TYPE_CHECKING:
    from compress.data.coding import Coding
    from compress.data.folders import Dataset
    from compress.data.images import Reading, Size
    from compress.formats.artifact import Artifact
    from compress.measure.evaluate import Evaluation, LabelledImages
    from compress.recipe import MasksSection

CONFIG = "compress.toml"
SECONDS = 60.0
"""How long latencies are measured at most before an undecided one stays so."""
_ROUND = 5.0  # seconds for each file, in the first round
_TURNS = 10
TakeTurns = Callable[..., dict[str, Latency]]


@dataclass(frozen=True)
class Rules:
    """What to gate by. `mean` and `std` are of the 0 to 255 pixels that a float32 input without a manifest reads,
    `range` of the values of more than 8 bits in its images; `masks`: what the masks of labelled images hold;
    `registry`: where a folder's version, once published, is the same."""

    limits: tuple[str, ...] = ()
    folder: Path = Path()  # that the references are named from
    mean: Colours | None = None
    std: Colours | None = None
    masks: "MasksSection | None" = None
    range: tuple[float, float] | None = None
    registry: str | None = None


def read_rules(target: Path) -> Rules | None:
    """Those of compress.toml beside the target's files, or else in the current folder; None where there is neither.

    Raises RecipeError as `read_recipe` does, with the line and column of malformed TOML.
    """
    beside = target if os.path.isdir(target) else target.parent
    path = next((folder / CONFIG for folder in (beside, Path()) if os.path.lexists(folder / CONFIG)), None)
    if path is None:
        return None
    from compress.recipe import GateFile
    from compress.settings import read_toml, validated

    read = validated(GateFile, read_toml(path, "write one"), str(path))
    registry = read.registry if read.registry is None or "://" in read.registry else str(path.parent / read.registry)
    rules = Rules(tuple(read.budget.limits), path.parent, masks=read.data, registry=registry)
    if read.preprocess is None:
        return rules
    mean, std = read.preprocess.of_pixels()
    return replace(rules, mean=mean, std=std, range=read.preprocess.range)


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
    places = {limit.reference: rules.folder / limit.reference for limit in budget.limits if limit.reference}
    files = shipped(target, places.values())
    if rules.registry and os.path.isdir(target):
        from compress.registry.release import check_as_published

        check_as_published(target, rules.registry)
    report = report_beside(target, files) if os.path.isdir(target) else None
    before, notes = _base_figures(base, budget, files)
    notes += [
        f"{limit.text}: an absolute latency depends on the machine; on shared CI machines a ratio measured side by "
        "side, such as latency<=1.1x FILE of an earlier release, can be relied on"
        for limit in budget.limits
        if limit.metric == "latency" and not limit.reference
    ]
    found: dict[tuple[str, Limit], Interval] = {}
    wanted = {(file.format, limit): file for limit in budget.limits for file in files if _concerns(limit, file, files)}
    for (name, limit), file in wanted.items():
        if limit.metric == "size":
            found[name, limit] = exactly(file.size_bytes)
            notes += [
                f"{name} size: with {each.name}, which holds weights of {file.path.name}" for each in file.outside
            ]
        if limit.metric == "macs":
            count, said = _macs(file)
            found |= {(name, limit): exactly(count)} if count is not None else {}
            notes += said
    named = sorted({limit.reference for _, limit in wanted if limit.reference})
    references = {name: _reference(places[name]) for name in named}
    accuracy = {key: file for key, file in wanted.items() if key[1].metric in ACCURACY}
    if accuracy:
        measured, said = _accuracy(accuracy, references, rules, report or report_beside(target, files), data)
        found |= measured
        notes += said
    speed = {key: file for key, file in wanted.items() if key[1].metric == "latency"}
    if speed:
        notes += [sentence] if (sentence := busy()) else []
        measured, said = _latencies(speed, references, seconds, lenient, take_turns, clock)
        found |= measured
        notes += said
    checks = tuple(check(format, limit, found.get((format, limit)), lenient=lenient) for format, limit in wanted)
    return GateResult(str(target), Verdict(checks), tuple(dict.fromkeys(notes)), before, clock() - start)


def _concerns(limit: Limit, file: ShippedFile, files: list[ShippedFile]) -> bool:
    return limit.concerns(file.format, [other.format for other in files])


def _macs(file: ShippedFile) -> tuple[int | None, list[str]]:
    """Multiply-accumulates of a file, and why they are not known."""
    from compress.runtime.local import Child

    with Child(file.path, threads=1) as child:
        try:
            return child.macs(), []
        except MeasureError as error:
            return None, [str(error)]


def _reference(path: Path) -> ShippedFile:
    if not path.is_file():
        raise MeasureError(
            f"{path}: no such file to compare with; mend the budget that names it: the file of an earlier release, or "
            "the heavy model's, of which compress run says where it is"
        )
    (file,) = shipped(path)
    return file


def _latencies(
    wanted: Mapping[tuple[str, Limit], ShippedFile],
    references: Mapping[str, ShippedFile],
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
    wanted: Mapping[tuple[str, Limit], ShippedFile],
    references: Mapping[str, ShippedFile],
    rules: Rules,
    report: Report | None,
    data: Path | None,
) -> tuple[dict[tuple[str, Limit], Interval], list[str]]:
    """IoU and its drop, measured on `data`; what cannot be measured here, from the report of the very file."""
    run = {key: _to_run(key[1], file, references) if data else () for key, file in wanted.items()}
    evaluations, said = _evaluations([file for files in run.values() for file in files], rules, data)
    found: dict[tuple[str, Limit], Interval] = {}
    notes = []
    for (name, limit), file in wanted.items():
        if run[name, limit]:
            found[name, limit] = _interval(limit, [evaluations[one.path] for one in run[name, limit]])
            continue
        figure = measured_in_run(limit, report.of(file).measured) if report else None
        if report is None or figure is None or not report.describes(file):
            missing = "give --data DIR" if data is None else f"name a file to compare with: {limit.metric}<=0.01 FILE"
            why = f"{report.path} describes another file" if report and figure else "it is not measured"
            raise MeasureError(f"{limit.text}: IoU of {file.path.name} is not known, since {why}; {missing}")
        found[name, limit] = figure
        notes.append(f"{name} {limit.kind}: from {report.path}, which describes this very file ({file.sha256[:12]})")
        if not report.vouched:
            notes.append(f"{report.path}: its sum is not in manifest.json, so nothing shows that nobody edited it")
    notes += said
    notes += [
        f"{limit.text}: the limit lies within what {name} may have on other images: more images in val/ narrow it, "
        "and so does a drop against a reference file, image by image"
        for name, limit in wanted
        if check(name, limit, found[name, limit]).undecided
    ]
    return found, list(dict.fromkeys(notes))


def _to_run(limit: Limit, file: ShippedFile, references: Mapping[str, ShippedFile]) -> tuple[ShippedFile, ...]:
    """The files whose answers tell the figure. A drop is against the file that its limit names, or the only one that
    any limit names; where there is none, nothing tells it."""
    if limit.metric in AT_LEAST:
        return (file,)
    if limit.reference:
        return file, references[limit.reference]
    return (file, *references.values()) if len(references) == 1 else ()


def _interval(limit: Limit, evaluations: Sequence["Evaluation"]) -> Interval:
    """IoU or mIoU of one file, or how much lower it is than that of the second."""
    from compress.measure.evaluate import miou, miou_drop
    from compress.measure.statistics import SHARE, bootstrap_mean, paired_difference

    ours, *base = evaluations
    if limit.metric in ("miou", "miou_drop"):
        return miou_drop(base[0], ours) if base else miou(ours)
    return paired_difference(base[0].iou, ours.iou) if base else bootstrap_mean(ours.iou, within=SHARE)


def _evaluations(
    files: Sequence[ShippedFile], rules: Rules, folder: Path | None
) -> tuple[dict[Path, "Evaluation"], list[str]]:
    """What each file answers on the labelled images in `folder`, and what is to be said of those images."""
    if not files or folder is None:
        return {}, []
    from compress.data.folders import open_labelled
    from compress.data.images import Reading
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
    known = next((file.range for file in files if file.range), rules.range)
    reading = Reading(artifacts[str(files[0].path)].channels, known)
    multilabel = True if files[0].multilabel else None
    dataset = open_labelled(folder, classes, _coding(rules, classes), reading, multilabel)
    found = evaluate_each(artifacts, _to_measure_on(dataset))
    notes = [f"IoU is of {len(dataset.val)} images in {folder}", *dataset.warnings, *few_images(len(dataset.val))]
    return {Path(path): evaluation for path, evaluation in found.items()}, notes


def _coding(rules: Rules, classes: Sequence[str]) -> "Coding | None":
    """What masks hold, where the rules say so. Raises RecipeError where that does not fit the files' classes."""
    from compress.data.coding import Coding

    try:
        return Coding.of(rules.masks, classes) if rules.masks else None
    except ValueError as error:
        raise RecipeError(f"{CONFIG}: {error}") from None


def _artifact(file: ShippedFile, rules: Rules) -> "Artifact":
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
    def pixels(size: "Size", reading: "Reading") -> np.ndarray:
        return np.stack([read_image(sample.image, size, reading) for sample in dataset.val])

    return LabelledImages.of(dataset, pixels)


def _base_figures(
    path: Path | None, budget: Budget, files: list[ShippedFile]
) -> tuple[dict[Subject, float] | None, list[str]]:
    """What the checks of this gate gave in another run, where its report knows, and what is to be said of it."""
    if path is None:
        return None, []
    if not os.path.lexists(path):
        return None, [f"{path}: no such report of a base branch; the change since it is not stated"]
    figures = read_figures(path)
    found: dict[Subject, float] = {}
    for limit in budget.limits:
        for file in files:
            figure = measured_in_run(limit, figures.get(file.format, Figures()).measured)
            if figure is not None and _concerns(limit, file, files):
                found[file.format, limit.metric, limit.reference] = figure.mean
    return found, []
