"""How much of a mask flips when the picture hardly changes, which users see as flicker in a video."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from compress.formats.artifact import LOGITS, Artifact
from compress.machine import THREADS, give_way
from compress.measure.masks import class_ids
from compress.runtime.local import Child
from compress.terminal.progress import tqdm

IMAGES = 16
JPEG_QUALITY = 75


@dataclass(frozen=True)
class Stability:
    """For each image, the share of the mask's pixels that change class, or any of their labels."""

    shift: tuple[float, ...]  # the picture moved by one pixel, down and to the right
    jpeg: tuple[float, ...]  # the picture compressed as JPEG once more; of one that is neither grey nor RGB, nothing


def stability(
    artifact: Artifact,
    images: np.ndarray,
    *,
    multilabel: bool = False,
    threads: int = THREADS,
    open_child: Callable[[Path, int], Child] = Child,
) -> Stability:
    """Runs the file, in a child process, on up to 16 of `images`, evenly spread: uint8 [N, H, W, C] at its input size.

    Masks are compared at that size, the shifted one after shifting it back. Raises MeasureError.
    """
    picked = np.unique(np.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().astype(int))
    shift, jpeg = [], []
    with open_child(artifact.path, threads) as child:

        def mask(image: np.ndarray) -> np.ndarray:
            probabilities = child.probabilities(image, artifact.input.mean, artifact.input.std)
            logits = artifact.output.activation == LOGITS
            return class_ids(probabilities, image.shape[:2], logits, multilabel=multilabel)

        for index in tqdm(picked, desc=f"stability of {artifact.path.name}", unit="image", delay=1):
            give_way()
            image = images[index]
            still = mask(image)
            shift.append(float(np.mean(mask(shifted(image))[1:, 1:] != still[:-1, :-1])))
            if image.shape[2] in (1, 3):
                jpeg.append(float(np.mean(mask(recompressed(image)) != still)))
    return Stability(tuple(shift), tuple(jpeg))


def shifted(image: np.ndarray) -> np.ndarray:
    """One pixel down and to the right; the first row and column stay where they were."""
    return np.pad(image[:-1, :-1], [(1, 0), (1, 0), (0, 0)], mode="edge")


def recompressed(image: np.ndarray) -> np.ndarray:
    """After a trip through JPEG of quality 75, colour at half the resolution, as cameras and messengers do it; uint8
    [H, W, 1 or 3]."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return np.asarray(Image.open(buffer)).reshape(image.shape)
