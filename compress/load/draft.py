"""The recipe of a file that carries its graph, or whose code is named: what can be found out, and what must be told."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.data.folders import mask_layout, open_labelled
from compress.data.images import Reading, read_image, read_mask
from compress.errors import ModelError, RecipeError, UnknownOperators
from compress.formats.artifact import named_channels
from compress.formats.sized import is_free
from compress.formats.whole import check_whole
from compress.graph.network import Network
from compress.load.class_map import is_multilabel
from compress.load.model import Trained, read_module, trained
from compress.load.outputs import Key
from compress.load.sources import CARRY_THEIR_GRAPH, image_channels, kind_of, stated_size
from compress.load.trace import trace
from compress.measure.masks import class_ids, image_iou
from compress.recipe import Recipe
from compress.runtime.local import describe_in_child
from compress.runtime.session import OPENERS
from compress.settings import validated

log = logging.getLogger("compress")

SIZE = (320, 320)
"""Where neither the file nor the user says one."""
TRIED_ON = 20
CLEARLY = 0.02
"""IoU by which one way to normalise must beat all others."""

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
NORMALISATIONS: Mapping[str, Normalisation] = {
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0 to 1": ((0.0,), (1.0,)),
    "-1 to 1": ((0.5,), (0.5,)),
    "0 to 255": ((0.0,), (1 / 255,)),
}
"""Of every channel, or of red, green and blue."""


@dataclass(frozen=True)
class Told:
    """What the user says of a model for which there is no recipe; None: to be found out."""

    arch: str | None = None
    classes: Sequence[str] | None = None
    size: tuple[int, int] | None = None
    output: Key = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    data: Path | None = None
    folder: Path = Path()


@dataclass(frozen=True, eq=False)
class Draft:
    """A recipe for a model's file that has none beside it.

    why      where a value comes from that was not told, by its key in [model], and "pixels" of how they are normalised
    trained  the model by this recipe, where it needs not be read once more for that
    """

    recipe: Recipe
    why: Mapping[str, str]
    trained: Trained | None


def draft(path: Path, told: Told, trust_pickle: bool = False) -> Recipe:
    """The recipe for a model's file that has none beside it. Each guess is said in the log.

    Raises RecipeError for what must be told and is not, and ModelError.
    """
    return drafted(path, told, trust_pickle).recipe


def _named(path: Path) -> str:
    """What a recipe is called after a file."""
    plain = "".join(letter if letter.isalnum() or letter in "_.-" else "-" for letter in path.stem).strip(".-")
    return plain[:60] or "model"


def draft_of_teacher(path: Path, told: Told, trust_pickle: bool = False) -> Recipe:
    """The same of what only teaches, and need not be traced: also a folder of maps, and any file that a runtime opens.
    Raises RecipeError, ModelError and MeasureError."""
    if path.is_dir():
        return _of_folder(path, told)
    if path.suffix in OPENERS and path.suffix != ".onnx":
        return _of_file(path, told)
    try:
        return draft(path, told, trust_pickle)
    except ModelError as refused:
        return _of_file(path, told) if path.suffix in OPENERS else _of_module(path, told, refused)


def _of_folder(path: Path, told: Told) -> Recipe:
    if told.classes is None:
        raise RecipeError(f"{path}: a folder of maps; say what they tell apart, in order: --classes background,object")
    return _as_told(path, told, told.classes, told.size or SIZE, 3, normalisations(3)["0 to 1"])


def _of_file(path: Path, told: Told) -> Recipe:
    """By what the file states, of one of any size by what is told."""
    check_whole(path)
    if is_free(path):
        if told.classes is None or told.size is None:
            raise RecipeError(f"{path}: reads images of any size; say which, and what it tells: --size, --classes")
        return _as_told(path, told, told.classes, told.size, 3, _told_of_pixels(told, False, 3))
    file = describe_in_child(path)
    if file.unknown_input and told.mean is None and told.std is None:
        raise RecipeError(f"{path}: reads float32, and nothing says which; say --mean and --std, as of pixel / 255")
    classes = told.classes or _classes(file.output.side("C"))
    pixels = _told_of_pixels(told, False, file.channels)
    return _as_told(path, told, classes, told.size or file.size, file.channels, pixels)


def _of_module(path: Path, told: Told, refused: ModelError) -> Recipe:
    if told.classes is None or told.mean is None or told.std is None:
        raise RecipeError(
            f"{path}: cannot be traced, so it must be told what it gives and reads, with --classes, --mean and --std: "
            f"{refused}"
        )
    pixels = _told_of_pixels(told, False, len(told.mean))
    return _as_told(path, told, told.classes, told.size or SIZE, len(told.mean), pixels)


def _as_told(
    path: Path, told: Told, classes: Sequence[str], size: tuple[int, int], channels: int, pixels: Normalisation | None
) -> Recipe:
    assert pixels
    log.info(
        "%s: there is no recipe beside it: images: %s %dx%d; classes %s",
        path.name, named_channels(channels), *size, ", ".join(classes),
    )  # fmt: skip
    model = {"architecture": told.arch, "input_size": size, "output": told.output, "classes": list(classes),
             "channels": channels}  # fmt: skip
    document = {"name": _named(path), "model": model, "preprocess": {"mean": pixels[0], "std": pixels[1]}}
    return validated(Recipe, {**document, "folder": told.folder}, str(path))


def drafted(path: Path, told: Told, trust_pickle: bool = False, *, pixels: bool = True) -> Draft:
    """The same, and where each value comes from. Without `pixels` it need not be known how they are normalised: what is
    not told is 0 to 1 then. Raises RecipeError and ModelError."""
    kind = kind_of(path)
    if kind not in CARRY_THEIR_GRAPH and told.arch is None and not trust_pickle:
        raise RecipeError(
            f"{path}: holds weights alone, and there is no {path.with_suffix('.toml').name} beside it; name the code "
            "that makes the module with --arch file.py:Name, or a recipe with --recipe (docs/your-model.md)"
        )
    model: dict[str, Any] = {"architecture": told.arch, "input_size": told.size or SIZE, "classes": ["a", "b"]}
    known_yet: dict[str, Any] = {"name": _named(path), "model": model, "folder": told.folder}
    module = read_module(path, validated(Recipe, known_yet, str(path)), trust_pickle)
    stated = stated_size(module) if kind in CARRY_THEIR_GRAPH else None
    model["input_size"] = told.size or stated or SIZE
    plain = validated(Recipe, known_yet, str(path))  # a file may state any size
    size = plain.model.input_size
    model["channels"] = image_channels(module, size)
    multilabel = _laid_out(told, path)
    count = len(told.classes) if told.classes else None
    known, first = _told_of_pixels(told, pixels, model["channels"]), normalisations(model["channels"])["0 to 1"]
    try:
        net, original = trace(module, size, told.output, count, *(known or first), multilabel)
    except UnknownOperators:
        raise
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    channels = original.network.shapes()[original.network.output][1]
    model["output"] = original.deployed.name
    model["multilabel"] = is_multilabel(original, multilabel)
    model["classes"] = list(told.classes or _classes(channels))
    (mean, std), how = (known, "") if known else _normalisation(net, told, model["classes"], model["multilabel"], path)
    log.info(
        "%s: there is no recipe beside it: a %s file; images: %s %dx%d; output %s of %d channel%s, classes %s",
        path.name, kind, named_channels(model["channels"]), *size, model["output"], channels, "s" * (channels != 1),
        ", ".join(model["classes"]),
    )  # fmt: skip
    recipe = validated(Recipe, {**plain.model_dump(), "model": model, "preprocess": {"mean": mean, "std": std},
                                "folder": told.folder}, str(path))  # fmt: skip
    why = {**_why(told, stated is not None, channels), "pixels": how}
    return Draft(recipe, why, trained(path, net, original, recipe) if known else None)


def normalisations(channels: int) -> dict[str, Normalisation]:
    """Those of `NORMALISATIONS` that images with so many channels may have."""
    return {
        name: (mean * channels, std * channels) if len(mean) == 1 else (mean, std)
        for name, (mean, std) in NORMALISATIONS.items()
        if len(mean) in (1, channels)
    }


def _laid_out(told: Told, path: Path) -> bool | None:
    """Whether labelled images tell several labels at once; None where there are none. Raises RecipeError where nothing
    says which channel is which label."""
    multilabel, labels = mask_layout(told.data) if told.data else (None, [])
    if multilabel and not told.classes:
        raise RecipeError(
            f"{path}: the masks are of {', '.join(labels)}; say in which order the model's channels are, with "
            f"--classes {','.join(labels)}"
        )
    return multilabel


def _why(told: Told, stated: bool, channels: int) -> dict[str, str]:
    """By key of [model], where its value comes from."""
    found = {
        "input_size": (told.size, "found: the file says so" if stated else "guessed: nothing says it"),
        "output": (told.output, "guessed: the first that is a map"),
        "classes": (told.classes, f"guessed by the {channels} channel{'s' * (channels != 1)} of the map: name them"),
    }
    return {key: otherwise if value is None else "" for key, (value, otherwise) in found.items()}


def _told_of_pixels(told: Told, matter: bool, channels: int) -> Normalisation | None:
    """None where it is to be found out."""
    if told.mean is None and told.std is None and matter:
        return None
    mean, std = normalisations(channels)["0 to 1"]
    return told.mean or mean, told.std or std


def _classes(channels: int) -> list[str]:
    return ["background", "object"] if channels <= 2 else [f"class {index}" for index in range(channels)]


def _normalisation(
    net: Network, told: Told, classes: Sequence[str], multilabel: bool, path: Path
) -> tuple[Normalisation, str]:
    """The one of `NORMALISATIONS` that does clearly best on labelled images, and that in words."""
    advice = "say it with --mean and --std, as of pixel / 255: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
    if told.data is None:
        raise RecipeError(
            f"{path}: nothing says how it reads pixels, and there are no labelled images to try; {advice}"
        )
    labelled = _labelled(told.data, classes, net.traced_size, Reading(net.image_channels), multilabel)
    ways = normalisations(net.image_channels)
    found = {name: _iou(net, labelled, len(classes), multilabel, way) for name, way in ways.items()}
    first, second = sorted(found, key=found.__getitem__, reverse=True)[:2]
    figures = ", ".join(f"{name} {iou:.3f}" for name, iou in found.items())
    if found[first] - found[second] < CLEARLY:
        raise RecipeError(f"{path}: it cannot be told how it reads pixels: IoU by {figures}; {advice}")
    how = f"{first}, which does best on {len(labelled)} labelled images: IoU by {figures}"
    log.info("%s: pixels as %s", path.name, how)
    return ways[first], f"found: {how}"


def _labelled(
    data: Path, classes: Sequence[str], size: tuple[int, int], reading: Reading, multilabel: bool
) -> list[tuple[Tensor, np.ndarray]]:
    """At most TRIED_ON images, values pixel / 255 [1, channels, H, W] of `size`, with their masks [H, W]."""
    dataset = open_labelled(data, classes, reading=reading, multilabel=multilabel)
    found = []
    for sample in dataset.val[:TRIED_ON]:
        assert sample.mask
        pixels = torch.from_numpy(read_image(sample.image, size, reading).transpose(2, 0, 1)[None].copy())
        found.append((pixels.float() / 255, read_mask(sample.mask, dataset.coding, size)))
    return found


def _iou(
    net: Network,
    labelled: Sequence[tuple[Tensor, np.ndarray]],
    classes: int,
    multilabel: bool,
    ways: Normalisation,
) -> float:
    """The mean of them."""
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in ways)
    with torch.no_grad():
        answers = [(net((pixels - mean) / std)[0].numpy(), mask) for pixels, mask in labelled]
    masks = [(class_ids(answer, multilabel=multilabel), mask) for answer, mask in answers]
    return float(np.mean([image_iou(ours, mask, classes, multilabel=multilabel) for ours, mask in masks]))
