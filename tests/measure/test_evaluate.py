"""Files on images -> figures, each worked out by hand or by scipy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from compress.errors import MeasureError
from compress.formats.artifact import LOGITS
from compress.measure.evaluate import (
    Evaluation,
    LabelledImages,
    accuracy,
    agreement,
    class_iou,
    evaluate,
    image_agreements,
    measure,
    miou,
)
from compress.measure.masks import class_ids, confusion, overlap
from compress.measure.stability import Stability
from compress.measure.values import impossible


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


def images_of(*columns, masks=None):
    """Images of 8x8 whose first columns are white, of which nobody asks another size."""

    def pixels(size, channels):
        assert (size, channels) == ((8, 8), 3)
        return np.stack([half_bright(count) for count in columns])

    return LabelledImages(("background", "object"), pixels, masks)


def test_files_are_measured_side_by_side_and_drops_are_against_the_one_that_is_named(brightness):
    """The same file twice, once told to read a tenth of the brightness, so that nothing is bright to it."""
    blind = replace(brightness, input=replace(brightness.input, std=(2550.0,) * 3))
    masks = [half_bright(4)[..., 0] // 255, half_bright(6)[..., 0] // 255]
    files = {"blind": blind, "sharp": brightness}
    found = measure(files, images_of(4, 6, masks=lambda: iter(masks)), against="sharp", threads=1, seconds=0.02)
    assert list(found) == ["blind", "sharp"]
    sharp, other = found["sharp"].measurement, found["blind"].measurement
    assert (sharp.iou.mean, sharp.iou_drop, sharp.speedup) == (1.0, None, None)
    assert (other.iou.mean, other.iou_drop.mean, other.worst_decile_iou_drop.mean) == (0.0, 1.0, 1.0)
    assert other.size_bytes == brightness.path.stat().st_size
    assert other.speedup.low <= other.speedup.mean <= other.speedup.high
    assert other.shift_flips.mean == other.jpeg_flips.mean == 0.0
    np.testing.assert_array_equal(found["sharp"].evaluation.predictions, masks)


def test_without_labels_the_answers_of_the_named_file_are_the_masks(brightness):
    inverted = replace(brightness, input=replace(brightness.input, mean=(255.0,) * 3, std=(-255.0,) * 3))
    found = measure(
        {"inverted": inverted, "teacher": brightness}, images_of(4, 4), against="teacher", threads=1, seconds=0.02
    )
    assert found["teacher"].measurement.iou.mean == 1.0
    assert found["inverted"].measurement.iou.mean == 0.0


def test_without_images_there_are_bytes_and_latency_alone(brightness):
    (found,) = measure({"file": brightness}, threads=1, seconds=0.02).values()
    assert found.evaluation is None
    assert found.measurement.size_bytes == brightness.size_bytes
    assert found.measurement.latency.p50_ms > 0
    assert (found.measurement.iou, found.measurement.speedup) == (None, None)


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
    measured = accuracy(evaluation([1, 1, 1], small_found=found))
    assert (measured.small_object_recall.mean, measured.small_objects) == (2 / 4, 4)


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


FIVE = ("road", "sky", "car", "pole", "boat")
# Two images of 2 x 4 pixels. Road is predicted wherever a pole stands; a car's pixel is taken for the sky; no boat.
MASKS = np.array([[[0, 0, 0, 3], [1, 1, 255, 3]], [[0, 0, 2, 2], [1, 1, 2, 2]]], np.uint8)
SEEN = np.array([[[0, 0, 0, 0], [1, 1, 2, 0]], [[0, 0, 2, 2], [1, 1, 2, 1]]], np.uint8)


def of_five(seen=SEEN, masks=MASKS):
    pixels = np.array([overlap(ours, mask, 5) for ours, mask in zip(seen, masks)])
    return Evaluation(
        (0.5, 0.5),
        seen,
        (0.5, 0.5),
        pixels[:, 0],
        pixels[:, 1],
        ((), ()),
        sum(confusion(ours, mask, 5) for ours, mask in zip(seen, masks)),
    )


def test_mean_iou_is_over_the_classes_that_occur_each_over_all_images():
    """Road 5/7, sky 4/5, car 3/4, pole 0/2; no boat in mask or prediction, and what is predicted on void is nothing."""
    assert miou(of_five()).mean == pytest.approx((5 / 7 + 4 / 5 + 3 / 4 + 0) / 4)


def test_every_class_has_its_figures_its_share_and_what_it_is_taken_for():
    measured = accuracy(of_five(), of_five(MASKS), None, FIVE)
    assert [each.name for each in measured.by_class] == list(FIVE)
    assert [each.iou and each.iou.mean for each in measured.by_class] == pytest.approx([5 / 7, 4 / 5, 3 / 4, 0, None])
    assert [each.share for each in measured.by_class] == pytest.approx([5 / 15, 4 / 15, 4 / 15, 2 / 15, 0])
    assert [each.taken_for for each in measured.by_class] == [(), (), (("sky", 1 / 4),), (("road", 1.0),), ()]
    assert measured.miou_drop.mean == pytest.approx(1 - (5 / 7 + 4 / 5 + 3 / 4) / 4)
    assert impossible(measured) is None


def test_two_classes_have_no_figures_of_each():
    ids = np.array([[[0, 1]]], np.uint8)
    pair = Evaluation((1.0,), ids, (1.0,), np.array([[1, 1]]), np.array([[1, 1]]), ((),), np.eye(2, dtype=int))
    assert accuracy(pair, None, None, ("background", "object")).by_class == ()


def test_a_share_that_is_none_and_an_interval_upside_down_cannot_have_been_measured():
    measured = accuracy(of_five(), None, None, FIVE)
    road, *others = measured.by_class
    assert "by_class.0: 1.5 is no share" in impossible(replace(measured, by_class=(replace(road, share=1.5), *others)))
    upside_down = replace(road.iou, low=0.9, high=0.1)
    assert "by_class.0.iou.low" in impossible(replace(measured, by_class=(replace(road, iou=upside_down), *others)))
