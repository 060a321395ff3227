"""Against the paper's definition, written with scipy's erosion."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from compress.measure.boundary import boundary, boundary_image_iou, rim_depth


def boundary_by_erosion(region, depth):
    """Erosions with a 3x3 square inside a frame of background, as the authors' mask_to_boundary has them."""
    framed = np.pad(region, 1)
    inner = ndimage.binary_erosion(framed, np.ones((3, 3)), iterations=depth, border_value=1)
    return region & ~inner[1:-1, 1:-1]


def boundary_iou_by_erosion(prediction, mask):
    depth = max(1, int(round(0.02 * np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))))
    ours, theirs = boundary_by_erosion(prediction, depth), boundary_by_erosion(mask, depth)
    return (ours & theirs).sum() / (ours | theirs).sum()


@pytest.mark.parametrize("depth", [1, 2, 5, 40])
def test_a_rim_is_what_erosion_takes_away(depth):
    rng = np.random.default_rng(depth)
    noise = ndimage.gaussian_filter(rng.random((61, 83)), 4)
    for region in (noise > np.median(noise), rng.random((61, 83)) < 0.9, np.ones((61, 83), bool)):
        np.testing.assert_array_equal(boundary(region, depth), boundary_by_erosion(region, depth))


def test_a_photographs_mask_against_a_smoother_and_a_moved_one():
    horse = ~data.horse()
    for other in (ndimage.binary_opening(horse, iterations=12), np.roll(horse, (2, 3), (0, 1))):
        ours = boundary_image_iou(other.astype(np.uint8), horse.astype(np.uint8), classes=2)
        assert ours == pytest.approx(boundary_iou_by_erosion(other, horse))
        assert 0.1 < ours < 0.95


def test_random_masks_of_several_classes_are_averaged_over_those_that_occur():
    rng = np.random.default_rng(0)
    prediction, mask = rng.integers(0, 4, (2, 40, 50)).astype(np.uint8)
    wanted = np.mean([boundary_iou_by_erosion(prediction == id, mask == id) for id in (1, 2, 3)])
    assert boundary_image_iou(prediction, mask, classes=6) == pytest.approx(wanted)


def test_a_square_one_pixel_to_the_right_by_hand():
    """Rims of depth 1 of two 4x4 squares: 12 pixels each. In common are the top and the bottom row, 3 + 3."""
    mask = np.zeros((30, 30), np.uint8)
    mask[10:14, 10:14] = 1
    assert rim_depth(30, 30) == 1
    assert boundary_image_iou(np.roll(mask, 1, axis=1), mask, classes=2) == (3 + 3) / (12 + 12 - 6)


def test_a_coarse_outline_costs_more_than_it_costs_iou():
    mask = np.zeros((100, 100), np.uint8)
    mask[10:90, 10:90] = 1
    coarse = np.zeros_like(mask)
    coarse[12:88, 12:88] = 1
    assert 76**2 / 80**2 > 0.9
    assert boundary_image_iou(coarse, mask, classes=2) < 0.4


def test_void_pixels_count_for_nothing():
    """Whatever is predicted in the void border of an object, as in PASCAL VOC's masks."""
    mask = np.zeros((40, 40), np.uint8)
    mask[8:32, 8:32] = 255
    mask[10:30, 10:30] = 1
    for first in (8, 9, 10):
        prediction = np.zeros_like(mask)
        prediction[first:32, first:32] = 1
        assert boundary_image_iou(prediction, mask, classes=2) == 1.0


def test_nothing_predicted_where_nothing_is_there():
    nothing = np.zeros((20, 20), np.uint8)
    assert boundary_image_iou(nothing, nothing, classes=3) == 1.0
    assert boundary_image_iou(nothing + 1, nothing, classes=3) == 0.0
