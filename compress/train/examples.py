"""What there is to learn, and how well it was learned."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.graph.network import Network
from compress.measure.masks import class_ids, image_iou
from compress.train.teacher import Features, LiveTeacher

LABEL_WEIGHT = 0.5
HOPELESS = 0.3
"""Doubt for each pixel of object. On photographs with labels, U²-Net has an IoU of 0.64 above it and 0.90 below."""


@dataclass(frozen=True)
class Lesson:
    """What there is to learn: arrays are indexed by image.

    pixels    uint8 [N, H, W, 3], at the network's size
    maps      the teacher's probabilities of every class but the first, uint8 [N, classes - 1, H, W]
    doubt     how unsure the teacher is, uint8 [N, H, W], 255 being no idea at all
    labels    class ids of the first images, uint8 [L, H, W], 255 void; L may be 0
    features  of some of the images, at `size`
    held_out  indices of the images that are kept for choosing the best checkpoint
    left_out  indices of unlabelled images of which the teacher's map says nothing
    size      the smaller height and width to train at
    label_weight  of what a label says, beside what the teacher says of the same pixel
    live      the teachers themselves, where they look at each view; `maps`, `doubt` and `features` teach else
    """

    pixels: np.ndarray
    maps: np.ndarray
    doubt: np.ndarray
    labels: np.ndarray
    features: Features | None
    held_out: tuple[int, ...]
    left_out: tuple[int, ...]
    size: tuple[int, int]
    classes: int
    label_weight: float = LABEL_WEIGHT
    live: LiveTeacher | None = None

    def taught(self) -> list[int]:
        """Indices of the images to learn from; a set so small that all are held out teaches with those."""
        closed = {*self.held_out, *self.left_out}
        return [i for i in range(len(self.pixels)) if i not in closed] or list(self.held_out)

    def seen(self, indices: Tensor) -> Tensor:
        """The teacher's probabilities of every class but the first, then its doubt, [n, classes, H, W] in 0..1."""
        picked = indices.numpy()
        maps, doubt = torch.from_numpy(self.maps[picked]), torch.from_numpy(self.doubt[picked])
        return torch.cat([maps, doubt[:, None]], 1).float() / 255

    def answer(self, index: int, device: torch.device | str = "cpu") -> Tensor | None:
        """What the label says, [1, classes + 1, H, W]: 1 for the class of each pixel, then 1 where that is known."""
        if index >= len(self.labels):
            return None
        label = torch.from_numpy(self.labels[index].copy()).to(device)
        classes = torch.arange(self.classes, dtype=torch.uint8, device=device)[:, None, None]
        return torch.cat([label == classes, (label < self.classes)[None]]).float()[None]

    def reference(self, index: int) -> np.ndarray:
        """Class ids [H, W] that the held-out images are judged by: the label, else the teacher's."""
        if index < len(self.labels):
            return self.labels[index]
        return _all_classes(self.seen(torch.tensor([index])))[0].argmax(0).numpy().astype(np.uint8)


def blended(seen: Tensor, answers: Tensor, label_weight: float) -> Tensor:
    """What to learn, [n, classes + 1, H, W]: probabilities of all classes, the teacher's averaged with a label's where
    there is one, then how sure they are, in 0..1: as the teacher is, or 1 where there is a label. From what
    `Lesson.seen` and `Lesson.answer` give, or the same part of both; an answer of zeros is none."""
    labels, known = answers[:, :-1], answers[:, -1:]
    probabilities, sure = _all_classes(seen), 1 - seen[:, -1:]
    return torch.cat([probabilities + label_weight * (labels - known * probabilities), sure + known * (1 - sure)], 1)


def _all_classes(seen: Tensor) -> Tensor:
    """The probabilities in what `Lesson.seen` gives, and before them that of the first class, [n, classes, H, W]."""
    others = seen[:, :-1]
    return torch.cat([(1 - others.sum(1, keepdim=True)).clamp_min(0), others], 1)


def hopeless(maps: np.ndarray, doubt: np.ndarray, labelled: int) -> tuple[int, ...]:
    """Unlabelled images on which the teacher is hopeless: much doubt for little object. Three pixels in a hundred count
    as object at least, so that an image without any, of which it is sure, stays."""
    granted = 0.03 * 255 * doubt[0].size if len(doubt) else 0
    return tuple(
        index
        for index in range(labelled, len(maps))
        if float(doubt[index].sum()) > HOPELESS * (float(maps[index].sum()) + granted)
    )


def held_out_iou(net: Network, lesson: Lesson) -> float:
    """Mean IoU on the held-out images, at the network's own size."""
    return float(np.mean(held_out_ious(net, lesson)))


def held_out_ious(net: Network, lesson: Lesson) -> list[float]:
    """IoU on each of the held-out images, at the network's own size."""
    scores = []
    device = net.weight(net.weighted()[0].name).device
    with torch.no_grad():
        for index in lesson.held_out:
            image = net.real(torch.from_numpy(lesson.pixels[index : index + 1].copy())).to(device)
            scores.append(image_iou(class_ids(net(image)[0].cpu().numpy()), lesson.reference(index), lesson.classes))
    return scores
