"""A result that is kept is met again by the same question alone."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))
import variants

from compress.budget import Budget
from compress.recipe import read_recipe


@pytest.fixture
def on(tiny_model, tiny_data, tmp_path, monkeypatch):
    recipe = read_recipe(tiny_model.with_suffix(".toml")).with_flags(data=tiny_data, budget=["20KB"])
    monkeypatch.setattr(variants, "quantized_graph", lambda *_: None)
    monkeypatch.setattr(variants, "export", lambda *_: [SimpleNamespace(size_bytes=1)])
    monkeypatch.setattr(variants, "evaluate", lambda *_: SimpleNamespace(iou=(0.5,)))
    return variants.ground(tiny_model, recipe, tmp_path)


def test_the_same_is_not_made_twice_and_another_budget_model_recipe_or_time_is(on):
    made = []

    def train(settings, checkpoints):
        made.append(settings)

    def kept(on, recipe):
        count = len(made)
        assert variants.kept(on, "2 cuts", train, recipe) == {"size_bytes": 1, "iou": [0.5]}
        return len(made) == count

    assert not kept(on, on.recipe)
    assert kept(on, on.recipe)
    assert not kept(on, on.recipe.with_flags(minutes=99))
    assert not kept(on, on.recipe.with_flags(seed=1))
    assert not kept(on, variants.varied(on.recipe, {"plan": {"cuts": 2}}))
    smaller = on.recipe.with_flags(budget=["19KB"])
    assert not kept(replace(on, recipe=smaller, budget=Budget.parse(smaller.budget)), smaller)
    other = replace(
        on.heavy,
        network=on.heavy.network.rewritten({n: (2 * w, b) for n, (w, b) in on.heavy.network.weights().items()}),
    )
    assert not kept(replace(on, heavy=other), on.recipe)
    assert not kept(replace(on, prepared=replace(on.prepared, identity="other images")), on.recipe)
    assert kept(on, on.recipe)
