"""What test_processes.py runs, alone or under torchrun: `python together.py FOLDER WHAT` writes what came of it to
FOLDER/WHAT-PROCESSES-RANK.pt."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from tiny import TinyNet, picture

import compress.train.device
from compress.files import Sealed
from compress.graph.channels import find_groups
from compress.load.trace import fold_normalisation, trace
from compress.recipe import Schedule, Training
from compress.train import processes
from compress.train.examples import Examples, references_of
from compress.train.loop import Progress, fit
from compress.train.teacher import LiveTeacher, StoredTeacher, teacher_features
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


def fitted(steps: int) -> dict[str, object]:
    """What `fit` keeps, going on where FOLDER has a training."""
    net, examples, teacher = given()
    checks: list[float] = []
    state = Sealed(FOLDER / "state", "test")
    kept = fit(
        fold_normalisation(net),
        examples,
        teacher,
        training(steps=steps),
        desc="test",
        on_check=lambda minutes, iou, loss: checks.append(iou),
        state=state,
    )
    return {"weights": kept.state_dict(), "checks": checks}


WHAT = {
    "five": lambda: stepped(5, live=False),
    "live": lambda: stepped(4, live=True),
    "half": lambda: fitted(10),
    "whole": lambda: fitted(20),
}

if __name__ == "__main__":
    compress.train.device.has_bfloat16 = lambda device: False  # float32, in which sums in another order are as good
    processes.join()
    name = f"{os.environ.get('WORLD_SIZE', '1')}-{os.environ.get('RANK', '0')}.pt"
    for what in sys.argv[2:]:
        torch.save(WHAT[what](), FOLDER / f"{what}-{name}")
