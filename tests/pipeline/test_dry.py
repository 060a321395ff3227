"""What a run would do, without doing it."""

import re

import pytest

from compress.cli import main
from compress.errors import BudgetError
from compress.pipeline.dry import dry_run
from compress.recipe import read_recipe


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_it_says_minutes_widths_bytes_and_what_stays_whole_and_writes_nothing(tiny_model, tiny_data, tmp_path, capsys):
    before = files(tiny_model.parent), files(tiny_data)
    command = ["run", str(tiny_model), "--data", str(tiny_data), "--budget", "20KB", "--dry-run"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert (files(tiny_model.parent), files(tiny_data)) == before
    assert not list(tmp_path.iterdir())
    text = capsys.readouterr().out
    stages = re.findall(r"^ +\d+\.\d  ([\w-]+)$", text, re.MULTILINE)
    assert stages == ["teacher", "plan", "repair", "distil", "ptq", "qat", "export", "verify", "measure"]
    widths = {name: (int(a), int(b)) for a, b, name in re.findall(r"^ +(\d+) -> (\d+) +(\S+)$", text, re.MULTILINE)}
    assert {name: whole for name, (whole, _) in widths.items()} == {
        "stem": 16, "block.pointwise": 32, "deep": 48, "up": 24, "merge": 32,
    }  # fmt: skip
    assert all(0 < kept <= whole and (kept == whole or kept % 8 == 0) for whole, kept in widths.values())
    few, many = (
        int(found.replace(",", "")) for found in re.search(r"about ([\d,]+) bytes, of ([\d,]+)", text).groups()
    )
    assert 0.8 * 20_000 < few <= 20_000 < many
    macs = [float(found) for found in re.search(r"; ([\d.]+) M multiply-accumulates, of ([\d.]+) M", text).groups()]
    assert macs[0] < macs[1] == pytest.approx(63.7, abs=0.05)
    assert "nothing but the input and the class map stays whole" in text


def test_a_limit_of_multiply_accumulates_is_planned_for(tiny_model, tiny_data, tmp_path):
    recipe = read_recipe(tiny_model.with_suffix(".toml")).with_flags(data=tiny_data, budget=["20KB", "macs<=10M"])
    text = dry_run(recipe, tiny_model, tmp_path / "out")
    assert 5 < float(re.search(r"; ([\d.]+) M multiply-accumulates", text)[1]) <= 10
    recipe = recipe.with_flags(budget=["20KB", "macs<=1M"])
    with pytest.raises(BudgetError, match="no student has at most 1,000,000 multiply-accumulates"):
        dry_run(recipe, tiny_model, tmp_path / "out")


def test_what_a_run_refuses_it_refuses(tiny_model, tiny_data, tmp_path):
    recipe = read_recipe(tiny_model.with_suffix(".toml")).with_flags(data=tiny_data, budget=["2KB"])
    with pytest.raises(BudgetError, match="no student fits in 2,000 bytes"):
        dry_run(recipe, tiny_model, tmp_path / "out")
