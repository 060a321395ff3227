"""Batches in a random order: a random part of each image, and the same part of its label and of its teacher's map."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compress.graph.network import Network
from compress.train import processes
from compress.train.examples import Examples
from compress.train.teacher import Teacher
from compress.train.views import View, random_view

LABELLED = 4
"""Times that an image with a label is drawn for one without: of the former few passes are left where there are many of
the latter, and a label says what no teacher does."""


class Batches:
    """`sizes`: heights and widths from the smaller one on, `own` that of the network; `images`: indices of the images
    of one round, some of them several times.

    Of several processes each draws the same batches, and reads its part of each; `share`: how much the mean of that
    part weighs in the mean of the batch. `state` and `restore` carry all that decides the batches to come.
    """

    def __init__(
        self,
        examples: Examples,
        teacher: Teacher,
        batch: int,
        sizes: Sequence[tuple[int, int]],
        own: tuple[int, int],
        seed: int,
    ):
        self.examples, self.teacher, self.batch, self.sizes, self.own = examples, teacher, batch, sizes, own
        self.generator = torch.Generator().manual_seed(seed)
        used = examples.trained_on()
        labelled = [i for i in used if i < len(examples.labels)]
        self.images = torch.tensor(used + labelled * (LABELLED - 1))
        self.queues: dict[str, list[int]] = {"images": [], "features": []}
        self.count, self.share = 0, 1.0

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "queues": self.queues, "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())
        self.queues, self.count = state["queues"], state["count"]

    def next(self, device: torch.device) -> list[Tensor]:
        """The next batch: by turns one with stored features at the smaller size, and one at a random size, where a
        live teacher gives features too; both have about as many pixels. Of every image a random part is taken, mirrored
        every other time."""
        self.count += 1
        features = self.teacher.features
        if features is not None and self.count % 2:
            rows = self._rows("features", len(features.images), self.batch)
            return self._parts(features.images[rows], self.sizes[0], [features.views[i] for i in rows], rows, device)
        size = self._random_size()
        small, here = math.prod(self.sizes[0]), math.prod(size)
        rows = self._rows("images", len(self.images), max(1, round(self.batch * small / here)))
        height, width = self.examples.pixels.shape[1:3]
        views = [random_view(height, width, self.generator) for _ in rows]
        return self._parts(self.images[rows], size, views, None, device)

    def _random_size(self) -> tuple[int, int]:
        """The network's own every other time."""
        if int(torch.randint(2, (1,), generator=self.generator)):
            return self.own
        return self.sizes[int(torch.randint(len(self.sizes), (1,), generator=self.generator))]

    def _rows(self, queue: str, count: int, wanted: int) -> Tensor:
        while len(self.queues[queue]) < wanted:
            self.queues[queue] += torch.randperm(count, generator=self.generator).tolist()
        picked, self.queues[queue] = self.queues[queue][:wanted], self.queues[queue][wanted:]
        return torch.tensor(picked)

    def _parts(
        self, indices: Tensor, size: tuple[int, int], views: Sequence[View], rows: Tensor | None, device: torch.device
    ) -> list[Tensor]:
        """Of each image the part in its view, uint8 [n, H, W, 3], and the same part of its label; then what the teacher
        has stored of it; for this process's part of them."""
        mine, self.share = processes.part(len(views))
        indices, views, rows = indices[mine], views[mine], None if rows is None else rows[mine]
        examples = self.examples
        pixels = torch.from_numpy(examples.pixels[indices.numpy()]).to(device).split(1)
        found = [examples.label(index, device) for index in indices.tolist()]
        nothing = torch.zeros(1, examples.classes + 1, *size, device=device)
        labels = [nothing if one is None else view.of(one, size) for one, view in zip(found, views)]
        parts = [torch.cat([view.of_pixels(one, size) for one, view in zip(pixels, views)]), torch.cat(labels)]
        return parts + self.teacher.batch(indices, views, size, rows, device)


def sizes_between(net: Network, smaller: tuple[int, int]) -> list[tuple[int, int]]:
    """From the smaller size to the network's own, in steps of 32: those that the network takes."""
    whole = net.traced_size
    steps = max(0, min(whole[0] - smaller[0], whole[1] - smaller[1])) // 32
    larger = [(smaller[0] + 32 * step, smaller[1] + 32 * step) for step in range(1, steps + 1)]
    return [smaller, *(size for size in larger if net.takes(size))]
