"""A given student of what only teaches: a folder of maps, a module that cannot be traced, an exported file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compress.cli import main
from compress.data.images import read_image
from compress.load.model import load
from compress.recipe import read_recipe

STUDENT = """
from torch import nn

class Small(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x):
        return self.head(self.body(x))
"""
ODD = """
import torch
from tiny import TinyBinary

class Odd(TinyBinary):
    def forward(self, x):
        map_, other = super().forward(x)
        return map_ + 0 * torch.cumsum(map_, 3), other
"""
LIMIT = ["--budget", "12KB", "--formats", "tflite"]


def write_model(two_class_model, folder, architecture="tiny.py:TinyBinary"):
    """The model with code for it and for a student, and a recipe of few steps."""
    for name in ("tiny.pt", "tiny.py"):
        (folder / name).write_bytes(two_class_model.with_name(name).read_bytes())
    recipe = two_class_model.with_suffix(".toml").read_text().replace("steps = 40", "steps = 30\nlearning_rate = 0.02")
    recipe = recipe.replace("tiny.py:TinyBinary", architecture)
    (folder / "tiny.toml").write_text(recipe.replace("seconds = 0.5", "seconds = 0.05"))
    (folder / "small.py").write_text(STUDENT)
    (folder / "odd.py").write_text(ODD)
    return folder / "tiny.pt"


@pytest.fixture(scope="module")
def of_model(two_class_model, two_class_data, tmp_path_factory):
    """The folder of a run of the model's, and what it was made of."""
    room = tmp_path_factory.mktemp("room")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(room / "cache"))
        model = write_model(two_class_model, room)
        assert run(model, two_class_data, room / "out")[0] == 0
    return model


def write_maps(model, data, folder):
    """What the model says of the images to learn from, 16 bits."""
    net = load(model, read_recipe(model.with_suffix(".toml"))).network
    folder.mkdir()
    for image in (*(data / "train" / "images").iterdir(), *(data / "unlabelled").iterdir()):
        with torch.no_grad():
            found = net(net.real(torch.from_numpy(read_image(image)[None].copy())))[0, 1]
        Image.fromarray((found * 65535).round().numpy().astype(np.uint16)).save(folder / f"{image.stem}.png")
    return folder


def run(model, data, out, *more):
    how = ["--student", "small.py:Small", "--quantize", "ptq", *LIMIT]
    code = main(["run", str(model), *how, "--data", str(data), "--out", str(out), *more])
    return code, json.loads((out / "report.json").read_text())


def report_of(out):
    return json.loads((out / "report.json").read_text())


def test_a_folder_of_maps_gives_the_student_that_the_model_gives_that_made_them(of_model, two_class_data, tmp_path):
    maps = write_maps(of_model, two_class_data, tmp_path / "maps")
    code, ours = run(maps, two_class_data, tmp_path / "out", "--recipe", str(of_model.with_suffix(".toml")))
    theirs = report_of(of_model.parent / "out")
    assert code == 0
    means = [each["measurements"]["tflite"]["iou"]["mean"] for each in (ours, theirs)]
    assert means[0] == pytest.approx(means[1], abs=0.005)
    assert means[0] > 0.15  # it has learned something
    assert "teacher" in theirs["measurements"]
    assert "teacher" not in ours["measurements"]  # there is no map of val
    assert ours["measurements"]["tflite"]["iou_drop"] is None
    assert any("maps tells nothing of val" in line for line in ours["warnings"])
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_module_that_cannot_be_traced_teaches_and_has_an_iou_but_no_latency(
    two_class_model, two_class_data, tmp_path
):
    model = write_model(two_class_model, tmp_path, "odd.py:Odd")
    code, report = run(model, two_class_data, tmp_path / "out", "--budget", "iou_drop<=0.99", "--minutes", "0")
    found = report["measurements"]
    assert code == 0
    assert found["teacher"]["iou"]["mean"] > 0.8
    assert found["teacher"]["latency"] is None
    assert found["tflite"]["speedup"] is None
    assert found["tflite"]["iou_drop"] is not None
    assert report["source"]["parameters"] is None


def test_an_exported_file_teaches_and_is_what_the_student_is_measured_beside(
    of_model, two_class_data, tmp_path, monkeypatch
):
    (tmp_path / "heavy.tflite").write_bytes((of_model.parent / "out" / "model.tflite").read_bytes())
    shutil.copy(of_model.parent / "small.py", tmp_path)
    told = ["--classes", "background,object", "--minutes", "0"]
    monkeypatch.chdir(tmp_path)
    code, report = run(Path("heavy.tflite"), two_class_data, tmp_path / "out", *told)
    theirs = report_of(of_model.parent / "out")["measurements"]["tflite"]
    found = report["measurements"]
    assert code == 0
    assert found["teacher"]["size_bytes"] == theirs["size_bytes"]
    assert found["teacher"]["iou"] == theirs["iou"]
    assert found["tflite"]["speedup"] is not None


@pytest.mark.parametrize(
    ("teacher", "options", "said"),
    [
        ("maps", ["--tta", "flip"], "maps: a folder of maps answers no other views; leave --tta out"),
        ("maps", [], "maps: no map of any image to learn from; that of"),
        ("heavy.tflite", ["--tta", "scale"], "heavy.tflite: --tta scale needs a network that can be traced"),
        ("heavy.tflite", ["live"], "heavy.tflite: cannot look at every view"),
        ("other.pt", [], "other.pt: has thing, which the model has not and lacks object"),
    ],
)
def test_what_cannot_teach_is_refused_in_a_line(teacher, options, said, of_model, two_class_data, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.eye(64, dtype=np.uint8)).save(tmp_path / "maps" / "nobody.png")
    (tmp_path / "heavy.tflite").write_bytes((of_model.parent / "out" / "model.tflite").read_bytes())
    model = tmp_path / "tiny.pt"
    for name in ("tiny.pt", "tiny.py", "small.py"):
        shutil.copy(of_model.parent / name, tmp_path)
    shutil.copy(of_model, tmp_path / "other.pt")
    recipe = of_model.with_suffix(".toml").read_text()
    (tmp_path / "other.toml").write_text(recipe.replace('"object"', '"thing"'))
    live = options == ["live"]
    model.with_suffix(".toml").write_text(
        recipe.replace("steps = 30", "steps = 30\nlive_teacher = true" if live else "steps = 30")
    )
    words = ["run", str(model), "--teacher", str(tmp_path / teacher), "--data", str(two_class_data), *LIMIT]
    assert main([*words, "--out", str(tmp_path / "out"), *([] if live else options)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compress:")]
    assert said in line
