"""What each part of the compression brings, at equal training minutes.

    python benchmarks/variants.py models/u2net.pt --data DIR --budget 4MB --minutes 15 --out FOLDER [--only NAME ...]

Every variant is one change to the recipe. Its IoU is that of the exported int8 file on DIR's val images, with a 95 %
bootstrap interval, beside the difference to the first variant, paired by image. Results are kept in FOLDER variant by
variant, and what is there is not made again. Minutes mean what they say on a quiet machine only.
"""

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.files import cache_folder

from compress.budget import Budget
from compress.data.folders import Dataset
from compress.data.images import read_mask
from compress.load.model import Trained, load
from compress.measure.evaluate import evaluate
from compress.measure.statistics import bootstrap_mean, paired_difference
from compress.pipeline.checkpoints import Journal, Start
from compress.pipeline.plan import timed
from compress.pipeline.student import compress_network
from compress.pipeline.teaching import Material, dataset_of, prepare, teachers_of
from compress.quantize.convert import quantized_graph
from compress.quantize.training import QuantizedNetwork
from compress.recipe import Recipe, read_recipe
from compress.release.export import exported

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "as shipped": {},
    "uniform plan": {"plan": {"method": "uniform"}},
    "magnitude plan": {"plan": {"method": "magnitude"}},
    "random plan": {"plan": {"method": "random"}},
    "no repair": {"repair": {"images": 0}},
    "repair alone": {"train": {"minutes": 0.0, "steps": None}},
    "2 cuts": {"plan": {"cuts": 2}},
    "3 cuts": {"plan": {"cuts": 3}},
    "5 cuts": {"plan": {"cuts": 5}},
}


Train = Callable[[Recipe, Journal], QuantizedNetwork]


@dataclass(frozen=True, eq=False)
class Ground:
    """What all contestants share."""

    recipe: Recipe
    model: Path
    heavy: Trained
    dataset: Dataset
    material: Material
    out: Path

    def journal(self, name: str) -> Journal:
        """A folder of the contestant's own, begun anew."""
        start = Start(str(self.model), self.recipe.model_dump(mode="json"), str(self.recipe.folder), name)
        journal = Journal(self.out / name.replace(" ", "-"), start, resume=False)
        journal.opened(name)
        return journal


def ground(model: Path, recipe: Recipe, out: Path) -> Ground:
    heavy, dataset = load(model, recipe), dataset_of(recipe)
    material = prepare(teachers_of(recipe, heavy), dataset, recipe, cache_folder())
    return Ground(recipe, model, heavy, dataset, material, out)


def varied(recipe: Recipe, changes: dict[str, dict[str, Any]]) -> Recipe:
    sections = {name: getattr(recipe, name).model_copy(update=change) for name, change in changes.items()}
    return recipe.model_copy(update=sections)


def kept(on: Ground, name: str, train: Train, recipe: Recipe) -> dict[str, Any]:
    """Bytes and IoU by image, on val, of the file that a contestant's student is exported to; trained only if the
    folder has no result of that name."""
    path = on.out / f"{name.replace(' ', '-')}.json"
    if not path.exists():
        journal = on.journal(name)
        graph = quantized_graph(train(recipe, journal), recipe.name)
        artifact = exported(graph, timed(recipe), journal.folder)[0]
        masks = [read_mask(sample.mask, on.dataset.object_is_255) for sample in on.dataset.val if sample.mask]
        found = evaluate(artifact, on.material.images, masks, len(recipe.model.classes))
        path.write_text(json.dumps({"size_bytes": artifact.size_bytes, "iou": found.iou}))
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def compressed(on: Ground) -> Train:
    """Ours."""

    def train(recipe: Recipe, journal: Journal) -> QuantizedNetwork:
        budget = Budget.parse(recipe.budget)
        return compress_network(on.heavy, recipe, budget, on.material.lesson, journal).quantized

    return train


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: IoU with its interval, and less that of the first, paired by image."""
    lines = ["| variant | bytes | IoU [95 % interval] | against the first |", "|---|---|---|---|"]
    first = next(iter(results.values()))
    for name, result in results.items():
        iou, apart = bootstrap_mean(result["iou"]), paired_difference(result["iou"], first["iou"])
        lines.append(
            f"| {name} | {result['size_bytes']:,} | {iou.mean:.4f} [{iou.low:.4f}, {iou.high:.4f}] "
            f"| {apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}] |"
        )
    return "\n".join(lines)


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/, both with masks")
    parser.add_argument("--unlabelled", type=Path)
    parser.add_argument("--budget", default="4MB")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def recipe_of(options: argparse.Namespace) -> Recipe:
    flags = {"data": options.data, "unlabelled": options.unlabelled, "budget": [options.budget], "seed": options.seed}
    return read_recipe(options.model.with_suffix(".toml")).with_flags(**flags)


def main() -> None:
    parser = arguments("What each part of the compression brings, at equal training minutes.")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, help="these variants, of which the first is the base")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    options.out.mkdir(parents=True, exist_ok=True)
    on = ground(options.model, recipe_of(options).with_flags(minutes=options.minutes), options.out)
    results = {}
    for name in options.only or VARIANTS:
        results[name] = kept(on, name, compressed(on), varied(on.recipe, VARIANTS[name]))
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
