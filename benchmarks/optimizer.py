"""The product's optimizer beside Adam, at equal minutes.

    python benchmarks/optimizer.py models/u2net.pt --data DIR --budget 4MB --out FOLDER [--steps 300]

The plan and the repair are made once; from there each optimizer trains the same student by the same loop on the same
images. What a step costs is timed first, the two taking turns; Adam then gets as many steps as fit into the time that
`--steps` of ours take, so that a busy machine favours neither. IoU is that of the exported int8 file, calibrated and
not trained further, on DIR's val images. FOLDER/optimizer.json is what benchmarks/results/optimizer.json is made of.
"""

import json
import logging
import time
from dataclasses import asdict, replace
from typing import Any
from unittest.mock import patch

import torch
from peer_curve import repaired
from torch import nn
from variants import Ground, arguments, ground, kept, recipe_of, table

from compress.graph.network import Network
from compress.measure.statistics import bootstrap_mean
from compress.pipeline.student import StudentSettings, train_student
from compress.train import loop
from compress.train.teacher import Teacher

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
TURNS, WARM_UP = 40, 10


class Adam(torch.optim.Adam):
    """With what the loop asks of its optimizer: a rate in a tensor, and a measurement that it has no use for."""

    def __init__(self, net: nn.Module, learning_rate: float):
        super().__init__(net.parameters(), lr=torch.tensor(learning_rate), fused=True)

    def measure(self, net: nn.Module, images: torch.Tensor) -> None:
        pass


KINDS = {"ours": loop.Natural, "Adam": Adam}


def step_ratios(on: Ground, student: Network, teacher: Teacher) -> list[float]:
    """How many times as long as Adam's a step of ours takes, turn by turn."""
    training = replace(StudentSettings.of(on.recipe, on.budget).distil, learning_rate=1e-6)
    seconds: dict[str, list[float]] = {name: [] for name in KINDS}
    progress = {}
    for name, kind in KINDS.items():
        with patch.object(loop, "Natural", kind):
            progress[name] = loop.Progress(student, on.prepared.examples, teacher, training)
            progress[name].begin()
    for turn in range(TURNS):
        for name in KINDS if turn % 2 else reversed(KINDS):
            start = time.perf_counter()
            progress[name].step(0.5)
            seconds[name].append(time.perf_counter() - start)
    ours, adam = (each[WARM_UP:] for each in seconds.values())
    return [a / b for a, b in zip(ours, adam, strict=True)]


def main() -> None:
    parser = arguments("The product's optimizer beside Adam, at equal minutes.")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    options.out.mkdir(parents=True, exist_ok=True)
    on = ground(options.model, recipe_of(options).with_flags(quantize="ptq"), options.out)
    student, full = repaired(on)
    ratio = bootstrap_mean(step_ratios(on, student, full))
    contestants = [("ours", "ours", on.recipe.train.learning_rate, options.steps)]
    contestants += [(f"Adam {rate:g}", "Adam", rate, round(options.steps * ratio.mean)) for rate in RATES]
    examples, teacher = on.prepared.examples, on.prepared.teacher
    results: dict[str, dict[str, Any]] = {}
    for name, kind, rate, steps in contestants:
        train = on.recipe.train.model_copy(update={"steps": steps, "learning_rate": rate})
        with patch.object(loop, "Natural", KINDS[kind]):
            found = kept(
                on,
                name,
                lambda settings, checkpoints: train_student(
                    student, settings, examples, teacher, checkpoints, lambda: full
                )[1],
                on.recipe.model_copy(update={"train": train}),
            )
        results[name] = {**found, "steps": steps, "learning_rate": rate}
        print(table(results), flush=True)
    (options.out / "optimizer.json").write_text(json.dumps({"step_ratio": asdict(ratio), "results": results}))


if __name__ == "__main__":
    main()
