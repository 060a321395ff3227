"""How long a run is said to take, worked out by hand."""

from pathlib import Path

import pytest

from compress.data.folders import Dataset, Sample
from compress.pipeline.forecast import Forecast, Speed, forecast
from compress.recipe import Recipe

SPEED = Speed(0.5, 0.5)
MODEL = {"architecture": "a.py:Net", "classes": ["a", "b"], "input_size": [192, 192]}


def images(count: int) -> tuple[Sample, ...]:
    return tuple(Sample(Path(f"{i}.png"), None) for i in range(count))


@pytest.fixture
def dataset():
    return Dataset(images(100), images(20), images(140), ("a", "b"), "labels")


def foretold(dataset, **sections) -> dict[str, float]:
    recipe = Recipe.model_validate({"name": "n", "model": MODEL, **sections})
    return dict(forecast(recipe, SPEED, dataset, teachers=[SPEED], references=[SPEED]).minutes)


def test_the_stages_of_a_run_and_what_is_known_of_them(dataset):
    minutes = foretold(dataset, train={"minutes": 10, "features": 60})
    assert list(minutes) == ["teacher", "plan", "repair", "distil", "ptq", "qat", "export", "verify", "measure"]
    assert minutes["teacher"] == pytest.approx(240 * 0.5 / 60)  # every image once
    assert minutes["distil"] == pytest.approx(6 + 60 * 0.5 / 60)  # its share of the minutes, and the features
    assert minutes["qat"] == pytest.approx(4)


def test_what_a_recipe_asks_for_takes_time_and_what_it_leaves_out_takes_none(dataset):
    plain = foretold(dataset)
    assert foretold(dataset, teacher={"tta": ["flip"]})["teacher"] == 2 * plain["teacher"]
    cuts = foretold(dataset, plan={"cuts": 2})
    assert [name for name in cuts if name[-2:] == "-1"] == ["plan-1", "repair-1", "between-1"]
    assert "qat" not in foretold(dataset, quantize="ptq")
    assert "distil" not in foretold(dataset, train={"minutes": 0})
    assert foretold(dataset, controls={"run": True})["controls"] > plain["distil"]
    assert "tune" in foretold(dataset, tune={"steps": 10})


def test_what_is_left_is_this_stage_and_all_after_it():
    stages = Forecast({"plan": 2.0, "distil": 6.0, "measure": 3.0}, frozenset({"distil"}))
    assert stages.place("plan", {}) == " (stage 1 of 3, about 11 min left)"
    assert stages.place("distil", {}) == " (stage 2 of 3, about 9 min left)"
    assert stages.place("features", {}) == ""  # a part of another stage
    assert stages.without(["plan"]).place("plan", {}) == " (stage 1 of 3, about 9 min left)"


def test_a_slow_machine_makes_the_rest_longer_but_for_what_is_told_how_long_to_take():
    stages = Forecast({"teacher": 1.0, "plan": 2.0, "distil": 6.0, "measure": 3.0}, frozenset({"distil"}))
    assert stages.place("distil", {"teacher": 0.0, "plan": 4.0}) == " (stage 3 of 4, about 12 min left)"


def test_the_whole_is_said_with_its_parts():
    text = Forecast({"plan": 0.26, "measure": 120.0}).describe()
    assert text == "about 2.0 h in 2 stages, less where the cache has results; minutes: plan 0.3, measure 120.0"
