"""What a distillation step costs beside a bare forward and backward pass of the same student.

    python benchmarks/throughput.py MODEL.pt RUN [--batch 8] [--turns 50] [--steps 2]

MODEL.pt has its recipe beside it, which says the sizes to train at; the student is that of RUN, an output folder of
`compress run MODEL.pt`. The step is that of `compress.train.loop`: images and the teacher's maps, uncertainty and
features read from memory maps, losses, the optimizer, the average. The bare loop runs the same batches at the same
sizes from tensors that lie ready. Both take turns; what is reported is images per second, and their ratio.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from int8_speed import float_student
from torch import Tensor

from compress.load.model import load
from compress.machine import prepare_process
from compress.measure.statistics import bootstrap_mean
from compress.recipe import read_recipe
from compress.train.device import autocast, best_device, placed
from compress.train.examples import Examples
from compress.train.loop import Progress
from compress.train.teacher import StoredTeacher, teacher_features
from compress.train.views import WHOLE

IMAGES = 32
DRAWN = 99  # batches: their sizes are all there are, and what is compiled for each of them costs no turn anything


def noise(size: tuple[int, int], classes: int, folder: Path) -> tuple[Examples, StoredTeacher]:
    """Images and maps in files of `folder`; what they hold changes no time. Half of the images are labelled."""
    rng = np.random.default_rng(0)
    shapes = {"pixels": (*size, 3), "maps": (classes - 1, *size), "uncertainty": size, "labels": size}
    arrays = {}
    for name, shape in shapes.items():
        count, top = (IMAGES // 2, classes) if name == "labels" else (IMAGES, 256)
        arrays[name] = np.lib.format.open_memmap(folder / name, "w+", np.uint8, (count, *shape))
        arrays[name][:] = rng.integers(0, top, (count, *shape), np.uint8)
    examples = Examples(arrays["pixels"], arrays["labels"], classes, held_out=(0,), references=arrays["labels"][:1])
    return examples, StoredTeacher(arrays["maps"], arrays["uncertainty"])


def seconds(call) -> float:
    """Of one call, the work on a GPU included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(options: argparse.Namespace) -> None:
    prepare_process()
    recipe = read_recipe(options.model.with_suffix(".toml"))
    heavy = load(options.model, recipe)
    student = float_student(options.run)
    kept = torch.load(options.run / "checkpoints" / "plan.pt", weights_only=True)["state"]["kept"]
    device = best_device()
    bare = placed(student)
    with TemporaryDirectory(prefix="compress-") as folder:
        examples, teacher = noise(recipe.model.input_size, len(recipe.model.classes), Path(folder))
        training = replace(recipe.training("distil"), batch=options.batch, seed=0)
        views = [(index, WHOLE) for index in range(1, IMAGES)]
        features = teacher_features(
            heavy.folded, heavy.channels, kept, examples.pixels, views, training.size, Path(folder)
        )
        progress = Progress(student, examples, replace(teacher, features=features), training)
        progress.begin()
        shapes: list[torch.Size] = []
        real = progress.net.real

        def noted(pixels: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
            shapes.append(pixels.shape)
            return real(pixels, layout)

        progress.net.real = noted  # type: ignore[method-assign]

        def passes(wanted: list[torch.Size]) -> Callable[[], None]:
            pixels = [torch.zeros(shape, dtype=torch.uint8, device=device) for shape in wanted]
            images = [student.real(each, torch.channels_last) for each in pixels]

            def run() -> None:
                for image in images:
                    bare.zero_grad()
                    with autocast(device):
                        answer = bare(image)
                    answer.float().mean().backward()

            return run

        passes(sorted({progress.batches.next(device)[0].shape for _ in range(DRAWN)}))()
        ratios, speeds = [], []
        for turn in range(options.turns + 1):
            shapes.clear()
            full = seconds(lambda: [progress.step(0.5) for _ in range(options.steps)])
            plain = seconds(passes(shapes))
            count = sum(shape[0] for shape in shapes)
            if turn:  # the first warms both up
                ratios.append(plain / full)
                speeds.append((count / full, count / plain))
    ours, theirs = np.median(speeds, axis=0)
    ratio = bootstrap_mean(ratios)
    print(f"distillation step: {ours:.2f} images/s; bare forward and backward: {theirs:.2f} images/s (medians)")
    print(f"ratio: {ratio.mean:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], 95 % bootstrap over {len(ratios)} turns")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.pt")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2, help="in each turn")
    main(parser.parse_args())
