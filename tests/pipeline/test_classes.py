"""The whole way with classes that masks write in numbers of their own, and a void."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from compress.cli import main

WHOLE_MACS = 63_680_512
CODES = np.array([7, 23, 30], np.uint8)
MASKS = "masks = { background = 7, disc = 23, square = [30, 31] }\nignore = 99\n"
SETTINGS = f"""
quantize = "ptq"
formats = ["onnx"]
budget = ["20KB", "macs<=20M", "miou>=0.3", "miou_drop<=0.9"]
[data]
{MASKS}
[report]
palette = {{ disc = "#aa1122" }}
"""


@pytest.fixture(scope="module")
def coded(tiny_data, tmp_path_factory):
    """The tiny set with the codes of its classes in labels/, the upper four rows being void."""
    folder = tmp_path_factory.mktemp("coded")
    for part in ("train", "val"):
        shutil.copytree(tiny_data / part / "images", folder / part / "images")
        (folder / part / "labels").mkdir()
        for mask in (tiny_data / part / "masks").iterdir():
            values = CODES[np.asarray(Image.open(mask))]
            values[:4] = 99
            values[-1][values[-1] == 30] = 31
            Image.fromarray(values).save(folder / part / "labels" / mask.name)
    return folder


@pytest.fixture(scope="module")
def finished(tiny_model, coded, tmp_path_factory):
    """The recipe and the output folder of a short run."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("tiny.pt", "tiny.py"):
        shutil.copy(tiny_model.with_name(name), folder / name)
    plain = tiny_model.with_suffix(".toml").read_text()
    recipe = plain.replace('name = "tiny"', 'name = "tiny"' + SETTINGS).replace(
        "steps = 40", 'steps = 10\nclass_weights = "balanced"'
    )
    (folder / "tiny.toml").write_text(recipe)
    arguments = ["--data", str(coded), "--out", str(folder / "out")]
    assert main(["run", str(folder / "tiny.pt"), *arguments]) == 0
    return folder / "tiny.toml", folder / "out"


def test_a_run_learns_and_measures_by_the_recipes_numbers(finished):
    _, out = finished
    report = json.loads((out / "report.json").read_text())
    teacher = report["measurements"]["teacher"]
    assert teacher["miou"]["mean"] > 0.8
    assert [each["name"] for each in teacher["by_class"]] == ["background", "disc", "square"]
    assert sum(each["share"] for each in teacher["by_class"]) == pytest.approx(1)
    metrics = [check["metric"] for check in report["verdict"]["checks"] if check["format"] == "onnx"]
    assert metrics == ["size", "macs", "miou", "miou_drop"]
    counts = {name: each["macs"] for name, each in report["measurements"].items()}
    assert counts == {"teacher": WHOLE_MACS, "onnx": pytest.approx(15e6, abs=5e6)}
    assert report["artifacts"][0]["macs"] == counts["onnx"]
    assert report["palette"] == ["", "#aa1122", "#d01c8b"]
    assert report["recipe"]["data"]["masks"] == {"background": [7], "disc": [23], "square": [30, 31]}
    assert json.loads((out / "manifest.json").read_text())["palette"] == [None, "#aa1122", "#d01c8b"]
    assert 'id="classes"' in (out / "report.html").read_text()


def test_bench_and_gate_read_the_same_masks(finished, coded, capsys):
    recipe, out = finished
    file, data = str(out / "model.onnx"), str(coded)
    flags = ["--seconds", "0.05", "--threads", "1", "--json"]
    assert main(["bench", file, "--data", data, "--recipe", str(recipe), *flags]) == 0
    (measured,) = json.loads(capsys.readouterr().out)["files"].values()
    of_run = json.loads((out / "report.json").read_text())["measurements"]["onnx"]
    assert measured["measurement"]["miou"] == of_run["miou"]
    assert measured["measurement"]["by_class"] == of_run["by_class"]
    (out / "compress.toml").write_text(f'[budget]\nlimits = ["miou>=0.3"]\n[data]\n{MASKS}')
    assert main(["gate", str(out), "--data", data, "--json", str(out / "gate.json")]) == 0
    checks = json.loads((out / "gate.json").read_text())["checks"]
    assert [check["measured"] for check in checks if check["format"] == "onnx"] == [of_run["miou"]["mean"]]


def test_mine_ranks_images_by_files_of_many_classes(finished, coded, tmp_path):
    _, out = finished
    arguments = ["mine", "--teacher", str(out / "model.onnx"), "--student", str(out / "model.onnx"), "--top", "3"]
    arguments += ["--unlabelled", str(coded / "train/images"), "--out", str(tmp_path / "mined")]
    assert main(arguments) == 0
