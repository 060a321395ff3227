"""What test_processes.py runs, alone or under torchrun: `python together.py FOLDER WHAT` writes what came of it to
FOLDER/WHAT-PROCESSES-RANK.pt."""

import math
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tiny import TinyNet, picture, ticking

import compress.train.device
from compress.data.images import RGB
from compress.data.packed import Packed
from compress.errors import TrainError
from compress.files import Sealed
from compress.graph.channels import find_groups
from compress.load.model import Segmenter
from compress.load.trace import fold_normalisation, trace
from compress.recipe import Schedule, Training
from compress.train import processes
from compress.train.examples import Examples, references_of
from compress.train.loop import Progress, fit
from compress.train.members import traced_member
from compress.train.teacher import LiveTeacher, StoredTeacher, teacher_features, teacher_maps
from compress.train.views import random_view

FOLDER = Path(sys.argv[1])
STEPS = 20


def given() -> tuple[torch.nn.Module, Examples, StoredTeacher]:
    rng = np.random.default_rng(0)
    images, masks = map(np.stack, zip(*(picture(rng, 64) for _ in range(12))))
    maps = np.stack([(masks == 1) * 255, (masks == 2) * 255], 1).astype(np.uint8)
    teacher = StoredTeacher(maps, np.zeros(masks.shape, np.uint8))
    examples = Examples(images, masks[:3], 3, (0, 1), references_of((0, 1), masks[:3], teacher))
    torch.manual_seed(0)
    net = trace(TinyNet().eval(), (64, 64), 0, 3, (0.5,) * 3, (0.25,) * 3)[0]
    return net, examples, teacher


def training(batch: int = 5, steps: int = STEPS) -> Training:
    """At 64x64 a batch has a quarter as many images."""
    return Training(Schedule(steps=steps), batch, 1e-2, (32, 32))


def stepped(batch: int, live: bool) -> dict[str, object]:
    """The loss of each step, the weights after them, and what was compared inside."""
    net, examples, stored = given()
    student = fold_normalisation(net)
    channels = find_groups(student)
    kept = {group.name: tuple(range(group.width)) for group in channels.groups.values()}
    generator = torch.Generator().manual_seed(0)
    views = [(index, random_view(64, 64, generator)) for index in range(2, 9)]
    features = teacher_features(net, channels, kept, examples.pixels, views, (32, 32), FOLDER)
    teacher = StoredTeacher(stored.maps, stored.uncertainty, features)
    if live:
        teacher = LiveTeacher.of([net]).with_features(net, channels, kept, torch.from_numpy(examples.pixels))
    progress = Progress(student, examples, teacher, training(batch))
    progress.begin()
    losses = [progress.step(step / STEPS) for step in range(STEPS)]
    compared = {name: torch.from_numpy(np.array(values)) for name, values in features.values.items()}
    return {"losses": losses, "weights": progress.net.state_dict(), "features": compared}


def fitted(steps: int, state: str = "state", **more: object) -> dict[str, object]:
    """The weights after a training with checks, which goes on where FOLDER has one, and what `fit` said."""
    net, examples, teacher = given()
    file, checks = FOLDER / state, []
    settings = training(steps=steps)
    if "minutes" in more:
        settings = replace(settings, schedule=Schedule(more["minutes"]))
    clock = more.get("clock", time.monotonic)
    try:
        fit(
            fold_normalisation(net).rewritten(more["weights"]) if "weights" in more else fold_normalisation(net),
            examples,
            teacher,
            settings,
            desc="test",
            on_check=lambda *check: checks.append(check),
            state=Sealed(file, "test"),
            clock=clock,
        )
    except TrainError as error:
        return {"error": str(error)}
    saved = torch.load(file, weights_only=True) if processes.first() else {}
    return {"weights": saved.get("net"), "steps": saved.get("steps"), "checks": checks}


def by_unlike_clocks() -> dict[str, object]:
    """For a minute, as the first process has it: each reading of its clock is two seconds later, of another's ten."""
    return fitted(0, "clocks", minutes=1.0, clock=ticking(2.0 if processes.first() else 10.0))


def broken() -> dict[str, object]:
    """Of weights that are not finite in one layer of the last process alone."""
    net = fold_normalisation(given()[0])
    weights = {name: (weight.detach(), bias.detach()) for name, (weight, bias) in net.weights().items()}
    if os.environ.get("RANK", "0") != "0":
        weights["merge"][1][0] = math.inf
    return fitted(4, "broken", weights=weights)


def maps() -> dict[str, object]:
    """Of seven images; `seen` are those that this process looked at."""
    net, examples, _ = given()
    seen: list[int] = []
    one = traced_member(Segmenter(net, ("a", "b", "c"), False), Path("tiny"), RGB)

    @contextmanager
    def looking(tta):
        with one.looking(tta) as look:
            yield lambda pixels: seen.append(int(pixels.sum())) or look(pixels)

    packed = Packed(examples.pixels[:7], "seven")
    cache = FOLDER / ("cache-" + os.environ.get("WORLD_SIZE", "1"))
    cache.mkdir(exist_ok=True)
    found = teacher_maps(replace(one, looking=looking), packed, (64, 64), cache)
    again = teacher_maps(replace(one, looking=looking), packed, (64, 64), cache)
    return {"maps": torch.from_numpy(np.array(found)), "again": torch.from_numpy(np.array(again)), "seen": seen}


WHAT = {
    "five": lambda: stepped(5, live=False),
    "live": lambda: stepped(4, live=True),
    "clocks": by_unlike_clocks,
    "broken": broken,
    "maps": maps,
    "half": lambda: fitted(10),
    "whole": lambda: fitted(20),
    "anew": lambda: [fitted(steps, "another") for steps in (10, 20)][-1],
}

if __name__ == "__main__":
    compress.train.device.has_bfloat16 = lambda device: False  # float32, in which sums in another order are as good
    processes.join()
    name = f"{os.environ.get('WORLD_SIZE', '1')}-{os.environ.get('RANK', '0')}.pt"
    for what in sys.argv[2:]:
        torch.save(WHAT[what](), FOLDER / f"{what}-{name}")
    processes.leave()
