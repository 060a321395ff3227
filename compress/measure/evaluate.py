"""Accuracy of an exported file, image by image: intersection over union, boundary IoU, small objects found."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from compress.formats.artifact import LOGITS, Artifact
from compress.machine import THREADS
from compress.measure.boundary import boundary_image_iou
from compress.measure.objects import small_objects_found
from compress.runtime.local import Child


@dataclass(frozen=True)
class Evaluation:
    """What a file answers on some images. `intersections` and `unions` are pixels of each class, background too, int64
    [N, classes]. `small_found` has, for each image, a value for each small object in its mask."""

    iou: tuple[float, ...]
    predictions: np.ndarray  # class ids at the network's output size, uint8 [N, h, w]
    boundary_iou: tuple[float, ...] = ()
    intersections: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    unions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    small_found: tuple[tuple[bool, ...], ...] = ()


def evaluate(
    artifact: Artifact,
    images: np.ndarray,
    masks: Iterable[np.ndarray] | None,
    classes: int,
    *,
    threads: int = THREADS,
    open_child: Callable[[Path, int], Child] = Child,
) -> Evaluation:
    """Runs the file, in a child process, on `images`: uint8 [N, H, W, 3], N at least 1, at its input size.

    `masks` are uint8 [H, W] of any size, one for each image; the probabilities are resized to it
    bilinearly before the class is chosen. None: there are no labels, and the file is its own
    reference (IoU 1); the predictions of the teacher's evaluation are then the masks for the
    student's. Raises MeasureError.
    """
    iou, predictions, rims, pixels, small = [], [], [], [], []
    logits = artifact.output.activation == LOGITS
    references = [None] * len(images) if masks is None else masks
    with open_child(artifact.path, threads) as child:
        progress = tqdm(images, desc=f"IoU of {artifact.path.name}", unit="image", delay=1)
        for image, given in zip(progress, references, strict=True):
            probabilities = child.probabilities(image, artifact.input.mean, artifact.input.std)
            predictions.append(class_ids(probabilities, logits=logits))
            mask = predictions[-1] if given is None else given
            prediction = class_ids(probabilities, mask.shape, logits)
            iou.append(image_iou(prediction, mask, classes))
            rims.append(boundary_image_iou(prediction, mask, classes))
            pixels.append(overlap(prediction, mask, classes))
            small.append(small_objects_found(prediction, mask, classes))
    intersections, unions = np.array(pixels).transpose(1, 0, 2)
    return Evaluation(tuple(iou), np.stack(predictions), tuple(rims), intersections, unions, tuple(small))


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


def overlap(prediction: np.ndarray, mask: np.ndarray, classes: int, void: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the intersection and in the union of prediction and mask, of each class, int64 [classes] each.

    Both are class ids [H, W]. Pixels whose mask is `void` count for nothing.
    """
    predicted, labelled = prediction[mask != void], mask[mask != void]
    both = np.bincount(labelled[predicted == labelled], minlength=classes)[:classes]
    either = np.bincount(predicted, minlength=classes)[:classes] + np.bincount(labelled, minlength=classes)[:classes]
    return both, either - both


def image_iou(prediction: np.ndarray, mask: np.ndarray, classes: int, void: int = 255) -> float:
    """Mean over the foreground classes (ids from 1) that occur in prediction or mask; 1 where none does.

    Both are class ids [H, W]. Pixels whose mask is `void` count for nothing.
    """
    both, either = overlap(prediction, mask, classes, void)
    occurs = either[1:] > 0
    return float(np.mean(both[1:][occurs] / either[1:][occurs])) if occurs.any() else 1.0


def class_ids(probabilities: np.ndarray, size: tuple[int, ...] | None = None, logits: bool = False) -> np.ndarray:
    """float32 [classes, h, w] -> the likeliest class of each pixel, uint8 [H, W] at `size` (default: h, w).

    A single channel is the probability of class 1, or its logit.
    """
    if size and size != probabilities.shape[1:]:
        height, width = size
        resized = [Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR) for c in probabilities]
        probabilities = np.stack([np.asarray(channel) for channel in resized])
    if len(probabilities) == 1:
        return (probabilities[0] > (0.0 if logits else 0.5)).astype(np.uint8)
    return probabilities.argmax(0).astype(np.uint8)
