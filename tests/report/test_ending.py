"""What the terminal says at the end of a run."""

from pathlib import Path

import pytest

from compress.budget import Budget, judge
from compress.formats.artifact import Artifact, IOSpec
from compress.measure.values import Interval, Latency, Measurement
from compress.report.ending import ending
from compress.report.record import Data, Machine, RunRecord, Source

TEACHER = Measurement(90_000_000, Latency(200.0, 210.0, (), 2, "onnxruntime"), Interval(0.9, 0.88, 0.92))
STUDENT = Measurement(
    2_000_000,
    Latency(25.0, 26.0, (), 2, "LiteRT"),
    Interval(0.89, 0.87, 0.91),
    speedup=Interval(8.0, 7.5, 8.5),
    iou_drop=Interval(0.01, 0.002, 0.018),
    macs=2_000_000_000,
)


def finished(*limits: str, student: Measurement = STUDENT) -> list[str]:
    """The lines at the end of a run with these limits into the folder "a run"."""
    spec = IOSpec("image", (1, 8, 8, 3), "uint8", "NHWC")
    record = RunRecord(
        name="n",
        version="1",
        command="",
        created="",
        seed=0,
        recipe={"budget": list(limits), "train": {"minutes": 6.0, "steps": None}},
        classes=("a", "b"),
        source=Source("n.pt", "", 90_000_000),
        tools={},
        machine=Machine(),
        data=Data(),
        artifacts=(Artifact(Path("model.tflite"), "tflite", "", 2_000_000, spec, spec),),
        measurements={"teacher": TEACHER, "tflite": student},
        verdict=judge({"tflite": student}, Budget.parse(limits)),
        warnings=("the machine is busy",),
    )
    return ending(record, Path("a run")).splitlines()


def test_it_says_what_was_gained_with_intervals_and_what_to_do_next():
    lines = finished("4MB", "iou>=0.8")
    gained = "45× smaller, 8.0× faster [7.5, 8.5], 0.890 IoU beside 0.900, 0.010 less [0.002, 0.018]"
    assert f"TFLite: {gained}" in lines
    assert "note: the machine is busy" in lines
    after = lines[lines.index("next:") :]
    assert any(line.endswith("a run/report.html") for line in after)
    assert any(line.endswith("compress verify 'a run'") for line in after)
    assert any(line.endswith("compress gate 'a run' --budget 4MB --budget 'iou>=0.8'") for line in after)
    assert not [line for line in lines if "what helps" in line]


def test_a_student_that_does_better_is_said_to():
    better = Measurement(2_000_000, None, Interval(0.91, 0.9, 0.92), iou_drop=Interval(-0.01, -0.018, -0.002))
    lines = finished("4MB", student=better)
    (line,) = [line for line in lines if line.startswith("TFLite: ")]
    assert line.startswith("TFLite: 45× smaller, ")
    assert line.endswith("0.910 IoU beside 0.900, 0.010 more [0.002, 0.018]")


@pytest.mark.parametrize(
    ("limit", "missed", "helps"),
    [
        ("1MB", "tflite size: 1,000,000 bytes (100 %) above the limit", "allow more bytes"),
        ("20ms", "tflite latency: 5.00 ms (25 %) above the limit", "smaller plan.input_sizes"),
        ("macs<=1.5G", "tflite MACs: 500.00 M (33 %) above the limit", "smaller plan.input_sizes"),
        ("iou>=0.95", "tflite IoU: 0.060 (6 %) below the limit", "compress run --resume 'a run' --minutes 12"),
        ("iou>=0.88", "tflite IoU: the interval holds the limit", "more images in val/ would decide it"),
        ("latency<=0.125x teacher.onnx", "tflite latency against teacher.onnx: the interval", "more measure.seconds"),
    ],
)
def test_a_missed_limit_says_by_how_much_and_what_would_help(limit, missed, helps):
    limits = [limit] if limit == "1MB" else ["4MB", limit]
    (line,) = [line for line in finished(*limits) if line.startswith(missed)]
    assert helps in line


def test_what_was_not_measured_cannot_pass():
    assert "tflite IoU: not measured, so it cannot pass" in finished("iou>=0.5", student=Measurement(2_000_000))
