"""The exported file in the libraries that apps load it with, each in the environment that `make clients` makes."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def on_the_page(run: Path, *photo: Path) -> dict:
    """What the sample page of export/clients/web finds in headless Chromium."""
    web = ROOT / "export" / "clients" / "web"
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not (web / "node_modules" / ".installed").exists():
        pytest.skip("the web runtimes are not installed: run `make clients`, which says why where they cannot be")
    if not chromium:
        pytest.skip("no Chromium: install Debian's package chromium, or name a browser in CHROMIUM")
    command = ["node", str(web / "test.js"), str(run), *map(str, photo)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CHROMIUM": chromium})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_web_page_gives_the_golden_output_and_lays_masks_over_photographs_and_the_camera(model, tmp_path):
    path, pixels, _ = model
    doubled = pixels.repeat(2, 0).repeat(3, 1)
    Image.fromarray(doubled).save(tmp_path / "photo.png")
    found = on_the_page(path.parent, tmp_path / "photo.png")
    results = {result["format"]: result for result in found["results"]}
    assert set(results) == set(found["files"]) == {"onnx", "tflite"}
    for result in results.values():
        assert result["largest"] <= 1
        assert result["agreement"] >= 0.997
    for file in found["files"].values():
        assert (file["height"], file["width"]) == doubled.shape[:2]
        assert file["colours"] > 100  # the mask's edge is soft
        assert np.mean(np.array(file["mask"]) == our_mask(model).ravel()) >= 0.98
    assert found["second"] == "function"  # a second model does not fail as "already loading"
    assert found["camera"]["width"] >= 320
    assert "by https" in found["plain"]


RELEASES = [
    pytest.param(folder, id=folder.name, marks=[] if folder.name == "u2net-1mb" else pytest.mark.slow)
    for folder in sorted((ROOT / "export").glob("*-*mb"))
]
FOR_MASKS_ALONE = [("u2net-1mb", "onnx")]
"""Written when sums could still lie near a half: one that another runtime rounds the other way is carried on."""


def golden(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The input of a release, and the output of each format."""
    with np.load(folder / "golden.npz") as stored:
        return stored["pixels"], {name: stored[name].astype(int) for name in stored.files if name != "pixels"}


@pytest.mark.parametrize("folder", RELEASES)
def test_released_files_give_the_golden_output_here(folder):
    pixels, outputs = golden(folder)
    for form, expected in outputs.items():
        session = open_model(folder / f"model.{form}")
        apart = np.abs(session.run(session.prepare(pixels)).astype(int).reshape(expected.shape) - expected)
        assert np.mean(apart <= 1) >= (0.9 if (folder.name, form) in FOR_MASKS_ALONE else 0.999)


def in_another(environment: str, kernels: str, folder: Path, place: Path) -> tuple[np.ndarray, np.ndarray]:
    """What another interpreter gives for the golden input of a release, and the golden output."""
    pixels, outputs = golden(folder)
    np.save(place / "pixels.npy", pixels)
    given = [folder / "model.tflite", place / "pixels.npy", place / "output.npy", kernels]
    client(environment, "run_interpreter.py", *given)
    return np.load(place / "output.npy").astype(int).reshape(outputs["tflite"].shape), outputs["tflite"]


@pytest.mark.slow
@pytest.mark.parametrize("folder", RELEASES)
def test_released_files_give_the_golden_output_in_tensorflow(folder, tmp_path):
    found, expected = in_another("tensorflow", "xnnpack", folder, tmp_path)
    assert np.mean(np.abs(found - expected) <= 1) >= 0.999


@pytest.mark.parametrize("folder", RELEASES)
def test_released_files_give_the_golden_masks_without_xnnpack(folder, tmp_path):
    """Its own kernels bring sums to bytes in another way than XNNPACK's, and deep layers carry that on."""
    found, expected = in_another("tflite-runtime", "builtin", folder, tmp_path)
    assert np.mean(found.argmax(-1) == expected.argmax(-1)) >= 0.998
    assert np.abs(found - expected).mean() <= 1


@pytest.mark.parametrize("folder", RELEASES)
def test_released_files_give_the_golden_output_on_the_web(folder):
    for result in on_the_page(folder)["results"]:
        assert result["agreement"] >= 0.999
        assert result["within"] >= (0.9 if (folder.name, result["format"]) in FOR_MASKS_ALONE else 0.999)
