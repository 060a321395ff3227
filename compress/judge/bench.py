"""What exported files do, measured side by side and from the files alone, whoever wrote them."""

import functools
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from compress.data.coding import Coding
from compress.data.folders import Dataset, open_labelled
from compress.data.images import Reading, Size
from compress.data.packed import pack_images
from compress.errors import CompressError, MeasureError, RecipeError
from compress.files import cache_folder, size_of
from compress.formats.artifact import Artifact
from compress.formats.sized import is_free, with_size
from compress.formats.whole import check_whole
from compress.judge.bench_text import Bench, BenchRecord, drops
from compress.machine import THREADS, cores, load
from compress.measure.cold import LAUNCHES, deflated_bytes, launch
from compress.measure.evaluate import Evaluation, LabelledImages, class_iou, image_agreements, measure
from compress.measure.latency import advice
from compress.measure.stability import IMAGES as STABLE_IMAGES
from compress.measure.statistics import SHARE, bootstrap_mean, change, few_images, fold_means
from compress.recipe import MeasureSection, PreprocessSection, Recipe
from compress.release.manifest import tells_labels
from compress.runtime.kernels import Kernels
from compress.runtime.local import Child
from compress.settings import validated

log = logging.getLogger("compress")

MOST_THREADS = 256
_IMAGE_SECONDS = 0.02  # to read an image and compare its mask


@dataclass(frozen=True)
class Options:
    """What to measure against and how. `mean` and `std` are of a float32 input, (pixel / 255 - mean) / std per channel;
    None: the recipe's. `folds`: parts of the images for which IoU is given one by one. `size`: height and
    width of the images that a file reads which leaves them open."""

    against: Path | None = None
    data: Path | None = None
    recipe: Recipe | None = None
    threads: int = THREADS
    seconds: float | None = None
    folds: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: Size | None = None

    def check(self) -> None:
        """Raises RecipeError for what makes no sense."""
        if not 1 <= self.threads <= MOST_THREADS:
            raise RecipeError(f"--threads {self.threads}: from 1 to {MOST_THREADS}")
        if self.seconds is not None:
            validated(MeasureSection, {"seconds": self.seconds}, "options", {"seconds": "--seconds"})
        validated(PreprocessSection, self.said, "options", {"mean": "--mean", "std": "--std"})
        if self.folds is not None and self.folds < 2:
            raise RecipeError(f"--folds {self.folds}: a set has at least 2 parts")
        if self.folds is not None and self.data is None:
            raise RecipeError("--folds: divides labelled images; name their folder with --data")

    @property
    def said(self) -> dict[str, tuple[float, ...]]:
        """Of mean and std, those that are given."""
        return {name: values for name, values in (("mean", self.mean), ("std", self.std)) if values is not None}

    @property
    def measure(self) -> MeasureSection:
        return self.recipe.measure if self.recipe else MeasureSection()


def bench(files: Sequence[Path], options: Options) -> BenchRecord:
    """Measures `files`, and the one that they are compared with.

    Every file is opened in child processes alone. Raises MeasureError, DataError or RecipeError.
    """
    options.check()
    originals = _named([*files, *([options.against] if options.against else [])])
    shipped = {name: (path, *check_whole(path)) for name, path in originals.items()}
    with _with_size(originals, options.size) as paths:
        return _bench(originals, paths, shipped, options)


def _bench(
    originals: dict[str, Path], paths: dict[str, Path], shipped: dict[str, tuple[Path, ...]], options: Options
) -> BenchRecord:
    """`paths`: the files to open; `shipped`: each file, and those that hold weights of it."""
    against = list(paths)[-1] if options.against else None
    known = {name: _describe(path) for name, path in paths.items()}
    artifacts = {
        name: replace(each.artifact, size_bytes=sum(map(size_of, shipped[name]))) for name, each in known.items()
    }
    dataset, warnings = _open_images(artifacts, originals, options)
    seconds, images = options.seconds or options.measure.seconds, len(dataset.val) if dataset else 0
    log.info("bench: about %s", _duration(sum(each.expected_seconds(seconds, images) for each in known.values())))
    readable = {name: _with_preprocessing(artifact, options) for name, artifact in artifacts.items()}
    noted, here = load(), cores()
    cold = launch(paths, threads=options.threads)
    measured = measure(
        readable,
        _to_measure_on(dataset) if dataset else None,
        against=against,
        threads=options.threads,
        seconds=seconds,
    )
    latency = {name: each.measurement.latency for name, each in measured.items() if each.measurement.latency}
    found = {
        name: Bench(
            file=originals[name],
            runtime=latency[name].runtime,
            deflated_bytes=sum(map(deflated_bytes, shipped[name])),
            cold=cold[name],
            kernels=known[name].kernels,
            measurement=each.measurement,
        )
        for name, each in measured.items()
    }
    if dataset:
        base = measured[against].evaluation if against else None
        for name, figures in found.items():
            ours, theirs = measured[name].evaluation, base if name != against else None
            found[name] = _with_details(figures, ours, theirs, dataset, options) if ours else figures
    for figures in found.values():
        _check_finite(figures)
    return BenchRecord(
        files=found,
        against=against,
        margin=options.measure.margin,
        images=images,
        threads=options.threads,
        load=noted,
        cores=here,
        warnings=(*warnings, *advice(latency, noted, here)),
    )


@contextmanager
def _with_size(paths: dict[str, Path], size: Size | None) -> Iterator[dict[str, Path]]:
    """Where to open each file: a copy of that size of those that leave it open."""
    free = [name for name, path in paths.items() if is_free(path)]
    if free and size is None:
        raise MeasureError(
            f"{paths[free[0]]}: reads images of any height and width; give one with --size, such as --size 320x320, or "
            "export it with a fixed size"
        )
    if size is not None and not free:
        raise RecipeError(f"--size: no file leaves height and width open, {next(iter(paths))} for one; leave it out")
    with TemporaryDirectory(prefix="compress-") as folder:
        copies = {name: Path(folder) / str(index) / paths[name].name for index, name in enumerate(free)}
        for name, copy in copies.items():
            copy.parent.mkdir()
            with_size(paths[name], size or (1, 1), copy)
        try:
            yield paths | copies
        except CompressError as error:
            text = str(error)
            for name, copy in copies.items():
                text = text.replace(str(copy), str(paths[name]))
            raise type(error)(text) from None


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _check_finite(figures: Bench) -> None:
    """Raises MeasureError for a figure that is no number: what it was computed from cannot be relied on either."""
    for key, value in _numbers(asdict(figures)):
        if not math.isfinite(value):
            raise MeasureError(f"{figures.file}: {key} is {value}; the file gives values that are no numbers")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield key, value
    elif isinstance(value, dict | list | tuple):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(item, f"{key}.{name}".lstrip("."))


def _open_images(
    artifacts: dict[str, Artifact], originals: dict[str, Path], options: Options
) -> tuple[Dataset | None, list[str]]:
    """The labelled images, where there are any, and what makes figures on them less certain."""
    if options.data is None:
        return None, []
    recipe = options.recipe
    coding = Coding.of(recipe.data, recipe.model.classes) if recipe else None
    reading = Reading(next(iter(artifacts.values())).channels, recipe.preprocess.range if recipe else None)
    said = recipe.model.multilabel if recipe else None
    multilabel = True if any(map(tells_labels, originals.values())) else said
    dataset = open_labelled(options.data, _classes(artifacts, originals, recipe), coding, reading, multilabel)
    if options.folds and options.folds > len(dataset.val):
        raise RecipeError(f"--folds {options.folds}: there are {len(dataset.val)} images")
    return dataset, [*dataset.warnings, *_cautions(artifacts, options), *few_images(len(dataset.val))]


def _to_measure_on(dataset: Dataset) -> LabelledImages:
    @functools.cache
    def pixels(size: Size, reading: Reading) -> np.ndarray:
        return pack_images([sample.image for sample in dataset.val], size, cache_folder(), reading).array

    return LabelledImages.of(dataset, pixels)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """By file name where that tells them apart, else by path; one that is there twice is measured twice."""
    named: dict[str, Path] = {}
    for path in paths:
        name = path.name if sum(other.name == path.name for other in set(paths)) == 1 else str(path)
        copies = sum(other == path for other in named.values())
        named[f"{name} ({copies + 1})" if copies else name] = path
    return named


@dataclass(frozen=True)
class _Opened:
    """What opening a file once told. `open_seconds`: of a process with a few inferences; `infer_seconds`: of one."""

    artifact: Artifact
    kernels: Kernels | None
    open_seconds: float
    infer_seconds: float

    def expected_seconds(self, timed: float, images: int) -> float:
        """Of measuring it: it is opened afresh for each part, timed, and answers for each image and those that change
        a little."""
        openings = (LAUNCHES + 1 + 2 * bool(images)) * self.open_seconds
        changed = 3 * min(images, STABLE_IMAGES)
        return openings + timed + (images + changed) * (self.infer_seconds + _IMAGE_SECONDS)


def _describe(path: Path) -> _Opened:
    start = time.monotonic()
    with Child(path, threads=1) as child:
        artifact = child.describe()
        infer = min(child.time(2)) / 1e3
        try:
            kernels = child.kernels()
        except MeasureError as error:  # a foreign file may run well and yet not let itself be looked into
            log.info("which operators run outside the delegate is not known: %s", error)
            kernels = None
    return _Opened(artifact, kernels, time.monotonic() - start, infer)


def _classes(artifacts: dict[str, Artifact], originals: dict[str, Path], recipe: Recipe | None) -> tuple[str, ...]:
    """Of all the files, by the channels of their maps; names from the recipe or from labels.txt beside a file."""
    counts = {name: artifact.classes for name, artifact in artifacts.items()}
    count = max(counts.values())
    if min(counts.values()) != count:
        each = ", ".join(f"{name} has {number}" for name, number in counts.items())
        raise MeasureError(f"{each} classes: masks of different classes cannot be compared; leave --data out")
    named = [tuple(recipe.model.classes)] if recipe else []
    for path in originals.values():
        labels = path.parent / "labels.txt"
        if labels.is_file():
            named.append(tuple(labels.read_text(errors="replace").split("\n")[:-1]))
    plain = ("background", "object") if count == 2 else tuple(f"class {id}" for id in range(count))
    return next((names for names in named if len(names) == len(set(names)) == count), plain)


def _cautions(artifacts: dict[str, Artifact], options: Options) -> list[str]:
    found = []
    unsaid = [name for name, artifact in artifacts.items() if artifact.unknown_input]
    floats = [name for name, artifact in artifacts.items() if artifact.input.dtype == "float32"]
    said = ", ".join(name for name in floats if name not in unsaid)
    if said and (options.mean or options.std):
        found.append(f"{said}: its own mean and std are heard; --mean and --std are for a file that states none")
    if unsaid and not options.recipe and not options.mean and not options.std:
        found.append(
            f"{', '.join(unsaid)}: a float32 input, and nothing says of what: pixels were given as 0 to 1; say what it "
            "was trained with, by --mean and --std, or by --recipe"
        )
    return found


def _with_details(
    figures: Bench, ours: Evaluation, base: Evaluation | None, dataset: Dataset, options: Options
) -> Bench:
    """With what a bench says of the images beside the measurement: class by class, part by part, the worst ones."""
    ranked = np.argsort(ours.iou, kind="stable")[: -(-len(ours.iou) // 10)]
    return replace(
        figures,
        class_iou={each.name: each.iou for each in figures.measurement.by_class} or class_iou(ours, dataset.classes),
        worst_images=tuple(dataset.val[index].image.name for index in ranked),
        agreement=bootstrap_mean(image_agreements(ours, base), within=SHARE) if base else None,
        changes={name: change(drop, options.measure.margin) for name, drop in drops(figures.measurement).items()},
        folds=fold_means(ours.iou, options.folds) if options.folds else (),
    )


def _with_preprocessing(artifact: Artifact, options: Options) -> Artifact:
    """What a float32 input reads that the file does not state: what the options say, or the recipe, or 0 to 1."""
    trained = options.recipe.preprocess if options.recipe else PreprocessSection().of_channels(artifact.channels)
    return artifact.reading(*trained.model_copy(update=options.said).of_pixels())
