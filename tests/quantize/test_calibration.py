"""What is mended without training: answers by hand, and functions that must stay what they are."""

import pytest
import torch

from compress.graph.network import Network, Node
from compress.graph.operators.conv import ConvAttributes
from compress.graph.operators.image import ImageAttributes
from compress.quantize.calibration import balance, calibrate, calibrate_each, correct_biases
from compress.quantize.sensitivity import Sensitivity, affordable, rank
from compress.quantize.training import QuantizedNetwork

CONV = ConvAttributes()


def test_calibration_takes_the_average_of_each_images_percentile(net, pixels):
    image = net.real(pixels[:1])
    relu = next(node.name for node in net.nodes if "stem" in node.inputs)
    with torch.no_grad():
        value = net.run(image, keep={relu})[relu]
    ranges = calibrate(net, [image, image], percentile=99)
    group = QuantizedNetwork(net, ranges).placement.group_of[relu]
    assert ranges[group][1] >= float(torch.quantile(value.flatten()[::4], 0.98))
    assert calibrate(net, [image], percentile=100)[group][1] >= float(value.max())


def test_several_percentiles_at_once_are_those_one_by_one(net, pixels):
    images = [net.real(one[None]) for one in pixels[:2]]
    assert calibrate_each(net, images, (99.0, 100.0)) == [calibrate(net, images, 99.0), calibrate(net, images, 100.0)]


def one_conv(weights):
    nodes = [
        Node("image", "input", (), ImageAttributes(1 / 16, 0, (1, 8))),
        Node("a", "conv", ("image",), CONV),
        Node("r", "relu", ("a",)),
    ]
    return Network(nodes, {"a": (torch.tensor(weights).reshape(1, 3, 1, 1), torch.zeros(1))}, "r")


def test_what_rounding_the_weights_takes_from_a_channels_mean_goes_to_its_bias():
    net = one_conv([1.0, 0.003, 0.003])  # a step is 1 / 127: the small ones are rounded to nothing
    image = torch.full((1, 3, 1, 8), 5.0)
    quantized = QuantizedNetwork(net, {"r": (0.0, 10.0)})
    correct_biases(quantized, net, image)
    torch.testing.assert_close(quantized.bias("a"), torch.tensor([0.03]), atol=1e-4, rtol=0)


def test_what_a_range_leaves_out_is_not_made_good_by_the_other_values():
    net = one_conv([1.0, 1.0, 1.0])
    image = torch.full((1, 3, 1, 8), 1.0)
    image[..., 0] = 15.0  # 45 in a range up to 6
    quantized = QuantizedNetwork(net, {"r": (0.0, 6.0)})
    correct_biases(quantized, net, image)
    torch.testing.assert_close(quantized.bias("a"), torch.zeros(1), atol=1e-4, rtol=0)


def test_balanced_channels_have_one_peak_and_the_network_its_function(net, pixels):
    images = [net.real(one[None]) for one in pixels]
    wild = net.weights()
    for name, factors in {"stem": 16, "deep": 48}.items():  # channels of very different size, function unchanged
        wild[name] = tuple(part.detach().clone() for part in wild[name])
        factor = torch.logspace(-1, 0, factors)
        wild[name][0].mul_(factor.reshape(-1, 1, 1, 1))
        wild[name][1].mul_(factor)
    uneven = net.rewritten(wild)
    even = balance(uneven, images)
    with torch.no_grad():
        for image in images:
            torch.testing.assert_close(even(image), uneven(image), atol=1e-5, rtol=0)
        relu = next(node.name for node in net.nodes if "deep" in node.inputs)
        peaks = {
            name: torch.stack([n.run(image, keep={relu})[relu].amax((0, 2, 3)) for image in images]).mean(0)
            for name, n in {"even": even, "uneven": uneven}.items()
        }
    alive = peaks["uneven"] > peaks["uneven"].max() / 60
    assert peaks["uneven"][alive].max() > 4 * peaks["uneven"][alive].min()
    torch.testing.assert_close(peaks["even"][alive], peaks["even"][alive].max().expand(int(alive.sum())))
    torch.testing.assert_close(peaks["even"].max(), peaks["uneven"].max())
    # block's sum reads what `down` gives, so that its channels stay as they are
    torch.testing.assert_close(even.bias("down"), uneven.bias("down"))


def test_balancing_follows_a_concat_to_the_channels_there(net, pixels):
    image = net.real(pixels[:2])
    even = balance(net, [image])
    gain, own = (even.bias(name) / net.bias(name) for name in ("up", "merge"))
    assert (gain > 1.01).any()
    expected = net.weight("merge")[:, 16:] * own.reshape(-1, 1, 1, 1) / gain.reshape(1, -1, 1, 1)
    torch.testing.assert_close(even.weight("merge")[:, 16:], expected)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_balancing_counts_the_channels_of_an_image_that_stands_before_others(channels):
    nodes = [
        Node("image", "input", (), ImageAttributes(1 / 16, 0, (1, 8), channels)),
        Node("a", "conv", ("image",), CONV),
        Node("both", "concat", ("image", "a")),
        Node("out", "conv", ("both",), CONV),
    ]
    uneven = torch.tensor([1.0, 0.5]).reshape(2, 1, 1, 1).expand(2, channels, 1, 1)
    weights = {"a": (uneven, torch.zeros(2)), "out": (torch.ones(2, channels + 2, 1, 1), torch.zeros(2))}
    even = balance(Network(nodes, weights, "out"), [torch.ones(1, channels, 1, 8)])
    expected = torch.tensor([*[1.0] * channels, 1.0, 0.5]).expand(2, -1)
    torch.testing.assert_close(even.weight("out")[:, :, 0, 0], expected)


def test_the_layer_whose_weights_suffer_most_is_the_most_sensitive(net, pixels):
    images = [net.real(one[None]) for one in pixels[:2]]
    weights = net.weights()
    hurt = weights["merge"][0].detach().clone()
    hurt[:, 0] *= 60  # beside one huge input channel the others are rounded to almost nothing
    net = net.rewritten({**weights, "merge": (hurt, weights["merge"][1])})
    quantized = QuantizedNetwork(net, calibrate(net, images, 100.0))
    ranked = rank(quantized, images)
    assert len(ranked) == len(net.weighted())
    assert ranked[0].layer == "merge"
    assert ranked[0].extra_bytes == 3 * hurt.numel() - 4 * 32
    assert quantized.keep_float == frozenset()


def test_the_worst_layers_that_fit_are_kept_float():
    ranked = [Sensitivity("a", 0.5, 900), Sensitivity("b", 0.3, 200), Sensitivity("c", 0.2, 100)]
    assert affordable(ranked, 1000, most=3) == ("a", "c")
    assert affordable(ranked, 300, most=3) == ("b", "c")
    assert affordable(ranked, 5000, most=2) == ("a", "b")
    assert affordable(ranked, 50, most=3) == ()
    assert affordable([Sensitivity("d", 0.01, 1)], 50, most=3) == ()


def test_a_deep_network_of_many_joins_is_balanced_without_walking_every_path():
    """Forty sums one after the other have 2^40 paths to the image."""
    nodes = [Node("image", "input", (), ImageAttributes(1 / 16, 0, (1, 8))), Node("c0", "conv", ("image",), CONV)]
    weights = {"c0": (torch.ones(2, 3, 1, 1), torch.zeros(2))}
    for depth in range(1, 41):
        before = nodes[-1].name
        nodes += [Node(f"r{depth}", "relu", (before,)), Node(f"s{depth}", "concat", (f"r{depth}", f"r{depth}"))]
        nodes.append(Node(f"c{depth}", "conv", (f"s{depth}",), CONV))
        weights[f"c{depth}"] = (torch.ones(2, 4, 1, 1) / 4, torch.zeros(2))
    net = Network(nodes, weights, nodes[-1].name)
    image = torch.rand(1, 3, 1, 8)
    torch.testing.assert_close(balance(net, [image])(image), net(image))
