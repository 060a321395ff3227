import numpy as np
import pytest
import torch

from compress.errors import MeasureError
from compress.measure.accuracy import Evaluation, agreement, class_ids, evaluate, image_iou


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
