"""What a loaded model is: one identity for all that decides its answers, and parts that cannot be mixed."""

from dataclasses import replace

import pytest
import torch

from compress.graph.channels import find_groups
from compress.load.model import Segmenter, load
from compress.load.trace import fold_normalisation
from compress.recipe import read_recipe


@pytest.fixture
def folder(tiny_model, tmp_path):
    for name in ("tiny.pt", "tiny.py", "tiny.toml"):
        (tmp_path / name).write_bytes(tiny_model.with_name(name).read_bytes())
    return tmp_path


def identity_of(folder, change=("", ""), name="tiny.pt"):
    recipe = folder / "changed.toml"
    recipe.write_text((folder / "tiny.toml").read_text().replace(*change))
    return load(folder / name, read_recipe(recipe)).identity


def test_the_same_weights_have_one_identity_wherever_they_lie(folder):
    (folder / "copy.pt").write_bytes((folder / "tiny.pt").read_bytes())
    assert identity_of(folder, name="copy.pt") == identity_of(folder)
    assert identity_of(folder, ("steps = 40", "steps = 9")) == identity_of(folder)


def test_all_that_decides_an_answer_is_in_the_identity(folder):
    base = identity_of(folder)
    changes = [
        ("mean = [0.485", "mean = [0.486"),
        ("std = [0.229", "std = [0.228"),
        ("input_size = [64, 64]", "input_size = [96, 64]"),
        ('"disc"', '"plate"'),
    ]
    found = [identity_of(folder, change) for change in changes]
    source = (folder / "tiny.py").read_text()
    (folder / "tiny.py").write_text(source.replace("padding=2, dilation=2", "padding=1"))
    found.append(identity_of(folder))
    (folder / "tiny.py").write_text(source)
    weights = torch.load(folder / "tiny.pt", weights_only=True)
    weights["head.bias"][0] += 1e-6
    torch.save(weights, folder / "tiny.pt")
    found.append(identity_of(folder))
    assert len({base, *found}) == 7


def test_what_belongs_to_a_network_follows_from_it(tiny_model):
    heavy = load(tiny_model, read_recipe(tiny_model.with_suffix(".toml")))
    folded = fold_normalisation(heavy.network)
    assert [node.name for node in heavy.folded.nodes] == [node.name for node in folded.nodes]
    assert heavy.channels == find_groups(folded)
    doubled = {n: (2 * w, b) for n, (w, b) in heavy.network.weights().items()}
    other = Segmenter(heavy.network.rewritten(doubled), ("a",), False)
    assert torch.equal(other.folded.weight("deep"), 2 * heavy.folded.weight("deep"))
    half = replace(other, network=heavy.network, classes=heavy.classes)
    assert half.identity == heavy.identity != other.identity
    assert torch.equal(half.folded.weight("deep"), heavy.folded.weight("deep"))
