"""What a run is compared with, on the tiny network."""

import json

import pytest
import torch
from tiny import TinyNet

from compress.cli import main
from compress.load.trace import trace
from compress.pipeline.given import standardised


@pytest.fixture
def recipe(tiny_model):
    path = tiny_model.with_name("controls.toml")
    path.write_text(tiny_model.with_suffix(".toml").read_text() + '[controls]\nsmall = "tiny.py:TinyNet"\n')
    return path


def test_controls_are_exported_measured_and_reported(tiny_model, tiny_data, recipe, tmp_path):
    out = tmp_path / "out"
    arguments = ["--recipe", str(recipe), "--budget", "20KB", "--data", str(tiny_data), "--out", str(out)]
    code = main(["run", str(tiny_model), *arguments, "--minutes", "0.05", "--formats", "tflite", "--controls"])
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    assert list(report["controls"]) == ["random pruning", "TinyNet from scratch"]
    assert set(report["measurements"]) == {"teacher", "tflite"}
    for control in report["controls"].values():
        assert control["latency"]["p50_ms"] > 0
        assert 0 <= control["iou"]["low"] <= control["iou"]["mean"] <= control["iou"]["high"] <= 1
        assert len(control["per_image_iou"]) == 8
    assert report["controls"]["random pruning"]["size_bytes"] <= report["measurements"]["tflite"]["size_bytes"]
    assert {point["stage"] for point in report["history"]} == {"cut", "repair", "distil", "ptq", "qat"}


@pytest.mark.parametrize(
    ("controls", "message"),
    [('small = "tiny.py:NoNet"', "NoNet"), ('small = "tiny.py:TinyNet"\nsmall_weights = "none.pt"', "none.pt")],
)
def test_a_small_network_that_is_not_there_is_named_before_anything_is_trained(
    tiny_model, tiny_data, tmp_path, capsys, controls, message
):
    path = tiny_model.with_name("wrong.toml")
    path.write_text(tiny_model.with_suffix(".toml").read_text() + f"[controls]\n{controls}\n")
    arguments = ["--recipe", str(path), "--budget", "20KB", "--data", str(tiny_data), "--out", str(tmp_path / "out")]
    assert main(["run", str(tiny_model), *arguments, "--controls"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_standardised_network_has_mean_0_and_deviation_1_after_every_convolution():
    torch.manual_seed(0)
    net, _ = trace(TinyNet().eval(), (32, 32), 0, 3, (0.0,) * 3, (1.0,) * 3)
    image = torch.rand(4, 3, 32, 32)
    convs = [node.name for node in net.weighted()]
    with torch.no_grad():
        values = standardised(net, image, convs).run(image, keep=convs)
    for name in convs:
        assert values[name].mean((0, 2, 3)).abs().max() < 1e-3
        assert values[name].std((0, 2, 3)).sub(1).abs().max() < 1e-2
