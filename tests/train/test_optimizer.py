"""Natural steps, against numpy and under a change of scale."""

import numpy as np
import pytest
import torch
from torch import nn

from compress.load.trace import trace
from compress.train.optimizer import DAMPING, Natural, _Sums

SIZE = (12, 12)
IMAGES = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(1))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return torch.softmax(self.second(torch.relu(self.first(x))), 1)


def network():
    torch.manual_seed(0)
    return trace(Two().eval(), SIZE, 0, 2, (0.5,) * 3, (0.25,) * 3)[0]


def loss(net):
    return -net(IMAGES)[:, 1].clamp_min(1e-6).log().mean()


def test_the_first_step_is_that_of_numpy():
    net = network()
    optimizer = Natural(net, 0.01)
    optimizer.measure(net, IMAGES)
    name = "second"
    weight, bias = (value.detach().numpy().astype(float)[..., None] for value in (net.weight(name), net.bias(name)))
    loss(net).backward()
    with torch.no_grad():
        values = net.run(IMAGES, keep=net.by_name)
    given = values[net.by_name[name].inputs[0]].numpy().astype(float).transpose(1, 0, 2, 3).reshape(6, -1)
    std = values[name].numpy().astype(float).transpose(1, 0, 2, 3).reshape(2, -1).std(1)
    mean, centred = given.mean(1, keepdims=True), given - given.mean(1, keepdims=True)
    ridge = DAMPING * np.mean(given**2)
    inverse = np.linalg.inv(centred @ centred.T / given.shape[1] + ridge * np.eye(6))
    levels = std[:, None] * net.bias(name).grad.numpy()[:, None]  # a change of an output's mean
    gradients = std[:, None] * net.weight(name).grad.numpy().reshape(2, 6) - levels * mean.T
    length = np.sqrt(((gradients @ inverse * gradients).sum() + (levels**2).sum()) / 2)
    change, level = (-0.01 * std[:, None] * part / length for part in (gradients @ inverse, levels))
    optimizer.step()
    moved, risen = (net.weight(name).detach().numpy() - weight[..., 0], net.bias(name).detach().numpy() - bias[:, 0])
    np.testing.assert_allclose(moved.reshape(2, 6), change, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(risen, (level - change @ mean)[:, 0], rtol=2e-3, atol=1e-6)


def test_inputs_whose_channels_and_positions_vary_apart_are_whitened_exactly():
    rng = np.random.default_rng(0)
    net = network()
    of_channels, of_positions = (np.cov(rng.normal(size=(width, 20))) for width in (3, 9))
    covariance, mean = np.kron(of_channels, of_positions), rng.normal(size=(27, 1))
    sums = _Sums(net.by_name["first"], net, 1)
    sums.count = 5
    sums.first = 5 * torch.from_numpy(mean.T[None]).float()
    sums.second = 5 * torch.from_numpy((covariance + mean @ mean.T)[None]).float()
    sums.outputs, sums.squares = torch.zeros(6), torch.full((6,), 20.0)
    moments, gradient = sums.moments(), rng.normal(size=(27, 6))
    ridge = DAMPING * np.mean(np.diag(covariance + mean @ mean.T))
    expected = np.linalg.solve(covariance + ridge * np.eye(27), gradient)
    by_output = torch.from_numpy(gradient.T.reshape(1, 6, 3, 9)).float().mT  # positions before channels
    whitened = moments.whitened(by_output).mT.reshape(6, 27)
    np.testing.assert_allclose(whitened, expected.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moments.std.flatten(), 2.0)


@pytest.mark.parametrize("gain", [0.01, 30.0])
def test_a_network_of_another_scale_inside_learns_the_same_function(gain):
    nets = network(), network()
    with torch.no_grad():
        nets[1].weight("first").mul_(gain)
        nets[1].bias("first").mul_(gain)
        nets[1].weight("second").div_(gain)
    for net in nets:
        optimizer = Natural(net, 0.05)
        optimizer.measure(net, IMAGES)
        for _ in range(5):
            optimizer.zero_grad()
            loss(net).backward()
            optimizer.step()
    one, other = (net(IMAGES).detach() for net in nets)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert float((one - network()(IMAGES).detach()).abs().max()) > 0.02  # they have learned something


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e15, float("inf")])
def test_inputs_that_are_nothing_or_enormous_stop_no_training_by_themselves(scale):
    net = network()
    with torch.no_grad():
        net.weight("first").mul_(scale)
        net.bias("first").mul_(scale)
    optimizer = Natural(net, 0.01)
    optimizer.measure(net, IMAGES)
    loss(net).backward()
    optimizer.step()


class Filters(nn.Module):
    """One filter for each channel, then their sum."""

    def __init__(self):
        super().__init__()
        self.each, self.sum = nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return torch.softmax(self.sum(torch.relu(self.each(torch.relu(x)))), 1)


def test_a_filter_that_read_nothing_when_it_was_looked_at_does_not_run_away():
    torch.manual_seed(0)
    net = trace(Filters().eval(), SIZE, 0, 2, (0.0,) * 3, (1.0,) * 3)[0]
    silent = IMAGES.clone()
    silent[:, 2] = -1.0
    optimizer = Natural(net, 0.01)
    optimizer.measure(net, silent)
    before = net.weight("each").detach().clone()
    loss(net).backward()  # of images in which the channel is seen
    optimizer.step()
    moved = (net.weight("each").detach() - before).abs().amax((1, 2, 3))
    assert 0 < moved[2] < 3  # 75 where nothing is taken to be read
