"""The one training loop: distillation of the float student, then of the fake-quantized one."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from compress.errors import TrainError
from compress.measure.accuracy import class_ids, image_iou
from compress.network import Network
from compress.train.targets import Features, pooled, shrink

Net = TypeVar("Net", bound=Network)

EMA = 0.998
CHECKS = 8
FEATURE_WEIGHT = 1.0
OVERLAP_WEIGHT = 1.0
LABEL_WEIGHT = 0.5


@dataclass(frozen=True)
class Lesson:
    """What there is to learn: arrays are indexed by image.

    pixels    uint8 [N, H, W, 3], at the network's size
    maps      the teacher's probabilities, uint8 [N, classes - 1, H, W]
    labels    class ids of the first images, uint8 [L, H, W], 255 void; L may be 0
    features  of some of the images, at `size`
    held_out  indices of the images that are kept for choosing the best checkpoint
    size      the smaller height and width to train at
    """

    pixels: np.ndarray
    maps: np.ndarray
    labels: np.ndarray
    features: Features | None
    held_out: tuple[int, ...]
    size: tuple[int, int]
    classes: int

    def target(self, indices: Tensor) -> Tensor:
        """Probabilities [n, classes, H, W]: the teacher's, averaged with the label's where there is one."""
        others = torch.from_numpy(self.maps[indices.numpy()]).float() / 255
        target = torch.cat([(1 - others.sum(1, keepdim=True)).clamp_min(0), others], 1)
        for row, index in enumerate(indices.tolist()):
            if index < len(self.labels):
                label = torch.from_numpy(self.labels[index].astype(np.int64))
                known = label < self.classes
                one_hot = F.one_hot(torch.where(known, label, 0), self.classes).permute(2, 0, 1).float()
                mixed = LABEL_WEIGHT * one_hot + (1 - LABEL_WEIGHT) * target[row]
                target[row] = torch.where(known, mixed, target[row])
        return target

    def reference(self, index: int) -> np.ndarray:
        """Class ids [H, W] that the held-out images are judged by: the label, else the teacher's."""
        if index < len(self.labels):
            return self.labels[index]
        return self.target(torch.tensor([index]))[0].argmax(0).numpy().astype(np.uint8)


def held_out_iou(net: Network, lesson: Lesson) -> float:
    """Mean IoU on the held-out images, at the network's own size."""
    scores = []
    with torch.no_grad():
        for index in lesson.held_out:
            output = net(net.real(torch.from_numpy(lesson.pixels[index : index + 1].copy())))[0]
            scores.append(image_iou(class_ids(output.numpy()), lesson.reference(index), lesson.classes))
    return float(np.mean(scores))


def fit(
    net: Net,
    lesson: Lesson,
    *,
    minutes: float,
    batch: int,
    learning_rate: float,
    seed: int,
    desc: str,
    on_check: Callable[[Net, float, float, float], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Net, float]:
    """Train `net` (changed in place) for `minutes` of wall-clock -> the copy that was best on the held-out
    images, of those that are averaged over steps and of the start, and its IoU there.

    Adam with a short warm-up and a cosine that ends with the time; a repaired network loses what the repair won
    at a rate that would suit one from scratch. `on_check(best, minutes, iou, loss)` is called about ten times.
    Raises TrainError when the loss leaves the finite numbers.
    """
    draw = _Draw(lesson, batch, seed)
    averaged = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), learning_rate)
    best, best_iou = copy.deepcopy(averaged), held_out_iou(averaged, lesson)
    start, step, checked, recent = clock(), 0, 0, 0.0
    with tqdm(total=round(minutes * 60), desc=desc, unit="s", bar_format=_BAR) as bar:
        while (elapsed := (clock() - start) / 60) < minutes:
            done = elapsed / minutes
            for group in optimizer.param_groups:
                group["lr"] = (
                    learning_rate * min(1.0, (step + 1) / 20) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
                )
            loss = draw.loss(net)
            if not torch.isfinite(loss):
                raise TrainError(
                    f"{desc}: the loss is {loss.item()} at step {step}; lower train.learning_rate in the recipe"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            _average(averaged, net, min(EMA, (1 + step) / (10 + step)))
            step += 1
            recent = loss.item() if step == 1 else 0.95 * recent + 0.05 * loss.item()
            bar.n = min(bar.total, round(elapsed * 60))
            bar.set_postfix(loss=f"{recent:.4f}", iou=f"{best_iou:.4f}", refresh=True)
            if done * CHECKS >= checked + 1:
                checked += 1
                best, best_iou = _better(averaged, best, best_iou, lesson)
                on_check(best, elapsed, best_iou, recent)
    best, best_iou = _better(averaged, best, best_iou, lesson)
    on_check(best, (clock() - start) / 60, best_iou, recent)
    return best, best_iou


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} s{postfix}"


def _better(averaged: Net, best: Net, best_iou: float, lesson: Lesson) -> tuple[Net, float]:
    iou = held_out_iou(averaged, lesson)
    return (copy.deepcopy(averaged), iou) if iou > best_iou else (best, best_iou)


def _average(averaged: Network, net: Network, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(net.parameters()), 1 - decay)


class _Draw:
    """Batches in a random order, and the loss on the next one."""

    def __init__(self, lesson: Lesson, batch: int, seed: int):
        self.lesson, self.batch = lesson, batch
        self.generator = torch.Generator().manual_seed(seed)
        held_out = set(lesson.held_out)
        self.images = torch.tensor([i for i in range(len(lesson.pixels)) if i not in held_out])
        self.queues: dict[str, list[int]] = {"images": [], "features": []}
        self.count = 0

    def loss(self, net: Network) -> Tensor:
        """By turns a batch with features at the smaller size, and one without them at a random size, mirrored at
        random; both have about as many pixels."""
        self.count += 1
        features = self.lesson.features
        if features is not None and self.count % 2:
            rows = self._next("features", len(features.images), self.batch)
            return self._loss(net, features.images[rows], self.lesson.size, False, rows)
        size = self._size()
        small, here = math.prod(self.lesson.size), math.prod(size)
        rows = self._next("images", len(self.images), max(1, round(self.batch * small / here)))
        return self._loss(net, self.images[rows], size, True, None)

    def _size(self) -> tuple[int, int]:
        """Between the smaller size and the network's own, in steps of 32."""
        full = self.lesson.pixels.shape[1:3]
        steps = max(0, min(full[0] - self.lesson.size[0], full[1] - self.lesson.size[1])) // 32
        if int(torch.randint(2, (1,), generator=self.generator)):
            return full
        extra = 32 * int(torch.randint(steps + 1, (1,), generator=self.generator))
        return self.lesson.size[0] + extra, self.lesson.size[1] + extra

    def _next(self, queue: str, count: int, wanted: int) -> Tensor:
        if len(self.queues[queue]) < wanted:
            self.queues[queue] += torch.randperm(count, generator=self.generator).tolist()
        picked, self.queues[queue] = self.queues[queue][:wanted], self.queues[queue][wanted:]
        return torch.tensor(picked)

    def _loss(self, net: Network, indices: Tensor, size: tuple[int, int], mirror: bool, rows: Tensor | None) -> Tensor:
        lesson = self.lesson
        image = net.real(shrink(torch.from_numpy(lesson.pixels[indices.numpy()]), size))
        target = F.interpolate(lesson.target(indices), size, mode="bilinear", antialias=True)
        if mirror and int(torch.randint(2, (1,), generator=self.generator)):
            image, target = image.flip(3), target.flip(3)
        last = net.by_name[net.output]
        names = list(lesson.features.values) if lesson.features is not None and rows is not None else []
        values = net.run(image, keep={last.inputs[0], *names})
        loss = map_loss(values[last.inputs[0]], values[net.output], target, last.op)
        if names:
            loss = loss + FEATURE_WEIGHT * self._feature_loss(values, rows, names)
        return loss

    def _feature_loss(self, values: dict[str, Tensor], rows: Tensor | None, names: list[str]) -> Tensor:
        features = self.lesson.features
        assert features is not None
        losses = [
            ((pooled(values[name]) - features.values[name][rows].float()) / features.spread[name]).square().mean()
            for name in names
        ]
        return torch.stack(losses).mean()


def map_loss(logits: Tensor, probabilities: Tensor, target: Tensor, activation: str) -> Tensor:
    """Cross entropy against soft targets [N, classes, H, W], and one minus the soft IoU of the foreground classes."""
    if activation == "softmax":
        cross_entropy = F.cross_entropy(logits, target)
    else:
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
    ours, theirs = probabilities[:, 1:], target[:, 1:]
    overlap = (ours * theirs).sum((2, 3)) + 1.0
    union = (ours + theirs - ours * theirs).sum((2, 3)) + 1.0
    return cross_entropy + OVERLAP_WEIGHT * (1 - overlap / union).mean()
