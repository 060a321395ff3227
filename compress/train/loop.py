"""The one training loop: distillation of the float student, then of the fake-quantized one."""

import copy
import functools
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from compress.errors import TrainError
from compress.files import write_whole
from compress.graph.network import Network
from compress.train.device import Replayed, autocast, best_device, placed
from compress.train.examples import Lesson, blended, held_out_ious
from compress.train.optimizer import Natural
from compress.train.teacher import pooled
from compress.train.views import View, random_view, shrink

Net = TypeVar("Net", bound=Network)

FLOOR = 0.5
"""Of the learning rate, below which it does not fall: the average over steps does what a lower one would, and does
better on other images (Izmailov et al. 2018, arXiv 1803.05407)."""

CHECKS = 10
WARM_UP = 20
MEASURED = 32
MEASURED_AT = (100, 400, 1600, 6400, 25600)
"""Steps after which the optimizer takes its moments anew."""

LABELLED = 4
"""Times that an image with a label is drawn for one without: of the former few passes are left where there are many of
the latter, and a label says what no teacher does."""

SAVED = 2.0
"""Minutes of training that a kill can cost at most."""

TOLERANCE = 0.01
FEATURE_WEIGHT = 1.0
OVERLAP_WEIGHT = 1.0
EDGE_WEIGHT = 4.0
EDGE_REACH = 2


@dataclass(frozen=True)
class Schedule:
    """How long to train: a number of steps, which gives the same result again, or else minutes of wall-clock."""

    minutes: float = 0.0
    steps: int | None = None

    def __bool__(self) -> bool:
        return bool(self.minutes if self.steps is None else self.steps)

    def done(self, minutes: float, steps: int) -> float:
        """The share of it that is over."""
        return minutes / self.minutes if self.steps is None else steps / self.steps


def fit(
    net: Net,
    lesson: Lesson,
    *,
    schedule: Schedule,
    batch: int,
    learning_rate: float,
    seed: int,
    desc: str,
    on_check: Callable[[float, float, float], None],
    state: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Net:
    """Train a copy of `net` -> the last copy that the held-out images do not speak against, of those that are averaged
    over steps and of the start: its IoU there is at most TOLERANCE below that of the best, and by no more than the
    standard error of the difference. A few dozen images cannot tell copies apart that are nearer, and would choose
    the luckiest of ten.

    `Natural` steps with a short warm-up; then the rate falls along a cosine to FLOOR of it at half time, and stays.
    Steps count in the average by their number (Shamir and Zhang 2013, arXiv 1212.1824): three quarters of it are of the
    second half. About ten times `on_check(minutes, iou, loss)` is called, less often where looking at the held-out
    images would take more of the minutes than training does. Then, and every SAVED minutes, everything is written to
    the file `state`; training goes on from it when it exists, to the same result where the schedule counts steps. Runs
    on the GPU where there is one, in bfloat16 where the device has it.

    Raises TrainError, naming the last good checkpoint, when the loss leaves the finite numbers.
    """
    progress = _Progress(net, lesson, batch, learning_rate, seed)
    cost = 0.0  # of a check, in minutes
    if state is None or not state.exists():
        start = clock()
        progress.begin()
        cost = (clock() - start) / 60
    else:
        progress.load(state)
        for moment in progress.moments:
            on_check(*moment)
    began, checked, saved = clock() - progress.minutes * 60, progress.minutes, progress.minutes
    with tqdm(total=100, initial=0, desc=desc, unit="%", bar_format=_BAR) as bar:
        while (done := schedule.done(progress.minutes, progress.steps)) < 1:
            loss = progress.step(done)
            if not math.isfinite(loss):
                where = f"; the last good checkpoint is {state}" if state is not None and state.exists() else ""
                raise TrainError(
                    f"{desc}: the loss is {loss} at step {progress.steps}{where}; "
                    "lower train.learning_rate in the recipe"
                )
            progress.minutes = (clock() - began) / 60
            bar.n = min(100, round(100 * schedule.done(progress.minutes, progress.steps)))
            bar.set_postfix(step=progress.steps, loss=f"{progress.loss:.4f}", iou=f"{progress.iou:.4f}", refresh=True)
            due = int(CHECKS * schedule.done(progress.minutes, progress.steps)) > int(CHECKS * done)
            if due and (schedule.steps is not None or progress.minutes - checked >= cost):
                on_check(*progress.check())
                checked = (clock() - began) / 60
                cost = checked - progress.minutes
            if state is not None and (due or progress.minutes - saved >= SAVED):
                progress.save(state)
                saved = progress.minutes
    if not progress.moments or progress.moments[-1][0] < progress.minutes:
        on_check(*progress.check())
    return cast(Net, progress.kept.cpu())


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class _Progress:
    """All that a step changes, and so all that a checkpoint holds."""

    def __init__(self, net: Network, lesson: Lesson, batch: int, learning_rate: float, seed: int):
        self.lesson, self.learning_rate = lesson, learning_rate
        self.net = placed(net)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False)
        self.kept = copy.deepcopy(self.averaged)
        self.iou = 0.0  # of `kept` on the held-out images
        self.best: list[float] = []  # the best IoU so far, image by image
        self.draw = _Draw(lesson, batch, seed)
        self.measured = copy.deepcopy(self.averaged)  # the network that the optimizer takes its moments from
        self.optimizer = Natural(self.net, learning_rate)
        self.parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.slopes = Replayed(self._slopes)
        self.steps, self.minutes, self.loss = 0, 0.0, 0.0
        self.moments: list[tuple[float, float, float]] = []  # minutes, IoU of `kept`, loss

    def begin(self) -> None:
        """Before the first step of all."""
        self.judge(self.kept)
        self.measure()

    def measure(self) -> None:
        """On images that are evenly spread over those that are learned from."""
        lesson, images = self.lesson, self.draw.images
        rows = images[torch.linspace(0, len(images) - 1, min(MEASURED, len(images))).round().long()]
        pixels = shrink(torch.from_numpy(lesson.pixels[rows.numpy()]), lesson.size)
        self.optimizer.measure(self.measured, self.net.real(pixels))
        self.update = Replayed(self._update)  # an older recording would read the older moments

    def step(self, done: float) -> float:
        """One step, at the share `done` of the schedule -> its loss; nothing is changed by one that is not finite."""
        warm = min(1.0, (self.steps + 1) / WARM_UP)
        rate = self.learning_rate * warm * max(FLOOR, 0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))
        self.optimizer.param_groups[0]["lr"].fill_(rate)
        loss, *slopes = self.slopes(*self.draw.drawn(self.parameters[0].device))
        value = loss.item()
        if not math.isfinite(value):
            return value
        self.update(*slopes)
        with torch.no_grad():
            weight = 2 / (3 + self.steps)  # the start counts once, step n n + 1 times
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.net.parameters()), weight)
        self.loss = value if not self.steps else 0.95 * self.loss + 0.05 * value
        self.steps += 1
        if self.steps in MEASURED_AT:
            self.measured.load_state_dict(self.net.state_dict())
            self.measure()
        return value

    def _slopes(self, *batch: Tensor) -> list[Tensor]:
        """The loss, and its gradients, which are clipped."""
        loss = self.draw.loss(self.net, *batch)
        slopes = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        short = (1 / (torch.nn.utils.get_total_norm(slopes) + 1e-6)).clamp_max(1)
        torch._foreach_mul_(slopes, short)
        return [loss.detach(), *slopes]

    def _update(self, *slopes: Tensor) -> list[Tensor]:
        for parameter, slope in zip(self.parameters, slopes, strict=True):
            parameter.grad = slope
        self.optimizer.step()
        return []

    def check(self) -> tuple[float, float, float]:
        if self.judge(self.averaged):
            self.kept.load_state_dict(self.averaged.state_dict())
        self.moments.append((self.minutes, self.iou, self.loss))
        return self.moments[-1]

    def judge(self, net: Network) -> bool:
        """Whether the held-out images let it be kept."""
        scores = held_out_ious(net, self.lesson)
        apart = np.array(scores) - np.array(self.best or scores)
        error = float(apart.std(ddof=1)) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
        if good := float(apart.mean()) >= -min(error, TOLERANCE):
            self.iou = float(np.mean(scores))
        if apart.mean() >= 0:
            self.best = scores
        return good

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        parts = {name: getattr(self, name).state_dict() for name in (*_NETWORKS, "optimizer")}
        torch.save({**parts, **{name: getattr(self, name) for name in _VALUES}, "draw": self.draw.state()}, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location=best_device())
        for name in _NETWORKS:
            getattr(self, name).load_state_dict(saved[name])
        for name in _VALUES:
            setattr(self, name, saved[name])
        self.draw.restore(saved["draw"])
        self.measure()
        self.optimizer.load_state_dict(saved["optimizer"])


_NETWORKS = ("net", "averaged", "kept", "measured")
_VALUES = ("iou", "best", "steps", "minutes", "loss", "moments")


class _Draw:
    """Batches in a random order, and the loss on one."""

    def __init__(self, lesson: Lesson, batch: int, seed: int):
        self.lesson, self.batch = lesson, batch
        self.generator = torch.Generator().manual_seed(seed)
        taught = lesson.taught()
        labelled = [i for i in taught if i < len(lesson.labels)]
        self.images = torch.tensor(taught + labelled * (LABELLED - 1))
        self.queues: dict[str, list[int]] = {"images": [], "features": []}
        self.count = 0

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "queues": self.queues, "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())
        self.queues, self.count = state["queues"], state["count"]

    def drawn(self, device: torch.device) -> list[Tensor]:
        """The next batch: by turns one with cached features at the smaller size, and one at a random size, where a
        live teacher gives features too; both have about as many pixels. Of every image a random part is seen, mirrored
        every other time."""
        self.count += 1
        features = self.lesson.features
        if features is not None and self.count % 2:
            rows = self._next("features", len(features.images), self.batch)
            return self._parts(features.images[rows], self.lesson.size, [features.views[i] for i in rows], rows, device)
        size = self._size()
        small, here = math.prod(self.lesson.size), math.prod(size)
        rows = self._next("images", len(self.images), max(1, round(self.batch * small / here)))
        height, width = self.lesson.pixels.shape[1:3]
        views = [random_view(height, width, self.generator) for _ in rows]
        return self._parts(self.images[rows], size, views, None, device)

    def _size(self) -> tuple[int, int]:
        """Between the smaller size and the network's own, in steps of 32."""
        full = self.lesson.pixels.shape[1:3]
        steps = max(0, min(full[0] - self.lesson.size[0], full[1] - self.lesson.size[1])) // 32
        if int(torch.randint(2, (1,), generator=self.generator)):
            return full
        extra = 32 * int(torch.randint(steps + 1, (1,), generator=self.generator))
        return self.lesson.size[0] + extra, self.lesson.size[1] + extra

    def _next(self, queue: str, count: int, wanted: int) -> Tensor:
        while len(self.queues[queue]) < wanted:
            self.queues[queue] += torch.randperm(count, generator=self.generator).tolist()
        picked, self.queues[queue] = self.queues[queue][:wanted], self.queues[queue][wanted:]
        return torch.tensor(picked)

    def _parts(
        self, indices: Tensor, size: tuple[int, int], views: Sequence[View], rows: Tensor | None, device: torch.device
    ) -> list[Tensor]:
        """Of each image what is seen, uint8 [n, H, W, 3], and the same part of its answer; without a live teacher, of
        its map too, and the features of the views `rows`."""
        lesson = self.lesson
        pixels = torch.from_numpy(lesson.pixels[indices.numpy()]).to(device).split(1)
        labels = [lesson.answer(index, device) for index in indices.tolist()]
        nothing = torch.zeros(1, lesson.classes + 1, *size, device=device)
        answers = [nothing if one is None else view.of(one, size) for one, view in zip(labels, views)]
        parts = [torch.cat([view.of_pixels(one, size) for one, view in zip(pixels, views)]), torch.cat(answers)]
        if lesson.live is None:
            maps = lesson.seen(indices).to(device).split(1)
            parts.append(torch.cat([view.of(one, size) for one, view in zip(maps, views)]))
            if lesson.features is not None and rows is not None:
                picked = [values[rows.numpy()] for values in lesson.features.values.values()]
                parts += [torch.from_numpy(values).to(device) for values in picked]
        return parts

    def loss(self, net: Network, pixels: Tensor, answers: Tensor, *taught: Tensor) -> Tensor:
        """Of what was `drawn`."""
        lesson = self.lesson
        if lesson.live is not None:
            seen, wanted = lesson.live.sees(pixels)
            spread = lesson.live.spread
        else:
            seen, *values = taught
            features = lesson.features if values else None
            wanted = dict(zip(features.values, values, strict=True)) if features else {}
            spread = features.spread if features else {}
        target = blended(seen, answers, lesson.label_weight)
        last = net.by_name[net.output]
        with autocast(pixels.device):
            made = net.run(net.real(pixels, torch.channels_last), keep={last.inputs[0], *wanted})
        logits, probabilities = made[last.inputs[0]].float(), made[net.output].float()
        loss = map_loss(logits, probabilities, target[:, :-1], target[:, -1:], last.op)
        if wanted:
            loss = loss + FEATURE_WEIGHT * feature_loss(made, wanted, spread)
        return loss


def feature_loss(values: Mapping[str, Tensor], wanted: Mapping[str, Tensor], spread: Mapping[str, Tensor]) -> Tensor:
    """How far the values are from those that are `wanted`, in squares of their spread."""
    losses = []
    for name, feature in wanted.items():
        apart = pooled(values[name]).float() - feature.float()
        losses.append((apart / spread[name].to(apart.device)).square().mean())
    return torch.stack(losses).mean()


def map_loss(logits: Tensor, probabilities: Tensor, target: Tensor, certainty: Tensor, activation: str) -> Tensor:
    """Cross entropy against soft targets [N, classes, H, W], and one minus the soft IoU of the foreground classes.

    Each pixel of the cross entropy weighs as much as its target is certain, [N, 1, H, W], and more near an edge of the
    target, which is where a small network loses most and where few pixels are.
    """
    if activation == "softmax":
        entropy = -(target * F.log_softmax(logits, 1)).sum(1, keepdim=True)
    else:
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1, keepdim=True)
    weight = certainty + EDGE_WEIGHT * edges(target[:, 1:])
    ours, theirs = probabilities[:, 1:], target[:, 1:]
    overlap = (ours * theirs).sum((2, 3)) + 1.0
    union = (ours + theirs - ours * theirs).sum((2, 3)) + 1.0
    return (weight * entropy).sum() / weight.sum() + OVERLAP_WEIGHT * (1 - overlap / union).mean()


def edges(target: Tensor) -> Tensor:
    """How much a target changes within EDGE_REACH pixels: that of the class that changes most, [N, 1, H, W] in 0..1."""
    return (_highest(target) + _highest(-target)).amax(1, keepdim=True)


def _highest(values: Tensor) -> Tensor:
    """Within EDGE_REACH pixels: as F.max_pool2d, which also notes where they are, and takes ten times as long."""
    for dim, padding in ((2, (0, 0, EDGE_REACH, EDGE_REACH)), (3, (EDGE_REACH, EDGE_REACH))):
        padded = F.pad(values, padding, value=-math.inf)
        shifted = [padded.narrow(dim, start, values.shape[dim]) for start in range(2 * EDGE_REACH + 1)]
        values = functools.reduce(torch.maximum, shifted)
    return values
