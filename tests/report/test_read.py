"""A record is read back as it was written, and anything else is one line that names the key."""

import json
from pathlib import Path

import pytest

from compress.errors import DataError
from compress.report.read import read_record

RELEASE = Path(__file__).parent.parent.parent / "export" / "u2net-1mb"


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("measurements", "onnx", "iou", "mean"), "0.99", "measurements.onnx.iou.mean"),
        (("measurements", "onnx", "iou", "mean"), True, "measurements.onnx.iou.mean"),
        (("measurements", "onnx", "iou", "mean"), 5.0, "measurements.onnx.iou.mean: 5.0 is not within 0 to 1"),
        (("measurements", "onnx", "iou", "low"), 0.95, "measurements.onnx.iou.low: 0.95 is above high"),
        (("measurements", "onnx", "size_bytes"), -1, "no size of a model"),
        (("measurements", "tflite", "latency", "p50_ms"), 0, "latency.p50_ms: 0.0 is no duration"),
        (("measurements", "tflite", "latency", "turns"), 7, "latency.turns: 7 do not divide"),
        (("measurements", "tflite", "speedup", "high"), float("inf"), "Infinity"),
        (("measurements",), [], "measurements"),
        (("earlier",), 5, "earlier"),
        (("earlier",), [5], "earlier"),
        (("history", 0), {"stage": "cut"}, "history.0.minutes"),
        (("history", 0, "minutes"), -1, "history.0: -1.0 minutes"),
        (("minutes", "load"), -1, "minutes.load: -1.0 is no duration"),
        (("data", "val"), -1, "data.val: less than nothing"),
        (("layers", 0, "after_bytes"), -1, "layers.0: less than nothing"),
        (("classes",), "object", "classes"),
        (("schema",), 2, "not a report"),
    ],
)
def test_a_value_that_no_run_wrote_is_refused_by_its_key(tmp_path, keys, value, words):
    document = json.loads((RELEASE / "report.json").read_text())
    *path, last = keys
    holder = document
    for key in path:
        holder = holder[key]
    holder[last] = value
    (tmp_path / "report.json").write_text(json.dumps(document))
    with pytest.raises(DataError) as caught:
        read_record(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '"text"', "\xff"])
def test_what_is_no_report_is_one_line(tmp_path, text):
    (tmp_path / "report.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"report\.json: "):
        read_record(tmp_path)
