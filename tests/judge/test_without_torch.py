"""What a machine needs that only judges files: gate, bench and report run where torch is not installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RELEASES = Path(__file__).parent.parent.parent / "export"


@pytest.fixture
def without_torch(tmp_path):
    """Runs the command, and every process that it starts, with a torch in the way that cannot be imported."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "torch.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
    )
    path = os.pathsep.join([str(tmp_path / "path"), *sys.path])

    def run(*arguments) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "compress", *map(str, arguments)]
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True
        )

    assert "torch" in run("inspect", tmp_path / "none.pt").stderr  # it is in the way
    return run


@pytest.fixture
def data(tmp_path) -> Path:
    """Two photographs of a bright square, which is the object."""
    for part in ("images", "masks"):
        (tmp_path / "data" / "val" / part).mkdir(parents=True)
    for name in ("a", "b"):
        mask = np.zeros((64, 64), np.uint8)
        mask[16:48, 16:48] = 1
        Image.fromarray(mask).save(tmp_path / "data" / "val" / "masks" / f"{name}.png")
        Image.fromarray((60 + 180 * mask)[..., None].repeat(3, -1)).save(
            tmp_path / "data" / "val" / "images" / f"{name}.png"
        )
    return tmp_path / "data"


def test_a_gate_on_every_kind_of_limit(without_torch, data):
    file = RELEASES / "u2net-1mb" / "model.tflite"
    reference = RELEASES / "u2net-1mb" / "model.onnx"
    limits = [
        "1.2MB",
        "10000000ms",
        f"latency<=100000x {reference}",
        "macs<=16G",
        "iou>=0.001",
        f"iou_drop<=0.9 {reference}",
    ]
    flags = [word for limit in limits for word in ("--budget", limit)]
    done = without_torch("gate", file, *flags, "--data", data, "--seconds", "0.2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "within budget" in done.stdout


def test_a_bench_on_images(without_torch, data):
    files = [RELEASES / "u2net-1mb" / f"model.{kind}" for kind in ("tflite", "onnx")]
    done = without_torch("bench", files[0], "--against", files[1], "--data", data, "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    assert "boundary IoU" in done.stdout


def test_a_report_and_a_comparison(without_torch, tmp_path):
    shutil.copytree(RELEASES / "u2net-1mb", tmp_path / "run")
    assert without_torch("report", tmp_path / "run").returncode == 0
    done = without_torch("report", tmp_path / "run", RELEASES / "u2net-4mb", "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").is_file()
