"""A module that answers by its own forward alone: nothing of it need be known but what it gives for an image."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.files import identity, sha256_of
from compress.load.class_map import check_map
from compress.load.faithful import first_line, made_up_pictures
from compress.load.model import read_module
from compress.load.outputs import Key, deployed, named
from compress.load.sources import TORCHSCRIPT, kind_of, scripted
from compress.recipe import Recipe
from compress.terminal.quiet import quietly

log = logging.getLogger("compress")

_TRIED = 3
"""Pictures by which it is told what a module's values are."""
_SUMS = 1e-3
"""By which probabilities of classes that exclude one another may miss 1."""


@dataclass(frozen=True, eq=False)
class Forward:
    """What a module gives for an image, as class probabilities.

    module      normalised images [1, channels, H, W] -> whatever it returns, of which `output` is deployed
    name        of its file
    size        of the images that it reads
    classes     how many there are
    multilabel  whether a pixel can have several of them
    logits      whether its values are no probabilities yet
    identity    of the file, the code beside the recipe, and all that the recipe says of its values
    """

    name: str
    module: nn.Module
    output: str
    size: tuple[int, int]
    classes: int
    multilabel: bool
    logits: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    identity: str

    def placed(self, device: torch.device) -> nn.Module:
        """The module where it runs: on `device`, or on the processor, where it was read for that."""
        if device.type != "cpu":
            picture = _pictures(self.mean, self.size, 1)[0].to(device)
            try:
                moved = self.module.to(device)
                _map(moved, self.output, self.mean, self.std, picture)
                return moved
            except Exception as error:  # the module is anybody's code
                log.warning("warning: %s: runs on the processor alone: %s", self.name, first_line(error))
        return self.module.to("cpu")

    def probabilities(self, module: nn.Module, pixels: Tensor) -> Tensor:
        """uint8 [1, H, W, channels] -> float32 [1, classes, H, W], by `module` as `placed` gave it. Raises
        ModelError."""
        image = (pixels.float() / 255).permute(0, 3, 1, 2)
        _, values = _map(module, self.output, self.mean, self.std, image.to(_device_of(module)))
        values = values.cpu()
        size = (image.shape[2], image.shape[3])
        if values.shape[2:] != size:
            values = F.interpolate(values, size, mode="bilinear")
        if self.logits:
            alone = self.multilabel or values.shape[1] == 1
            values = values.sigmoid() if alone else values.softmax(1)
        return torch.cat([1 - values, values], 1) if values.shape[1] == 1 < self.classes else values


def load_forward(path: Path, recipe: Recipe, trust_pickle: bool = False) -> Forward:
    """The module in a file, or the recipe's architecture with its weights, which need not be traceable.

    Whether its map holds probabilities is told by what it gives for some pictures: values that leave 0 to 1 are logits.
    Of several channels those that do not sum to 1 are labels of their own, where the recipe does not say. Raises
    ModelError.
    """
    module, model = _runnable(path, recipe, trust_pickle), recipe.model
    mean, std = recipe.preprocess.mean, recipe.preprocess.std
    name, maps = None, []
    for picture in _pictures(mean, model.input_size, _TRIED):
        name, values = _map(module, model.output if name is None else name, mean, std, picture)
        maps.append(values)
    assert name
    together = torch.cat(maps)
    logits = bool(together.min() < 0 or together.max() > 1)
    multilabel = model.multilabel
    if multilabel is None:
        multilabel = together.shape[1] > 1 and not logits and not _exclusive(together)
    classes, shape = len(model.classes), tuple(maps[0].shape)
    check_map(name, shape, model.input_size, classes, multilabel)
    if multilabel and not logits and shape[1] > 1 and _exclusive(together):
        raise ModelError(f"output {name}: its channels sum to 1, which labels do not; set multilabel = false")
    key = identity(
        "forward",
        1,
        sha256=sha256_of(path),
        architecture=model.architecture,
        code=_code_in(recipe.folder) if ".py:" in (model.architecture or "") else {},
        drop=model.drop,
        output=name,
        reads=[mean, std, model.input_size],
        means=[logits, multilabel, model.classes],
    )
    return Forward(path.name, module, name, model.input_size, classes, multilabel, logits, mean, std, key)


def _runnable(path: Path, recipe: Recipe, trust_pickle: bool) -> nn.Module:
    """TorchScript as it is: what reads it for tracing decides its branches by one image."""
    if kind_of(path) != TORCHSCRIPT:
        return read_module(path, recipe, trust_pickle)
    try:
        with quietly():
            return scripted(path)
    except ModelError:
        raise
    except Exception as error:  # whatever a foreign file leads a parser to
        raise ModelError(f"{path}: cannot be read as a TorchScript file: {first_line(error)}") from None


def _pictures(mean: tuple[float, ...], size: tuple[int, int], count: int) -> list[Tensor]:
    """Real values pixel / 255, [1, channels, H, W] each: a made-up scene, and noise."""
    generator, channels = torch.Generator().manual_seed(0), len(mean)
    noise = [torch.rand(1, channels, *size, generator=generator) for _ in range(count - 1)]
    return [made_up_pictures(size, channels), *noise]


def _map(
    module: nn.Module, output: Key, mean: tuple[float, ...], std: tuple[float, ...], picture: Tensor
) -> tuple[str, Tensor]:
    """The deployed output's name and its values, float32 [1, channels, h, w]. Raises ModelError."""
    centre, spread = (torch.tensor(each, device=picture.device).reshape(1, -1, 1, 1) for each in (mean, std))
    try:
        with torch.no_grad():
            returned: Any = module((picture - centre) / spread)
    except Exception as error:  # the module is anybody's code
        raise ModelError(f"the model can be loaded, but not run: {first_line(error)}") from error
    found = deployed(named(returned), output)
    values: Tensor = found.node
    if not values.is_floating_point():
        raise ModelError(f"output {found.name} holds decisions ({values.dtype}); name the map that they are made of")
    if not values.isfinite().all():
        raise ModelError(f"output {found.name} is not finite for an ordinary picture; look at [preprocess]")
    return found.name, values.float()


def _exclusive(maps: Tensor) -> bool:
    return bool((maps.sum(1) - 1).abs().max() < _SUMS)


def _device_of(module: nn.Module) -> torch.device:
    first = next(iter(module.parameters()), None)
    return torch.device("cpu") if first is None else first.device


def _code_in(folder: Path) -> dict[str, str]:
    """sha256 of each file of code in `folder` that was loaded, by its path there."""
    root = folder.resolve()
    files = {Path(name).resolve() for each in [*sys.modules.values()] if (name := getattr(each, "__file__", None))}
    own = [path for path in files if path.is_relative_to(root) and "site-packages" not in path.parts]
    return {str(path.relative_to(root)): sha256_of(path) for path in sorted(own) if path.suffix == ".py"}
