"""A network that is not its module is refused by name of the first layer that parts."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.graph.operators import OPERATORS
from compress.load import walk
from compress.load.faithful import made_up_pictures
from compress.load.trace import trace

SIZE = (12, 16)


class Net(nn.Module):
    """Three convolutions, and a function between the first two."""

    def __init__(self, middle=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.middle = middle

    def forward(self, x):
        return self.head(torch.relu(self.second(self.middle(self.norm(self.first(x))))))


def traced(module):
    return trace(module, SIZE, 0, 3, (0.5,) * 3, (0.25,) * 3)


def test_the_first_layer_that_computes_something_else_is_named(monkeypatch):
    wrong = replace(OPERATORS["leaky_relu"], compute=lambda x, a: F.leaky_relu(x[0], 2 * a.negative_slope))
    monkeypatch.setitem(OPERATORS, "leaky_relu", wrong)
    with pytest.raises(ModelError, match=r"^leaky_relu: what is traced of this layer computes something else .* by up"):
        traced(Net(F.leaky_relu))


def test_a_normalisation_that_is_folded_wrongly_is_named_by_its_convolution(monkeypatch):
    monkeypatch.setitem(walk.CALLS, "batch_norm.default", forgets)
    module = Net()
    nn.init.constant_(module.norm.running_mean, 3.0)
    with pytest.raises(ModelError, match="^first: what is traced"):
        traced(module)


def forgets(reader, call):
    """As if it did nothing."""
    channels = call["input"].shape[0]
    return reader.scaled(call["input"], torch.ones(channels), torch.zeros(channels), call.layer)


def test_a_difference_on_other_pictures_alone_is_found_there(monkeypatch):
    limited = replace(OPERATORS["tanh"], compute=lambda x, a: torch.where(x[0] > 0.999, 0.0, torch.tanh(x[0])))
    monkeypatch.setitem(OPERATORS, "tanh", limited)
    module = Net(torch.tanh)
    module.first.weight.data.fill_(0.01)
    nn.init.zeros_(module.first.bias)
    _, original = trace(module, SIZE, 0, 3, (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ModelError, match="^tanh: what is traced"):
        original.check(torch.full((1, 3, *SIZE), 2.0))


class TwoFaced(Net):
    """Another network where it is traced."""

    def forward(self, x):
        map_ = super().forward(x)
        return map_ if torch.compiler.is_exporting() else map_ * map_


def test_a_module_that_does_something_else_than_is_traced_of_it_is_refused():
    with pytest.raises(ModelError, match="does not compute what torch.export traces of it"):
        traced(TwoFaced())


def test_values_that_are_not_finite_are_named_by_their_layer():
    module = Net()
    module.second.weight.data.fill_(3e38)
    with pytest.raises(ModelError, match="^second: gives infinite values or NaN for an ordinary picture"):
        traced(module)


def test_rounding_that_a_network_amplifies_is_no_difference():
    """Channels of hardly any variance, one after the other: each makes a rounding a thousand times as large."""
    torch.manual_seed(0)
    layers = []
    for _ in range(3):
        layers += [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Tanh()]
        layers[-2].running_var.fill_(1e-12)
        layers[-2].eps = 1e-9
    traced(nn.Sequential(*layers, nn.Conv2d(3, 3, 1)))


def test_pictures_are_those_of_a_photographs_range_and_the_same_each_time():
    pictures = made_up_pictures(SIZE)
    assert pictures.shape == (1, 3, *SIZE)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert torch.equal(pictures, made_up_pictures(SIZE))


class InPlace(Net):
    """A rectifier that changes what is read again."""

    def forward(self, x):
        f = self.first(x)
        torch.relu_(f)
        return self.head(self.second(f) + f)


class TwiceInPlace(Net):
    def forward(self, x):
        f = self.first(x)
        return self.head(f + F.relu(f, inplace=True) + f)


@pytest.mark.parametrize("kind", [InPlace, TwiceInPlace])
def test_what_is_changed_in_place_is_changed_for_all_that_reads_it_after(kind):
    net, _ = traced(kind())
    assert "relu" in {node.op for node in net.nodes}
