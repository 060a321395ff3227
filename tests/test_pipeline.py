"""The whole way, on the tiny network."""

import json

import numpy as np
import pytest

from compress.cli import main
from compress.formats.runtime import open_model


@pytest.fixture(scope="module")
def finished(tiny_model, tiny_data, tmp_path_factory):
    """Exit code and folder of one run to 20 kB."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    code = main(["run", str(tiny_model), "--budget", "20KB", "--data", str(tiny_data), "--out", str(out)])
    return code, out


def test_a_run_within_budget_exits_0_and_leaves_what_it_promises(finished):
    code, out = finished
    assert code == 0
    names = {"model.onnx", "model.tflite", "report.json", "report.html", "labels.txt", "manifest.json"}
    assert names <= {path.name for path in out.iterdir()}
    assert (out / "labels.txt").read_text().split() == ["background", "disc", "square"]
    assert not list(out.rglob("*.partial"))


def test_both_files_use_the_budget_and_keep_to_it(finished):
    _, out = finished
    sizes = [(out / name).stat().st_size for name in ("model.onnx", "model.tflite")]
    assert max(sizes) <= 20_000
    assert max(sizes) >= 18_000


def test_prediction_is_within_5_percent_of_the_largest_file(finished):
    _, out = finished
    largest = max((out / name).stat().st_size for name in ("model.onnx", "model.tflite"))
    assert json.loads((out / "report.json").read_text())["predicted_bytes"] == pytest.approx(largest, rel=0.05)


def test_the_student_still_segments(finished):
    _, out = finished
    report = json.loads((out / "report.json").read_text())
    assert report["measurements"]["teacher"]["iou"]["mean"] > 0.8
    assert report["measurements"]["tflite"]["iou"]["mean"] > 0.8 * report["measurements"]["teacher"]["iou"]["mean"]
    assert report["agreement"] >= 0.99


def test_history_has_cut_repair_distillation_and_qat_in_order(finished):
    _, out = finished
    history = json.loads((out / "report.json").read_text())["history"]
    assert list(dict.fromkeys(moment["stage"] for moment in history)) == ["cut", "repair", "distil", "qat"]
    minutes = [moment["minutes"] for moment in history]
    assert minutes == sorted(minutes)


def test_training_keeps_to_the_minutes(finished):
    _, out = finished
    minutes = json.loads((out / "report.json").read_text())["minutes"]
    assert minutes["distil"] + minutes["qat"] < 0.1 + 0.1  # six seconds, and the checks of a tiny run


def test_the_files_take_pixels_and_give_one_probability_for_each_class(finished):
    _, out = finished
    image = np.full((64, 64, 3), 128, np.uint8)
    for name in ("model.onnx", "model.tflite"):
        session = open_model(out / name)
        assert session.input.dtype == "uint8"
        probabilities = session.probabilities(image)
        assert probabilities.shape == (3, 64, 64)
        assert abs(probabilities.sum(0) - 1).max() < 0.02


def test_nothing_outside_the_files_is_named_in_the_manifest(finished):
    _, out = finished
    manifest = json.loads((out / "manifest.json").read_text())
    assert {entry["file"] for entry in manifest["files"]} == {"model.onnx", "model.tflite"}
    assert "/" not in json.dumps([entry["file"] for entry in manifest["files"]])
