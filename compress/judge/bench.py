"""What exported files do, measured side by side and from the files alone, whoever wrote them."""

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compress.data.folders import Dataset, open_labelled
from compress.data.images import Size
from compress.data.packed import pack_images
from compress.errors import MeasureError, RecipeError
from compress.files import cache_folder
from compress.formats.artifact import Artifact
from compress.judge.bench_text import Bench, BenchRecord
from compress.machine import THREADS, cores
from compress.measure.cold import deflated_bytes, launch
from compress.measure.evaluate import Evaluation, LabelledImages, class_iou, image_agreements, measure
from compress.measure.latency import advice
from compress.measure.statistics import SHARE, bootstrap_mean, change, few_images, fold_means
from compress.recipe import MeasureSection, PreprocessSection, Recipe
from compress.runtime.kernels import Kernels
from compress.runtime.local import Child
from compress.settings import validated

log = logging.getLogger("compress")

MOST_THREADS = 256


@dataclass(frozen=True)
class Options:
    """What to measure against and how. `mean` and `std` are of a float32 input, (pixel / 255 - mean) / std per RGB
    channel; None: the recipe's. `folds`: parts of the images for which IoU is given one by one."""

    against: Path | None = None
    data: Path | None = None
    recipe: Recipe | None = None
    threads: int = THREADS
    seconds: float | None = None
    folds: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

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
    paths = _named([*files, *([options.against] if options.against else [])])
    against = list(paths)[-1] if options.against else None
    known = {name: _describe(path) for name, path in paths.items()}
    artifacts = {name: artifact for name, (artifact, _) in known.items()}
    dataset, warnings = _open_images(artifacts, options)
    load, here = round(os.getloadavg()[0], 2), cores()
    cold = launch(paths, threads=options.threads)
    measured = measure(
        {name: _with_preprocessing(artifact, options) for name, artifact in artifacts.items()},
        _to_measure_on(dataset) if dataset else None,
        against=against,
        threads=options.threads,
        seconds=options.seconds or options.measure.seconds,
    )
    latency = {name: each.measurement.latency for name, each in measured.items() if each.measurement.latency}
    found = {
        name: Bench(path, latency[name].runtime, deflated_bytes(path), cold[name], known[name][1], each.measurement)
        for (name, path), each in zip(paths.items(), measured.values(), strict=True)
    }
    if dataset:
        base = measured[against].evaluation if against else None
        for name, figures in found.items():
            ours, theirs = measured[name].evaluation, base if name != against else None
            found[name] = _with_details(figures, ours, theirs, dataset, options) if ours else figures
    return BenchRecord(
        files=found,
        against=against,
        margin=options.measure.margin,
        images=len(dataset.val) if dataset else 0,
        threads=options.threads,
        load=load,
        cores=here,
        warnings=(*warnings, *advice(latency, load, here)),
    )


def _open_images(artifacts: dict[str, Artifact], options: Options) -> tuple[Dataset | None, list[str]]:
    """The labelled images, where there are any, and what makes figures on them less certain."""
    if options.data is None:
        return None, []
    dataset = open_labelled(options.data, _classes(artifacts, options.recipe))
    if options.folds and options.folds > len(dataset.val):
        raise RecipeError(f"--folds {options.folds}: there are {len(dataset.val)} images")
    return dataset, [*dataset.warnings, *_cautions(artifacts, options), *few_images(len(dataset.val))]


def _to_measure_on(dataset: Dataset) -> LabelledImages:
    @functools.cache
    def pixels(size: Size) -> np.ndarray:
        return pack_images([sample.image for sample in dataset.val], size, cache_folder()).array

    return LabelledImages.of(dataset, pixels)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """By file name where that tells them apart, else by path; one that is there twice is measured twice."""
    named: dict[str, Path] = {}
    for path in paths:
        name = path.name if sum(other.name == path.name for other in set(paths)) == 1 else str(path)
        copies = sum(other == path for other in named.values())
        named[f"{name} ({copies + 1})" if copies else name] = path
    return named


def _describe(path: Path) -> tuple[Artifact, Kernels | None]:
    with Child(path, threads=1) as child:
        artifact = child.describe()
        try:
            return artifact, child.kernels()
        except MeasureError as error:  # a foreign file may run well and yet not let itself be looked into
            log.info("which operators run outside the delegate is not known: %s", error)
            return artifact, None


def _classes(artifacts: dict[str, Artifact], recipe: Recipe | None) -> tuple[str, ...]:
    """Of all the files, by the channels of their maps; names from the recipe or from labels.txt beside a file."""
    counts = {name: artifact.classes for name, artifact in artifacts.items()}
    count = max(counts.values())
    if min(counts.values()) != count:
        each = ", ".join(f"{name} has {number}" for name, number in counts.items())
        raise MeasureError(f"{each} classes: masks of different classes cannot be compared; leave --data out")
    named = [tuple(recipe.model.classes)] if recipe else []
    for artifact in artifacts.values():
        labels = artifact.path.parent / "labels.txt"
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
    drops = {
        "IoU": figures.measurement.iou_drop,
        "boundary IoU": figures.measurement.boundary_iou_drop,
        "IoU of the worst tenth": figures.measurement.worst_decile_iou_drop,
    }
    ranked = np.argsort(ours.iou, kind="stable")[: -(-len(ours.iou) // 10)]
    return replace(
        figures,
        class_iou=class_iou(ours, dataset.classes),
        worst_images=tuple(dataset.val[index].image.name for index in ranked),
        agreement=bootstrap_mean(image_agreements(ours, base), within=SHARE) if base else None,
        changes={name: change(drop, options.measure.margin) for name, drop in drops.items() if drop},
        folds=fold_means(ours.iou, options.folds) if options.folds else (),
    )


def _with_preprocessing(artifact: Artifact, options: Options) -> Artifact:
    """What a float32 input reads that the file does not state: what the options say, or the recipe, or 0 to 1."""
    trained = options.recipe.preprocess if options.recipe else PreprocessSection()
    return artifact.reading(*trained.model_copy(update=options.said).of_pixels())
