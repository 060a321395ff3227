"""The whole way, on the tiny network."""

import hashlib
import importlib.util
import io
import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from tiny import ticking

import compress.pipeline.student
from compress.cli import main
from compress.data.images import read_image
from compress.formats.onnx import to_onnx
from compress.load.model import load
from compress.quantize.convert import float_graph
from compress.quantize.training import QuantizedNetwork
from compress.recipe import read_recipe
from compress.release.golden import read_golden
from compress.report.pictures import read_pictures
from compress.report.read import read_record
from compress.runtime.session import open_model
from compress.train.loop import fit

TICK = 0.1
"""Seconds that a step of training takes by its clock, whatever the machine."""


@pytest.fixture(scope="module")
def finished(tiny_model, tiny_data, tmp_path_factory):
    """Exit code and folder of one run to 20 kB, trained for six seconds of a clock that ticks with the steps."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    arguments = ["--budget", "20KB", "--data", str(tiny_data), "--minutes", "0.1", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compress.pipeline.student, "fit", partial(fit, clock=ticking(TICK)))
        return main(["run", str(tiny_model), *arguments]), out


def test_a_run_within_budget_exits_0_and_leaves_what_it_promises(finished):
    code, out = finished
    assert code == 0
    names = {"model.onnx", "model.tflite", "report.json", "report.html", "MODEL_CARD.md", "labels.txt", "manifest.json"}
    assert names <= {path.name for path in out.iterdir()}
    assert (out / "labels.txt").read_text().split() == ["background", "disc", "square"]
    assert not list(out.rglob("*.partial"))


def test_both_files_use_the_budget_and_keep_to_it(finished):
    _, out = finished
    sizes = [(out / name).stat().st_size for name in ("model.onnx", "model.tflite")]
    assert max(sizes) <= 20_000
    assert max(sizes) >= 16_000  # a step of 8 channels is a tenth of this network


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
    assert list(dict.fromkeys(point["stage"] for point in history)) == ["cut", "repair", "distil", "ptq", "qat"]
    minutes = [point["minutes"] for point in history]
    assert minutes == sorted(minutes)


def test_training_keeps_to_the_minutes(finished):
    _, out = finished
    history = json.loads((out / "report.json").read_text())["history"]
    last = {point["stage"]: point["minutes"] for point in history}
    step = TICK / 60
    assert last["distil"] == pytest.approx(0.06, abs=step)
    assert last["qat"] - last["distil"] == pytest.approx(0.04, abs=step)


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


def test_the_float_student_is_its_users_own(finished):
    _, out = finished
    folder = out / "student"
    spec = importlib.util.spec_from_file_location("student", folder / "student.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "import compress" not in (folder / "student.py").read_text()
    assert {"stem.weight", "block_depthwise.bias", "head.weight"} <= set(module.Student().state_dict())
    net = student_before_int8(out)
    image = torch.from_numpy(read_golden(out))[None]
    wanted = net(net.real(image))
    student = module.load()
    given = student(image.permute(0, 3, 1, 2))
    program = torch.export.load(folder / "student.pt2").module()
    for answer in (given, program(image.permute(0, 3, 1, 2).float().repeat(3, 1, 1, 1))[:1]):
        torch.testing.assert_close(answer, wanted, atol=1e-5, rtol=0)
    with torch.no_grad():
        files = open_model(out / "model.onnx").probabilities(read_golden(out))
    assert (files.argmax(0) == given[0].detach().numpy().argmax(0)).mean() > 0.98
    given[:, 0].log().mean().backward()
    assert all(weight.grad.abs().max() > 0 for weight in student.parameters())


def test_the_float_student_ships_beside_the_files_and_a_gate_judges_the_files(finished):
    _, out = finished
    assert sum(path.stat().st_size for path in (out / "student").iterdir()) > 30_000
    assert main(["gate", str(out), "--budget", "20KB"]) == 0


def student_before_int8(out):
    """As the last checkpoint has it."""
    kept = (out / "checkpoints" / "qat.pt").read_bytes()[: -hashlib.sha256().digest_size]
    return QuantizedNetwork.from_state(torch.load(io.BytesIO(kept), weights_only=True)["state"]).unquantized()


def test_the_report_times_the_layers_of_the_onnx_file_and_keeps_its_pictures(finished):
    _, out = finished
    report = json.loads((out / "report.json").read_text())
    assert {"stem", "merge", "head"} <= {layer["name"] for layer in report["layer_times"]["onnx"]}
    assert len(report["data"]["val_sha256"]) == 64
    assert len(read_pictures(out / "pictures.npz")) == 8


def test_photographs_take_the_place_of_validation_images_in_the_report_and_the_golden_input(
    tiny_model, tiny_data, tmp_path
):
    photographs, out = tmp_path / "photographs", tmp_path / "out"
    photographs.mkdir()
    for name, source in {"b.png": "u01.png", "a.png": "u00.png"}.items():
        shutil.copy(tiny_data / "unlabelled" / source, photographs / name)
    arguments = ["--budget", "20KB", "--data", str(tiny_data), "--minutes", "0", "--formats", "tflite"]
    assert main(["run", str(tiny_model), *arguments, "--pictures", str(photographs), "--out", str(out)]) == 0
    first = read_image(photographs / "a.png")
    with np.load(out / "golden.npz") as golden:
        assert np.array_equal(golden["pixels"], first)
    pictures = read_pictures(out / "pictures.npz")
    assert sorted(picture.name for picture in pictures) == ["a.png", "b.png"]
    assert all(picture.reference is None for picture in pictures)
    report = json.loads((out / "report.json").read_text())
    assert report["recipe"]["report"] == {"pictures": "photographs", "palette": {}}
    assert len(report["measurements"]["tflite"]["per_image_iou"]) == 8  # figures are of the validation images
    assert "07.png" not in (out / "report.html").read_text()


def test_two_classes_with_one_channel_become_two_channels_that_apps_can_compare(
    two_class_model, two_class_data, tmp_path
):
    out = tmp_path / "out"
    arguments = ["--budget", "20KB", "--data", str(two_class_data), "--minutes", "0", "--out", str(out)]
    assert main(["run", str(two_class_model), *arguments]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["measurements"]["tflite"]["iou"]["mean"] > 0.6
    assert open_model(out / "model.tflite").output.shape == (1, 64, 64, 2)


def test_without_labels_iou_is_agreement_with_the_teacher_and_the_report_says_so(
    tiny_model, tiny_data, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = ["--budget", "20KB", "--unlabelled", str(tiny_data / "train" / "images"), "--minutes", "0"]
    assert main(["run", str(tiny_model), *arguments, "--formats", "onnx", "--out", str(out)]) == 0
    assert "agreement with the teacher" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["data"]["reference"] == "teacher"
    assert report["measurements"]["teacher"]["iou"]["mean"] == 1.0
    assert not (out / "model.tflite").exists()


def test_the_same_from_python(tiny_model, tiny_data, tmp_path):
    import compress

    recipe = compress.read_recipe(tiny_model.with_suffix(".toml"))
    flags = {"budget": ["20KB"], "data": tiny_data, "minutes": 0, "formats": ["tflite"]}
    record = compress.run(recipe.with_flags(**flags), tiny_model, tmp_path / "out")
    assert record.verdict.passed
    assert record.measurements["tflite"].size_bytes == (tmp_path / "out" / "model.tflite").stat().st_size


def test_without_quantization_aware_training_all_steps_are_distillation(tiny_model, tiny_data, tmp_path):
    out = tmp_path / "out"
    arguments = ["--budget", "20KB", "--data", str(tiny_data), "--quantize", "ptq"]
    assert main(["run", str(tiny_model), *arguments, "--formats", "tflite", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert "qat" not in report["minutes"]
    assert report["history"][-1]["stage"] == "ptq"
    assert report["measurements"]["tflite"]["iou"]["mean"] > 0.8 * report["measurements"]["teacher"]["iou"]["mean"]


def test_an_onnx_file_needs_no_recipe(tiny_model, tiny_data, tmp_path, monkeypatch):
    """The size is the file's, classes are given, and how pixels are read is what does best on the labelled images."""
    monkeypatch.chdir(tmp_path)
    trained = load(tiny_model, read_recipe(tiny_model.with_suffix(".toml")))
    to_onnx(float_graph(trained.network, "foreign"), tmp_path / "foreign.onnx")
    arguments = ["--budget", "20KB", "--data", str(tiny_data), "--minutes", "0", "--classes", "background,disc,square"]
    assert main(["run", "foreign.onnx", *arguments, "--mean", "0,0,0", "--out", "out"]) == 0
    record = read_record(tmp_path / "out")
    assert record.source.file == "foreign.onnx"
    assert record.classes == ("background", "disc", "square")
    assert record.measurements["teacher"].iou.mean > 0.8
    assert record.parity.passed
