"""Masks worked out by hand; boundary IoU against the paper's definition, written with scipy's erosion."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

from compress.measure.masks import (
    as_probabilities,
    boundary,
    boundary_image_iou,
    class_ids,
    image_iou,
    is_near,
    label_sets,
    labels_in,
    overlap,
    rim_depth,
    small_objects_found,
)


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


def ids(*values):
    return np.array([values], np.uint8)


def test_iou_is_intersection_over_union_of_the_foreground():
    assert image_iou(ids(1, 1, 1, 0), ids(0, 1, 1, 1), classes=2) == 2 / 4


def test_iou_ignores_void_pixels():
    assert image_iou(ids(1, 1, 0, 1), ids(1, 255, 255, 0), classes=2) == 1 / 2
    assert image_iou(ids(1, 1), ids(1, 255), classes=2) == 1.0


def test_iou_is_one_where_neither_has_foreground():
    assert image_iou(ids(0, 0), ids(0, 0), classes=2) == 1.0
    assert image_iou(ids(0, 1), ids(0, 255), classes=2) == 1.0


def test_iou_is_zero_where_only_one_has_foreground():
    assert image_iou(ids(0, 1), ids(0, 0), classes=2) == 0.0
    assert image_iou(ids(0, 0), ids(0, 1), classes=2) == 0.0


def test_iou_is_the_mean_over_classes_that_occur():
    """Class 1: 1 of 2; class 2: 1 of 3; class 3 is in neither; class 0 is background."""
    assert image_iou(ids(1, 2, 2, 2, 0), ids(1, 1, 2, 0, 0), classes=4) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_iou_of_a_class_only_in_one_counts_as_zero():
    assert image_iou(ids(1, 3), ids(1, 0), classes=4) == pytest.approx((1 + 0) / 2)


def test_likeliest_class_of_each_pixel():
    probabilities = np.array([[[0.5, 0.1]], [[0.3, 0.2]], [[0.2, 0.7]]], np.float32)
    np.testing.assert_array_equal(class_ids(probabilities), [[0, 2]])


def test_single_channel_is_the_probability_of_class_1():
    np.testing.assert_array_equal(class_ids(np.array([[[0.4, 0.5, 0.6]]], np.float32)), [[0, 0, 1]])


def test_probabilities_are_resized_before_the_class_is_chosen():
    """Against torch's bilinear, half-pixel centres."""
    probabilities = np.random.default_rng(0).random((3, 5, 6), np.float32)
    resized = torch.nn.functional.interpolate(torch.from_numpy(probabilities)[None], (17, 20), mode="bilinear")
    np.testing.assert_array_equal(class_ids(probabilities, (17, 20)), resized[0].argmax(0).numpy())


def test_logits_become_probabilities_and_probabilities_stay():
    values = np.random.default_rng(0).normal(0, 3, (3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(
        as_probabilities(values, logits=True), torch.softmax(torch.from_numpy(values), 0), atol=1e-6
    )
    np.testing.assert_allclose(as_probabilities(values[:1], logits=True), 1 / (1 + np.exp(-values[:1])), atol=1e-6)
    np.testing.assert_array_equal(as_probabilities(values), values)


def test_overlaps_are_those_of_sets_of_pixels():
    rng = np.random.default_rng(0)
    prediction, mask = rng.integers(0, 3, (2, 20, 30)).astype(np.uint8)
    mask[:3] = 255
    intersections, unions = overlap(prediction, mask, classes=4)
    for id in range(4):
        ours = {(y, x) for y, x in np.argwhere(prediction == id).tolist() if mask[y, x] != 255}
        theirs = {(y, x) for y, x in np.argwhere(mask == id).tolist()}
        assert (intersections[id], unions[id]) == (len(ours & theirs), len(ours | theirs))


def test_iou_of_random_masks_is_that_of_sets():
    rng = np.random.default_rng(1)
    prediction, mask = rng.integers(0, 4, (2, 25, 25)).astype(np.uint8)
    sets = [[set(map(tuple, np.argwhere(ids == id).tolist())) for ids in (prediction, mask)] for id in (1, 2, 3)]
    wanted = np.mean([len(ours & theirs) / len(ours | theirs) for ours, theirs in sets])
    assert image_iou(prediction, mask, classes=5) == pytest.approx(wanted)


def flooded(region) -> list[list[tuple[int, int]]]:
    """The connected parts of a region, in order of their first pixel, pixel by pixel; diagonal neighbours touch."""
    left = {(int(y), int(x)) for y, x in np.argwhere(region)}
    parts = []
    for first in sorted(left):
        if first not in left:
            continue
        left.remove(first)
        part = [first]
        for y, x in part:
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            part += near
        parts.append(part)
    return parts


@pytest.mark.parametrize("density", [0.1, 0.4, 0.5, 0.6])
@pytest.mark.parametrize("seed", range(5))
def test_small_objects_are_those_that_a_flood_finds(density, seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((90, 70)), 2)
    prediction = rng.integers(0, 2, (90, 70)).astype(np.uint8)
    for region in (rng.random((90, 70)) < density, smooth < np.quantile(smooth, density)):
        sizes = [part for part in flooded(region) if 16 <= len(part) < 63]  # 1 % of 6,300 pixels
        wanted = tuple(sum(prediction[pixel] == 1 for pixel in part) * 2 >= len(part) for part in sizes)
        assert small_objects_found(prediction, region.astype(np.uint8), classes=2) == wanted


def test_a_small_object_is_found_where_half_of_it_is_predicted():
    mask = np.zeros((100, 100), np.uint8)
    mask[10:14, 10:20] = 1  # 40 pixels of 10,000
    mask[50:54, 10:20] = 1
    mask[80:84, 10:20] = 2
    prediction = np.zeros_like(mask)
    prediction[10:12, 10:20] = 1  # a half
    prediction[50:52, 10:19] = 1  # a bit less
    prediction[80:84, 10:20] = 1  # as another class
    assert small_objects_found(prediction, mask, classes=3) == (True, False, False)


def test_large_objects_specks_and_void_are_not_asked_for():
    mask = np.zeros((100, 100), np.uint8)
    mask[:50, :50] = 1
    mask[70:73, 70:75] = 1  # 15 pixels
    mask[90:96, 90:96] = 255
    assert small_objects_found(mask, mask, classes=2) == ()


def test_labels_are_told_each_by_itself_at_one_half():
    probabilities = np.array([[[0.9, 0.2]], [[0.6, 0.5]], [[0.1, 0.8]]], np.float32)
    sets = class_ids(probabilities, multilabel=True)
    np.testing.assert_array_equal(sets, [[0b011, 0b100]])  # 0.5 is not more likely than not
    assert sets.dtype == np.int32
    np.testing.assert_array_equal(labels_in(sets, 3), probabilities > 0.5)
    logits = np.log(probabilities / (1 - probabilities))
    np.testing.assert_array_equal(class_ids(logits, logits=True, multilabel=True), sets)
    np.testing.assert_allclose(as_probabilities(logits, True, multilabel=True), probabilities, rtol=1e-5)


def test_figures_of_labels_are_those_of_each_against_its_absence():
    random = np.random.default_rng(0)
    ours, theirs = random.random((2, 3, 40, 50)) > 0.7
    ours[:, :30], theirs[:, :28] = ours[:, :1], theirs[:, :1]  # larger regions
    theirs[2] = ours[2] = False  # a label that occurs nowhere counts for nothing
    sets, wanted = label_sets(ours), label_sets(theirs)
    pairs = [(mine.astype(np.uint8), other.astype(np.uint8)) for mine, other in zip(ours, theirs)]
    both, either = overlap(sets, wanted, 3, multilabel=True)
    np.testing.assert_array_equal(both, (ours & theirs).sum((1, 2)))
    np.testing.assert_array_equal(either, (ours | theirs).sum((1, 2)))
    for figure in (image_iou, boundary_image_iou):
        each = [figure(mine, other, 2) for mine, other in pairs[:2]]
        assert figure(sets, wanted, 3, multilabel=True) == pytest.approx(np.mean(each))
    found = [one for mine, other in pairs for one in small_objects_found(mine, other, 2)]
    assert list(small_objects_found(sets, wanted, 3, multilabel=True)) == found
    nothing = np.zeros((4, 4), np.int32)
    assert image_iou(nothing, nothing, 3, multilabel=True) == 1.0


def test_a_class_is_near_where_it_stands_beside():
    """The edge is one pixel further to the right in the other mask; a speck in the corner is nowhere in it."""
    mask, other = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    mask[:, 3:], other[:, 4:] = 1, 1
    assert is_near(mask, other).all()
    assert is_near(other, mask).all()
    mask[0, 0] = 2
    assert is_near(mask, other).sum() == mask.size - 1
    other[:, 4] = 0
    assert not is_near(mask, other)[:, 3].any()
