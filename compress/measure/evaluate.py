"""These files on these images -> measurements: the one way, from the files alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from compress.data.folders import Dataset
from compress.data.images import Reading, Size, read_mask
from compress.formats.artifact import LOGITS, Artifact
from compress.machine import THREADS, give_way
from compress.measure.latency import take_turns
from compress.measure.masks import (
    boundary_image_iou,
    class_ids,
    confusion,
    mean_iou,
    overlap,
    overlap_in,
    small_objects_found,
)
from compress.measure.stability import Stability, stability
from compress.measure.statistics import (
    DIFFERENCE,
    SHARE,
    bootstrap,
    bootstrap_mean,
    bootstrap_sums,
    mean_over_classes,
    mean_over_classes_lost,
    paired_difference,
    ratio,
    speedup,
    tail_difference,
    worst_decile,
)
from compress.measure.values import ClassFigures, Interval, Measurement
from compress.runtime.local import Child
from compress.terminal.progress import tqdm

if TYPE_CHECKING:
    from compress.measure.known import Known


MANY = 2
"""Of more classes each is told of on its own."""
CONFUSED = 3
"""Other classes that are named."""


@dataclass(frozen=True)
class LabelledImages:
    """What files are measured on. `pixels` gives the images at a size (height, width) with so many channels, uint8
    [N, H, W, channels].

    `masks` gives a mask for each, class ids uint8 [H, W] of any size, anew at each call; None: there are no labels,
    and the answers of the file that the others are compared with take their place. `multilabel`: masks are sets of
    labels.
    """

    classes: tuple[str, ...]
    pixels: Callable[[Size, int], np.ndarray]
    masks: Callable[[], Iterable[np.ndarray]] | None
    multilabel: bool = False

    @classmethod
    def of(cls, dataset: Dataset, pixels: Callable[[Size, Reading], np.ndarray]) -> "LabelledImages":
        """The images to measure on of a set, whose pixels the caller reads in its own way."""

        def of_channels(size: Size, channels: int) -> np.ndarray:
            return pixels(size, replace(dataset.reading, channels=channels))

        def masks() -> Iterable[np.ndarray]:
            return (read_mask(sample.mask, dataset.coding) for sample in dataset.val if sample.mask)

        labelled = masks if dataset.reference == "labels" else None
        return cls(dataset.classes, of_channels, labelled, dataset.multilabel)


@dataclass(frozen=True)
class Evaluation:
    """What a file answers on some images. `intersections` and `unions` are pixels of each class, background too, int64
    [N, classes]; `confusion` those of all images, int64 [classes, classes], by the class of the mask and by what is
    predicted. `small_found` has, for each image, a value for each small object in its mask."""

    iou: tuple[float, ...]
    predictions: np.ndarray  # masks at the network's output size, uint8 [N, h, w], of labels int32
    boundary_iou: tuple[float, ...] = ()
    intersections: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    unions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    small_found: tuple[tuple[bool, ...], ...] = ()
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))


@dataclass(frozen=True)
class Measured:
    """One file's figures, and the answers that they come from; None: there were no images."""

    measurement: Measurement
    evaluation: Evaluation | None


def measure(
    files: Mapping[str, Artifact],
    images: LabelledImages | None = None,
    *,
    against: str | None = None,
    threads: int = THREADS,
    seconds: float = 5.0,
    known: "Mapping[str, Known] | None" = None,
    told: Mapping[str, Evaluation] | None = None,
) -> dict[str, Measured]:
    """Bytes, work and latency of each file, and what `images` tell of it: of `told` first, then in the order of
    `files`.

    Speed-ups and drops are against the one that `against` names, taken in the same turns and on the same images.
    `known`: where the answers of some of the files are kept; their latency never is. `told`: by name, what is no file
    answers on the images, of which there is no more. Raises MeasureError.
    """
    known, told = known or {}, told or {}
    latency = take_turns({name: artifact.path for name, artifact in files.items()}, threads=threads, seconds=seconds)
    evaluations = dict(told)
    if images:
        evaluations |= evaluate_each(files, images, first=against, threads=threads, known=known, told=told)
    found = {
        name: Measured(accuracy(each, classes=images.classes if images else ()), each) for name, each in told.items()
    }
    for name, artifact in files.items():
        base = None if name == against else against
        measurement = Measurement()
        if images is not None:
            pixels, multilabel = images.pixels(artifact.size, artifact.channels), images.multilabel
            make = partial(stability, artifact, pixels, threads=threads, multilabel=multilabel)
            stable = known[name].stability(artifact, pixels, make, multilabel) if name in known else make()
            measurement = accuracy(evaluations[name], evaluations.get(base) if base else None, stable, images.classes)
        measurement = replace(
            measurement,
            size_bytes=artifact.size_bytes,
            macs=artifact.macs,
            latency=latency[name],
            speedup=speedup(latency[base], latency[name]) if base in latency else None,
        )
        found[name] = Measured(measurement, evaluations.get(name))
    return found


def evaluate_each(
    files: Mapping[str, Artifact],
    images: LabelledImages,
    *,
    first: str | None = None,
    threads: int = THREADS,
    known: "Mapping[str, Known] | None" = None,
    told: Mapping[str, Evaluation] | None = None,
) -> dict[str, Evaluation]:
    """What each file answers. Without labels the answers of the one that is called `first`, of the files or in `told`,
    are the masks of the others. Raises MeasureError."""
    found: dict[str, Evaluation] = dict(told or {})
    for name in sorted(files, key=lambda name: name != first):
        masks = images.masks
        if masks is None and first in found:
            masks = partial(iter, found[first].predictions)
        file, classes = files[name], len(images.classes)
        pixels = images.pixels(file.size, file.channels)
        make = partial(_answered, file, pixels, masks, classes, threads, images.multilabel)
        kept = (known or {}).get(name)
        found[name] = kept.evaluation(file, pixels, masks, classes, make, images.multilabel) if kept else make()
    return found


def _answered(
    artifact: Artifact,
    images: np.ndarray,
    masks: Callable[[], Iterable[np.ndarray]] | None,
    classes: int,
    threads: int,
    multilabel: bool,
) -> Evaluation:
    return evaluate(artifact, images, masks and masks(), classes, multilabel=multilabel, threads=threads)


def evaluate(
    artifact: Artifact,
    images: np.ndarray,
    masks: Iterable[np.ndarray] | None,
    classes: int,
    *,
    multilabel: bool = False,
    threads: int = THREADS,
    open_child: Callable[[Path, int], Child] = Child,
) -> Evaluation:
    """Runs the file, in a child process, on `images`: uint8 [N, H, W, channels], N at least 1, at its input size.

    `masks` are [H, W] of any size, one for each image; the probabilities are resized to it
    bilinearly before the class is chosen. None: there are no labels, and the file is its own
    reference (IoU 1). Raises MeasureError.
    """
    references = [None] * len(images) if masks is None else masks
    with open_child(artifact.path, threads) as child:
        answers = _probabilities(child, artifact, images)
        logits = artifact.output.activation == LOGITS
        return judged(answers, references, classes, logits=logits, multilabel=multilabel)


def _probabilities(child: Child, artifact: Artifact, images: np.ndarray) -> Iterator[np.ndarray]:
    for image in tqdm(images, desc=f"IoU of {artifact.path.name}", unit="image", delay=1):
        give_way()
        yield child.probabilities(image, artifact.input.mean, artifact.input.std)


def judged(
    answers: Iterable[np.ndarray],
    references: Iterable[np.ndarray | None],
    classes: int,
    *,
    logits: bool = False,
    multilabel: bool = False,
) -> Evaluation:
    """What answers on some images are worth, float32 [classes, h, w] each, all of one size: probabilities, or logits.
    `references` are masks as `evaluate` has them; one that is None is the answer's own."""
    iou, predictions, outlines, pixels, small = [], [], [], [], []
    confused = np.zeros((classes, classes), np.int64)
    for answer, given in zip(answers, references, strict=True):
        predictions.append(class_ids(answer, logits=logits, multilabel=multilabel))
        mask = predictions[-1] if given is None else given
        prediction = class_ids(answer, mask.shape, logits, multilabel=multilabel)
        if multilabel:
            pixels.append(overlap(prediction, mask, classes, multilabel=True))
        else:
            pairs = confusion(prediction, mask, classes)
            pixels.append(overlap_in(pairs))
            confused += pairs
        iou.append(mean_iou(*pixels[-1], multilabel=multilabel))
        outlines.append(boundary_image_iou(prediction, mask, classes, multilabel=multilabel))
        small.append(small_objects_found(prediction, mask, classes, multilabel=multilabel))
    intersections, unions = np.array(pixels).transpose(1, 0, 2)
    return Evaluation(tuple(iou), np.stack(predictions), tuple(outlines), intersections, unions, tuple(small), confused)


def agreement(a: Evaluation, b: Evaluation) -> float:
    """Share of mask pixels on which two files agree."""
    return float(np.mean(a.predictions == b.predictions))


def image_agreements(a: Evaluation, b: Evaluation) -> list[float]:
    """The same, image by image, also where the files' maps differ in size: compared at the size of `a`'s."""
    height, width = a.predictions.shape[1:]
    theirs = [
        ids if ids.shape == (height, width) else Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST)
        for ids in b.predictions
    ]
    return [float(np.mean(ours == np.asarray(other))) for ours, other in zip(a.predictions, theirs, strict=True)]


def accuracy(
    evaluation: Evaluation,
    base: Evaluation | None = None,
    stable: Stability | None = None,
    classes: Sequence[str] = (),
) -> Measurement:
    """Everything in a Measurement that images tell. `base` is the reference's evaluation of the same images, from which
    the drops are taken, paired; None: there are none."""
    return Measurement(
        iou=bootstrap_mean(evaluation.iou, within=SHARE),
        per_image_iou=evaluation.iou,
        iou_drop=paired_difference(base.iou, evaluation.iou) if base else None,
        boundary_iou=bootstrap_mean(evaluation.boundary_iou, within=SHARE),
        boundary_iou_drop=paired_difference(base.boundary_iou, evaluation.boundary_iou) if base else None,
        worst_decile_iou=bootstrap(worst_decile, evaluation.iou, within=SHARE),
        worst_decile_iou_drop=tail_difference(base.iou, evaluation.iou) if base else None,
        small_object_recall=_recall(evaluation),
        small_objects=sum(map(len, evaluation.small_found)),
        shift_flips=bootstrap_mean(stable.shift, within=SHARE) if stable else None,
        jpeg_flips=bootstrap_mean(stable.jpeg, within=SHARE) if stable and stable.jpeg else None,
        miou=miou(evaluation) if evaluation.unions.any() else None,
        miou_drop=miou_drop(base, evaluation) if base and evaluation.unions.any() else None,
        by_class=class_figures(evaluation, classes) if len(classes) > MANY and evaluation.confusion.any() else (),
    )


def miou(evaluation: Evaluation) -> Interval:
    """Mean over the classes that occur, background too, of their IoU over the pixels of all images together, as mIoU is
    in the field. Images are drawn whole."""
    return bootstrap_sums(mean_over_classes, _pixels(evaluation), SHARE)


def miou_drop(base: Evaluation, evaluation: Evaluation) -> Interval:
    """How much lower it is than that of `base`, paired by image."""
    return bootstrap_sums(mean_over_classes_lost, np.stack([_pixels(base), _pixels(evaluation)], 1), DIFFERENCE)


def _pixels(evaluation: Evaluation) -> np.ndarray:
    """Intersections and unions, int64 [N, classes, 2]."""
    return np.stack([evaluation.intersections, evaluation.unions], -1)


def class_figures(evaluation: Evaluation, classes: Sequence[str]) -> tuple[ClassFigures, ...]:
    """Every class by its id."""
    iou, labelled = class_iou(evaluation, classes), evaluation.confusion.sum(1)
    shares = labelled / max(1, int(labelled.sum()))
    return tuple(
        ClassFigures(name, iou[name], float(shares[id]), _taken_for(evaluation.confusion[id], id, classes))
        for id, name in enumerate(classes)
    )


def _taken_for(predicted: np.ndarray, id: int, classes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    others = [int(other) for other in np.argsort(-predicted, kind="stable") if other != id and predicted[other]]
    return tuple((classes[other], float(predicted[other] / predicted.sum())) for other in others[:CONFUSED])


def class_iou(evaluation: Evaluation, classes: Sequence[str]) -> dict[str, Interval | None]:
    """IoU of each class, background too, over the pixels of all images together (as PASCAL VOC has it), by name.

    Images are drawn whole. None: the class is neither in a mask nor predicted.
    """
    found: dict[str, Interval | None] = {}
    for id, name in enumerate(classes):
        rows = np.column_stack([evaluation.intersections[:, id], evaluation.unions[:, id]])
        rows = rows[rows[:, 1] > 0]
        found[name] = bootstrap_sums(ratio, rows, SHARE) if len(rows) else None
    return found


def _recall(evaluation: Evaluation) -> Interval | None:
    """Of all small objects together; images are drawn whole, since the objects of one image are alike."""
    rows = np.array([(sum(found), len(found)) for found in evaluation.small_found if found])
    return bootstrap_sums(ratio, rows, SHARE) if len(rows) else None
