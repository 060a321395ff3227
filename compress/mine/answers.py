"""What a model, trained or exported, answers on images, kept in the cache image by image."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.data.images import RGB, Reading, Size, read_all, read_image
from compress.errors import DataError, MeasureError, RecipeError
from compress.files import identity, locked, unwritten, written
from compress.formats.artifact import LOGITS
from compress.load.model import load
from compress.measure.masks import as_probabilities
from compress.recipe import read_recipe, recipe_of
from compress.release.manifest import tells_labels
from compress.runtime.local import Child
from compress.runtime.session import OPENERS

GRID = 160
"""Answers of every model are sampled at this many rows and columns, so that they can be compared."""

_VERSION = 2  # raised whenever a model gives other answers on the same image


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
    with ExitStack() as stack:
        yield _exported(path, stack) if path.suffix in OPENERS else _trained(path, trust_pickle)


def _trained(path: Path, trust_pickle: bool) -> Model:
    import torch

    from compress.machine import prepare_process
    from compress.train.device import best_device, placed

    prepare_process()
    beside = path.with_suffix(".toml")
    if path.is_file() and not beside.is_file():
        raise RecipeError(f"{beside}: no such file; write the model's recipe there")
    recipe = recipe_of(path)
    trained = load(path, recipe, trust_pickle)
    net, device = placed(trained.network), best_device()

    def answer(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(net.real(torch.from_numpy(image.copy())[None]).to(device))[0].cpu().numpy()

    return Model(
        path,
        trained.identity,
        recipe.model.input_size,
        len(trained.classes),
        trained.multilabel,
        answer,
        Reading.of(recipe),
    )


def _exported(path: Path, stack: ExitStack) -> Model:
    child = stack.enter_context(Child(path))
    file = child.describe()
    if file.unknown_input:
        recipe = path.with_suffix(".toml")
        if not recipe.is_file():
            raise MeasureError(f"{path}: reads float32; put its recipe, {recipe.name}, beside it for the mean and std")
        file = file.reading(*read_recipe(recipe).preprocess.of_pixels())
    mean, std, multilabel = file.input.mean, file.input.std, tells_labels(path)

    def answer(image: np.ndarray) -> np.ndarray:
        values, logits = child.probabilities(image, mean, std), file.output.activation == LOGITS
        return as_probabilities(values, logits, multilabel=multilabel)

    key = identity("exported file", 1, sha256=file.sha256, mean=mean, std=std)
    return Model(path, key, file.size, file.classes, multilabel, answer, Reading(file.channels))


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
