"""The curve of IoU against training minutes: ours, Torch-Pruning's defaults, and a network that was designed small.

    pip install torch-pruning==1.6.1
    python benchmarks/peer_curve.py models/u2net.pt --data DIR --budget 4MB --out FOLDER [--minutes 2 5 10 15]

All three are trained by the same loop on the same images for the same minutes, quantized and exported alike, and
measured as int8 files on DIR's val images. Torch-Pruning cuts by its defaults, global and by L2 norm in one shot, to
the same bytes of the exported file; its students, and the recipe's `controls.small` from random weights, learn from the
teacher's maps and the labels: they have no channels that a feature of the teacher's would belong to. Each point is a
training of its own, since the learning rate falls with the time that is left. Our plan, repair and features are made
once and are not among the minutes; what they took is in the log.
"""

import functools
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from variants import Ground, Train, arguments, ground, kept, recipe_of, table

from compress.graph.network import Network
from compress.load.model import read_module, traced
from compress.load.trace import fold_normalisation
from compress.pipeline.checkpoints import Checkpoints
from compress.pipeline.controls import small_network, small_student
from compress.pipeline.plan import untrained
from compress.pipeline.prepare import with_features
from compress.pipeline.student import StudentSettings, prune, train_student
from compress.quantize.training import QuantizedNetwork
from compress.train.teacher import Teacher

SEARCHES = 8


def globally_pruned(module: nn.Module, image: torch.Tensor, ratio: float) -> nn.Module:
    """Torch-Pruning's own example: every layer but those that make the maps may lose channels."""
    import torch_pruning

    last = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.out_channels == 1]
    pruner = torch_pruning.pruner.BasePruner(
        module,
        image,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=last,
    )
    pruner.step()
    return module


def peer(on: Ground) -> Network:
    """The largest student of Torch-Pruning's that fits the budget as an exported file."""
    height, width = on.recipe.model.input_size
    image = torch.zeros(1, 3, height, width)
    limit, settings = on.budget.size_bytes, StudentSettings.of(on.recipe, on.budget).planning
    assert limit is not None
    low, high, best = 0.0, 0.95, None
    for _ in range(SEARCHES):
        ratio = (low + high) / 2
        module = globally_pruned(read_module(on.model, on.recipe), image, ratio)
        student = fold_normalisation(traced(module, on.recipe)[0])
        with TemporaryDirectory() as folder:
            size = max(path.stat().st_size for path in untrained(student, settings, Path(folder)))
        logging.info("torch-pruning: ratio %.3f gives %s bytes", ratio, f"{size:,}")
        low, high = (low, ratio) if size <= limit else (ratio, high)
        best = student if size <= limit else best
    if best is None:
        raise SystemExit(f"no ratio below {high} meets {limit:,} bytes")
    return best


def repaired(on: Ground) -> tuple[Network, Teacher]:
    """Our student before training, and the teacher with the features of its channels."""
    settings = StudentSettings.of(on.recipe, on.budget)
    examples, teacher = on.prepared.examples, on.prepared.teacher
    plan, student = prune(on.heavy, settings, on.budget, examples, teacher, on.checkpoints("compress"))
    size, seed = settings.distil.size, settings.seed
    return student, with_features(teacher, on.heavy, plan, examples, settings.features, size, seed)


def contestants(on: Ground) -> dict[str, Train]:
    examples, teacher, designed = on.prepared.examples, on.prepared.teacher, small_network(on.recipe)
    cut, ours = functools.cache(peer), functools.cache(repaired)

    def compressed(settings: StudentSettings, checkpoints: Checkpoints) -> QuantizedNetwork:
        student, full = ours(on)
        return train_student(student, settings, examples, teacher, checkpoints, lambda: full)[1]

    def pruned(settings: StudentSettings, checkpoints: Checkpoints) -> QuantizedNetwork:
        return train_student(cut(on), settings, examples, teacher, checkpoints, lambda: teacher)[1]

    found: dict[str, Train] = {"compress": compressed, "Torch-Pruning": pruned}
    if designed:
        found[designed.name] = lambda settings, checkpoints: small_student(
            designed, settings, examples, teacher, checkpoints
        )
    return found


def main() -> None:
    parser = arguments("The curve of IoU against training minutes, beside Torch-Pruning's.")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2.0, 5.0, 10.0, 15.0])
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    options.out.mkdir(parents=True, exist_ok=True)
    on = ground(options.model, recipe_of(options), options.out)
    trained = contestants(on)
    for minutes in options.minutes:
        recipe = on.recipe.with_flags(minutes=minutes)
        names = {name: f"{name} {minutes:g} min" for name in trained}
        print(table({names[n]: kept(on, names[n], train, recipe) for n, train in trained.items()}), flush=True)


if __name__ == "__main__":
    main()
