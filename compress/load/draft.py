"""The recipe of a file that carries its graph, or whose code is named: what can be found out, and what must be told."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree

from compress.data.folders import open_labelled
from compress.data.images import read_image, read_mask
from compress.errors import ModelError, RecipeError
from compress.graph.network import Network
from compress.load.faithful import first_line
from compress.load.model import read_module
from compress.load.sources import CARRY_THEIR_GRAPH, input_size, kind_of
from compress.load.trace import trace
from compress.measure.masks import class_ids, image_iou
from compress.recipe import Recipe
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
    "0 to 1": ((0.0,) * 3, (1.0,) * 3),
    "-1 to 1": ((0.5,) * 3, (0.5,) * 3),
    "0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
}


@dataclass(frozen=True)
class Told:
    """What the user says of a model for which there is no recipe; None: to be found out."""

    arch: str | None = None
    classes: Sequence[str] | None = None
    size: tuple[int, int] | None = None
    output: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    data: Path | None = None
    folder: Path = Path()


def draft(path: Path, told: Told, trust_pickle: bool = False) -> Recipe:
    """The recipe for a model's file that has none beside it. Each guess is said in the log.

    Raises RecipeError for what must be told and is not, and ModelError.
    """
    kind = kind_of(path)
    if kind not in CARRY_THEIR_GRAPH and told.arch is None and not trust_pickle:
        raise RecipeError(
            f"{path}: holds weights alone, and there is no {path.with_suffix('.toml').name} beside it; name the code "
            "that makes the module with --arch file.py:Name, or a recipe with --recipe (docs/your-model.md)"
        )
    size = told.size or (input_size(path, kind, trust_pickle) if kind in CARRY_THEIR_GRAPH else None) or SIZE
    model: dict[str, Any] = {"architecture": told.arch, "input_size": size, "classes": ["a", "b"]}
    name = (
        "".join(letter if letter.isalnum() or letter in "_.-" else "-" for letter in path.stem).strip(".-") or "model"
    )
    plain = validated(Recipe, {"name": name[:60], "model": model, "folder": told.folder}, str(path))
    module = read_module(path, plain, trust_pickle)
    model["output"], channels = _output(module, size, told.output, path)
    model["classes"] = list(told.classes or _classes(channels))
    mean, std = _told_normalisation(told) or _tried(
        trace(module, size, model["output"], len(model["classes"]), *NORMALISATIONS["0 to 1"])[0],
        told, model["classes"], path,
    )  # fmt: skip
    log.info(
        "%s: there is no recipe beside it: a %s file; images of %dx%d; output %d of %d channel%s, classes %s",
        path.name, kind, *size, model["output"], channels, "s" * (channels != 1), ", ".join(model["classes"]),
    )  # fmt: skip
    return validated(Recipe, {**plain.model_dump(), "model": model, "preprocess": {"mean": mean, "std": std},
                              "folder": told.folder}, str(path))  # fmt: skip


def _output(module: torch.nn.Module, size: tuple[int, int], index: int | None, path: Path) -> tuple[int, int]:
    """Which of a module's outputs is the map, and how many channels it has: the first that can be one."""
    try:
        with torch.no_grad():
            outputs = _pytree.tree_leaves(module(torch.zeros(1, 3, *size)))
    except Exception as error:  # the module is anybody's code
        raise ModelError(f"{path}: does not run on an RGB image of {size[0]}x{size[1]}: {first_line(error)}") from None
    maps = [i for i, each in enumerate(outputs) if isinstance(each, Tensor) and each.ndim == 4 and each.shape[1] < 255]
    if index is None and not maps:
        raise ModelError(f"{path}: gives no map [1, classes, H, W]; name its output with --output")
    chosen = maps[0] if index is None else index
    if chosen not in maps:
        raise ModelError(f"{path}: output {chosen} is no map; of {len(outputs)} outputs, {maps} are")
    return chosen, int(outputs[chosen].shape[1])


def _classes(channels: int) -> list[str]:
    return ["background", "object"] if channels <= 2 else [f"class {index}" for index in range(channels)]


def _told_normalisation(told: Told) -> Normalisation | None:
    if told.mean is None and told.std is None:
        return None
    return told.mean or (0.0,) * 3, told.std or (1.0,) * 3


def _tried(net: Network, told: Told, classes: Sequence[str], path: Path) -> Normalisation:
    """The one of `NORMALISATIONS` that does clearly best on labelled images."""
    advice = "say it with --mean and --std, as of pixel / 255: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
    if told.data is None:
        raise RecipeError(
            f"{path}: nothing says how it reads pixels, and there are no labelled images to try; {advice}"
        )
    labelled = _labelled(told.data, classes, net.traced_size)
    found = {name: _iou(net, labelled, len(classes), ways) for name, ways in NORMALISATIONS.items()}
    first, second = sorted(found, key=found.__getitem__, reverse=True)[:2]
    figures = ", ".join(f"{name} {iou:.3f}" for name, iou in found.items())
    if found[first] - found[second] < CLEARLY:
        raise RecipeError(f"{path}: it cannot be told how it reads pixels: IoU by {figures}; {advice}")
    log.info("%s: pixels as %s, which does best on %d labelled images: IoU by %s", path.name, first, TRIED_ON, figures)
    return NORMALISATIONS[first]


def _labelled(data: Path, classes: Sequence[str], size: tuple[int, int]) -> list[tuple[Tensor, np.ndarray]]:
    """At most TRIED_ON images, values pixel / 255 [1, 3, H, W] of `size`, with their masks, uint8 [H, W]."""
    dataset = open_labelled(data, classes)
    found = []
    for sample in dataset.val[:TRIED_ON]:
        assert sample.mask
        pixels = torch.from_numpy(read_image(sample.image, size).transpose(2, 0, 1)[None].copy())
        found.append((pixels.float() / 255, read_mask(sample.mask, dataset.object_is_255, size)))
    return found


def _iou(net: Network, labelled: Sequence[tuple[Tensor, np.ndarray]], classes: int, ways: Normalisation) -> float:
    """The mean of them."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in ways)
    with torch.no_grad():
        answers = [(net((pixels - mean) / std)[0].numpy(), mask) for pixels, mask in labelled]
    return float(np.mean([image_iou(class_ids(answer), mask, classes) for answer, mask in answers]))
