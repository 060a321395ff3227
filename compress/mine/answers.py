"""What a model, trained or exported, answers on images, kept in the cache image by image."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compress.data.images import RGB, Reading, Size, read_all, read_image
from compress.errors import DataError
from compress.files import identity, locked, unwritten, written
from compress.machine import prepare_process
from compress.recipe import recipe_beside
from compress.runtime.session import OPENERS
from compress.train.members import file_member, torch_member

GRID = 160
"""Answers of every model are sampled at this many rows and columns, so that they can be compared."""

_VERSION = 3  # raised whenever a model gives other answers on the same image


@dataclass(frozen=True)
class Model:
    """`identity` names what decides its answers. `answer` turns uint8 [H, W, channels] of `size`, read as `reading`
    says, into probabilities, float32 [classes, h, w]."""

    path: Path
    identity: str
    size: Size
    classes: int
    multilabel: bool
    answer: Callable[[np.ndarray], np.ndarray]
    reading: Reading = RGB


@contextmanager
def opened(path: Path, trust_pickle: bool = False) -> Iterator[Model]:
    """A trained .pt with its recipe beside it, or an exported .onnx, .ort or .tflite, which runs in a child process.

    An exported file that reads float32 and states no mean and std needs its recipe, which does, beside it too.
    Raises ModelError, RecipeError or MeasureError.
    """
    prepare_process()
    one = file_member(path) if path.suffix in OPENERS else torch_member(path, recipe_beside(path), trust_pickle)
    with one.looking(()) as look:

        def answer(image: np.ndarray) -> np.ndarray:
            return look(torch.from_numpy(image.copy())[None])[0].numpy()

        yield Model(path, one.identity, one.size, one.classes, one.multilabel, answer, one.reading)


@dataclass(frozen=True)
class Answers:
    """Where a model's answers lie."""

    folder: Path

    def of(self, image_hash: str) -> np.ndarray:
        """Probabilities of every class, float32 [classes, 160, 160]. Raises DataError where they are gone."""
        path = self.path(image_hash)
        try:
            with np.load(path, allow_pickle=False) as stored:
                return stored["maps"].astype(np.float32) / 255
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; start again") from None

    def path(self, image_hash: str) -> Path:
        return self.folder / f"{image_hash}.npz"


def answers(model: Model, images: Mapping[Path, str], cache: Path) -> Answers:
    """The model's answers on `images` (path -> hash of the content), computing those that the cache has not.

    Each is kept as soon as it is there, under the content of model and image: an interruption loses one image, and
    images that are added or taken away cost nothing for the others; a second process waits. Raises DataError, or
    MeasureError where the runtime dies.
    """
    how = {"range": model.reading.range} if model.reading.range else {}
    kept = Answers(cache / f"answers-{identity('answers', _VERSION, model=model.identity, **how)}")
    try:
        with locked(kept.folder):
            missing = [path for path, image in images.items() if not kept.path(image).exists()]
            read = read_all(
                lambda path: read_image(path, model.size, model.reading), missing, f"{model.path.name} answers"
            )
            for path, pixels in zip(missing, read, strict=True):
                _keep(kept.path(images[path]), sampled(model.answer(pixels)))
    except OSError as error:
        raise unwritten(cache, error) from None
    return kept


def sampled(probabilities: np.ndarray) -> np.ndarray:
    """float32 [classes, h, w] -> uint8 [classes, 160, 160], 255 being certain; one channel becomes two classes.

    Pixels are picked, not averaged: a sharp outline, on which nobody is unsure, stays sharp.
    """
    if len(probabilities) == 1:
        probabilities = np.concatenate([1 - probabilities, probabilities])
    rows, columns = ((np.arange(GRID) + 0.5) * side // GRID for side in probabilities.shape[1:])
    picked = probabilities[:, rows.astype(int)[:, None], columns.astype(int)]
    return (picked.clip(0, 1) * 255).round().astype(np.uint8)


def _keep(path: Path, maps: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, maps=maps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as partial:
        partial.write_bytes(buffer.getvalue())
