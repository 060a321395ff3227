"""Uncertain images of every kind, and no picture twice."""

import numpy as np
import pytest

from compress.mine.select import cells, kinds, pick


def pictures(count, seed=0):
    """Thumbnails without a likeness: uint8 [count, 32, 32, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.kron(coarse, np.ones((1, 4, 4, 1), np.uint8))


def indices(picks):
    return [one.index for one in picks]


def test_the_most_uncertain_first_then_uncertainty_times_distance():
    """On a line: 0 is most uncertain; 1 lies beside it; 2 is far but less uncertain; 3 farther, hardly uncertain."""
    places = np.array([[0.0], [0.1], [4.0], [5.0]], np.float32)
    uncertainties = np.array([1.0, 0.9, 0.5, 0.1])
    picks = pick(uncertainties, places, pictures(4), 4)
    # after 0: 0.09, 2.0, 0.5; after 2: 0.09, 0.1 -> 3; then 1
    assert indices(picks) == [0, 2, 3, 1]
    assert [one.apart for one in picks] == [None, 4.0, 1.0, pytest.approx(0.1)]


def test_near_duplicates_are_never_both_picked():
    thumbnails = pictures(4)
    thumbnails[2] = (thumbnails[0] * 0.9).astype(np.uint8)  # darker
    thumbnails[3] = thumbnails[1, :, ::-1]  # mirrored
    places = np.arange(4, dtype=np.float32)[:, None]
    assert indices(pick(np.array([0.5, 0.4, 0.3, 0.6]), places, thumbnails, 4)) == [3, 0]


def test_flat_pictures_of_one_colour_are_picked_once():
    thumbnails = np.full((3, 32, 32, 3), 255, np.uint8)
    places = kinds(thumbnails, np.zeros((3, 8, 8)))
    assert indices(pick(np.ones(3), places, thumbnails, 3)) == [0]


def test_images_without_uncertainty_are_not_worth_a_label():
    places = np.arange(3, dtype=np.float32)[:, None]
    assert indices(pick(np.array([0.0, 0.2, 0.0]), places, pictures(3), 3)) == [1]


def test_random_images_are_at_distance_one():
    rng = np.random.default_rng(0)
    places = kinds(pictures(200), rng.random((200, 8, 8)))
    assert places.shape == (200, 256)
    apart = places[rng.integers(0, 200, 4000)] - places[rng.integers(0, 200, 4000)]
    assert np.sqrt(np.square(apart).sum(1).mean()) == pytest.approx(1, abs=0.03)


def test_the_place_of_the_object_is_part_of_the_kind():
    thumbnails = np.repeat(pictures(1), 3, axis=0)
    foregrounds = np.zeros((3, 8, 8))
    foregrounds[1, :4] = foregrounds[2, 4:] = 1
    places = kinds(thumbnails, foregrounds)
    assert np.linalg.norm(places[1] - places[2]) > np.linalg.norm(places[1] - places[0]) > 0


def test_cells_are_averages():
    assert (
        cells(np.kron(np.arange(64).reshape(8, 8), np.ones((20, 20)))).tolist() == np.arange(64).reshape(8, 8).tolist()
    )
