"""Figures of a run that cannot be right, in one sentence each: what is wired wrongly runs all the same, and gives
numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

from compress.data.coding import labels_of
from compress.measure.values import Measurement
from compress.report.record import HistoryPoint

NOTHING = 0.1
"""Mean IoU of a teacher that does not do what the labels say."""

FAR = 0.2
"""IoU that int8 never costs where ranges and files are right."""

FLOAT, INT8 = ("cut", "repair", "between", "distil"), ("ptq", "qat")
"""Stages of the history."""


def doubts(
    measurements: Mapping[str, Measurement],
    predictions: Mapping[str, np.ndarray],
    history: Sequence[HistoryPoint],
    classes: Sequence[str],
    labelled: bool,
    multilabel: bool = False,
) -> tuple[str, ...]:
    """`measurements` and `predictions` (masks [N, h, w]) by the name of the file, "teacher" where there is one;
    `labelled`: IoU is against labels; `multilabel`: masks are sets of labels."""
    iou = measurements.get("teacher", Measurement()).iou
    sentences = [about_teacher(iou.mean if iou and labelled else None), about_int8(history)]
    sentences += [about_answers(name, ids, classes, multilabel) for name, ids in predictions.items()]
    return tuple(sentence for sentence in sentences if sentence)


def about_teacher(iou: float | None) -> str:
    """`iou`: against labels; None: there are none. Empty where there is nothing to doubt."""
    if iou is None or iou >= NOTHING:
        return ""
    return (
        f"the heavy model has an IoU of {iou:.3f} on the labels, as if it had not been trained on them: look at "
        "[preprocess], at the order of [model] classes, at [model] output, and at the masks"
    )


def about_int8(history: Sequence[HistoryPoint]) -> str:
    """Empty where there is nothing to doubt."""
    before, after = ([point.iou for point in history if point.stage in stages] for stages in (FLOAT, INT8))
    if not before or not after or before[-1] - after[-1] < FAR:
        return ""
    return (
        f"int8 has an IoU of {after[-1]:.3f} where the same network in float has {before[-1]:.3f}, more than int8 "
        "costs: train for longer, or find the layer with --sensitivity"
    )


def about_answers(name: str, predictions: np.ndarray, classes: Sequence[str], multilabel: bool = False) -> str:
    """Empty where there is nothing to doubt."""
    if not predictions.size or predictions.min() != predictions.max():
        return ""
    only = int(predictions.flat[0])
    names = [classes[id] for id in (labels_of(only, len(classes)) if multilabel else [only])]
    said = ", ".join(names) or "no label"
    return f"{name}: every pixel of every image is {said!r}"
