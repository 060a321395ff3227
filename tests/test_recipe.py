"""Recipes: typed once, and every mistake named with its place."""

from pathlib import Path

import pytest

from compress.errors import RecipeError
from compress.flags import RUN_FLAGS
from compress.recipe import read_recipe

GOOD = """
name = "mine"
[model]
architecture = "mine.py:Net"
classes = ["background", "object"]
[data]
folder = "photos"
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    return file


def test_defaults_and_folders_beside_the_recipe(path):
    recipe = read_recipe(path)
    assert recipe.model.input_size == (320, 320)
    assert recipe.data.folder == path.parent / "photos"
    assert recipe.folder == path.parent


def test_flags_replace_what_the_recipe_says_and_none_leaves_it(path):
    recipe = read_recipe(path).with_flags(
        minutes=60, seed=None, budget=["1MB"], data=Path("elsewhere"), formats=["ort"]
    )
    assert (recipe.train.minutes, recipe.seed, recipe.budget, recipe.formats) == (60, 0, ["1MB"], ["ort"])
    assert recipe.data.folder == Path("elsewhere")
    assert recipe.folder == path.parent


def test_every_flag_of_the_command_reaches_the_setting_that_it_names(path):
    """The settings of a recipe, by hand."""
    values = {
        "budget": ["1MB"],
        "data": Path("a"),
        "unlabelled": Path("b"),
        "pictures": Path("c"),
        "minutes": 2.5,
        "seed": 7,
        "teacher": [Path("t.pt")],
        "tta": ["flip"],
        "plan": "uniform",
        "controls": True,
        "quantize": "ptq",
        "keep_float": ["head"],
        "sensitivity": True,
        "formats": ["ort"],
    }
    assert values.keys() == {flag.key for flag in RUN_FLAGS if flag.setting}
    path.write_text(GOOD + "[train]\nsteps = 5\n")
    recipe = read_recipe(path).with_flags(**values)
    assert (recipe.budget, recipe.data.folder, recipe.data.unlabelled) == (["1MB"], Path("a"), Path("b"))
    assert (recipe.report.pictures, recipe.train.minutes, recipe.train.steps) == (Path("c"), 2.5, None)
    assert (recipe.seed, recipe.teacher.models, recipe.teacher.tta) == (7, [Path("t.pt")], ["flip"])
    assert (recipe.plan.method, recipe.controls.run, recipe.quantize) == ("uniform", True, "ptq")
    assert (recipe.keep_float, recipe.sensitivity, recipe.formats) == (["head"], True, ["ort"])


def test_an_unknown_flag_is_named(path):
    with pytest.raises(RecipeError, match="speed"):
        read_recipe(path).with_flags(speed=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("classes", "clases"), "model.classes"),
        (('"mine.py:Net"', '"../../etc:x"'), "model.architecture"),
        (('["background", "object"]', '["one"]'), "model.classes"),
        (('"object"]', '"two\\nlines"]'), "model.classes"),
        (('name = "mine"', 'name = "a/b"'), "name"),
        (("[data]", "[train]\nminutes = -1\n[data]"), "train.minutes"),
        (("[data]", "[train]\nsize = [640, 640]\n[data]"), "640x640"),
    ],
)
def test_a_mistake_is_named_with_its_key(path, change, message):
    path.write_text(GOOD.replace(*change))
    with pytest.raises(RecipeError, match=message.replace(".", r"\.")) as caught:
        read_recipe(path)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flag_out_of_range_is_named(path):
    with pytest.raises(RecipeError, match="train.minutes"):
        read_recipe(path).with_flags(minutes=-3)


def test_malformed_toml_has_its_line(path):
    path.write_text("name = \n")
    with pytest.raises(RecipeError, match="line 1"):
        read_recipe(path)
