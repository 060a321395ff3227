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


def _windows():
    place = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
    apart = place[:, :, None] - place[:, None] + 3
    return {"qkv": nn.Linear(16, 48), "table": nn.Parameter(torch.rand(49, 2)), "norm": nn.LayerNorm(16),
            "index": nn.Parameter((apart[0] * 7 + apart[1]).float(), requires_grad=False)}  # fmt: skip


def in_windows(x):
    """[1, H, W, C] -> [windows, 16, C]"""
    return x.view(1, 2, 4, 3, 4, x.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(6, 16, x.shape[-1])


def windowed(m, x):
    """A block of Swin: windows of 4x4 pixels, shifted by two; pixels that did not lie beside each other are masked."""
    part = torch.zeros(1, *SIZE, 1)
    for number, (rows, columns) in enumerate([(slice(-4), slice(-2, None)), (slice(-2, None), slice(-4))], 1):
        part[:, rows, columns] = number
    part = in_windows(part).squeeze(-1)
    mask = ((part[:, None] - part[:, :, None]) != 0) * -100.0
    y = torch.roll(m.norm(x.permute(0, 2, 3, 1)), (-2, -2), (1, 2))
    q, k, v = m.qkv(in_windows(y)).reshape(6, 16, 3, 2, 8).permute(2, 0, 3, 1, 4)
    scores = q * 8**-0.5 @ k.transpose(-2, -1) + m.table[m.index.long().view(-1)].view(16, 16, 2).permute(2, 0, 1)
    scores = (scores.view(1, 6, 2, 16, 16) + mask[:, None]).view(6, 2, 16, 16).softmax(-1)
    y = (scores @ v).transpose(1, 2).reshape(6, 16, 16)
    y = y.view(1, 2, 3, 4, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(1, *SIZE, 16)
    return x + torch.roll(y, (2, 2), (1, 2)).permute(0, 3, 1, 2)


def channel_attention(m, x):
    """As DANet's: channels that are least alike count most."""
    scores = torch.bmm(x.flatten(2), tokens(x)) / 10
    scores = torch.max(scores, -1, keepdim=True)[0].expand_as(scores) - scores
    return x + torch.bmm(scores.softmax(-1), x.flatten(2)).view(x.shape)


def over_pairs(m, x):
    """As MA-Net's, which reads the result's tokens as if they were a map."""
    scores = torch.matmul(tokens(x), x.flatten(2)) / 10
    scores = F.softmax(scores.view(1, -1), 1).view(1, 96, 96)
    return x + torch.matmul(scores, tokens(x)).reshape(x.shape) * 9


def standard(x, dims):
    apart = x - x.mean(dims, keepdim=True)
    return apart / torch.sqrt(apart.pow(2).mean(dims, keepdim=True) + 1e-6)


def _norm_of_map():
    norm = nn.LayerNorm([16, *SIZE])
    nn.init.uniform_(norm.weight, 0.5, 2)
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
    "swin's windows, shifted and masked": (windowed, _windows),
    "focus": (
        lambda m, x: m.mixed(torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, ::2], x[:, ::3, ::2, 1::2]], 1)),
        lambda: {"mixed": nn.Sequential(nn.Conv2d(38, 16, 1), nn.Upsample(SIZE))},
    ),
    "pixels shuffled": (
        lambda m, x: F.pixel_unshuffle(F.conv2d(F.pixel_shuffle(x, 2), torch.ones(4, 4, 1, 1)), 2),
        None,
    ),
    "channels shuffled by torch": (lambda m, x: x * F.channel_shuffle(x, 4), None),
    "class token": (
        lambda m, x: (
            as_map((torch.cat([m.token, tokens(x)], 1) + m.place)[:, 1:])
            + (torch.cat([m.token, tokens(x)], 1) + m.place)[:, 0, :, None, None]
        ),
        lambda: {"token": nn.Parameter(torch.rand(1, 1, 16)), "place": nn.Parameter(torch.rand(1, 97, 16))},
    ),
    "coordinates": (
        lambda m, x: m.mixed(torch.cat([m.places, x, x * 2], 1)),
        lambda: {"places": nn.Parameter(torch.rand(1, 2, *SIZE)), "mixed": nn.Conv2d(34, 16, 1)},
    ),
    "attention of channels": (channel_attention, None),
    "attention over pairs": (over_pairs, None),
    "no softmax": (lambda m, x: as_map(tokens(x) @ x.flatten(2) / 96 @ tokens(x)), None),
    "a mask": (
        lambda m, x: as_map(
            F.scaled_dot_product_attention(*[tokens(x)] * 3, attn_mask=torch.ones(96, 96, dtype=torch.bool).tril())
        ),
        None,
    ),
    "a mask that is filled in": (
        lambda m, x: as_map(
            (tokens(x) @ x.flatten(2)).masked_fill(torch.ones(96, 96).triu(1) > 0, float("-inf")).softmax(-1)
            @ tokens(x)
        ),
        None,
    ),
    "attention along an axis": (
        lambda m, x: F.scaled_dot_product_attention(*[x.permute(0, 3, 2, 1)] * 3).permute(0, 3, 2, 1),
        None,
    ),
    "largest and mean": (
        lambda m, x: (
            x * torch.sigmoid(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1).sum(1, True))
            + x.amax((2, 3), keepdim=True)
            + x.mean(3, keepdim=True)
            + x.amax(2, keepdim=True)
        ),
        None,
    ),
    "sums of groups of channels": (lambda m, x: torch.cat([x.view(1, 4, 4, *SIZE).sum(1)] * 4, 1), None),
    "softmax over pixels": (lambda m, x: x * x.flatten(2).softmax(-1).view(x.shape) * 50, None),
    "transposed": (lambda m, x: torch.relu(x.transpose(2, 3).reshape(1, 16, 8, 12)) + x, None),
    "tokens in another order": (
        lambda m, x: F.avg_pool2d(x.unflatten(2, (2, 4)).transpose(2, 3).flatten(2, 3), 1),
        None,
    ),
    "norm of the whole map": (lambda m, x: m.norm(x), lambda: {"norm": _norm_of_map()}),
    "a convolution along one axis": (
        lambda m, x: x * m.eca(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1),
        lambda: {"eca": nn.Conv1d(1, 1, 3, padding=1)},
    ),
    "unpooled": (lambda m, x: F.max_unpool2d(*F.max_pool2d(x.relu(), 2, return_indices=True), 2), None),
    "rolled": (lambda m, x: torch.roll(x, (3, -1), (3, 2)), None),
    "expanded and joined": (
        lambda m, x: m.mixed(torch.cat([x, x.mean((2, 3), keepdim=True).expand_as(x)], 1)),
        lambda: {"mixed": nn.Conv2d(32, 16, 1)},
    ),
    "padded with channels last": (
        lambda m, x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 2, 0, 2))[:, :8, 1:13].permute(0, 3, 1, 2),
        None,
    ),
    "nearest, exactly": (lambda m, x: F.max_pool2d(F.interpolate(x, scale_factor=2, mode="nearest-exact"), 2), None),
    "a constant that varies over the map": (
        lambda m, x: x + m.places,
        lambda: {"places": nn.Parameter(torch.rand(1, 1, *SIZE))},
    ),
    "gelu in pieces": (lambda m, x: x * 0.5 * (1.0 + torch.erf(x / 2**0.5)), None),
    "gelu by tanh in pieces": (
        lambda m, x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3)))),
        None,
    ),
    "mish in pieces": (lambda m, x: x * torch.tanh(F.softplus(x)), None),
    "layer norm in pieces": (
        lambda m, x: m.weight[:, None, None] * standard(x, 1) + 0.1,
        lambda: {"weight": nn.Parameter(torch.rand(16))},
    ),
    "layer norm by variance": (
        lambda m, x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, unbiased=False, keepdim=True) + 1e-6),
        None,
    ),
    "instance norm in pieces": (lambda m, x: standard(x, (2, 3)), None),
    "tokens' norm in pieces": (lambda m, x: as_map(standard(tokens(x), -1)), None),
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
        (lambda m, x: torch.cumsum(x, 2), r"cumsum at test_walk.py:\d+: operator aten.cumsum.default is not supported"),
        (lambda m, x: x.mean((2, 3), keepdim=True) + torch.rand(1, 1, *SIZE), "with a constant that is larger than it"),
        (lambda m, x: x @ torch.rand(16, 12, 12), "several matrices"),
        (lambda m, x: x.repeat(1, 2, 1, 1)[:, :16], "of more than one value"),
        (lambda m, x: F.max_pool2d(x.reshape(2, 8, *SIZE), 1).reshape(x.shape), "that is no map"),
        (lambda m, x: x / x, "div.Tensor of two tensors"),
        (lambda m, x: F.dropout(x, 0.5, True), "on in evaluation"),
        (lambda m, x: F.layer_norm(x, [8, 12]), "over several dimensions but not all"),
        (lambda m, x: as_map((tokens(x) @ x.flatten(2)).softmax(1) @ tokens(x)), "of attention scores over queries"),
        (lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 3, 1, 1, return_indices=True), 1), "of windows that overlap"),
    ],
)
def test_what_cannot_be_said_is_named_with_the_reason(function, message):
    with pytest.raises(ModelError, match=message):
        checked(Net(function))


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


def test_a_norm_in_pieces_is_one_operator():
    net = checked(Net(lambda m, x: standard(x, 1)))
    assert [node.op for node in net.nodes] == ["input", "conv", "conv", "layer_norm", "conv", "softmax"]


def test_all_that_is_not_known_is_named_at_once_with_its_line():
    with pytest.raises(
        ModelError, match=r"cumsum at test_walk.py:\d+: .*; sort at test_walk.py:\d+: .* are not supported"
    ):
        checked(Net(lambda m, x: torch.cumsum(x, 2) + torch.sort(x, 2)[0]))
