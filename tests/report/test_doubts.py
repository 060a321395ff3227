"""Figures that cannot be right are said to be so, and others are not."""

import numpy as np
import pytest

from compress.measure.values import Interval, Measurement
from compress.report.doubts import about_teacher, doubts
from compress.report.record import HistoryPoint

CLASSES = ("background", "cup")
SOME = np.array([[[0, 1], [1, 1]]], np.uint8)


def of(teacher=0.9, distil=0.9, int8=0.88, predictions=SOME, labelled=True):
    measurements = {"teacher": Measurement(iou=Interval(teacher, teacher, teacher))}
    history = [HistoryPoint("cut", 0, 0.1), HistoryPoint("distil", 1, distil), HistoryPoint("ptq", 1, 0.1)]
    history.append(HistoryPoint("qat", 2, int8))
    return doubts(measurements, {"tflite": predictions}, history, CLASSES, labelled)


def test_figures_that_may_be_right_are_not_doubted():
    assert of() == ()
    assert of(teacher=0.2, distil=0.4, int8=0.25) == ()
    assert of(teacher=0.01, labelled=False) == ()


def test_each_figure_that_cannot_be_right_has_its_sentence():
    (teacher,) = of(teacher=0.04)
    assert "the heavy model has an IoU of 0.040 on the labels" in teacher
    (int8,) = of(int8=0.6)
    assert "int8 has an IoU of 0.600 where the same network in float has 0.900" in int8
    (alike,) = of(predictions=np.ones((3, 4, 4), np.uint8))
    assert alike == "tflite: every pixel of every image is 'cup'"


@pytest.mark.parametrize("history", [[], [HistoryPoint("repair", 0, 0.9)], [HistoryPoint("ptq", 0, 0.1)]])
def test_what_was_not_measured_is_not_doubted(history):
    assert doubts({"teacher": Measurement()}, {}, history, CLASSES, True) == ()
    assert about_teacher(None) == ""
