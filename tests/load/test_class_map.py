"""Probabilities and logits are told apart by what was done to them, and the map is as large as the image."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.load.trace import trace

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
SIZE = (12, 16)


class Ending(nn.Module):
    """One or more channels of logits, and what a network does with them last."""

    def __init__(self, end, channels=1):
        super().__init__()
        self.head, self.other, self.end = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(3, channels, 1), end

    def forward(self, x):
        return self.end(self.head(x), self.other(x))


def up(x, mode="bilinear"):
    return F.interpolate(x, SIZE, mode=mode)


def halves(x):
    return F.avg_pool2d(x, 2)


PROBABILITIES = {
    "sigmoid": lambda a, b: torch.sigmoid(a),
    "sigmoid, enlarged": lambda a, b: up(torch.sigmoid(halves(a))),
    "sigmoid, pooled, enlarged": lambda a, b: up(F.max_pool2d(torch.sigmoid(a), 2), "nearest"),
    "sigmoid, averaged": lambda a, b: F.avg_pool2d(torch.sigmoid(a), 3, 1, 1, count_include_pad=False),
    "sigmoid of what another reads": lambda a, b: up(halves(torch.sigmoid(a))) * torch.sigmoid(a + b),
    "product of two": lambda a, b: torch.sigmoid(a) * torch.sigmoid(b),
    "clamped": lambda a, b: a.clamp(0, 1),
    "hardsigmoid": lambda a, b: F.hardsigmoid(a),
}
LOGITS = {
    "logits": lambda a, b: a,
    "logits, enlarged": lambda a, b: up(halves(a)),
    "features times a sigmoid": lambda a, b: a * torch.sigmoid(b),
    "sum of two sigmoids": lambda a, b: torch.sigmoid(a) + torch.sigmoid(b),
    "positive": lambda a, b: torch.relu(a),
}


def given(module):
    torch.manual_seed(2)
    x = torch.rand(1, 3, *SIZE)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return x, module((x - mean) / std)


def built(end, channels=1):
    torch.manual_seed(1)
    return Ending(end, channels).eval()


@pytest.mark.parametrize("end", PROBABILITIES)
def test_what_cannot_leave_0_to_1_is_the_probability_of_the_second_class(end):
    module = built(PROBABILITIES[end])
    x, wanted = given(module)
    net, _ = trace(module, SIZE, 0, 2, MEAN, STD)
    with torch.no_grad():
        torch.testing.assert_close(net(x), torch.cat([1 - wanted, wanted], 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("end", LOGITS)
def test_all_else_is_a_logit(end):
    module = built(LOGITS[end])
    x, wanted = given(module)
    net, _ = trace(module, SIZE, 0, 2, MEAN, STD)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:, 1:], torch.sigmoid(wanted), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("end", [lambda a, b: up(halves(a).softmax(1)), lambda a, b: up(torch.sigmoid(halves(a)))])
def test_several_classes_that_are_enlarged_get_no_second_softmax(end):
    module = built(end, 3)
    x, wanted = given(module)
    net, _ = trace(module, SIZE, 0, 3, MEAN, STD)
    with torch.no_grad():
        torch.testing.assert_close(net(x), wanted, atol=1e-5, rtol=1e-4)


def test_a_smaller_map_is_enlarged_before_its_activation():
    module = built(lambda a, b: torch.sigmoid(halves(a)))
    net, original = trace(module, SIZE, 0, 2, MEAN, STD)
    x, _ = given(module)
    enlarged = built(lambda a, b: torch.sigmoid(up(halves(a))))
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:, 1:], given(enlarged)[1], atol=1e-5, rtol=1e-4)
    assert original.outputs == {"0": (1, 1, 6, 8)}
    assert net(torch.rand(1, 3, 24, 16)).shape == (1, 2, 24, 16)


def test_other_smaller_maps_are_enlarged_as_they_are():
    module = built(lambda a, b: F.max_pool2d(torch.sigmoid(a), 2))
    x, wanted = given(module)
    net, _ = trace(module, SIZE, 0, 2, MEAN, STD)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:, 1:], up(wanted), atol=1e-5, rtol=1e-4)


def test_one_class_for_the_whole_image_is_no_map():
    with pytest.raises(ModelError, match="output 0 is 1x1 for an image of 12x16"):
        trace(built(lambda a, b: a.mean((2, 3), keepdim=True), 3), SIZE, 0, 3, MEAN, STD)
