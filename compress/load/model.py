"""A trained model file and its recipe -> Trained. The only place that reads a foreign model."""

import hashlib
import importlib.util
import pickle
import sys
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from compress.errors import ModelError
from compress.files import identity, sha256_of
from compress.graph.channels import Channels, find_groups
from compress.graph.network import Network
from compress.load.trace import fold_normalisation, trace
from compress.recipe import ModelSection, PreprocessSection, Recipe


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network that segments, as it was given; all else that belongs to it follows from it, so that no part of one
    can be joined with a part of another.

    network  real image values [N, 3, H, W] -> class probabilities [N, classes, H, W]; its preprocessing is in it
    """

    network: Network
    classes: tuple[str, ...]

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
    outputs     shapes of all maps that the module gives
    """

    path: Path
    sha256: str
    size_bytes: int
    parameters: int
    outputs: tuple[tuple[int, ...], ...]


def load(path: Path, recipe: Recipe, trust_pickle: bool = False) -> Trained:
    """Read weights without running code from them, build the recipe's architecture, trace it.

    The architecture is code of the user's own, found beside the recipe. A file that holds a whole pickled
    module is refused unless `trust_pickle`. Raises ModelError.
    """
    module = read_module(path, recipe, trust_pickle)
    parameters = sum(p.numel() for p in module.parameters())
    net, outputs = traced(module, recipe.model, recipe.preprocess)
    return Trained(net, tuple(recipe.model.classes), path, sha256_of(path), path.stat().st_size, parameters, outputs)


def fresh(recipe: Recipe) -> Segmenter:
    """The recipe's architecture with the weights that it starts with. Raises ModelError."""
    module = _architecture(recipe.folder, recipe.model.architecture).float().eval()
    return Segmenter(traced(module, recipe.model, recipe.preprocess)[0], tuple(recipe.model.classes))


def traced(
    module: nn.Module, model: ModelSection, preprocess: PreprocessSection
) -> tuple[Network, tuple[tuple[int, ...], ...]]:
    """A module as a Network, and the shapes of all maps that it gives. Raises ModelError."""
    return trace(module, model.input_size, model.output, len(model.classes), preprocess.mean, preprocess.std)


def read_module(path: Path, recipe: Recipe, trust_pickle: bool = False) -> nn.Module:
    """The recipe's architecture with the weights of a file, in evaluation mode. Raises ModelError."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; `python models/u2net.py` makes the one of the demo")
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: the file is empty; fetch it again")
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"  # what torch.save wrote before 1.6
    if not is_pickle and not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: is no torch file, or only part of one; expected torch.save(model.state_dict(), ...)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path}: holds pickled code, not only weights; save model.state_dict() instead, "
            "or pass --trust-pickle if you trust whoever made it"
        ) from None
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: cannot be read as a torch file: {first}") from None
    if isinstance(content, nn.Module):
        return content.float().eval()
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path}: holds no weights by name; expected what torch.save(model.state_dict()) writes")
    module = _architecture(recipe.folder, recipe.model.architecture)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise ModelError(f"{path}: does not fit {recipe.model.architecture}: {details[0][:200]}") from None
    return module.eval()


def _architecture(folder: Path, architecture: str) -> nn.Module:
    file_name, name = architecture.split(":")
    source = folder / file_name
    if Path(file_name).is_absolute() or ".." in Path(file_name).parts:
        raise ModelError(f"{source}: lies outside the recipe's folder; its code is not run: put it beside the recipe")
    spec = importlib.util.spec_from_file_location(f"architecture_{source.stem}", source)
    if spec is None or spec.loader is None or not source.is_file():
        raise ModelError(f"{source}: no such file; model.architecture in the recipe names a file beside it")
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code
    try:
        spec.loader.exec_module(code)
        return getattr(code, name)()
    except Exception as error:
        raise ModelError(f"{source}: {name}() failed: {type(error).__name__}: {error}") from error
