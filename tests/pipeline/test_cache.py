"""One cache for all recipes and all processes: what is met there is what a fresh cache would give."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from compress.cli import main
from compress.data.images import RGB
from compress.load.model import load
from compress.pipeline.prepare import load_teachers, open_data, prepare
from compress.pipeline.references import float_file
from compress.recipe import Recipe, read_recipe
from compress.train.members import traced_member

BASE = """
name = "tiny"
[model]
architecture = "tiny.py:TinyBinary"
classes = ["background", "object"]
input_size = [64, 64]
[preprocess]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[plan]
size = [32, 32]
[repair]
size = [32, 32]
[train]
size = [32, 32]
"""
CHANGES = {
    "mean": ("mean = [0.485, 0.456, 0.406]", "mean = [0.0, 0.0, 0.0]"),
    "std": ("std = [0.229, 0.224, 0.225]", "std = [0.5, 0.5, 0.5]"),
    "input_size": ("input_size = [64, 64]", "input_size = [32, 64]"),
    "output": ("[preprocess]", "output = 1\n[preprocess]"),
    "classes": ('"object"', '"thing"'),
    "tta": ("[plan]", '[teacher]\ntta = ["flip"]\n[plan]'),
    "teachers": ("[plan]", '[teacher]\nmodels = ["other.pt"]\n[plan]'),
    "architecture": ("tiny.py:TinyBinary", "same.py:TinyBinary"),
}


@dataclass
class Result:
    """Of what a run takes from the cache: hashes of the fp32 files, of maps and of labels."""

    files: list[str]
    maps: str
    labels: str


@pytest.fixture
def folder(two_class_model, tmp_path) -> Path:
    for name in ("tiny.pt", "tiny.py"):
        (tmp_path / name).write_bytes(two_class_model.with_name(name).read_bytes())
    (tmp_path / "other.pt").write_bytes((tmp_path / "tiny.pt").read_bytes())
    other = BASE.replace("mean = [0.485, 0.456, 0.406]", "mean = [0.3, 0.3, 0.3]")
    (tmp_path / "other.toml").write_text(other)
    source = (tmp_path / "tiny.py").read_text()
    (tmp_path / "same.py").write_text(source.replace("padding=2, dilation=2", "padding=1"))  # for the same weights
    return tmp_path


def from_cache(recipe: Recipe, folder: Path, cache: Path) -> Result:
    cache.mkdir(exist_ok=True)
    heavy = load(folder / "tiny.pt", recipe)
    teachers = load_teachers(recipe.teacher, traced_member(heavy, folder / "tiny.pt", RGB))
    dataset, size = open_data(recipe.data, heavy.classes, 0), heavy.network.traced_size
    prepared = prepare(teachers, dataset, size, cache, recipe.teacher.tta, False, 0)
    files = [float_file(model, "tiny", cache).path for model in (heavy, *(one.traced for one in teachers))]
    arrays = (np.ascontiguousarray(prepared.stored.maps), prepared.examples.labels)
    return Result(
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        *(hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest() for array in arrays),
    )


@pytest.mark.parametrize("change", CHANGES)
def test_a_recipe_that_was_changed_gets_what_it_would_get_from_a_fresh_cache(change, folder, two_class_data, tmp_path):
    def recipe(text: str) -> Recipe:
        (folder / "tiny.toml").write_text(text)
        return read_recipe(folder / "tiny.toml").with_flags(data=two_class_data)

    before = from_cache(recipe(BASE), folder, tmp_path / "shared")
    changed = recipe(BASE.replace(*CHANGES[change]))
    assert changed != recipe(BASE)
    again = from_cache(changed, folder, tmp_path / "shared")
    assert again == from_cache(changed, folder, tmp_path / "fresh")
    if change != "classes":  # whose names change no number
        assert again != before


def shown(out: Path) -> dict[str, float]:
    measurements = json.loads((out / "report.json").read_text())["measurements"]
    return {name: each["iou"]["mean"] for name, each in measurements.items()}


def test_a_run_after_its_preprocessing_was_mended_measures_the_mended_teacher(
    tiny_model, tiny_data, tmp_path, monkeypatch
):
    for name in ("tiny.pt", "tiny.py"):
        (tmp_path / name).write_bytes(tiny_model.with_name(name).read_bytes())
    right = tiny_model.with_suffix(".toml").read_text()
    (tmp_path / "tiny.toml").write_text(right.replace("mean = [0.485, 0.456, 0.406]", "mean = [0.0, 1.0, 0.0]"))
    wrong = read_recipe(tmp_path / "tiny.toml").with_flags(data=tiny_data)
    from_cache(wrong, tmp_path, tmp_path / "shared")
    (tmp_path / "tiny.toml").write_text(right)
    more = ["--budget", "20KB", "--data", str(tiny_data), "--minutes", "0", "--formats", "tflite"]
    found = {}
    for cache in ("shared", "fresh"):
        monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / cache))
        assert main(["run", str(tmp_path / "tiny.pt"), *more, "--out", str(tmp_path / f"{cache}-out")]) == 0
        found[cache] = shown(tmp_path / f"{cache}-out")
    assert found["shared"] == found["fresh"]
    assert found["shared"]["teacher"] > 0.8


def test_what_is_measured_as_source_is_the_network_as_it_came_and_not_the_tuned_one(
    tiny_model, tiny_data, tmp_path, monkeypatch
):
    """Tuned on labels that call everything background: the tuned network finds nothing any more."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    for name in ("tiny.pt", "tiny.py"):
        (tmp_path / name).write_bytes(tiny_model.with_name(name).read_bytes())
    (tmp_path / "other.pt").write_bytes((tmp_path / "tiny.pt").read_bytes())
    recipe = tiny_model.with_suffix(".toml").read_text()
    (tmp_path / "other.toml").write_text(recipe.replace("mean = [0.485", "mean = [0.47"))
    (tmp_path / "plain.toml").write_text(recipe)
    (tmp_path / "tuned.toml").write_text(recipe + "\n[tune]\nsteps = 30\nlearning_rate = 0.3\n")
    more = ["--budget", "20KB", "--data", str(tiny_data), "--minutes", "0", "--formats", "tflite"]
    model = str(tmp_path / "tiny.pt")
    other = ["--teacher", str(tmp_path / "other.pt")]
    assert (
        main(["run", model, "--recipe", str(tmp_path / "tuned.toml"), *more, *other, "--out", str(tmp_path / "a")]) == 0
    )
    assert main(["run", model, "--recipe", str(tmp_path / "plain.toml"), *more, "--out", str(tmp_path / "b")]) == 0
    assert shown(tmp_path / "a")["source"] == shown(tmp_path / "b")["teacher"]
    history = json.loads((tmp_path / "a" / "report.json").read_text())["history"]
    assert history[0]["stage"] == "tune"


def test_two_runs_on_one_cache_at_once_both_end_with_the_same_files(tiny_model, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    recipe = tiny_model.with_name("steps.toml")
    recipe.write_text(tiny_model.with_suffix(".toml").read_text().replace("steps = 40", "steps = 4"))
    command = [
        sys.executable,
        "-m",
        "compress.cli",
        "run",
        str(tiny_model),
        "--recipe",
        str(recipe),
        "--budget",
        "20KB",
    ]
    command += ["--data", str(tiny_data)]
    both = [
        subprocess.Popen([*command, "--out", str(tmp_path / name)], stderr=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for name in ("model.onnx", "model.tflite"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not list(tmp_path.rglob("*.partial"))
