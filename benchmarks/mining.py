"""Are the images that `compress mine` picks worth more than as many picked at random?

    COMPRESS_DATA=DIR python benchmarks/mining.py [--seeds 5] [--start 40] [--top 40] [--steps 300] [--teacher FILE]

DIR has train/ and val/ as `compress run` wants them; the labels of `train` stand in for the human. For each seed a
small student is trained from scratch on a few labelled images. `--top` of the others are then labelled, once those
that `compress mine` picks and `--draws` times such as are picked at random, and the student is trained from scratch on
old and new labels together, from the same weights and for the same number of steps. Its IoU on `val` is compared.

The teachers are two more such students, trained on the same few labels from other weights, unless `--teacher` names
a better one, such as models/u2net.pt. With the defaults a run takes about half an hour on 2 quiet cores.
"""

import argparse
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from compress.data.coding import Coding
from compress.data.folders import Sample, open_dataset
from compress.data.images import read_image, read_mask
from compress.measure.masks import class_ids, image_iou
from compress.measure.statistics import bootstrap_mean
from compress.mine.mining import mine

SIZE = 128
BATCH = 16
LEARNING_RATE = 2e-3
RECIPE = f"""
name = "student"
[model]
architecture = "mining.py:Student"
classes = ["background", "object"]
input_size = [{SIZE}, {SIZE}]
[preprocess]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[plan]
size = [{SIZE}, {SIZE}]
[repair]
size = [{SIZE}, {SIZE}]
[train]
size = [{SIZE}, {SIZE}]
"""


class Student(nn.Module):
    """Normalised RGB [N, 3, H, W] -> probability of the object [N, 1, H, W]. A U of depthwise convolutions, 0.1 M
    parameters."""

    widths = (16, 32, 64, 96, 128)

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *self.widths)
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in zip(inputs, self.widths))
        self.up = nn.ModuleList(
            _block(below + skip, skip, stride=1) for skip, below in zip(self.widths[-2::-1], self.widths[::-1])
        )
        self.head = nn.Conv2d(self.widths[0], 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        size, levels = x.shape[2:], []
        for block in self.down:
            x = block(x)
            levels.append(x)
        for block, skip in zip(self.up, levels[-2::-1]):
            larger = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([larger, skip], 1))
        return torch.sigmoid(F.interpolate(self.head(x), size, mode="bilinear", align_corners=False))


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Pool:
    """Every labelled image in memory, at the student's size."""

    def __init__(self, samples: Sequence[Sample], coding: Coding):
        size = (SIZE, SIZE)
        self.samples = samples
        images = [read_image(sample.image, size) for sample in tqdm(samples, desc="reading", delay=1)]
        masks = [read_mask(sample.mask, coding, size) for sample in samples if sample.mask]
        self.images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        self.masks = torch.from_numpy(np.stack(masks))[:, None]

    def index(self) -> dict[str, int]:
        return {sample.image.name: number for number, sample in enumerate(self.samples)}


def real(pixels: Tensor) -> Tensor:
    return (pixels.float() / 255 - 0.5) / 0.25


def train(pool: Pool, chosen: Sequence[int], seed: int, steps: int, desc: str) -> Student:
    """From scratch on the chosen images, mirrored and cut out at random; Adam, one cycle."""
    torch.manual_seed(seed)
    net, rows = Student(), torch.tensor(chosen)
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in tqdm(range(steps), desc=desc, unit="step", delay=1, leave=False):
        batch = rows[torch.randint(len(rows), (BATCH,))]
        images, masks = real(pool.images[batch]), pool.masks[batch]
        images, masks = _cut_out(images, masks)
        known = (masks != 255).float()
        truth = (masks == 1).float()
        answer = net(images)
        entropy = F.binary_cross_entropy(answer, truth, known)
        overlap = (known * answer * truth).sum((2, 3)) + 1
        union = (known * (answer + truth - answer * truth)).sum((2, 3)) + 1
        loss = entropy + (1 - overlap / union).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def _cut_out(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """One window of the batch, of three quarters of the side at least, at full size; mirrored every other time."""
    side = int(torch.randint(3 * SIZE // 4, SIZE + 1, ()))
    top, left = (int(torch.randint(SIZE - side + 1, ())) for _ in range(2))
    window = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
    images = F.interpolate(images[window], (SIZE, SIZE), mode="bilinear", align_corners=False)
    masks = F.interpolate(masks[window].float(), (SIZE, SIZE), mode="nearest").byte()
    return (images.flip(3), masks.flip(3)) if torch.rand(()) < 0.5 else (images, masks)


def iou(net: Student, val: Pool, masks: Sequence[np.ndarray]) -> float:
    """Mean over the images, at the size of their masks."""
    with torch.no_grad():
        answers = torch.cat([net(real(part)) for part in val.images.split(BATCH)]).numpy()
    return float(np.mean([image_iou(class_ids(a, m.shape), m, 2) for a, m in zip(answers, masks, strict=True)]))


def mined(
    pool: Pool, start: Sequence[int], models: Sequence[Student], teachers: Sequence[Path], top: int, folder: Path
) -> list[int]:
    """What `compress mine` picks among the images that are not labelled yet; the last model is the student."""
    (folder / "unlabelled").mkdir()
    shutil.copy(__file__, folder / "mining.py")
    for number, sample in enumerate(pool.samples):
        if number not in set(start):
            (folder / "unlabelled" / sample.image.name).symlink_to(sample.image.resolve())
    files = []
    for number, net in enumerate(models):
        files.append(folder / f"student{number}.pt")
        torch.save(net.state_dict(), files[-1])
        files[-1].with_suffix(".toml").write_text(RECIPE)
    found = mine([*teachers, *files[:-1]], files[-1], folder / "unlabelled", top)
    index = pool.index()
    return [index[find.name] for find in found.finds]


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    data = open_dataset(Path(os.environ["COMPRESS_DATA"]), ("background", "object"))
    pool, val = Pool(data.train[: options.pool], data.coding), Pool(data.val, data.coding)
    masks = [read_mask(sample.mask, data.coding) for sample in data.val if sample.mask]
    gains, rows = [], []
    for seed in range(options.seeds):
        rng = random.Random(seed)
        everything = range(len(pool.samples))
        start = rng.sample(everything, options.start)
        rest = [i for i in everything if i not in set(start)]
        committee = [] if options.teacher else [1000 + seed, 2000 + seed]
        models = [train(pool, start, s, options.steps, f"seed {seed}: start") for s in (*committee, seed)]
        with TemporaryDirectory() as folder:
            os.environ["COMPRESS_CACHE"] = options.cache or f"{folder}/cache"
            picked = mined(pool, start, models, options.teacher or [], options.top, Path(folder))
        chosen = {"mined": picked}
        chosen |= {f"random {draw}": rng.sample(rest, len(picked)) for draw in range(options.draws)}
        scores = {"start": iou(models[-1], val, masks)}
        for name, more in chosen.items():
            scores[name] = iou(train(pool, [*start, *more], seed, options.steps, f"seed {seed}: {name}"), val, masks)
        drawn = [score for name, score in scores.items() if name.startswith("random")]
        gains.append(scores["mined"] - float(np.mean(drawn)))
        rows.append((scores["start"], scores["mined"], float(np.mean(drawn))))
        print(f"seed {seed}: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()), flush=True)
    table = np.array(rows)
    print(
        f"\n{options.start} labels at the start, {options.top} more; {options.seeds} seeds, mean IoU and its deviation"
    )
    for name, column in zip(("start", "mined", "random"), table.T):
        print(f"{name:>7}: {column.mean():.4f} +- {column.std(ddof=1) if len(column) > 1 else 0:.4f}")
    gain = bootstrap_mean(gains)
    print(f"mined - random: {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], 95 % bootstrap over the seeds")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="repetitions, each with other first labels and weights")
    parser.add_argument("--start", type=int, default=40, help="images that are labelled already")
    parser.add_argument("--top", type=int, default=40, help="images to label")
    parser.add_argument("--draws", type=int, default=2, help="random choices for each seed")
    parser.add_argument("--steps", type=int, default=300, help=f"of training, {BATCH} images each")
    parser.add_argument("--pool", type=int, default=None, help="only the first images of train")
    parser.add_argument("--teacher", type=Path, action="append", help="instead of two more students (repeatable)")
    parser.add_argument("--cache", help="keep the teacher's answers in this folder for the next run")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
