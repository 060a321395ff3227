"""Boundary IoU (Cheng et al., CVPR 2021, arXiv 2103.16562): overlap of the rims of two masks. Mean IoU of large objects
hides a coarse outline."""

import numpy as np

DILATION = 0.02
"""Depth of the rim as a share of the image's diagonal, as the paper has it."""


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
    """Depth of the rim in pixels: 2 % of the diagonal, at least 1."""
    return max(1, round(DILATION * float(np.hypot(height, width))))


def boundary_image_iou(prediction: np.ndarray, mask: np.ndarray, classes: int, void: int = 255) -> float:
    """Mean over the foreground classes (ids from 1) that occur in prediction or mask; 1 where none does.

    Both are class ids [H, W]. Pixels whose mask is `void` are taken out of both before the rims are drawn, so that
    an outline in there counts for nothing.
    """
    counted = mask != void
    depth = rim_depth(*mask.shape)
    scores = []
    for id in range(1, classes):
        predicted, labelled = (prediction == id) & counted, (mask == id) & counted
        if predicted.any() or labelled.any():
            ours, theirs = boundary(predicted, depth), boundary(labelled, depth)
            scores.append(np.count_nonzero(ours & theirs) / np.count_nonzero(ours | theirs))
    return float(np.mean(scores)) if scores else 1.0
