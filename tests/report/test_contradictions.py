"""Hand-made measurements whose contradictions one can name."""

from dataclasses import replace

import numpy as np
import pytest

from compress.budget import Check, Verdict
from compress.measure.values import Interval, Measurement
from compress.report.contradictions import between_runs, in_run, of_checks, tail_gain

NONE = Verdict(())
TEACHER = Measurement(100_000_000, iou=Interval(0.9, 0.88, 0.92), per_image_iou=(0.9,) * 100)


def student(size_bytes: int, speedup: tuple[float, float, float] | None = None, iou: tuple[float, ...] = ()):
    return Measurement(size_bytes, per_image_iou=iou, speedup=Interval(*speedup) if speedup else None)


def test_smaller_but_slower():
    assert in_run({"teacher": TEACHER, "onnx": student(4_000_000, (0.8, 0.7, 0.9))}, NONE) == [
        "ONNX against the teacher: 25 times smaller, but slower (0.80 times the speed, 95 % between 0.70 and 0.90)."
    ]


def test_larger_but_faster():
    (sentence,) = in_run({"teacher": TEACHER, "tflite": student(120_000_000, (3, 2.5, 3.5))}, NONE)
    assert sentence.startswith("TFLite against the teacher: faster (3.00 times")
    assert sentence.endswith("but 20 % larger.")


@pytest.mark.parametrize("speedup", [(0.95, 0.85, 1.05), (5, 4, 6), None])
def test_a_speed_that_was_not_shown_to_be_lower_is_no_contradiction(speedup):
    assert in_run({"teacher": TEACHER, "onnx": student(4_000_000, speedup)}, NONE) == []


def test_smaller_and_faster_but_less_accurate_is_the_bargain_and_not_named():
    assert in_run({"teacher": TEACHER, "tflite": student(4_000_000, (10, 9, 11), (0.8,) * 100)}, NONE) == []


def test_faster_in_one_runtime_and_slower_in_the_other():
    sentences = in_run({"tflite": student(4_000_000, (3, 2.5, 3.5)), "onnx": student(4_000_000, (0.8, 0.7, 0.9))}, NONE)
    assert sentences[0].startswith("Against the teacher, TFLite is faster (3.00 times")
    assert "but ONNX is slower (0.80 times" in sentences[0]


def test_better_mean_but_worse_tail():
    """Nine tenths gain 0.05, the worst tenth loses 0.2: the mean gains 0.025."""
    teacher = Measurement(per_image_iou=tuple(np.linspace(0.85, 0.95, 200)))
    rng = np.random.default_rng(0)
    change = np.full(200, 0.05) + rng.normal(0, 0.002, 200)
    change[:20] = -0.2
    ours = student(4_000_000, iou=tuple(np.asarray(teacher.per_image_iou) + change))
    (sentence,) = in_run({"teacher": teacher, "tflite": ours}, NONE)
    assert sentence.startswith("TFLite against the teacher: better on average (mean IoU +0.02")
    assert "but worse on its worst tenth of images (their IoU -0.2" in sentence


def test_the_tail_is_each_files_own_worst_tenth():
    """Worst tenth of ten images is one: 0.1 against 0.3, whichever image it is."""
    ours, theirs = Measurement(per_image_iou=(0.1, *[0.9] * 9)), Measurement(per_image_iou=(*[0.9] * 9, 0.3))
    gain = tail_gain(ours, theirs)
    assert gain is not None
    assert gain.mean == pytest.approx(-0.2)
    assert gain.low < 0 < gain.high  # a resample often misses either image


def test_a_difference_that_nobody_would_notice_is_no_contradiction():
    """0.002 less IoU on every image, shown beyond doubt, in a file a third faster."""
    files = {"onnx": student(4_000_000, (9, 8.9, 9.1), (0.802,) * 100)}
    files["tflite"] = student(4_000_000, (12, 11.9, 12.1), (0.8,) * 100)
    assert in_run(files, NONE) == []
    files["tflite"] = student(4_000_000, (12, 11.9, 12.1), (0.75,) * 100)
    (sentence,) = in_run(files, NONE)
    assert sentence.startswith("ONNX against TFLite: better on average (mean IoU +0.052")
    assert "but slower (0.75 times the speed, 95 % between 0.74 and 0.76)" in sentence


def test_sizes_within_one_percent_are_equal():
    files = {"onnx": student(4_000_000, (9, 8.9, 9.1)), "tflite": student(4_020_000, (12, 11.9, 12.1))}
    assert in_run(files, NONE) == []


def test_a_control_without_a_latency_is_not_taken_for_the_teacher():
    ours, control = student(4_000_000, (0.8, 0.7, 0.9)), student(8_000_000)
    assert in_run({"tflite": ours}, NONE, {"without repair": control}) == []


def test_a_control_that_is_smaller_and_better_contradicts_nothing_but_a_larger_better_one_does():
    ours, larger = student(4_000_000, iou=(0.8,) * 50), student(8_000_000, iou=(0.85,) * 50)
    (sentence,) = in_run({"tflite": ours}, NONE, {"uniform": larger})
    assert sentence.startswith("TFLite against uniform: 2 times smaller, but worse on average")
    assert in_run({"tflite": ours}, NONE, {"uniform": student(2_000_000, iou=(0.85,) * 50)}) == []


def test_one_limit_met_and_another_missed():
    met = Check("tflite", "size", 3_900_000, 4_000_000, True)
    missed = Check("tflite", "latency", 31.0, 20.0, False)
    assert of_checks(Verdict((met, missed))) == ["TFLite meets its budget for size, but not for latency."]
    unmeasured = Check("tflite", "latency", None, 20.0, False)
    other = Check("onnx", "latency", 31.0, 20.0, False)
    assert of_checks(Verdict((met, unmeasured, other))) == []


def test_a_limit_is_named_with_the_file_that_it_is_taken_against():
    met = Check("tflite", "latency", 0.1, 0.12, True, reference="my teacher.onnx")
    missed = Check("tflite", "iou_drop", 0.03, 0.01, False, reference="my teacher.onnx")
    assert of_checks(Verdict((met, missed))) == [
        "TFLite meets its budget for latency against my teacher.onnx, but not for IoU drop against my teacher.onnx."
    ]


def test_two_runs_with_the_same_images_and_with_others():
    before = {"tflite": student(4_000_000, (10, 9.5, 10.5), (0.8,) * 50), "onnx": student(4_000_000, (10, 9.5, 10.5))}
    after = {"tflite": student(3_000_000, (15, 14, 16), (0.7,) * 50), "onnx": student(3_000_000, (5, 4.5, 5.5))}
    sentences = between_runs(after, before, "run 1", same_images=True)
    assert sentences[0].startswith("Against run 1, TFLite is faster (1.50 times the speed, 95 % between 1.33 and 1.68)")
    assert "TFLite against TFLite of run 1: 25 % smaller and faster (1.50 times" in sentences[1]
    assert "), but worse on average (mean IoU -0.100" in sentences[1]
    assert "ONNX against ONNX of run 1: 25 % smaller, but slower (0.50 times" in " ".join(sentences)
    assert "worse on average" not in " ".join(between_runs(after, before, "run 1", same_images=False))


def test_iou_up_and_boundary_iou_down():
    teacher = replace(TEACHER, boundary_iou=Interval(0.7, 0.68, 0.72))
    blurred = Measurement(
        4_000_000,
        per_image_iou=(0.93,) * 100,
        boundary_iou=Interval(0.6, 0.58, 0.62),
        boundary_iou_drop=Interval(0.1, 0.09, 0.11),
    )
    (sentence,) = in_run({"teacher": teacher, "tflite": blurred}, NONE)
    assert sentence.startswith("TFLite against the teacher: better on average (mean IoU +0.030")
    assert sentence.endswith("worse along outlines (boundary IoU -0.100, 95 % between -0.110 and -0.090).")
    unsure = replace(blurred, boundary_iou_drop=Interval(0.1, -0.01, 0.21))
    assert in_run({"teacher": teacher, "tflite": unsure}, NONE) == []
    assert in_run({"teacher": TEACHER, "tflite": blurred}, NONE) == []  # the teacher's was not measured


def test_an_undecided_limit_is_neither_met_nor_missed():
    met = Check("tflite", "size", 3_900_000, 4_000_000, True)
    undecided = Check("tflite", "iou", 0.86, 0.86, False, low=0.84, high=0.88, undecided=True)
    assert of_checks(Verdict((met, undecided))) == []
