from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.errors import MeasureError
from compress.formats.artifact import LOGITS
from compress.measure.evaluate import (
    Evaluation,
    agreement,
    class_ids,
    evaluate,
    image_agreements,
    image_iou,
    overlap,
)


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


def half_bright(columns):
    """8x8, of which the first columns are white."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :columns] = 255
    return image


def test_evaluates_an_exported_file_in_a_child(brightness):
    images = np.stack([half_bright(4), half_bright(6)])
    masks = [half_bright(6)[..., 0] // 255, np.pad(np.ones((16, 8), np.uint8), [(0, 0), (0, 8)])]  # 8x8 and 16x16
    result = evaluate(brightness, images, masks, classes=2)
    assert result.iou == pytest.approx((4 / 6, 8 / 12))
    assert result.predictions.dtype == np.uint8
    np.testing.assert_array_equal(result.predictions, images[..., 0] // 255)


def test_without_labels_the_teacher_is_the_reference(brightness):
    teacher = evaluate(brightness, np.stack([half_bright(4)]), None, classes=2)
    assert teacher.iou == (1.0,)
    student = evaluate(brightness, np.stack([half_bright(2)]), teacher.predictions, classes=2)
    assert student.iou == (0.5,)


def test_image_of_another_size_is_a_measure_error(brightness):
    with pytest.raises(MeasureError, match=r"brightness\.onnx: .*8"):
        evaluate(brightness, np.zeros((1, 9, 9, 3), np.uint8), None, classes=2)


def test_agreement_is_the_share_of_equal_pixels():
    a = Evaluation((1.0,), np.array([[[0, 1], [2, 2]]], np.uint8))
    b = Evaluation((1.0,), np.array([[[0, 1], [2, 0]]], np.uint8))
    assert agreement(a, b) == 0.75


def test_agreement_image_by_image_of_maps_of_two_sizes():
    a = Evaluation((1.0, 1.0), np.array([[[0, 1], [2, 2]], [[1, 1], [1, 1]]], np.uint8))
    larger = Evaluation((1.0, 1.0), a.predictions.repeat(2, 1).repeat(2, 2))
    assert image_agreements(a, larger) == image_agreements(larger, a) == [1.0, 1.0]
    larger.predictions[1, :2] = 0
    assert image_agreements(a, larger) == [1.0, 0.5]


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


def test_evaluation_holds_what_every_measure_needs(brightness):
    images = np.stack([half_bright(4), half_bright(6)])
    result = evaluate(brightness, images, [half_bright(6)[..., 0] // 255] * 2, classes=2)
    np.testing.assert_array_equal(result.intersections, [[16, 32], [16, 48]])
    np.testing.assert_array_equal(result.unions, [[32, 48], [16, 48]])
    assert result.boundary_iou[1] == 1.0
    assert result.boundary_iou[0] < result.iou[0]
    assert result.small_found == ((), ())


def test_a_single_channel_of_logits_is_an_object_above_0(brightness):
    np.testing.assert_array_equal(class_ids(np.array([[[-1, 0.2, 3]]], np.float32), logits=True), [[0, 1, 1]])
    np.testing.assert_array_equal(class_ids(np.array([[[-1, 0.2, 3]]], np.float32)), [[0, 0, 1]])
    output = replace(brightness.output, activation=LOGITS)
    images = np.stack([half_bright(4)])
    result = evaluate(replace(brightness, output=output), images, [images[0, ..., 0] // 255], classes=2)
    assert result.iou == (1.0,)
