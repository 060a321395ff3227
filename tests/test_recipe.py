"""Recipes: typed once, and every mistake named with its place."""

import json
import os
from pathlib import Path

import pytest

from compress.errors import RecipeError
from compress.flags import RUN_FLAGS
from compress.recipe import read_recipe, restored_recipe

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
        "student": "net.py:Net",
        "student_weights": Path("w.pt"),
        "plan": "uniform",
        "input_size": [(16, 32)],
        "macs_share": 0.25,
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
    assert (recipe.plan.input_sizes, recipe.plan.macs_share) == ([(16, 32)], 0.25)


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
    with pytest.raises(RecipeError, match="--minutes: .* greater than or equal to 0, not -3"):
        read_recipe(path).with_flags(minutes=-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[preprocess]\nmean = [123.675, 116.28, 103.53]", "preprocess.mean: each must be from 0 to 1.*by 255"),
        ("[preprocess]\nstd = [0.2, 0.0, 0.2]", "preprocess.std: each must be more than 0"),
        ("[preprocess]\nstd = [0.2, -0.2, 0.2]", "preprocess.std: each must be more than 0"),
        ("[preprocess]\nmean = [nan, 0, 0]", "preprocess.mean.0: .* finite"),
        ("[preprocess]\nmean = [0.5]", r"\[preprocess\] mean: 1 given, and the model reads 3 channels"),
        ("[train]\nsteps = 9223372036854775808", "train.steps: .* 100000000, not 9223372036854775808"),
        ("[train]\nminutes = true", "train.minutes: .* number, not True"),
        ("[measure]\nseconds = 1e300", "measure.seconds: .* 3600"),
        ("[plan]\nsize = [1, 1]", "plan.size.0: .* 16, not 1"),
        ("[data]\nfolder = 'a\tb'", "data.folder: no path"),
        ("[controls]\nsmall_weights = '/dev/zero'", "controls.small_weights: /dev/zero lies elsewhere"),
        ("[trian]\nsteps = 1", "trian: unknown; did you mean train?"),
        ("[train]\nstep = 1", "train.step: unknown; did you mean train.steps?"),
        ("[plan]\nqat_shares = 1", "plan.qat_shares: unknown; did you mean train.qat_share?"),
        ("[report]\nxyz = 1", "report.xyz: unknown; there are pictures"),
    ],
)
def test_a_value_out_of_bounds_or_a_wrong_name_is_one_line_with_the_key(path, text, message):
    path.write_text(GOOD.replace('[data]\nfolder = "photos"', text))
    with pytest.raises(
        RecipeError, match=message.replace(".", r"\.").replace(r"\.*", ".*").replace("?", r"\?")
    ) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("formats = []", "formats: "),
        ('formats = ["ort", "ort"]', "formats: ort is named twice"),
        ("seed = 18446744073709551616", "seed: .* 4294967296, not 18446744073709551616"),
        ("seed = -1", "seed: "),
        ('folder = "elsewhere"', "folder: unknown; did you mean data.folder"),
        ("minutes = 3", "minutes: unknown; did you mean train.minutes"),
        ("budget = '4MB'", "budget: .* list, not '4MB'"),
    ],
)
def test_a_wrong_value_outside_of_sections_is_named_too(path, first, message):
    path.write_text(first + GOOD)
    with pytest.raises(RecipeError, match=message):
        read_recipe(path)


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "-a", "a" * 61])
def test_a_name_is_that_of_one_folder(path, name):
    path.write_text(GOOD.replace('"mine"', f'"{name}"', 1))
    with pytest.raises(RecipeError, match="mine.toml: name: "):
        read_recipe(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"seed = " + b"9" * 5000, "thousands of digits"),
        (b"#" * 1_000_001, "more than 1,000,000 bytes"),
        (b"name = '\xe9'", "not text in UTF-8"),
        (b"seed = 1\nseed = 2", "line 2"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(path, content, message):
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        read_recipe(path)


def test_a_mark_of_byte_order_is_no_mistake(path):
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert read_recipe(path).name == "mine"


def test_a_pipe_and_a_folder_are_no_recipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", tmp_path, Path("/dev/zero")):
        with pytest.raises(RecipeError, match="not a file"):
            read_recipe(path)


def test_malformed_toml_has_its_line(path):
    path.write_text("name = \n")
    with pytest.raises(RecipeError, match="line 1"):
        read_recipe(path)


STREET = GOOD.replace('["background", "object"]', '["road", "sky", "car"]')


def test_what_masks_hold_is_named_by_class_as_numbers_or_as_colours(path):
    path.write_text(STREET + "masks = { road = 7, sky = [23, 10], car = 26 }\nignore = [0, 3]\n")
    recipe = read_recipe(path)
    assert recipe.data.meanings(recipe.model.classes) == {255: None, 7: 0, 23: 1, 10: 1, 26: 2, 0: None, 3: None}
    path.write_text(STREET + 'masks = { road = "#804080", sky = ["#4682B4"], car = [] }\nignore = "#000001"\n')
    recipe = read_recipe(path)
    assert recipe.data.meanings(recipe.model.classes) == {0x804080: 0, 0x4682B4: 1, 1: None}


def test_a_void_number_alone_leaves_the_classes_their_own_numbers(path):
    path.write_text(STREET + "ignore = 3\n")
    recipe = read_recipe(path)
    assert recipe.data.meanings(recipe.model.classes) == {255: None, 0: 0, 1: 1, 2: 2, 3: None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("masks = { road = 7, sky = 8 }", "data.masks: car is missing; write what masks hold for it, [] for nothing"),
        ("masks = { raod = 7, sky = 8, car = 9 }", "data.masks: 'raod' is no class; did you mean road?"),
        ("masks = { road = 7, sky = 8, car = 7 }", "data: 7 is named for road and for car"),
        ("ignore = 0", "data: 0 is named for ignore and for road; classes are numbered from 0 unless masks says"),
        ('ignore = "#000000"', "data.masks, data.ignore: both numbers and colours"),
        ('masks = { road = 7, sky = "#000000", car = 9 }', "data.masks, data.ignore: both numbers and colours"),
        ("masks = { road = 1.5, sky = 8, car = 9 }", "data.masks.road: whole numbers, or colours such as #804080"),
        ("masks = { road = true, sky = 8, car = 9 }", "data.masks.road: whole numbers, or colours such as #804080"),
        ('ignore = ["black"]', "data.ignore: whole numbers, or colours such as #804080, not 'black'"),
        ("[train]\nclass_weights = [1, 2]", "train.class_weights: 2 for 3 classes; write one each"),
        ("[train]\nclass_weights = [1, 0, 2]", 'train.class_weights: "balanced", or a list of one number above 0'),
        (f"[train]\nclass_weights = [1, 1{'0' * 400}, 2]", "for each class, at most a million"),
        ('[train]\nclass_weights = "median"', 'train.class_weights: "balanced", or a list of one number above 0'),
        ('[report]\npalette = { raod = "#000000" }', "report.palette: 'raod' is no class; did you mean road?"),
        ('[report]\npalette = { road = "grey" }', "report.palette.road: a colour such as #804080, not 'grey'"),
    ],
)
def test_masks_and_palettes_that_do_not_fit_the_classes_are_one_line(path, text, message):
    path.write_text(f"{STREET}{text}\n")
    with pytest.raises(RecipeError) as raised:
        read_recipe(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "weights"), [('"balanced"', "balanced"), ("[1, 2.5, 3]", (1.0, 2.5, 3.0))])
def test_class_weights_are_a_word_or_a_list(path, text, weights):
    path.write_text(f"{STREET}[train]\nclass_weights = {text}\n")
    assert read_recipe(path).train.class_weights == weights


def test_what_masks_hold_comes_back_from_the_record_of_a_run(path):
    path.write_text(
        STREET + 'masks = { road = 7, sky = [23, 10], car = 26 }\n[report]\npalette = { sky = "#4682B4" }\n'
        "[train]\nclass_weights = [1, 2, 3]\n"
    )
    recipe = read_recipe(path)
    assert restored_recipe(json.loads(recipe.model_dump_json()), recipe.folder, "run.json") == recipe
