"""Accuracy of an exported file: mean intersection over union, image by image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from compress.formats.artifact import Artifact
from compress.measure.child import Child


@dataclass(frozen=True)
class Evaluation:
    """What a file answers on some images."""

    iou: tuple[float, ...]
    predictions: np.ndarray  # class ids at the network's output size, uint8 [N, h, w]


def evaluate(
    artifact: Artifact,
    images: np.ndarray,
    masks: Iterable[np.ndarray] | None,
    classes: int,
    *,
    threads: int = 2,
    open_child: Callable[[Path, int], Child] = Child,
) -> Evaluation:
    """Runs the file, in a child process, on `images`: uint8 [N, H, W, 3], N at least 1, at its input size.

    `masks` are uint8 [H, W] of any size, one for each image; the probabilities are resized to it
    bilinearly before the class is chosen. None: there are no labels, and the file is its own
    reference (IoU 1); the predictions of the teacher's evaluation are then the masks for the
    student's. Raises MeasureError.
    """
    iou, predictions = [], []
    references = [None] * len(images) if masks is None else masks
    with open_child(artifact.path, threads) as child:
        progress = tqdm(images, desc=f"IoU of {artifact.path.name}", unit="image", delay=1)
        for image, mask in zip(progress, references, strict=True):
            probabilities = child.probabilities(image, artifact.input.mean, artifact.input.std)
            predictions.append(class_ids(probabilities))
            iou.append(1.0 if mask is None else image_iou(class_ids(probabilities, mask.shape), mask, classes))
    return Evaluation(tuple(iou), np.stack(predictions))


def agreement(a: Evaluation, b: Evaluation) -> float:
    """Share of mask pixels on which two files agree."""
    return float(np.mean(a.predictions == b.predictions))


def image_iou(prediction: np.ndarray, mask: np.ndarray, classes: int, void: int = 255) -> float:
    """Mean over the foreground classes (ids from 1) that occur in prediction or mask; 1 where none does.

    Both are class ids [H, W]. Pixels whose mask is `void` count for nothing.
    """
    counted = mask != void
    scores = []
    for id in range(1, classes):
        predicted, labelled = (prediction == id) & counted, (mask == id) & counted
        union = np.count_nonzero(predicted | labelled)
        if union:
            scores.append(np.count_nonzero(predicted & labelled) / union)
    return float(np.mean(scores)) if scores else 1.0


def class_ids(probabilities: np.ndarray, size: tuple[int, ...] | None = None) -> np.ndarray:
    """float32 [classes, h, w] -> the likeliest class of each pixel, uint8 [H, W] at `size` (default: h, w).

    A single channel is the probability of class 1.
    """
    if size and size != probabilities.shape[1:]:
        height, width = size
        resized = [Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR) for c in probabilities]
        probabilities = np.stack([np.asarray(channel) for channel in resized])
    if len(probabilities) == 1:
        return (probabilities[0] > 0.5).astype(np.uint8)
    return probabilities.argmax(0).astype(np.uint8)
