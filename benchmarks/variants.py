"""What each part of the compression brings, at equal training minutes.

    python benchmarks/variants.py models/u2net.pt --data DIR --budget 4MB --minutes 15 --out FOLDER [--only NAME ...]

Every variant is one change to the recipe. Its IoU is that of the exported int8 file on DIR's val images, with a 95 %
bootstrap interval, beside the difference to the first variant, paired by image. Results are kept in FOLDER variant by
variant; what is there from the same model, images, recipe, budget and minutes is not made again. Minutes mean what they
say on a quiet machine only.
"""

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.budget import Budget
from compress.data.folders import Dataset
from compress.data.images import RGB, read_mask
from compress.data.packed import pack_images
from compress.files import cache_folder, cached, identity
from compress.load.model import Segmenter, load
from compress.machine import prepare_process
from compress.measure.evaluate import evaluate
from compress.measure.statistics import SHARE, bootstrap_mean, paired_difference
from compress.pipeline.checkpoints import Checkpoints, Start
from compress.pipeline.prepare import Prepared, load_teachers, open_data, prepare
from compress.pipeline.student import StudentSettings, compress_network
from compress.quantize.convert import quantized_graph
from compress.quantize.training import QuantizedNetwork
from compress.recipe import Recipe, read_recipe
from compress.release.export import export
from compress.train.members import traced_member

_VERSION = 1  # raised whenever the same recipe gives another result

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "as shipped": {},
    "uniform plan": {"plan": {"method": "uniform"}},
    "magnitude plan": {"plan": {"method": "magnitude"}},
    "random plan": {"plan": {"method": "random"}},
    "no repair": {"repair": {"images": 0}},
    "fewer branches": {"plan": {"branches": True}},
    "repair alone": {"train": {"minutes": 0.0, "steps": None}},
    "2 cuts": {"plan": {"cuts": 2}},
    "3 cuts": {"plan": {"cuts": 3}},
    "5 cuts": {"plan": {"cuts": 5}},
}


Train = Callable[[StudentSettings, Checkpoints], QuantizedNetwork]


@dataclass(frozen=True, eq=False)
class Ground:
    """What all contestants share. `heavy`: for images of the size that the students read."""

    recipe: Recipe
    budget: Budget
    model: Path
    heavy: Segmenter
    dataset: Dataset
    prepared: Prepared
    out: Path

    def checkpoints(self, name: str) -> Checkpoints:
        """A folder of the contestant's own, begun anew."""
        start = Start(str(self.model), self.recipe.model_dump(mode="json"), str(self.recipe.folder), name)
        checkpoints = Checkpoints(self.out / name.replace(" ", "-"), start, resume=False)
        checkpoints.open(name)
        return checkpoints


def ground(model: Path, recipe: Recipe, out: Path) -> Ground:
    prepare_process()
    heavy = load(model, recipe)
    dataset, size = open_data(recipe.data, heavy.classes, recipe.seed), heavy.network.traced_size
    teachers = load_teachers(recipe.teacher, traced_member(heavy, model, RGB))
    live = recipe.train.live_teacher
    weights = recipe.train.class_weights
    prepared = prepare(teachers, dataset, size, cache_folder(), recipe.teacher.tta, live, recipe.seed, weights)
    read, *_ = recipe.plan.input_sizes or [size]
    images = pack_images([sample.image for sample in dataset.val], read, cache_folder()).array
    prepared, budget = replace(prepared, images=images), Budget.parse(recipe.budget)
    return Ground(recipe, budget, model, heavy.resized(read), dataset, prepared, out)


def varied(recipe: Recipe, changes: dict[str, dict[str, Any]]) -> Recipe:
    sections = {name: getattr(recipe, name).model_copy(update=change) for name, change in changes.items()}
    return recipe.model_copy(update=sections)


def kept(on: Ground, name: str, train: Train, recipe: Recipe) -> dict[str, Any]:
    """Bytes and IoU by image, on val, of the file that a contestant's student is exported to; trained only if the
    folder has no result of that name from the same model, data, recipe and budget."""
    key = identity(
        "variant",
        _VERSION,
        name=name,
        model=on.heavy.identity,
        data=on.prepared.identity,
        recipe=recipe.model_dump(mode="json", exclude={"data", "report", "measure"}),
    )

    def measure(partial: Path) -> None:
        checkpoints, settings = on.checkpoints(name), StudentSettings.of(recipe, on.budget)
        graph = quantized_graph(train(settings, checkpoints), recipe.name)
        artifact = export(graph, settings.files.timed(), checkpoints.folder)[0]
        masks = [read_mask(sample.mask, on.dataset.coding) for sample in on.dataset.val if sample.mask]
        found = evaluate(artifact, on.prepared.images, masks, len(recipe.model.classes))
        partial.write_text(json.dumps({"size_bytes": artifact.size_bytes, "iou": found.iou}))

    path = cached(on.out / f"{name.replace(' ', '-')}-{key[:12]}.json", measure)
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def compressed(on: Ground) -> Train:
    """Ours."""

    def train(settings: StudentSettings, checkpoints: Checkpoints) -> QuantizedNetwork:
        examples, teacher = on.prepared.examples, on.prepared.teacher
        return compress_network(on.heavy, settings, on.budget, examples, teacher, checkpoints).quantized

    return train


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: IoU with its interval, and less that of the first, paired by image."""
    lines = ["| variant | bytes | IoU [95 % interval] | against the first |", "|---|---|---|---|"]
    first = next(iter(results.values()))
    for name, result in results.items():
        iou, apart = bootstrap_mean(result["iou"], within=SHARE), paired_difference(result["iou"], first["iou"])
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
    parser.add_argument("--budget", action="append", help="repeatable; 4MB where there is none")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def recipe_of(options: argparse.Namespace) -> Recipe:
    flags = {
        "data": options.data,
        "unlabelled": options.unlabelled,
        "budget": options.budget or ["4MB"],
        "seed": options.seed,
    }
    return read_recipe(options.model.with_suffix(".toml")).with_flags(**flags)


def main() -> None:
    parser = arguments("What each part of the compression brings, at equal training minutes.")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--steps", type=int, help="in place of minutes: the same on a busy machine")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, help="these variants, of which the first is the base")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = recipe_of(options).with_flags(minutes=options.minutes)
    on = ground(options.model, varied(recipe, {"train": {"steps": options.steps}}), options.out)
    results = {}
    for name in options.only or VARIANTS:
        results[name] = kept(on, name, compressed(on), varied(on.recipe, VARIANTS[name]))
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
