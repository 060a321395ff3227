"""One that teaches, of which no more is asked than what it says of an image: a traced network, a torch module that
cannot be traced, an exported file."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.data.images import Reading, Size
from compress.errors import MeasureError, ModelError, RecipeError
from compress.files import cache_folder, cached, identity, sha256_of
from compress.formats.artifact import LOGITS, Artifact
from compress.formats.sized import is_free, with_size
from compress.formats.whole import check_whole
from compress.graph.network import Network
from compress.load.forward import Forward, load_forward
from compress.load.model import Segmenter, load
from compress.load.sizes import nearest_size
from compress.measure.masks import as_probabilities
from compress.recipe import Recipe, read_recipe, recipe_beside
from compress.release.manifest import tells_labels
from compress.runtime.local import Child, describe_in_child
from compress.runtime.session import OPENERS
from compress.train.device import autocast, best_device, placed

log = logging.getLogger("compress")

FLIP, SCALE = "flip", "scale"
SMALLER = 0.75
"""Of the sides of an image, for SCALE."""

Look = Callable[[Tensor], Tensor]
"""uint8 [1, H, W, channels] of a member's size -> probabilities float32 [views, classes, h, w], in the image's own
frame."""


@dataclass(frozen=True, eq=False)
class Member:
    """One that answers images.

    path        of its file
    identity    names what decides its answers
    size        of the images that it reads
    classes     how many it tells apart
    names       of them; None: nothing says them
    multilabel  whether a pixel can have several of them
    reading     how it reads images
    looking     what it answers while it is open, with the views that are named: FLIP, SCALE
    traced      the network, where it is one that we know
    file        the file, where a runtime opens it
    """

    path: Path
    identity: str
    size: Size
    classes: int
    names: tuple[str, ...] | None
    multilabel: bool
    reading: Reading
    looking: Callable[[Sequence[str]], AbstractContextManager[Look]]
    traced: Segmenter | None = None
    file: Artifact | None = None


def traced_member(model: Segmenter, path: Path, reading: Reading) -> Member:
    """A network whose operators are known."""
    net = model.network

    @contextmanager
    def looking(tta: Sequence[str]) -> Iterator[Look]:
        here, smaller = placed(net), _smaller(net) if SCALE in tta else net.traced_size
        with torch.no_grad():
            yield lambda pixels: torch.cat(_views(here, pixels, tta, smaller))

    names, several = model.classes, model.multilabel
    return Member(path, model.identity, net.traced_size, len(names), names, several, reading, looking, model)


def _smaller(net: Network) -> Size:
    height, width = (min(side, max(32, round(SMALLER * side / 32) * 32)) for side in net.traced_size)
    return nearest_size(net, (height, width))


def _views(net: Network, pixels: Tensor, tta: Sequence[str], smaller: Size) -> list[Tensor]:
    """Probabilities [1, classes, H, W] from the image as it is, mirrored, and made smaller, all in its own frame."""
    image = net.real(pixels)
    size = (image.shape[2], image.shape[3])

    def answer(view: Tensor) -> Tensor:
        device = net.device
        with autocast(device):
            return net(view.to(device, memory_format=torch.channels_last)).float().cpu()

    views = [answer(image)]
    if FLIP in tta:
        views.append(answer(image.flip(3)).flip(3))
    if SCALE in tta:
        view = F.interpolate(image, smaller, mode="bilinear", antialias=True)
        views.append(F.interpolate(answer(view), size, mode="bilinear"))
    return views


def _mirrored_too(answer: Look, tta: Sequence[str], path: Path) -> Look:
    """`answer`, and where it is asked for that of the mirrored image. Raises RecipeError for other views."""
    if SCALE in tta:
        raise RecipeError(f"{path}: reads images of one size, so --tta scale is not for it; leave scale out")
    return lambda pixels: torch.cat([answer(pixels), answer(pixels.flip(2)).flip(3)]) if FLIP in tta else answer(pixels)


def forward_member(path: Path, recipe: Recipe, trust_pickle: bool = False) -> Member:
    """A torch module that is run, not traced. Raises ModelError."""
    one: Forward = load_forward(path, recipe, trust_pickle)

    @contextmanager
    def looking(tta: Sequence[str]) -> Iterator[Look]:
        module = one.placed(best_device())
        with torch.no_grad():
            yield _mirrored_too(lambda pixels: one.probabilities(module, pixels), tta, path)

    names, reading = tuple(recipe.model.classes), Reading.of(recipe)
    return Member(path, one.identity, recipe.model.input_size, one.classes, names, one.multilabel, reading, looking)


def file_member(path: Path, recipe: Recipe | None = None, multilabel: bool | None = None) -> Member:
    """An exported file, which runs in a child process. `recipe`: says its classes, how it reads pixels where it reads
    float32, and of which size where it reads any; without one the file beside it counts. `multilabel`: where neither
    says it. Raises MeasureError and RecipeError."""
    beside = path.with_suffix(".toml")
    recipe = recipe or (read_recipe(beside) if beside.is_file() else None)
    outside = [sha256_of(weights) for weights in check_whole(path)]
    place = _of_one_size(path, recipe)
    file = describe_in_child(place)
    if file.unknown_input:
        if recipe is None:
            raise MeasureError(f"{path}: reads float32; put its recipe, {beside.name}, beside it for the mean and std")
        file = file.reading(*recipe.preprocess.of_pixels())
    mean, std, logits = file.input.mean, file.input.std, file.output.activation == LOGITS
    said = recipe.model.multilabel if recipe else None
    several = tells_labels(path) or bool(multilabel if said is None else said)

    @contextmanager
    def looking(tta: Sequence[str]) -> Iterator[Look]:
        with Child(place) as child:

            def answer(pixels: Tensor) -> Tensor:
                values = as_probabilities(child.probabilities(pixels[0].numpy(), mean, std), logits, multilabel=several)
                both = values if len(values) > 1 or several else np.concatenate([1 - values, values])
                return torch.from_numpy(np.ascontiguousarray(both))[None]

            yield _mirrored_too(answer, tta, path)

    count = file.output.side("C") if several else file.classes
    names = tuple(recipe.model.classes) if recipe else None
    if names and len(names) != count:
        raise ModelError(f"{path}: tells {count} classes apart, and its recipe names {len(names)}; name them all")
    more = {"outside": outside} if outside else {}
    key = identity("exported file", 1, sha256=file.sha256, mean=mean, std=std, **more)
    reading = Reading(file.channels, recipe.preprocess.range if recipe else None)
    return Member(path, key, file.size, count, names, several, reading, looking, file=replace(file, path=place))


def _of_one_size(path: Path, recipe: Recipe | None) -> Path:
    """The file, or where it reads images of any size a copy in the cache for those of the recipe's."""
    if recipe is None or not is_free(path):
        return path
    size = recipe.model.input_size
    key = identity("file of one size", 1, sha256=sha256_of(path), size=size)
    return cached(cache_folder() / f"sized-{key}{path.suffix}", lambda partial: with_size(path, size, partial))


def torch_member(path: Path, recipe: Recipe, trust_pickle: bool = False) -> Member:
    """A model's file: traced where its operators are known, else run as it is. Raises ModelError."""
    try:
        return traced_member(load(path, recipe, trust_pickle), path, Reading.of(recipe))
    except ModelError as refused:
        return run_as_it_is(path, recipe, refused, trust_pickle)


def run_as_it_is(path: Path, recipe: Recipe, refused: ModelError, trust_pickle: bool = False) -> Member:
    """A model's file that cannot be traced, for the reason in `refused`. Raises a CompressError."""
    one = file_member(path, recipe) if path.suffix in OPENERS else forward_member(path, recipe, trust_pickle)
    log.info("%s: is run as it is, since it cannot be traced: %s", path.name, refused)
    return one


def member(path: Path, trust_pickle: bool = False, multilabel: bool | None = None) -> Member:
    """The teacher in a file, by the recipe beside it. `multilabel`: where nothing says it. Raises a CompressError."""
    if path.suffix in OPENERS and (path.suffix != ".onnx" or not path.with_suffix(".toml").is_file()):
        return file_member(path, multilabel=multilabel)
    recipe = recipe_beside(path)
    if recipe.model.multilabel is None:
        said = recipe.model.model_copy(update={"multilabel": multilabel})
        recipe = recipe.model_copy(update={"model": said})
    return torch_member(path, recipe, trust_pickle)


def in_classes(one: Member, classes: Sequence[str], called: Mapping[str, str]) -> Member:
    """The member with the probabilities of these classes, in this order. `called`: what one of its own classes is
    called here; several that are called alike are one. Raises ModelError for classes that are missing or unknown."""
    if one.names is None and one.classes != len(classes):
        raise ModelError(
            f"{one.path}: tells {one.classes} classes apart, not {len(classes)}; put its recipe, "
            f"{one.path.with_suffix('.toml').name}, beside it, and name them under [teacher] classes"
        )
    theirs = one.names or tuple(classes)
    places = class_places(one.path, theirs, classes, called)
    if places == tuple(range(len(classes))):
        return replace(one, names=tuple(classes))

    @contextmanager
    def looking(tta: Sequence[str]) -> Iterator[Look]:
        with one.looking(tta) as look:
            yield lambda pixels: _gathered(look(pixels), places, len(classes), one.multilabel)

    key = identity("renamed", 1, member=one.identity, places=places)
    return replace(
        one, identity=key, classes=len(classes), names=tuple(classes), looking=looking, traced=None, file=None
    )


def class_places(path: Path, theirs: Sequence[str], ours: Sequence[str], called: Mapping[str, str]) -> tuple[int, ...]:
    """Where each of a teacher's classes stands among ours. Raises ModelError."""
    renamed = [called.get(name, name) for name in theirs]
    unknown = [name for name in renamed if name not in ours]
    missing = [name for name in ours if name not in renamed]
    if unknown or missing:
        said = [
            f"has {', '.join(unknown)}, which the model has not" if unknown else "",
            f"lacks {', '.join(missing)}" if missing else "",
        ]
        raise ModelError(
            f"{path}: {' and '.join(filter(None, said))}; say what its classes are called here, classes = "
            f'{{ "{(unknown or list(theirs))[0]}" = "{(missing or list(ours))[0]}" }} under [teacher] in the recipe'
        )
    return tuple(ours.index(name) for name in renamed)


def _gathered(views: Tensor, places: Sequence[int], classes: int, multilabel: bool) -> Tensor:
    """[views, theirs, h, w] -> [views, classes, h, w]: the sum of those that are one class, of labels the likeliest."""
    index = torch.tensor(places)[None, :, None, None].expand_as(views)
    nothing = torch.zeros(len(views), classes, *views.shape[2:])
    return nothing.scatter_reduce(1, index, views, "amax" if multilabel else "sum")
