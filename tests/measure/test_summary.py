import numpy as np
import pytest
from scipy import stats

from compress.measure.evaluate import Evaluation
from compress.measure.stability import Stability
from compress.measure.summary import accuracy, class_iou

NOTHING = np.zeros((0, 1, 1), np.uint8)


def evaluation(iou, **fields):
    return Evaluation(tuple(iou), NOTHING, **{"boundary_iou": tuple(iou), **fields})


def test_every_drop_is_the_bases_minus_this_files():
    base, ours = evaluation([0.9, 0.8, 0.7]), evaluation([0.8, 0.7, 0.6])
    measured = accuracy(ours, base, Stability((0.1, 0.3), (0.2, 0.2)))
    assert measured.per_image_iou == (0.8, 0.7, 0.6)
    for drop in (measured.iou_drop, measured.boundary_iou_drop, measured.worst_decile_iou_drop):
        assert drop.mean == pytest.approx(0.1)
    assert measured.worst_decile_iou.mean == 0.6
    assert (measured.shift_flips.mean, measured.jpeg_flips.mean) == (0.2, 0.2)


def test_without_a_base_or_stability_there_are_none():
    measured = accuracy(evaluation([0.5]))
    nothing = (measured.iou_drop, measured.boundary_iou_drop, measured.worst_decile_iou_drop, measured.shift_flips)
    assert nothing == (None,) * 4
    assert measured.small_object_recall is None


def test_recall_is_of_all_small_objects_together():
    found = ((True, True, False), (), (False,))
    assert accuracy(evaluation([1, 1, 1], small_found=found)).small_object_recall.mean == 2 / 4


def test_iou_of_a_class_is_over_all_pixels_and_its_interval_that_of_scipy():
    rng = np.random.default_rng(0)
    unions = rng.integers(50, 100, (60, 3))
    intersections = (unions * rng.beta(8, 2, (60, 3))).astype(int)
    unions[:, 2] = intersections[:, 2] = 0
    found = class_iou(evaluation([], intersections=intersections, unions=unions), ("background", "disc", "square"))
    assert found["square"] is None
    theirs = stats.bootstrap(
        (intersections[:, 1], unions[:, 1]),
        lambda part, whole: part.sum() / whole.sum(),
        n_resamples=5_000,
        method="percentile",
        paired=True,
        vectorized=False,
        rng=7,
    ).confidence_interval
    assert found["disc"].mean == pytest.approx(intersections[:, 1].sum() / unions[:, 1].sum())
    assert (found["disc"].low, found["disc"].high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
