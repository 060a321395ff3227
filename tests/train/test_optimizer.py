"""Natural steps, against numpy and under a change of scale."""

import numpy as np
import pytest
import torch
from torch import nn

from compress.load.trace import trace
from compress.train.optimizer import DAMPING, Natural

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
    spread = values[name].numpy().astype(float).transpose(1, 0, 2, 3).reshape(2, -1).std(1)
    one = np.sqrt(np.mean(given**2))
    rows = np.vstack([given, np.full(given.shape[1], one)])
    second = rows @ rows.T / rows.shape[1]
    inverse = np.linalg.inv(second + DAMPING * np.mean(np.diag(second)) * np.eye(7))
    slopes = np.hstack([net.weight(name).grad.numpy().reshape(2, 6), one * net.bias(name).grad.numpy()[:, None]])
    slopes = spread[:, None] * slopes
    direction = slopes @ inverse
    change = -0.01 * spread[:, None] * direction / np.sqrt((slopes * direction).sum() / 2)
    optimizer.step()
    np.testing.assert_allclose(
        net.weight(name).detach().numpy().reshape(2, 6) - weight.reshape(2, 6), change[:, :6], rtol=2e-3, atol=1e-6
    )
    np.testing.assert_allclose(net.bias(name).detach().numpy() - bias.ravel(), one * change[:, 6], rtol=2e-3, atol=1e-6)


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
