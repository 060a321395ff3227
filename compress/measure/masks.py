"""Masks against masks: overlap of regions, overlap of outlines, small objects found. Pure functions.

A mask is class ids, uint8 [H, W], 0 being background; pixels of a reference mask that are `VOID` count for nothing.
With `multilabel` it is sets of labels, int32 [H, W], in which bit i is set where label i is: there is no background
among them, and nothing is void.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy import ndimage, special

from compress.data.coding import VOID

DILATION = 0.02
"""Depth of an outline as a share of the image's diagonal, as the paper on boundary IoU has it."""
SMALL = 0.01
"""An object is small that covers less than this share of the image ..."""
SPECK = 16
"""... and is larger than a slip of the annotator: pixels."""
FOUND = 0.5
"""Share of its pixels that must be predicted as its class for an object to count as found."""
_EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def class_ids(
    probabilities: np.ndarray, size: tuple[int, ...] | None = None, logits: bool = False, *, multilabel: bool = False
) -> np.ndarray:
    """float32 [classes, h, w] -> the mask at `size` (default: h, w): the likeliest class of each pixel, or all labels
    that are likelier than not.

    A single channel is the probability of class 1, or its logit. Maps are resized bilinearly before the class is
    chosen.
    """
    if size and size != probabilities.shape[1:]:
        height, width = size
        resized = [Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR) for c in probabilities]
        probabilities = np.stack([np.asarray(channel) for channel in resized])
    if multilabel:
        return label_sets(probabilities > (0.0 if logits else 0.5))
    if len(probabilities) == 1:
        return (probabilities[0] > (0.0 if logits else 0.5)).astype(np.uint8)
    return probabilities.argmax(0).astype(np.uint8)


def label_sets(regions: np.ndarray) -> np.ndarray:
    """Where each label is, bool [labels, H, W] -> int32 [H, W]."""
    bits = np.int32(1) << np.arange(len(regions), dtype=np.int32)
    return np.einsum("lhw,l->hw", regions.astype(np.int32), bits)


def labels_in(sets: np.ndarray, labels: int) -> np.ndarray:
    """int32 [H, W] -> where each label is, bool [labels, H, W]."""
    return (sets >> np.arange(labels, dtype=np.int32)[:, None, None] & 1).astype(bool)


def _objects(
    prediction: np.ndarray, mask: np.ndarray, classes: int, multilabel: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each label, or each class but the background: where it is predicted, and where it is; bool [H, W] each."""
    if multilabel:
        yield from zip(labels_in(prediction, classes), labels_in(mask, classes))
        return
    for id in range(1, classes):
        yield prediction == id, mask == id


def as_probabilities(values: np.ndarray, logits: bool = False, *, multilabel: bool = False) -> np.ndarray:
    """What a file gives, float32 [classes, h, w], as probabilities: logits by softmax, one channel and labels by
    sigmoid."""
    if not logits:
        return values
    return special.expit(values) if multilabel or len(values) == 1 else special.softmax(values, axis=0)


def overlap(
    prediction: np.ndarray, mask: np.ndarray, classes: int, *, multilabel: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the intersection and in the union of prediction and mask, of each class, int64 [classes] each."""
    if multilabel:
        ours, theirs = labels_in(prediction, classes), labels_in(mask, classes)
        return (ours & theirs).sum((1, 2)), (ours | theirs).sum((1, 2))
    return overlap_in(confusion(prediction, mask, classes))


def confusion(prediction: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each class of the mask, by row, that are predicted as each class, by column, int64
    [classes, classes]."""
    counted = (mask < classes) & (mask != VOID) & (prediction < classes)
    pairs = mask[counted].astype(np.int64) * classes + prediction[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def overlap_in(confused: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `overlap` gives, of what `confusion` gives."""
    both = np.diagonal(confused)
    return both, confused.sum(0) + confused.sum(1) - both


def image_iou(prediction: np.ndarray, mask: np.ndarray, classes: int, *, multilabel: bool = False) -> float:
    """Mean intersection over union of the foreground classes (ids from 1; labels all) that occur in prediction or mask;
    1 where none does."""
    return mean_iou(*overlap(prediction, mask, classes, multilabel=multilabel), multilabel=multilabel)


def mean_iou(both: np.ndarray, either: np.ndarray, *, multilabel: bool = False) -> float:
    """What `image_iou` gives, of what `overlap` gives."""
    if not multilabel:
        both, either = both[1:], either[1:]
    occurs = either > 0
    return float(np.mean(both[occurs] / either[occurs])) if occurs.any() else 1.0


def is_near(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where the class of a pixel stands within a pixel of the same place in another mask, bool [H, W]."""
    height, width = mask.shape
    around = np.pad(other, 1, mode="edge")
    return np.any([mask == around[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)


def boundary(region: np.ndarray, depth: int) -> np.ndarray:
    """Pixels of `region` (bool [H, W]) within `depth` pixels of its edge or of the image's, bool [H, W].

    As the authors' code has it: what `depth` erosions with a 3x3 square take away, outside of the image counting as
    background. A pixel stays where the square of 2 * depth + 1 pixels around it is full, so sums over windows do.
    """
    width = 2 * depth + 1
    sums = np.pad(region, depth).astype(np.int32)
    for axis in (0, 1):
        total = np.insert(np.cumsum(sums, axis), 0, 0, axis)
        sums = np.take(total, range(width, total.shape[axis]), axis)
        sums -= np.take(total, range(total.shape[axis] - width), axis)
    return region & (sums < width * width)


def rim_depth(height: int, width: int) -> int:
    """Depth of an outline in pixels: 2 % of the diagonal, at least 1."""
    return max(1, round(DILATION * float(np.hypot(height, width))))


def boundary_image_iou(prediction: np.ndarray, mask: np.ndarray, classes: int, *, multilabel: bool = False) -> float:
    """Boundary IoU (Cheng et al., CVPR 2021, arXiv 2103.16562): overlap of the outlines of two masks, since mean IoU of
    large objects hides a coarse one. The mean over classes is that of `image_iou`.

    Void pixels are taken out of both before the outlines are drawn, so that an edge in there counts for nothing.
    """
    counted = np.full(mask.shape, True) if multilabel else mask != VOID
    depth = rim_depth(*mask.shape)
    scores = []
    for ours, theirs in _objects(prediction, mask, classes, multilabel):
        predicted, labelled = ours & counted, theirs & counted
        if predicted.any() or labelled.any():
            rim, wanted = boundary(predicted, depth), boundary(labelled, depth)
            scores.append(np.count_nonzero(rim & wanted) / np.count_nonzero(rim | wanted))
    return float(np.mean(scores)) if scores else 1.0


def small_objects_found(
    prediction: np.ndarray, mask: np.ndarray, classes: int, *, multilabel: bool = False
) -> tuple[bool, ...]:
    """For each small object in the mask, whether it was found: a mean over pixels or images does not notice when the
    small ones go. An object is a connected part of a class, diagonal neighbours touching; background and void are
    none."""
    pairs = _objects(prediction, mask, classes, multilabel)
    return tuple(found for predicted, labelled in pairs for found in _found(predicted, labelled))


def _found(predicted: np.ndarray, labelled: np.ndarray) -> list[bool]:
    objects, count = ndimage.label(labelled, _EIGHT_NEIGHBOURS)
    pixels = np.bincount(objects.ravel(), minlength=count + 1)[1:]
    hits = np.bincount(objects[predicted], minlength=count + 1)[1:]
    small = (pixels >= SPECK) & (pixels < SMALL * labelled.size)
    return (hits[small] / pixels[small] >= FOUND).tolist()
