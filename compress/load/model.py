"""A trained model file and its recipe -> Trained. The only place that reads a foreign model."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from compress.errors import ModelError
from compress.files import identity, sha256_of
from compress.graph.channels import Channels, find_groups
from compress.graph.network import Network
from compress.load.architecture import made
from compress.load.class_map import is_multilabel
from compress.load.faithful import Original
from compress.load.sources import CARRY_THEIR_GRAPH, WEIGHTS, kind_of, module_in
from compress.load.trace import fold_normalisation, trace
from compress.load.weights import check_finite, fit_weights, read_content, read_safetensors, untrained_norms
from compress.recipe import Recipe

log = logging.getLogger("compress")


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network that segments, as it was given; all else that belongs to it follows from it, so that no part of one
    can be joined with a part of another.

    network     real image values [N, channels, H, W] -> class probabilities [N, classes, H, W]; it holds its
                preprocessing
    multilabel  whether a pixel can have several of the classes, which have no background among them then
    """

    network: Network
    classes: tuple[str, ...]
    multilabel: bool

    def resized(self, size: tuple[int, int]) -> "Segmenter":
        """The same for images of another size. Raises ModelError where the network does not take them."""
        if size == self.network.traced_size:
            return self
        if not self.network.takes(size):
            raise ModelError(f"plan.input_sizes: the model does not fit together at {size[0]}x{size[1]}")
        return Segmenter(self.network.resized(size), self.classes, self.multilabel)

    @cached_property
    def folded(self) -> Network:
        """The same with its normalisation folded: what a student is cut from."""
        return fold_normalisation(self.network)

    @cached_property
    def channels(self) -> Channels:
        """Of `folded`: which of them must be cut together."""
        return find_groups(self.folded)

    @cached_property
    def identity(self) -> str:
        """Equal where all that decides an answer is: operators, preprocessing, input size, weights and classes."""
        weights = {
            name: [hashlib.sha256(each.detach().cpu().numpy().tobytes()).hexdigest() for each in pair]
            for name, pair in self.network.weights().items()
        }
        nodes = [repr(node) for node in self.network.nodes]
        return identity("network", 1, nodes=nodes, output=self.network.output, weights=weights, classes=self.classes)


@dataclass(frozen=True, eq=False)
class Trained(Segmenter):
    """The segmenter in a file of weights.

    parameters  of the file, also those that the deployed output does not need
    outputs     shapes of all tensors that the module gives, by name
    output      the name of the one that is deployed
    """

    path: Path
    sha256: str
    size_bytes: int
    parameters: int
    outputs: Mapping[str, tuple[int, ...]]
    output: str


def load(path: Path, recipe: Recipe, trust_pickle: bool = False) -> Trained:
    """Read weights without running code from them, build the recipe's architecture, trace it.

    The architecture is code of the user's own, found beside the recipe. A file that holds a whole pickled
    module is refused unless `trust_pickle`. Raises ModelError.
    """
    return load_with_original(path, recipe, trust_pickle)[0]


def load_with_original(path: Path, recipe: Recipe, trust_pickle: bool = False) -> tuple[Trained, Original]:
    """The same, and the module that it comes from, for a look at other pictures too. Raises ModelError."""
    net, original = traced(read_module(path, recipe, trust_pickle), recipe)
    return trained(path, net, original, recipe), original


def trained(path: Path, net: Network, original: Original, recipe: Recipe) -> Trained:
    """What was traced of the module in a file."""
    return Trained(
        net,
        tuple(recipe.model.classes),
        is_multilabel(original, recipe.model.multilabel),
        path,
        sha256_of(path),
        path.stat().st_size,
        sum(each.numel() for each in original.module.parameters()),
        original.outputs,
        original.deployed.name,
    )


def fresh(recipe: Recipe) -> Segmenter:
    """The recipe's architecture with the weights that it starts with. Raises ModelError."""
    if recipe.model.architecture is None:
        raise ModelError("a network that is trained from its beginning needs model.architecture in its recipe")
    module = made(recipe.folder, recipe.model.architecture).float().eval()
    net, original = traced(module, recipe)
    return Segmenter(net, tuple(recipe.model.classes), is_multilabel(original, recipe.model.multilabel))


def traced(module: nn.Module, recipe: Recipe) -> tuple[Network, Original]:
    """As `trace` has it. Raises ModelError."""
    model, preprocess = recipe.model, recipe.preprocess
    return trace(
        module, model.input_size, model.output, len(model.classes), preprocess.mean, preprocess.std, model.multilabel
    )


def read_module(path: Path, recipe: Recipe, trust_pickle: bool = False) -> nn.Module:
    """The module in a file that carries its graph, or the recipe's architecture with the weights of the file, in
    float32 and in evaluation mode. Raises ModelError."""
    kind = kind_of(path)
    if kind in CARRY_THEIR_GRAPH:
        module = module_in(path, kind, recipe.model.input_size, trust_pickle)
        check_finite(module, path)
        return module
    content = read_weights(path, trust_pickle)
    if isinstance(content, nn.Module):
        module = content.float()
    elif recipe.model.architecture is None:
        raise ModelError(
            f"{path}: holds weights alone; name the code that makes the module: architecture under [model] in the "
            "recipe, or --arch file.py:Name"
        )
    else:
        module = made(recipe.folder, recipe.model.architecture).float()
        fit_weights(content, module, path, recipe.model.architecture, recipe.model.drop)
    check_finite(module, path)
    if untrained := untrained_norms(module):
        log.warning(
            "warning: %s: batch normalisation that was never trained: %s%s has mean 0 and variance 1 in every channel",
            path.name, untrained[0], f", as {len(untrained) - 1} more," if len(untrained) > 1 else "",
        )  # fmt: skip
    return module.eval()


def read_weights(path: Path, trust_pickle: bool = False) -> Any:
    """What a file of weights holds. Raises ModelError."""
    kind = kind_of(path)
    if kind in CARRY_THEIR_GRAPH:
        raise ModelError(f"{path}: is {kind}, which holds a graph; save the module's state_dict")
    return read_content(path, trust_pickle) if kind == WEIGHTS else read_safetensors(path)
