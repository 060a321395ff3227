"""The images to learn from with their labels, and how well a network does on those that were held out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.graph.network import Network
from compress.measure.masks import class_ids, image_iou
from compress.train.teacher import StoredTeacher, all_classes
from compress.train.views import shrink

HOPELESS = 0.3
"""Uncertainty for each pixel of object. On photographs with labels, U²-Net has an IoU of 0.64 above it and 0.90
below."""


@dataclass(frozen=True)
class Examples:
    """Arrays are indexed by image.

    pixels      uint8 [N, H, W, 3], at the teacher's size
    labels      masks of the first images, L may be 0: class ids, uint8 [L, H, W], 255 void, or with `multilabel` sets
                of labels, int32 [L, H, W]
    classes     how many there are
    held_out    indices of the images that are kept for choosing the best copy of a network
    references  masks that those are judged by, [len(held_out), H, W]
    left_out    indices of unlabelled images of which the teacher's map says nothing
    weights     of a pixel of each class, [classes]; empty: 1
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: int
    held_out: tuple[int, ...]
    references: np.ndarray
    left_out: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    multilabel: bool = False

    def trained_on(self) -> list[int]:
        """Indices of the images to learn from; a set so small that all are held out is learned from those."""
        closed = {*self.held_out, *self.left_out}
        return [i for i in range(len(self.pixels)) if i not in closed] or list(self.held_out)

    def label(self, index: int, device: torch.device | str = "cpu") -> Tensor | None:
        """What the label says, [1, classes + 1, H, W]: 1 for the class of each pixel, then 1 where that is known."""
        if index >= len(self.labels):
            return None
        label = torch.from_numpy(self.labels[index].copy()).to(device)
        if self.multilabel:
            bits = torch.arange(self.classes, dtype=torch.int32, device=device)[:, None, None]
            return torch.cat([label >> bits & 1, torch.ones_like(label)[None]]).float()[None]
        classes = torch.arange(self.classes, dtype=torch.uint8, device=device)[:, None, None]
        return torch.cat([label == classes, (label < self.classes)[None]]).float()[None]

    def iou(self, mask: np.ndarray, reference: np.ndarray) -> float:
        """Of two masks, as `labels` are."""
        return image_iou(mask, reference, self.classes, multilabel=self.multilabel)


def references_of(held_out: Sequence[int], labels: np.ndarray, teacher: StoredTeacher) -> np.ndarray:
    """What held-out images are judged by: the label, else the teacher's mask; [n, H, W]."""

    def reference(index: int) -> np.ndarray:
        if index < len(labels):
            return labels[index]
        predicted = all_classes(teacher.predicted(torch.tensor([index])), teacher.multilabel)
        return class_ids(predicted[0, :-1].numpy(), multilabel=teacher.multilabel)

    return np.stack([reference(index) for index in held_out])


def balanced(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """Weights of the classes by median frequency (Eigen and Fergus 2015, arXiv 1411.4734): the median of all classes'
    frequencies over a class's own, which is its share of the pixels of those images that show it. A class that no label
    shows weighs 1."""
    counts = np.stack([np.bincount(label.ravel(), minlength=256)[:classes] for label in labels])
    pixels = (counts.sum(1, keepdims=True) * (counts > 0)).sum(0)
    shown = pixels > 0
    frequency = counts.sum(0)[shown] / pixels[shown]
    weights = np.ones(classes)
    weights[shown] = np.median(frequency) / frequency
    return tuple(weights.tolist())


def teacher_iou(examples: Examples, teacher: StoredTeacher) -> float | None:
    """Mean IoU of the teacher's masks with the labels of the held-out images; None where those have none."""
    labelled = [index for index in examples.held_out if index < len(examples.labels)]
    if not labelled:
        return None
    masks = references_of(labelled, examples.labels[:0], teacher)
    return float(np.mean([examples.iou(mask, examples.labels[i]) for mask, i in zip(masks, labelled)]))


def blended(predicted: Tensor, labels: Tensor, label_weight: float) -> Tensor:
    """What to learn, [n, classes + 1, H, W]: probabilities of all classes, the teacher's averaged with a label's where
    there is one, then how sure they are, in 0..1: as the teacher is, or 1 where there is a label. `predicted` is as
    `Teacher.targets` gives it, `labels` as `Examples.label` does; a label of zeros is none."""
    classes, known = labels[:, :-1], labels[:, -1:]
    probabilities, sure = predicted[:, :-1], 1 - predicted[:, -1:]
    return torch.cat([probabilities + label_weight * (classes - known * probabilities), sure + known * (1 - sure)], 1)


def hopeless(maps: np.ndarray, uncertainty: np.ndarray, labelled: int) -> tuple[int, ...]:
    """Unlabelled images on which the teacher is hopeless: much uncertainty for little object. Three pixels in a hundred
    count as object at least, so that an image without any, of which it is sure, stays."""
    granted = 0.03 * 255 * uncertainty[0].size if len(uncertainty) else 0
    return tuple(
        index
        for index in range(labelled, len(maps))
        if float(uncertainty[index].sum()) > HOPELESS * (float(maps[index].sum()) + granted)
    )


def held_out_iou(net: Network, examples: Examples) -> float:
    """Mean IoU on the held-out images, which the network reads at its own size."""
    return float(np.mean(held_out_ious(net, examples)))


def held_out_ious(net: Network, examples: Examples) -> list[float]:
    """IoU on each of the held-out images, which the network reads at its own size."""
    scores = []
    device = net.weight(net.weighted()[0].name).device
    with torch.no_grad():
        for index, reference in zip(examples.held_out, examples.references, strict=True):
            pixels = shrink(torch.from_numpy(examples.pixels[index : index + 1].copy()), net.traced_size)
            answer = net(net.real(pixels).to(device))[0].cpu().numpy()
            mask = class_ids(answer, reference.shape, multilabel=examples.multilabel)
            scores.append(examples.iou(mask, reference))
    return scores
