"""How far a network's answers are from what it should learn."""

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.graph.network import Network
from compress.train.device import autocast
from compress.train.examples import blended
from compress.train.teacher import Teacher, pooled

FEATURE_WEIGHT = 1.0
OVERLAP_WEIGHT = 1.0
EDGE_WEIGHT = 4.0
EDGE_REACH = 2
SURE = 1e-4
"""As near to certain as probabilities are taken to be that no logits are known of."""


@torch.no_grad()
def batch_aims(
    teacher: Teacher,
    label_weight: float,
    class_weights: Tensor | None,
    pixels: Tensor,
    labels: Tensor,
    *stored: Tensor,
) -> list[Tensor]:
    """What is to be learned of a batch as `Batches.next` gives it, on its device: probabilities of the classes,
    [n, classes, H, W]; how much each pixel weighs, [n, 1, H, W]; the sum of that, []; then the teacher's features, in
    the order of `Teacher.std`, where it gives any."""
    predicted, wanted = teacher.targets(pixels, *stored)
    target = blended(predicted, labels, label_weight)
    weight = pixel_weights(target[:, :-1], target[:, -1:], class_weights, teacher.multilabel)
    return [target[:, :-1], weight, weight.sum(), *wanted.values()]


def batch_loss(
    net: Network,
    teacher: Teacher,
    share: Tensor,
    pixels: Tensor,
    target: Tensor,
    weight: Tensor,
    total: Tensor,
    *features: Tensor,
) -> Tensor:
    """Of a batch, or a part of one, as its pixels and `batch_aims` are. The losses of all parts add up to the batch's:
    `share` of its images are here, and `total` is the sum of the whole batch's weights; both are []."""
    wanted = dict(zip(teacher.std, features, strict=True)) if features else {}
    last = net.by_name[net.output]
    with autocast(pixels.device):
        made = net.run(net.real(pixels, torch.channels_last), keep={last.inputs[0], *wanted})
    before, probabilities = made[last.inputs[0]].float(), made[net.output].float()
    entropy, overlap = map_losses(before, probabilities, target, weight, last.op, teacher.multilabel)
    loss = entropy / total + share * OVERLAP_WEIGHT * overlap
    if wanted:
        loss = loss + share * FEATURE_WEIGHT * feature_loss(made, wanted, teacher.std)
    return loss


def feature_loss(values: Mapping[str, Tensor], wanted: Mapping[str, Tensor], std: Mapping[str, Tensor]) -> Tensor:
    """How far the values are from those that are `wanted`, in squares of their standard deviation."""
    losses = []
    for name, feature in wanted.items():
        apart = pooled(values[name]).float() - feature.float()
        losses.append((apart / std[name].to(apart.device)).square().mean())
    return torch.stack(losses).mean()


def map_losses(
    before: Tensor, probabilities: Tensor, target: Tensor, weight: Tensor, last: str, multilabel: bool = False
) -> tuple[Tensor, Tensor]:
    """Cross entropy against soft targets [N, classes, H, W], summed over pixels as each weighs, [N, 1, H, W]; and one
    minus the soft IoU of the foreground classes: all but the first, or with `multilabel` all.
    `last`: the operator that gave the probabilities, and `before` what that read: logits of a softmax or a sigmoid.
    """
    if last == "softmax":
        entropy = -(target * F.log_softmax(before, 1)).sum(1, keepdim=True)
    elif last == "sigmoid":
        entropy = F.binary_cross_entropy_with_logits(before, target, reduction="none").mean(1, keepdim=True)
    else:
        inside = probabilities.clamp(SURE, 1 - SURE)
        entropy = -(target * inside.log() + (1 - target) * (1 - inside).log()).mean(1, keepdim=True)
    first = 0 if multilabel else 1
    ours, theirs = probabilities[:, first:], target[:, first:]
    overlap = (ours * theirs).sum((2, 3)) + 1.0
    union = (ours + theirs - ours * theirs).sum((2, 3)) + 1.0
    return (weight * entropy).sum(), (1 - overlap / union).mean()


def pixel_weights(
    target: Tensor, certainty: Tensor, class_weights: Tensor | None = None, multilabel: bool = False
) -> Tensor:
    """What each pixel weighs in the cross entropy, [N, 1, H, W]: as much as its target is certain, [N, 1, H, W], and
    more near an edge of the target, which is where a small network loses most and where few pixels are.
    `class_weights`, [classes, 1, 1], weigh each pixel by what its target is; the overlap counts every class alike
    anyway."""
    weight = certainty + EDGE_WEIGHT * edges(target[:, 0 if multilabel else 1 :])
    return weight if class_weights is None else weight * (target * class_weights).sum(1, keepdim=True)


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
