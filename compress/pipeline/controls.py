"""What the same minutes make of less: a student pruned at random, and a network that was designed small."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compress.budget import Budget
from compress.formats.artifact import Artifact
from compress.graph.network import Network, Node
from compress.load.model import Trained, fresh, load
from compress.load.trace import fold_normalisation
from compress.pipeline.checkpoints import RUN, Journal
from compress.pipeline.plan import timed
from compress.pipeline.student import compress_network, taught
from compress.pipeline.teaching import random_pixels
from compress.quantize.convert import quantized_graph
from compress.quantize.training import QuantizedNetwork
from compress.recipe import Recipe
from compress.release.export import exported
from compress.train.examples import Lesson

STANDARDISED = 16
"""Images that a network from scratch is standardised on."""


@dataclass(frozen=True)
class Small:
    """A network that was designed small: `name` says which, and whether it begins from weights."""

    name: str
    network: Network
    trained: bool


def small_network(recipe: Recipe, trust_pickle: bool = False) -> Small | None:
    """The recipe's `controls.small`; None where it names none. Raises ModelError."""
    wanted = recipe.controls
    if not wanted.small:
        return None
    own = recipe.model_copy(update={"model": recipe.model.model_copy(update={"architecture": wanted.small})})
    title = wanted.small.split(":")[1]
    if wanted.small_weights:
        return Small(f"{title} fine-tuned", load(recipe.folder / wanted.small_weights, own, trust_pickle).network, True)
    torch.manual_seed(recipe.seed)
    return Small(f"{title} from scratch", fresh(own), False)


def control_files(
    heavy: Trained, small: Small | None, recipe: Recipe, size_bytes: int, lesson: Lesson, journal: Journal, resume: bool
) -> dict[str, Artifact]:
    """Exported int8 files by what they are, each trained for the run's minutes on the run's data.

    The random student has the run's bytes and learns from the same maps and features, but its channels are drawn by
    lot, as many of each layer, and nothing is repaired. The small network has no channels of the teacher's: it learns
    from the maps and the labels.
    """
    files = {"random pruning": _random(heavy, recipe, size_bytes, lesson, _journal(journal, "random", resume))}
    if small:
        own = _journal(journal, "small", resume)
        files[small.name] = _file(small_student(small, recipe, lesson, own), recipe, own.folder)
    return files


def _journal(journal: Journal, name: str, resume: bool) -> Journal:
    folder = journal.folder / name
    own = Journal(folder, journal.start, resume and (folder / RUN).exists())
    own.opened(journal.key)
    return own


def _random(heavy: Trained, recipe: Recipe, size_bytes: int, lesson: Lesson, journal: Journal) -> Artifact:
    plan = recipe.plan.model_copy(update={"method": "random", "cuts": 1})
    repair = recipe.repair.model_copy(update={"images": 0})
    own = recipe.model_copy(update={"plan": plan, "repair": repair})
    student = compress_network(heavy, own, Budget.parse([f"{size_bytes}B"]), lesson, journal)
    return _file(student.quantized, own, journal.folder)


def small_student(small: Small, recipe: Recipe, lesson: Lesson, journal: Journal) -> QuantizedNetwork:
    """The small network, trained as the recipe trains a student. Raises TrainError."""
    network, own = fold_normalisation(small.network), recipe
    if not small.trained:
        pixels = random_pixels(lesson, STANDARDISED, recipe.train.size, recipe.seed)
        network = standardised(network, network.real(pixels))
        rate = {"learning_rate": recipe.controls.learning_rate}
        own = recipe.model_copy(update={"train": recipe.train.model_copy(update=rate)})
    return taught(network, lesson, own, journal, lambda: lesson)[1]


def _file(quantized: QuantizedNetwork, recipe: Recipe, folder: Path) -> Artifact:
    return exported(quantized_graph(quantized, recipe.name), timed(recipe), folder)[0]


def standardised(net: Network, image: Tensor) -> Network:
    """A copy in which every convolution gives each channel mean 0 and standard deviation 1 on `image`, real values
    [N, 3, H, W]: what batch normalisation would start from, so that a deep network without it learns from its random
    weights (data-dependent initialisation, Salimans and Kingma 2016, arXiv 1602.07868)."""
    weights = net.weights()

    def standardise(node: Node, value: Tensor) -> Tensor:
        if not node.kind.weights:
            return value
        mean, spread = value.mean((0, 2, 3)), value.std((0, 2, 3)).clamp_min(1e-5)
        weight, bias = weights[node.name]
        weights[node.name] = node.scale_outputs(weight, 1 / spread), (bias - mean) / spread
        return (value - mean.reshape(1, -1, 1, 1)) / spread.reshape(1, -1, 1, 1)

    with torch.no_grad():
        net.run(image, visit=standardise)
        return net.rewritten(weights)
