"""What runs of one model share is what each would compute for itself."""

import pytest
import torch

from compress.graph.channels import find_groups
from compress.load.model import load
from compress.pipeline.shared import known_damage
from compress.prune.importance import measure_damage
from compress.recipe import recipe_beside


@pytest.fixture(scope="module")
def heavy(tiny_model):
    return load(tiny_model, recipe_beside(tiny_model))


def test_what_channels_are_worth_is_known_to_the_last_bit_and_computed_once(heavy, tmp_path):
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    net = heavy.network
    own = measure_damage(net, find_groups(net), [net.real(one[None]) for one in pixels])
    assert known_damage(heavy, pixels, False, tmp_path) == own
    (kept,) = tmp_path.glob("damage-*.json")
    made = kept.stat().st_mtime_ns
    assert known_damage(heavy, pixels, False, tmp_path) == own
    assert kept.stat().st_mtime_ns == made


def test_other_images_another_size_or_labels_are_not_taken_for_it(heavy, tmp_path):
    pixels = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    for pixels_, network, multilabel in (
        (pixels, heavy, False),
        (pixels, heavy, True),
        (pixels + 1, heavy, False),
        (pixels, heavy.resized((48, 48)), False),
    ):
        known_damage(network, pixels_, multilabel, tmp_path)
    assert len(list(tmp_path.glob("damage-*.json"))) == 4
