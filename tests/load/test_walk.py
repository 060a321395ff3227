"""What modules compute in ways of their own is computed by the traced network too."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.graph.channels import find_groups
from compress.load.trace import trace

SIZE = (8, 12)


class Net(nn.Module):
    """A function of 16 channels between two convolutions; what parts it has are made by `parts`."""

    def __init__(self, function, parts=None, channels=16):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(channels, 3, 1)
        self.function = function
        for name, part in (parts() if parts else {}).items():
            setattr(self, name, part)

    def forward(self, x):
        return self.last(self.function(self, self.first(x)))


def checked(module):
    """The network, which gives what the module gives."""
    module = module.eval()
    net, _ = trace(module, SIZE, 0, 3, (0.5,) * 3, (0.25,) * 3)
    image = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(net(image), module((image - 0.5) / 0.25).softmax(1), atol=1e-5, rtol=1e-4)
    return net


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def as_map(x):
    return x.transpose(1, 2).reshape(1, -1, *SIZE)


def mlp():
    return {"norm": nn.LayerNorm(16), "wide": nn.Linear(16, 64), "narrow": nn.Linear(64, 16)}


def attended(m, x):
    q, k, v = m.qkv(tokens(x)).reshape(1, 96, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
    scores = ((q * 8**-0.5) @ k.transpose(-2, -1)).softmax(-1)
    return as_map((scores @ v).transpose(1, 2).reshape(1, 96, 16))


def by_function(m, x):
    q, k, v = (each.unflatten(2, (2, 8)).transpose(1, 2) for each in m.qkv(tokens(x)).chunk(3, -1))
    return as_map(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def nonlocal_block(m, x):
    """As DANet's: values before the scores, which are transposed."""
    q, k = m.q(x).flatten(2).transpose(1, 2), m.k(x).flatten(2)
    scores = torch.softmax(torch.bmm(q, k), -1)
    return torch.bmm(x.flatten(2), scores.permute(0, 2, 1)).view(x.shape) * m.gamma + x


def squeezed(m, x):
    gate = torch.sigmoid(m.up(torch.relu(m.down(F.adaptive_avg_pool2d(x, 1).flatten(1)))))
    return x * gate.view(1, 16, 1, 1)


def shuffled(x):
    return x.view(1, 2, 8, *SIZE).transpose(1, 2).reshape(1, 16, *SIZE)


def with_random(norm):
    for each in norm.parameters():
        nn.init.uniform_(each)
    return norm


FUNCTIONS = {
    "tokens": (lambda m, x: as_map(m.narrow(F.gelu(m.wide(m.norm(tokens(x)))))), mlp),
    "channels last": (
        lambda m, x: x + m.narrow(torch.relu(m.wide(m.norm(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2) * 0.5,
        mlp,
    ),
    "attention": (attended, lambda: {"qkv": nn.Linear(16, 48)}),
    "attention by its function": (by_function, lambda: {"qkv": nn.Linear(16, 48)}),
    "attention with values first": (
        nonlocal_block,
        lambda: {"q": nn.Conv2d(16, 4, 1), "k": nn.Conv2d(16, 4, 1), "gamma": nn.Parameter(torch.tensor([0.7]))},
    ),
    "squeeze and excite by linear layers": (squeezed, lambda: {"down": nn.Linear(16, 4), "up": nn.Linear(4, 16)}),
    "numbers": (lambda m, x: (1 - (x * 2 + 3) / 4) - 0.5, None),
    "constants": (
        lambda m, x: x * m.scale + m.shift[:, None, None],
        lambda: {"scale": nn.Parameter(torch.rand(1, 16, 1, 1)), "shift": nn.Parameter(torch.rand(16))},
    ),
    "prelu": (lambda m, x: m.act(x), lambda: {"act": nn.PReLU()}),
    "prelu for each channel": (lambda m, x: m.act(x), lambda: {"act": _with_slopes()}),
    "chunks": (lambda m, x: torch.cat([torch.relu(x.chunk(2, 1)[1]), x.chunk(2, 1)[0]], 1), None),
    "split and narrow": (lambda m, x: torch.cat([x.split([4, 12], 1)[1], x.narrow(1, 2, 4)], 1), None),
    "sliced": (lambda m, x: F.pad(x[:, :, 1:-1, 2:], (1, 1, 1, 1)), None),
    "stack and sum": (lambda m, x: torch.stack([x, torch.relu(x), -x * 0.3]).sum(0), None),
    "stack and mean": (lambda m, x: torch.stack([x, torch.tanh(x)], 1).mean(1), None),
    "mean of channels": (lambda m, x: x * torch.sigmoid(x.mean(1, keepdim=True)), None),
    "sum over the map": (lambda m, x: x + x.sum((2, 3), keepdim=True) / 100, None),
    "squared": (lambda m, x: x**2 - x, None),
    "weight norm": (
        lambda m, x: m.normed(x),
        lambda: {"normed": nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 1))},
    ),
    "group norm": (lambda m, x: m.norm(x), lambda: {"norm": nn.GroupNorm(4, 16)}),
    "instance norm": (lambda m, x: m.norm(x), lambda: {"norm": nn.InstanceNorm2d(16, affine=True)}),
    "group norm of single channels": (lambda m, x: m.norm(x), lambda: {"norm": nn.GroupNorm(16, 16)}),
    "nothing joined": (lambda m, x: torch.cat([x, torch.empty(1, 0, *SIZE)], 1), None),
    "shuffled channels": (
        lambda m, x: m.mixed(shuffled(x).chunk(2, 1)[0]),
        lambda: {"mixed": nn.Conv2d(8, 16, 1)},
    ),
    "shuffled channels and linear layers": (
        lambda m, x: as_map(m.linear(m.norm(tokens(shuffled(x))))),
        lambda: {"linear": nn.Linear(16, 16), "norm": with_random(nn.LayerNorm(16))},
    ),
    "shuffled channels and layers with a number for each": (
        lambda m, x: m.act(shuffled(m.norm(shuffled(x)))),
        lambda: {"norm": with_random(nn.BatchNorm2d(16)), "act": _with_slopes()},
    ),
    "shuffled channels and those that are not": (
        lambda m, x: torch.cat([shuffled(x) + x, shuffled(x) * shuffled(x).mean((2, 3), keepdim=True)], 1)[:, 8:24],
        None,
    ),
    "dropouts": (lambda m, x: F.dropout2d(F.dropout(x, 0.5, False), 0.5, False), None),
}


def _with_slopes():
    act = nn.PReLU(16)
    nn.init.uniform_(act.weight, -0.5, 0.5)
    return act


@pytest.mark.parametrize("case", FUNCTIONS)
def test_the_network_gives_what_the_module_gives(case):
    checked(Net(*FUNCTIONS[case]))


def test_channels_that_are_read_in_parts_are_made_in_parts():
    net = checked(Net(lambda m, x: torch.relu(x.chunk(2, 1)[0]), channels=8))
    assert [net.weight(node.name).shape[0] for node in net.weighted() if node.name.startswith("first")] == [8]


def test_the_width_of_an_mlp_can_be_cut_and_so_can_what_its_norm_reads():
    net = checked(Net(*FUNCTIONS["tokens"]))
    groups = find_groups(net).groups
    assert not groups["wide"].frozen
    assert not groups["first"].frozen


def test_factors_behind_a_convolution_become_part_of_it():
    net = checked(Net(lambda m, x: x * 2 + 1))
    assert [node.name for node in net.nodes] == ["image", "normalise", "first", "last", "class_map"]


def test_factors_behind_a_norm_become_part_of_the_linear_layers_that_read_them():
    function, parts = FUNCTIONS["tokens"]
    module = Net(function, parts)
    nn.init.uniform_(module.norm.weight)
    nn.init.uniform_(module.norm.bias)
    ops = [node.op for node in checked(module).nodes]
    assert ops == ["input", "conv", "conv", "layer_norm", "conv", "gelu", "conv", "conv", "softmax"]


def test_what_the_output_does_not_need_is_not_read():
    def aside(m, x):
        m.kept = torch.fft.rfft(x)
        return x

    checked(Net(aside))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: torch.roll(x, 1, 2), r"roll: operator aten.roll.default is not supported"),
        (lambda m, x: x + torch.rand(1, 1, *SIZE), "with a constant that varies over the map"),
        (lambda m, x: x.transpose(2, 3).reshape(x.shape), "divides an axis unevenly"),
        (lambda m, x: x.repeat(1, 1, 1, 1), "repeat.default is not supported"),
        (lambda m, x: F.max_pool2d(x.reshape(1, 2, 64, 12), 1).reshape(x.shape), "that is no map"),
        (lambda m, x: x / x, "div.Tensor of two tensors"),
        (lambda m, x: F.dropout(x, 0.5, True), "on in evaluation"),
        (lambda m, x: x[:, ::2].repeat(1, 2, 1, 1), "in steps"),
        (lambda m, x: tokens(x).softmax(1).transpose(1, 2).reshape(x.shape), "along dimension 1"),
    ],
)
def test_what_cannot_be_said_is_named_with_the_reason(function, message):
    with pytest.raises(ModelError, match=message):
        checked(Net(function))


def test_all_that_is_not_known_is_named_at_once():
    with pytest.raises(ModelError, match=r"roll.*; .*cumsum.* are not supported"):
        checked(Net(lambda m, x: torch.roll(x, 1, 2) + torch.cumsum(x, 2)))


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": 16, "stride": 2, "padding": 1, "output_padding": 1},
        {"groups": 4, "stride": 2, "padding": (1, 0), "output_padding": (1, 0)},
        {"dilation": (2, 1), "stride": 2, "padding": (2, 1), "output_padding": 1},
    ],
)
def test_a_transposed_convolution_is_read_without_groups_and_dilation(settings):
    net = checked(Net(lambda m, x: F.max_pool2d(m.up(x), 2), lambda: {"up": nn.ConvTranspose2d(16, 16, 3, **settings)}))
    attributes = net.by_name["up"].attrs
    assert (attributes.groups, attributes.dilation) == (1, (1, 1))
