"""Uncertainty on pixels that can be worked out by hand."""

import numpy as np
import pytest

from compress.mine.uncertainty import Uncertainty, score, uncertainty


def answers(*models):
    """One pixel: the probabilities of each model; float32 [models, classes, 1, 1]."""
    return np.array(models, np.float32)[:, :, None, None]


@pytest.mark.parametrize(
    ("models", "unsure", "disagreement"),
    [
        (((1, 0), (1, 0)), 0, 0),
        (((0.5, 0.5), (0.5, 0.5)), 1, 0),
        (((1, 0), (0, 1)), 0, 1),
        (((1, 0), (0.5, 0.5)), 0.5, 0.8113 - 0.5),  # the mean, (3/4, 1/4), has 2 - 3/4 log2(3) = 0.8113 bits
        (((1, 0, 0), (0, 1, 0), (0, 0, 1)), 0, 1),
        (((1, 0, 0), (0, 1, 0)), 0, np.log(2) / np.log(3)),
        (((1 / 3, 1 / 3, 1 / 3),), 1, 0),
    ],
)
def test_the_entropy_of_the_mean_is_split_into_unsure_and_disagreement(models, unsure, disagreement):
    found = uncertainty(answers(*models))
    assert found.unsure.item() == pytest.approx(unsure, abs=1e-4)
    assert found.disagreement.item() == pytest.approx(disagreement, abs=1e-4)


def test_foreground_is_the_mean_probability_of_all_classes_but_the_first():
    assert uncertainty(answers((1, 0, 0), (0.5, 0.25, 0.25))).foreground.item() == pytest.approx(0.25)


def test_labels_are_uncertain_each_against_its_absence():
    found = uncertainty(answers((1, 0.5), (0, 0.5)), True)
    assert (found.unsure.item(), found.disagreement.item()) == pytest.approx((0.5, 0.5), abs=1e-4)
    assert found.foreground.item() == pytest.approx(0.75)  # neither: a half of a half


def on_pixels(unsure, disagreement, foreground):
    return score(
        Uncertainty(*(np.array(part, np.float32).reshape(1, -1) for part in (unsure, disagreement, foreground)))
    )


def test_an_image_is_scored_by_the_share_of_its_object_that_is_uncertain():
    """200 pixels, 1 % of them is 2; 50 sure of the object, 20 wholly unsure, 10 contradicted."""
    unsure = [0.0] * 50 + [1.0] * 20 + [0.0] * 130
    disagreement = [0.0] * 70 + [1.0] * 10 + [0.0] * 120
    foreground = [1.0] * 50 + [0.5] * 30 + [0.0] * 120
    found = on_pixels(unsure, disagreement, foreground)
    assert found.unsure == pytest.approx(20 / 82)
    assert found.disagreement == pytest.approx(10 / 82)
    assert found.uncertainty == pytest.approx(30 / 82)


def test_an_empty_image_of_which_all_are_nearly_sure_is_hardly_uncertain():
    assert on_pixels([0.001] * 100, [0.0] * 100, [0.0001] * 100).uncertainty < 0.1


def test_a_small_uncertain_object_counts_like_a_large_one():
    small = on_pixels([1.0] * 50 + [0.0] * 950, [0.0] * 1000, [0.5] * 50 + [0.0] * 950)
    large = on_pixels([1.0] * 500 + [0.0] * 500, [0.0] * 1000, [0.5] * 500 + [0.0] * 500)
    assert small.uncertainty == pytest.approx(50 / 60)
    assert large.uncertainty == pytest.approx(500 / 510)
