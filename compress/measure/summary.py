"""What a file answered on images -> figures with their intervals."""

from collections.abc import Sequence

import numpy as np

from compress.measure.evaluate import Evaluation
from compress.measure.stability import Stability
from compress.measure.statistics import bootstrap, bootstrap_mean, paired_difference, tail_difference, worst_decile
from compress.measure.values import Interval, Measurement


def accuracy(evaluation: Evaluation, base: Evaluation | None = None, stable: Stability | None = None) -> Measurement:
    """Everything in a Measurement that images tell. `base` is the reference's evaluation of the same images, from which
    the drops are taken, paired; None: there are none."""
    return Measurement(
        iou=bootstrap_mean(evaluation.iou),
        per_image_iou=evaluation.iou,
        iou_drop=paired_difference(base.iou, evaluation.iou) if base else None,
        boundary_iou=bootstrap_mean(evaluation.boundary_iou),
        boundary_iou_drop=paired_difference(base.boundary_iou, evaluation.boundary_iou) if base else None,
        worst_decile_iou=bootstrap(worst_decile, evaluation.iou),
        worst_decile_iou_drop=tail_difference(base.iou, evaluation.iou) if base else None,
        small_object_recall=_recall(evaluation),
        shift_flips=bootstrap_mean(stable.shift) if stable else None,
        jpeg_flips=bootstrap_mean(stable.jpeg) if stable else None,
    )


def class_iou(evaluation: Evaluation, classes: Sequence[str]) -> dict[str, Interval | None]:
    """IoU of each class, background too, over the pixels of all images together (as PASCAL VOC has it), by name.

    Images are drawn whole. None: the class is neither in a mask nor predicted.
    """
    found: dict[str, Interval | None] = {}
    for id, name in enumerate(classes):
        rows = np.column_stack([evaluation.intersections[:, id], evaluation.unions[:, id]])
        rows = rows[rows[:, 1] > 0]
        found[name] = bootstrap(_ratio, rows) if len(rows) else None
    return found


def _recall(evaluation: Evaluation) -> Interval | None:
    """Of all small objects together; images are drawn whole, since the objects of one image are alike."""
    rows = np.array([(sum(found), len(found)) for found in evaluation.small_found if found])
    return bootstrap(_ratio, rows) if len(rows) else None


def _ratio(rows: np.ndarray) -> float:
    part, whole = rows.sum(0)
    return float(part / whole)
