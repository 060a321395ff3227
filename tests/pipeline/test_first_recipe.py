"""The recipe that init writes."""

import shutil

import pytest
import torch
from tiny import TinyNet

from compress.cli import main
from compress.errors import RecipeError
from compress.load.draft import Told, draft
from compress.pipeline.first_recipe import write_first_recipe
from compress.recipe import read_recipe

SIZE, CLASSES = (64, 64), ["background", "disc", "square"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def program(tiny_model, tmp_path):
    net = TinyNet()
    net.load_state_dict(torch.load(tiny_model, weights_only=True))
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(1, 3, *SIZE),)), tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def written(path, told, out):
    list(write_first_recipe(path, told, out))
    return out.read_text()


def test_what_was_found_and_guessed_is_said_and_a_run_takes_it(program, tiny_data, capsys):
    assert main(["init", str(program), "--data", str(tiny_data)]) == 0
    out = program.with_suffix(".toml")
    assert f"compress run {program} --dry-run" in capsys.readouterr().out
    text = out.read_text()
    assert "input_size = [64, 64]  # found: the file says so" in text
    assert 'output = "0"  # guessed' in text
    assert "guessed by the 3 channels of the map" in text
    assert "# found: ImageNet's mean and std, which does best on 8 labelled images" in text
    recipe = read_recipe(out)
    assert recipe.data.folder.resolve() == tiny_data.resolve()
    assert recipe.model == draft(program, Told(data=tiny_data)).model
    assert recipe.preprocess.mean == MEAN
    assert main(["run", str(program), "--dry-run"]) == 0
    assert f"net.pt2, within {recipe.budget[0]}," in capsys.readouterr().out


def test_a_recipe_that_is_there_stays(program, capsys):
    out = program.with_suffix(".toml")
    out.write_text("mine")
    assert main(["init", str(program), "--mean", "0,0,0"]) == 2
    assert (
        capsys.readouterr().err == f"compress: {out}: is there already, and stays as it is; name another with --out\n"
    )
    assert out.read_text() == "mine"


@pytest.mark.parametrize("name", [".", "gone.onnx"])
def test_what_is_no_file_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", name]) == 2
    assert capsys.readouterr().err.startswith(f"compress: {name}: ")


def test_what_is_told_is_neither_found_nor_guessed(program, tmp_path):
    told = Told(classes=["a", "b", '"""'], size=(64, 64), output=0, mean=MEAN, std=STD)
    text = written(program, told, tmp_path / "told.toml")
    assert text.count("guessed") == 1  # the budget
    assert "found" not in text
    recipe = read_recipe(tmp_path / "told.toml")
    assert (recipe.model.classes, recipe.preprocess.std) == (["a", "b", '"""'], STD)
    assert recipe.data.folder is None


def test_code_is_named_beside_the_recipe_alone(tiny_model, tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    for suffix in (".pt", ".py"):
        shutil.copy(tiny_model.with_suffix(suffix), folder)
    told = Told(arch="tiny.py:TinyNet", classes=CLASSES, size=SIZE, mean=MEAN, folder=folder)
    with pytest.raises(RecipeError, match="a recipe lies beside its code; add --out .*code/NAME.toml"):
        written(folder / "tiny.pt", told, tmp_path / "tiny.toml")
    assert 'architecture = "tiny.py:TinyNet"' in written(folder / "tiny.pt", told, folder / "tiny.toml")
    assert read_recipe(folder / "tiny.toml").model.architecture == "tiny.py:TinyNet"


def test_what_an_installed_package_makes_is_named_at_each_run(tiny_model, tmp_path):
    told = Told(arch="tiny:TinyNet", classes=CLASSES, size=SIZE, mean=MEAN)
    assert '# what an installed package makes is named at each run: --arch "tiny:TinyNet"' in written(
        tiny_model, told, tmp_path / "tiny.toml"
    )
    assert read_recipe(tmp_path / "tiny.toml").model.architecture is None
