"""Tracing against torch itself."""

import pytest
import torch
from tiny import TinyNet
from torch import nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.load.trace import fold_normalisation, trace

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def randomised(module: nn.Module) -> nn.Module:
    """Statistics of normalisation that folding must not lose."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -1, 1)
    return module.eval()


def normalised(x):
    return (x - torch.tensor(MEAN).reshape(1, 3, 1, 1)) / torch.tensor(STD).reshape(1, 3, 1, 1)


def test_traced_network_gives_what_the_module_gives():
    module = randomised(TinyNet())
    net, original = trace(module, (64, 64), 0, 3, MEAN, STD)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), module(normalised(x)).softmax(1), atol=1e-5, rtol=1e-4)
    assert original.outputs == {"0": (1, 3, 64, 64)}


def test_resizing_follows_another_input_size():
    module = randomised(TinyNet())
    net, _ = trace(module, (64, 64), 0, 3, MEAN, STD)
    x = torch.rand(1, 3, 96, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(x), module(normalised(x)).softmax(1), atol=1e-5, rtol=1e-4)


def test_batch_normalisation_is_gone_and_layers_keep_their_names():
    net, _ = trace(TinyNet(), (64, 64), 0, 3, MEAN, STD)
    names = [node.name for node in net.weighted()]
    assert names == ["normalise", "stem", "down", "block.depthwise", "block.pointwise", "deep", "up", "merge", "head"]


class BeforeConv(nn.Module):
    """Normalisation with no convolution to fold it into, and after a transposed one with groups."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 4, 1, stride=2)
        self.up = nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2, padding=1, output_padding=1)
        self.second = nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        return torch.sigmoid(self.head(self.second(self.up(self.conv(self.first(x))))))


def test_normalisation_folds_into_grouped_transposed_convolutions_and_stands_alone_elsewhere():
    module = randomised(BeforeConv())
    net, _ = trace(module, (16, 16), 0, 2, MEAN, STD)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:, 1:], module(normalised(x)), atol=1e-5, rtol=1e-4)


def test_one_sigmoid_channel_becomes_two_that_sum_to_one():
    net, _ = trace(BeforeConv().eval(), (16, 16), 0, 2, MEAN, STD)
    with torch.no_grad():
        map_ = net(torch.rand(1, 3, 16, 16))
    assert map_.shape[1] == 2
    torch.testing.assert_close(map_.sum(1), torch.ones(1, 16, 16))


def test_folding_the_normalisation_changes_nothing_where_nothing_is_padded():
    class Unpadded(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x)

    net, _ = trace(Unpadded(), (8, 8), 0, 2, MEAN, STD)
    folded = fold_normalisation(net)
    pixels = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(folded(folded.real(pixels)), net(net.real(pixels)), atol=1e-5, rtol=1e-4)
    assert "normalise" not in folded.by_name
    assert folded.input.attrs.zero_point == 114  # 255 times the mean of 0.485, 0.456 and 0.406


class AlwaysTraining(nn.BatchNorm2d):
    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=True)


def test_unknown_operators_are_named_with_their_layer():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return torch.erf(self.conv(x))

    with pytest.raises(ModelError, match="erf.*not supported"):
        trace(Odd(), (8, 8), 0, 2, MEAN, STD)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, track_running_stats=False), AlwaysTraining(4)])
def test_batch_normalisation_over_the_image_itself_is_refused(norm):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 2, 1))
    with pytest.raises(ModelError, match="^1: batch normalisation without running statistics is not supported"):
        trace(module, (8, 8), 0, 2, MEAN, STD)


@pytest.mark.parametrize(("output", "classes", "message"), [(1, 3, "output 1 does not exist"), (0, 5, "5 classes")])
def test_an_output_that_does_not_fit_the_recipe_is_refused(output, classes, message):
    with pytest.raises(ModelError, match=message):
        trace(TinyNet(), (64, 64), output, classes, MEAN, STD)


class Ending(nn.Module):
    """A convolution, and what the module returns of the image and its map."""

    def __init__(self, end):
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 2, 3, padding=1), end

    def forward(self, x):
        return self.end(x, self.conv(x))


def traced_at_8x12(end, output=0):
    return trace(Ending(end), (8, 12), output, 2, MEAN, STD)


@pytest.mark.parametrize(
    ("end", "output", "shapes"),
    [
        (lambda x, y: (y, None), 0, 1),
        (lambda x, y: (None, y), 1, 1),
        (lambda x, y: (y, y.mean((1, 2, 3)), 3), 0, 2),
        (lambda x, y: {"out": y, "aux": torch.erf(y)}, 0, 2),
        (lambda x, y: F.pad(y, [0, x.shape[3] - y.shape[3], 0, 0]), 0, 1),
        (lambda x, y: F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True), 0, 1),
        (lambda x, y: F.dropout(y, 0.5, training=False), 0, 1),
    ],
)
def test_what_the_deployed_output_does_not_need_is_left_out(end, output, shapes):
    net, original = traced_at_8x12(end, output)
    assert [node.op for node in net.nodes] == ["input", "conv", "conv", "softmax"]
    assert len(original.outputs) == shapes


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda x, y: (None, y), "^output 0 is no map but None"),
        (lambda x, y: (3, y), "^output 0 is no map but of type int"),
        (lambda x, y: y.mean((1, 2, 3)), "^output 0 is no map: its shape is 1;"),
        (lambda x, y: torch.erf(y), "erf.default is not supported"),
        (lambda x, y: F.dropout(y, 0.5, training=True), "dropout.* that is on in evaluation too is not supported"),
        (lambda x, y: torch.cumsum(y, 2), "cumsum.default is not supported"),
    ],
)
def test_outputs_that_are_no_map_of_the_image_are_refused(end, message):
    with pytest.raises(ModelError, match=message):
        traced_at_8x12(end)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("factor", [0.7, 1.3, (1.0, 1.01)])
def test_a_scale_factor_that_makes_no_whole_number_is_refused_with_what_to_write_instead(mode, factor):
    with pytest.raises(ModelError, match=r"with a scale factor of .* \(write size=\(\d+, \d+\), or recompute_scale"):
        traced_at_8x12(lambda x, y: F.interpolate(y, scale_factor=factor, mode=mode))


@pytest.mark.parametrize("more", [{"scale_factor": 0.25}, {"scale_factor": 1.3, "recompute_scale_factor": True}])
def test_other_scale_factors_are_followed(more):
    net, _ = traced_at_8x12(lambda x, y: F.interpolate(F.interpolate(y, mode="bilinear", **more), x.shape[2:]))
    assert [node.op for node in net.nodes].count("resize") == 2


@pytest.mark.parametrize("turned", [lambda x: x.flip(1), lambda x: x[:, [2, 1, 0]], lambda x: x[:, [0, -1, 1]]])
def test_channels_may_be_turned_round(turned):
    module = Ending(lambda x, y: y)
    module.forward = lambda x: module.conv(turned(x))
    net, _ = trace(module, (8, 12), 0, 2, MEAN, STD)
    x = torch.rand(2, 3, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(net(x), module(normalised(x)).softmax(1), atol=1e-5, rtol=1e-4)
    assert "normalise" not in fold_normalisation(net).by_name
