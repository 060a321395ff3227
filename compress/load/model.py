"""A trained model file and its recipe -> Trained. The only place that reads a foreign file."""

import importlib.util
import pickle
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from compress.errors import ModelError
from compress.files import sha256_of
from compress.graph.network import Network
from compress.load.trace import trace
from compress.recipe import Recipe


@dataclass(frozen=True)
class Trained:
    """A trained heavy model, traced.

    network     real image values [N, 3, H, W] -> class probabilities [N, classes, H, W]
    parameters  of the file, also those that the deployed output does not need
    outputs     shapes of all maps that the module gives
    """

    network: Network
    classes: tuple[str, ...]
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
    net, outputs = traced(module, recipe)
    return Trained(net, tuple(recipe.model.classes), path, sha256_of(path), path.stat().st_size, parameters, outputs)


def fresh(recipe: Recipe) -> Network:
    """The recipe's architecture with the weights that it starts with, traced. Raises ModelError."""
    return traced(_architecture(recipe).float().eval(), recipe)[0]


def traced(module: nn.Module, recipe: Recipe) -> tuple[Network, tuple[tuple[int, ...], ...]]:
    """A module as a Network, and the shapes of all maps that it gives. Raises ModelError."""
    model, preprocess = recipe.model, recipe.preprocess
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
    module = _architecture(recipe)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise ModelError(f"{path}: does not fit {recipe.model.architecture}: {details[0][:200]}") from None
    return module.eval()


def _architecture(recipe: Recipe) -> nn.Module:
    file_name, name = recipe.model.architecture.split(":")
    source = recipe.folder / file_name
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
