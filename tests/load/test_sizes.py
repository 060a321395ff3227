"""Only sizes that a network was seen to take are used."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.load.sizes import nearest_size, with_fitting_sizes
from compress.load.trace import trace
from compress.recipe import Recipe
from compress.train.batches import sizes_between


class Levels(nn.Module):
    """Three levels of stride 2, the deepest resized to the one before, whatever its size: of 65 rows they are 33, 17
    and 9. Of 64 they are 32, 16 and 8, and 17 in proportion is 16.7: 17 beside 16."""

    def __init__(self):
        super().__init__()
        strides = (2, 2, 2)
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, s, 1) for i, s in enumerate(strides))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        fine = self.convs[1](self.convs[0](x))
        return self.head(torch.cat([fine, F.interpolate(self.convs[2](fine), fine.shape[2:], mode="bilinear")], 1))


def traced(size):
    torch.manual_seed(0)
    return trace(Levels(), size, 0, 2, (0.0,) * 3, (1.0,) * 3)[0]


def test_a_size_is_taken_where_operators_fit_together():
    net = traced((65, 33))
    assert net.takes((65, 33))
    assert not net.takes((64, 33))
    assert not net.takes((65, 32))
    assert nearest_size(net, (65, 33)) == (65, 33)
    assert nearest_size(net, (64, 32)) == (65, 33)


def test_the_nearest_size_that_fits_is_used_and_said(caplog):
    net = traced((65, 65))
    model = {"architecture": "net.py:Net", "classes": ["a", "b"], "input_size": (65, 65)}
    recipe = Recipe.model_validate({"name": "n", "model": model, "plan": {"size": (64, 64)}})
    with caplog.at_level(logging.WARNING, "compress"):
        fitting = with_fitting_sizes(recipe, net)
    assert net.takes(fitting.plan.size)
    assert fitting.plan.size == (65, 65)
    assert fitting.train.size == (65, 65)
    assert "[plan] size: the network cannot take 64x64; 65x65 is used" in caplog.text


def test_training_draws_only_from_sizes_that_fit():
    assert sizes_between(traced((65, 65)), (1, 1)) == [(1, 1), (33, 33), (65, 65)]
    assert sizes_between(traced((65, 65)), (32, 32)) == [(32, 32)]
    assert sizes_between(traced((64, 96)), (16, 16)) == [(16, 16), (48, 48)]


@pytest.mark.parametrize("size", [(160, 160), (320, 160)])
def test_sizes_that_are_not_given_are_no_larger_than_the_image(size):
    model = {"architecture": "net.py:Net", "classes": ["a", "b"], "input_size": size}
    recipe = Recipe.model_validate({"name": "n", "model": model})
    expected = (min(192, size[0]), min(192, size[1]))
    assert recipe.plan.size == recipe.repair.size == recipe.train.size == expected
    assert recipe.with_flags(minutes=1.0).train.size == expected
