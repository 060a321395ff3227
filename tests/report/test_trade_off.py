"""IoU against bytes and latency: where dots and their labels stand."""

from itertools import combinations

import numpy as np
import pytest

from compress.measure.values import Interval, Latency, Measurement
from compress.report.trade_off import Dot, dot_of, labels, trade_off


def test_dots_stand_on_logarithmic_axes_inside_the_box():
    dots = [Dot("a", "student", Interval(0.5, 0.4, 0.6), 10**6), Dot("b", "teacher", Interval(0.9, 0.8, 1.0), 10**8)]
    (panel,) = trade_off(dots)
    a, b = panel["dots"]
    assert 0 < a["x"] < 50 < b["x"] < 100
    assert a["x"] + b["x"] == pytest.approx(100)
    assert [word for _, word in panel["x_ticks"]] == ["1 MB", "10 MB", "100 MB"]
    assert panel["x_ticks"][1][0] == pytest.approx(50)
    assert 0 <= b["top"] < b["y"] < b["bottom"] <= 100


def test_dots_that_touch_share_a_label_and_labels_keep_apart():
    near = [Dot(name, "student", Interval(0.8, 0.79, 0.81), 4e6, ms) for name, ms in (("ONNX", 34.0), ("TFLite", 17.0))]
    panels = trade_off([*near, Dot("Teacher", "teacher", Interval(0.9, 0.89, 0.91), 176e6, 300.0)])
    assert [[label["words"] for label in panel["labels"]] for panel in panels] == [
        ["ONNX, TFLite", "Teacher"],
        ["ONNX", "TFLite", "Teacher"],
    ]


def boxes_of(found: list[dict]) -> list[tuple[float, float, float, float]]:
    """Left, right, top and bottom of every label in percent of the smallest box, from what the template is given: a
    letter is 3.2 % wide and a line 8 % high."""
    boxes = []
    for label in found:
        width, x, y = 3.2 * len(label["words"]), label["x"], label["y"]
        left = {"right": x, "left": x - width}.get(label["side"], x - width / 2)
        top = {"above": y - 8, "below": y}.get(label["side"], y - 4)
        boxes.append((left, left + width, top, top + 8))
    return boxes


@pytest.mark.parametrize("seed", range(20))
def test_labels_neither_meet_each_other_nor_leave_the_box_however_dots_lie(seed):
    rng = np.random.default_rng(seed)
    names = ["ONNX", "TFLite", "Teacher", "a", "ORT"]
    dots = [
        {"kind": f"run-{n % 4}", "mark": str(n % 4 + 1), "label": names[n % 5], "x": float(x), "y": float(y)}
        for n, (x, y) in enumerate(rng.uniform(4, 96, (12, 2)))
    ]
    boxes = boxes_of(labels(dots))
    assert len(boxes) >= 6
    for left, right, top, bottom in boxes:
        assert left >= -2.01
        assert right <= 102.01
        assert top >= -4.01
        assert bottom <= 100.01
    for a, b in combinations(boxes, 2):
        assert a[1] <= b[0] + 0.01 or b[1] <= a[0] + 0.01 or a[3] <= b[2] + 0.01 or b[3] <= a[2] + 0.01


def test_a_label_is_never_shortened():
    dots = [{"kind": "control", "mark": "", "label": "a rather long label", "x": 50.0, "y": 50.0}]
    assert labels(dots)[0]["words"] == "a rather long label"
    crowded = [
        {"kind": f"run-{n}", "mark": "", "label": "x" * 40, "x": 50.0, "y": float(y)} for n, y in enumerate((48, 52))
    ]
    assert len(labels(crowded)) < 3  # what finds no room is left out


def test_what_was_measured_at_another_time_stands_where_its_speedup_puts_it():
    measured = Measurement(10, Latency(99.0, 99.0, (), 2, "LiteRT"), Interval(0.5, 0.4, 0.6), speedup=Interval(4, 3, 5))
    teacher = Measurement(100, Latency(200.0, 200.0, (), 2, "onnxruntime"))
    now, then = dot_of("a", "student", measured), dot_of("a", "earlier", measured, teacher)
    assert now is not None
    assert then is not None
    assert (now.latency_ms, then.latency_ms) == (99.0, 50.0)
    unknown = dot_of("a", "earlier", measured, Measurement())
    assert unknown is not None
    assert unknown.latency_ms is None
    assert dot_of("a", "student", Measurement(iou=Interval(5.0, 0.1, 0.2))) is None


@pytest.mark.parametrize("bytes_of_b", [1, 0, -5, 10**6, 5e-324, 10**320])
def test_sizes_that_are_equal_or_impossible_draw_no_panel(bytes_of_b):
    iou = Interval(0.5, 0.5, 0.5)
    panels = trade_off([Dot("a", "student", iou, 10**6), Dot("b", "teacher", iou, bytes_of_b)])
    assert len(panels) == (bytes_of_b == 1)
