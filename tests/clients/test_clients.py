"""The exported file in the libraries that apps load it with, each in the environment that `make clients` makes."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compress.cli import main
from compress.measure.masks import class_ids
from compress.runtime.session import open_model

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def client(environment: str, script: str, *arguments: object) -> str:
    """What a script prints in another environment; the test is skipped where that could not be installed."""
    home = ROOT / f".venv-{environment}"
    if not (home / ".installed").exists():
        pytest.skip(f"{environment} is not installed: run `make clients`, which says why where it cannot be")
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "3"}
    command = [str(home / "bin" / "python"), str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module", params=["three classes, softmax", "two classes, sigmoid"])
def model(request, tiny_model, tiny_data, two_class_model, two_class_data, tmp_path_factory):
    """An exported file, a photograph-like image for it, and its labels."""
    softmax = request.param.startswith("three")
    source, data = (tiny_model, tiny_data) if softmax else (two_class_model, two_class_data)
    out = tmp_path_factory.mktemp("clients") / "run"
    arguments = ["--budget", "12KB", "--minutes", "0", "--data", str(data), "--out", str(out)]
    assert main(["run", str(source), *arguments]) == 0
    with np.load(out / "golden.npz") as golden:
        np.save(out / "pixels.npy", golden["pixels"])
    return out / "model.tflite", np.load(out / "pixels.npy"), (out / "labels.txt").read_text().split()


def our_mask(model):
    path, pixels, _ = model
    mask = class_ids(open_model(path).probabilities(pixels))
    assert len(np.unique(mask)) > 1  # an image without an object would prove nothing
    return mask


@pytest.mark.parametrize(
    ("environment", "script"),
    [("tflite-support", "run_task_library.py"), ("mediapipe", "run_mediapipe.py")],
)
def test_category_masks_and_labels_are_ours(model, environment, script, tmp_path):
    path, _, labels = model
    printed = client(environment, script, path, path.parent / "pixels.npy", tmp_path / "mask.npy")
    mask = np.load(tmp_path / "mask.npy").reshape(our_mask(model).shape)
    assert np.mean(mask == our_mask(model)) >= 0.99
    assert json.loads(printed.splitlines()[-1])[: len(labels)] == labels


@pytest.mark.parametrize(
    ("environment", "kernels"),
    [("tensorflow", "xnnpack"), ("tensorflow", "builtin"), ("tensorflow", "reference"), ("tflite-runtime", "builtin")],
)
def test_other_interpreters_are_within_one_step(model, environment, kernels, tmp_path):
    path, pixels, _ = model
    session = open_model(path)
    ours = session.run(session.prepare(pixels)).astype(int)
    client(environment, "run_interpreter.py", path, path.parent / "pixels.npy", tmp_path / "output.npy", kernels)
    apart = np.abs(np.load(tmp_path / "output.npy").astype(int) - ours)
    assert np.mean(apart <= 1) >= 0.999


def test_web_runtimes_give_the_golden_output(model):
    """onnxruntime-web and LiteRT.js in headless Chromium, by the sample page of export/clients/web."""
    web = ROOT / "export" / "clients" / "web"
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not (web / "node_modules" / ".installed").exists():
        pytest.skip("the web runtimes are not installed: run `make clients`, which says why where they cannot be")
    if not chromium:
        pytest.skip("no Chromium: install Debian's package chromium, or name a browser in CHROMIUM")
    path, _, _ = model
    done = subprocess.run(
        ["node", str(web / "test.js"), str(path.parent)],
        capture_output=True,
        text=True,
        env={**os.environ, "CHROMIUM": chromium},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = {result["format"]: result for result in json.loads(done.stdout)["results"]}
    assert set(results) == {"onnx", "tflite"}
    for result in results.values():
        assert result["largest"] <= 1
        assert result["agreement"] >= 0.997
