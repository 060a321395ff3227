"""A student of another make than its teacher: where it begins, and the whole way to its files."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from compress.budget import Budget
from compress.cli import main
from compress.errors import BudgetError, ModelError
from compress.pipeline.given import Given, given_students
from compress.pipeline.source import open_source
from compress.pipeline.trial import SAME, candidates
from compress.recipe import Recipe, read_recipe
from compress.runtime.local import describe_in_child
from compress.train.light import Light

SMALL = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, classes, 3, padding=1)

    def forward(self, x):
        return self.two(torch.relu(self.norm(self.one(x))))
"""


@pytest.fixture
def recipe(tiny_model, tmp_path):
    (tmp_path / "small.py").write_text(SMALL)
    (tmp_path / "tiny.py").write_text(tiny_model.with_name("tiny.py").read_text())
    text = tiny_model.with_suffix(".toml").read_text()
    (tmp_path / "tiny.toml").write_text(text + '[student]\nnetwork = "small.py:Small"\n')
    return tmp_path / "tiny.toml"


def given_student(recipe: Recipe) -> Given:
    (found,) = given_students(recipe, (64, 64))
    return found


def test_a_given_student_goes_the_whole_way_at_a_size_of_its_own(recipe, tiny_model, tiny_data, tmp_path):
    text = recipe.read_text().replace("[plan]", "[plan]\ninput_sizes = [[48, 40]]")
    recipe.write_text(text)
    out = tmp_path / "out"
    flags = ["--recipe", str(recipe), "--data", str(tiny_data), "--out", str(out), "--budget", "20KB"]
    assert main(["run", str(tiny_model), *flags]) == 0
    files = [describe_in_child(out / name) for name in ("model.onnx", "model.tflite")]
    assert [file.size for file in files] == [(48, 40)] * 2
    report = json.loads((out / "report.json").read_text())
    assert report["history"][-1]["stage"] == "qat"
    assert report["history"][-1]["iou"] > report["history"][0]["iou"]
    assert {layer["name"] for layer in report["layers"]} == {"one", "two"}


def test_a_narrower_copy_may_read_smaller_images_than_its_teacher(tiny_model, tiny_data, tmp_path):
    text = tiny_model.with_suffix(".toml").read_text().replace("[plan]", "[plan]\ninput_sizes = [[32, 48]]")
    text = text.replace("steps = 40", "steps = 4")
    (tmp_path / "tiny.toml").write_text(text)
    (tmp_path / "tiny.py").write_text(tiny_model.with_name("tiny.py").read_text())
    flags = ["--recipe", str(tmp_path / "tiny.toml"), "--data", str(tiny_data), "--out", str(tmp_path / "out")]
    main(["run", str(tiny_model), *flags, "--budget", "20KB"])
    assert describe_in_child(tmp_path / "out" / "model.tflite").size == (32, 48)


def test_layers_that_the_weights_cover_begin_from_them_and_the_others_anew(recipe, tmp_path):
    state = {"one.weight": torch.full((8, 3, 3, 3), 0.25), "one.bias": torch.zeros(8), "two.weight": torch.zeros(2, 8)}
    torch.save(state, tmp_path / "part.pt")
    given = given_student(read_recipe(recipe).with_flags(student_weights=tmp_path / "part.pt"))
    assert given.new == {"two"}
    norm = 1 / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(given.model.network.weight("one").detach(), 0.25 * norm, rtol=1e-6)


def test_a_student_that_makes_itself_from_trained_weights_keeps_them(recipe, tmp_path):
    trained = SMALL.replace("        self.two", "        self.norm.running_mean.fill_(0.5)\n        self.two")
    (tmp_path / "small.py").write_text(trained)
    assert given_student(read_recipe(recipe)).new == set()
    (tmp_path / "small.py").write_text(SMALL)
    assert given_student(read_recipe(recipe)).new == {"one", "two"}


@pytest.mark.parametrize(
    ("network", "weights", "message"),
    [
        ("small.py:Other", None, "Other"),
        ("small.py:Small(classes=5)", None, "5 channels"),
        ("small.py:Small", "other.pt", "no tensor with a name and a shape of the student"),
        ("small.py:Small", "none.pt", "no such file"),
    ],
)
def test_what_is_no_student_is_said(recipe, tmp_path, network, weights, message):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    wanted = read_recipe(recipe).with_flags(student=network, student_weights=weights and tmp_path / weights)
    with pytest.raises(ModelError, match=message):
        given_student(wanted)


def test_a_student_that_is_too_large_is_refused_before_anything_is_trained(
    recipe, tiny_model, tiny_data, tmp_path, capsys
):
    flags = ["--recipe", str(recipe), "--data", str(tiny_data), "--out", str(tmp_path / "out"), "--budget", "2KB"]
    assert main(["run", str(tiny_model), *flags]) == 2
    assert "a given student is not cut" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.tflite").exists()


@pytest.mark.parametrize(("budget", "taken"), [("4MB", "large"), ("1MB", "small"), ("600KB", "tiny")])
def test_the_largest_light_student_that_fits_the_budget_is_taken(tiny_model, budget, taken):
    recipe = read_recipe(tiny_model.with_suffix(".toml")).with_flags(student="light", budget=[budget])
    recipe = recipe.model_copy(update={"plan": recipe.plan.model_copy(update={"input_sizes": [(64, 64)]})})
    source, _ = open_source(tiny_model, recipe)
    (candidate,) = candidates(recipe, source, Budget.parse(recipe.budget))
    assert candidate.name == f"light, {taken}, 64x64"
    assert candidate.size_bytes <= Budget.parse(recipe.budget).size_bytes


def test_where_no_light_student_is_small_enough_the_smallest_is_named(tiny_model):
    recipe = read_recipe(tiny_model.with_suffix(".toml")).with_flags(student="light", budget=["100KB"])
    source, _ = open_source(tiny_model, recipe)
    with pytest.raises(BudgetError, match=r"student light, tiny: has 5\d\d,\d{3} bytes as int8, of 100,000"):
        candidates(recipe, source, Budget.parse(recipe.budget))


def test_the_light_student_gives_a_map_as_large_as_its_image():
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert Light(2).eval()(image).shape == (1, 1, 64, 96)
        assert Light(5, blocks=(1, 1, 1, 1, 1, 1)).eval()(image).shape == (1, 5, 64, 96)


def test_of_several_sizes_a_short_training_of_each_decides_and_the_record_has_what_each_gave(
    recipe, tiny_model, tiny_data, tmp_path
):
    text = recipe.read_text().replace("[plan]", "[plan]\ninput_sizes = [[64, 64], [32, 32]]")
    recipe.write_text(text.replace("steps = 40", "steps = 8"))
    flags = ["--recipe", str(recipe), "--data", str(tiny_data), "--out", str(tmp_path / "out"), "--budget", "20KB"]
    main(["run", str(tiny_model), *flags])
    trials = json.loads((tmp_path / "out" / "report.json").read_text())["trials"]
    assert [trial["name"] for trial in trials] == ["small.py:Small, 64x64", "small.py:Small, 32x32"]
    assert trials[0]["macs"] == 4 * trials[1]["macs"] == 64 * 64 * (9 * 3 * 8 + 9 * 8 * 3)
    (taken,) = [trial for trial in trials if trial["taken"]]
    size = (64, 64) if taken is trials[0] else (32, 32)
    assert describe_in_child(tmp_path / "out" / "model.onnx").size == size
    assert taken["iou"] >= max(trial["iou"] for trial in trials) - SAME


def test_auto_tries_a_narrower_copy_and_a_light_student_and_takes_one(tiny_model, tiny_data, tmp_path):
    text = tiny_model.with_suffix(".toml").read_text().replace("steps = 40", "steps = 4")
    (tmp_path / "tiny.toml").write_text(text + '[student]\nnetwork = "auto"\n')
    (tmp_path / "tiny.py").write_text(tiny_model.with_name("tiny.py").read_text())
    flags = ["--recipe", str(tmp_path / "tiny.toml"), "--data", str(tiny_data), "--out", str(tmp_path / "out")]
    main(["run", str(tiny_model), *flags, "--budget", "600KB"])
    trials = json.loads((tmp_path / "out" / "report.json").read_text())["trials"]
    assert [trial["name"] for trial in trials] == ["narrower copy, 64x64", "light, tiny, 64x64"]
    best = max(trials, key=lambda trial: trial["iou"])
    (taken,) = [trial for trial in trials if trial["taken"]]
    assert taken["iou"] >= best["iou"] - SAME
    assert all(trial["size_bytes"] <= 600_000 for trial in trials)
