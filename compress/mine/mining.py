"""The images that are most worth a human's labelling."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compress.data.folders import open_images
from compress.data.images import RGB, Reading, read_all
from compress.errors import MeasureError, RecipeError
from compress.files import cache_folder, content_hash
from compress.mine.answers import Model, answers, opened
from compress.mine.select import cells, kinds, pick
from compress.mine.uncertainty import Score, Uncertainty, score, uncertainty
from compress.terminal.progress import tqdm


@dataclass(frozen=True)
class Find:
    """An image worth a label. `apart` is its distance from the nearest one ranked above, 1 being that of two images
    drawn at random; None for the first."""

    rank: int
    image: Path
    name: str  # the path below the folder that was searched
    score: Score
    apart: float | None
    uncertainty: Uncertainty


@dataclass(frozen=True)
class Mined:
    """`everywhere` is the mean uncertainty of all images that were looked at, read as `reading` says."""

    finds: tuple[Find, ...]
    images: int
    everywhere: float
    teachers: tuple[str, ...]
    student: str
    warnings: tuple[str, ...]
    reading: Reading = RGB


def _alike(models: Sequence[Model]) -> list[Model]:
    """With the range of values that one of them states: an exported file states none."""
    known = next((model.reading.range for model in models if model.reading.range), None)
    return [replace(model, reading=replace(model.reading, range=model.reading.range or known)) for model in models]


def mine(teachers: Sequence[Path], student: Path, unlabelled: Path, top: int, *, trust_pickle: bool = False) -> Mined:
    """The `top` images below `unlabelled` on which the models are unsure or disagree, of as many kinds as there are.

    Models are trained .pt files with their recipes beside them, or exported ones. Their answers are kept in the cache.
    Raises a CompressError when a model, the folder or an option cannot be used.
    """
    if top < 1:
        raise RecipeError(f"--top {top}: must be at least 1")
    cache = cache_folder()
    with ExitStack() as stack:
        models = _alike([stack.enter_context(opened(path, trust_pickle)) for path in (*teachers, student)])
        for model in models:
            if model.classes != models[0].classes:
                raise MeasureError(
                    f"{model.path}: {model.classes} classes, but {models[0].path.name} has {models[0].classes}; "
                    "compare models of one task"
                )
            if model.multilabel != models[0].multilabel:
                raise MeasureError(
                    f"{model.path}: one of it and {models[0].path.name} tells several labels at once; compare models "
                    "of one task"
                )
        thumbnails, warnings = open_images(unlabelled, models[0].reading)
        paths = list(thumbnails)
        hashes = dict(zip(paths, read_all(content_hash, paths, "hashing images"), strict=True))
        kept = [answers(model, hashes, cache) for model in models]

    def uncertainty_on(path: Path) -> Uncertainty:
        return uncertainty(np.stack([answer.of(hashes[path]) for answer in kept]), models[0].multilabel)

    scores, foregrounds = [], []
    for path in tqdm(paths, desc="uncertainty", unit="image", delay=1):
        found = uncertainty_on(path)
        scores.append(score(found))
        foregrounds.append(cells(found.foreground))
    small = np.stack(list(thumbnails.values()))
    uncertainties = np.array([each.uncertainty for each in scores])
    picks = pick(uncertainties, kinds(small, np.stack(foregrounds)), small, top)
    if len(picks) < top:
        warnings.append(
            f"{unlabelled}: {len(picks)} of {top} images found; the models are sure of the others, or they are copies"
        )
    return Mined(
        finds=tuple(
            Find(
                rank,
                paths[one.index],
                paths[one.index].relative_to(unlabelled).as_posix(),
                scores[one.index],
                one.apart,
                uncertainty_on(paths[one.index]),
            )
            for rank, one in enumerate(picks, 1)
        ),
        images=len(paths),
        everywhere=float(uncertainties.mean()),
        teachers=tuple(path.name for path in teachers),
        student=student.name,
        warnings=tuple(warnings),
        reading=models[0].reading,
    )
