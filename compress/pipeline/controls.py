"""What the same minutes make of less: a student pruned at random, and a network that was designed small."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from compress.budget import Budget, Limit
from compress.formats.artifact import Artifact
from compress.load.model import Segmenter, fresh, load
from compress.pipeline.checkpoints import Checkpoints
from compress.pipeline.given import Given, begun
from compress.pipeline.prepare import Prepared
from compress.pipeline.student import StudentSettings, compress_network, train_student
from compress.quantize.convert import quantized_graph
from compress.quantize.training import QuantizedNetwork
from compress.recipe import Recipe
from compress.release.export import FileSettings, export
from compress.train.examples import Examples
from compress.train.teacher import Teacher


@dataclass(frozen=True)
class Small:
    """A network that was designed small: `name` says which, and whether it begins from weights. `learning_rate`: of its
    distillation, where it does not."""

    name: str
    model: Segmenter
    learning_rate: float | None


def small_network(recipe: Recipe, trust_pickle: bool = False) -> Small | None:
    """The recipe's `controls.small`; None where it names none. Raises ModelError."""
    wanted = recipe.controls
    if not wanted.small:
        return None
    own = recipe.model_copy(update={"model": recipe.model.model_copy(update={"architecture": wanted.small})})
    title = wanted.small.split(":")[1]
    if wanted.small_weights:
        return Small(f"{title} fine-tuned", load(recipe.folder / wanted.small_weights, own, trust_pickle), None)
    torch.manual_seed(recipe.seed)
    return Small(f"{title} from scratch", fresh(own), wanted.learning_rate)


def control_files(
    heavy: Segmenter,
    small: Small | None,
    settings: StudentSettings,
    random: StudentSettings,
    size_bytes: int,
    prepared: Prepared,
    checkpoints: Checkpoints,
) -> dict[str, Artifact]:
    """Exported int8 files by what they are, each trained for the run's minutes on the run's data.

    The random student, made by the settings `random`, has the run's bytes and learns from the same maps and features,
    but its channels are drawn by lot, as many of each layer, and nothing is repaired. The small network has no channels
    of the teacher's: it learns from the maps and the labels.
    """
    own = checkpoints.inside("random", heavy=heavy.identity, size_bytes=size_bytes)
    budget = Budget((Limit("size", size_bytes, f"{size_bytes}B"),))
    examples, teacher = prepared.examples, prepared.teacher
    student = compress_network(heavy, random, budget, examples, teacher, own)
    files = {"random pruning": _file(student.quantized, random.files, own.folder)}
    if small:
        own = checkpoints.inside("small", heavy=heavy.identity)
        files[small.name] = _file(small_student(small, settings, examples, teacher, own), settings.files, own.folder)
    return files


def small_student(
    small: Small, settings: StudentSettings, examples: Examples, teacher: Teacher, checkpoints: Checkpoints
) -> QuantizedNetwork:
    """The small network, trained as a student is. Raises TrainError."""
    network, own = small.model.folded, settings
    if small.learning_rate is not None:
        every = frozenset(node.name for node in network.weighted())
        network = begun(Given(small.name, small.model, every), settings, examples)
        own = replace(settings, distil=replace(settings.distil, learning_rate=small.learning_rate))
    return train_student(network, own, examples, teacher, checkpoints, lambda: teacher)[1]


def _file(quantized: QuantizedNetwork, files: FileSettings, folder: Path) -> Artifact:
    return export(quantized_graph(quantized, files.card.name), files.timed(), folder)[0]
