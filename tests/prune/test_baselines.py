"""Plans to compare with, worked out by hand."""

from functools import partial

import pytest
import torch
from tiny import TinyNet

from compress.graph.channels import find_groups
from compress.graph.network import Network, Node
from compress.graph.operators.conv import ConvAttributes
from compress.graph.operators.image import ImageAttributes
from compress.load.trace import trace
from compress.prune.baselines import channel_norms, choose_magnitude, choose_random, choose_uniform
from compress.prune.cost import predicted_bytes

CONV = ConvAttributes()


def two_layers(a: torch.Tensor, b: torch.Tensor) -> Network:
    """image 3 -> a 16 -> b 32 -> c 2, all 1x1; every filter's weights have the value that `a` or `b` gives it."""
    nodes = [Node("image", "input", (), ImageAttributes(1 / 255, 0, (4, 4)))]
    source = "image"
    for name in "abc":
        nodes.append(Node(name, "conv", (source,), CONV))
        source = name
    weights = {
        "a": (a.reshape(16, 1, 1, 1).expand(16, 3, 1, 1), torch.zeros(16)),
        "b": (b.reshape(32, 1, 1, 1).expand(32, 16, 1, 1), torch.zeros(32)),
        "c": (torch.ones(2, 32, 1, 1), torch.zeros(2)),
    }
    return Network(nodes, weights, "c")


RISING = two_layers(torch.arange(1.0, 17), torch.arange(1.0, 33))


def test_uniform_keeps_the_same_share_of_every_layer_and_the_largest_filters():
    plan = choose_uniform(RISING, find_groups(RISING), lambda widths: widths["a"] + widths["b"] <= 24)
    assert plan.kept == {"image": (0, 1, 2), "a": tuple(range(8, 16)), "b": tuple(range(16, 32)), "c": (0, 1)}


def test_magnitude_cuts_the_smallest_filters_of_the_whole_network():
    """b's first 16 filters are next to nothing, a's are all alike: only b is cut."""
    net = two_layers(torch.ones(16), torch.cat([torch.full((16,), 0.01), torch.ones(16)]))
    plan = choose_magnitude(net, find_groups(net), lambda widths: widths["a"] + widths["b"] <= 32)
    assert plan.kept["a"] == tuple(range(16))
    assert plan.kept["b"] == tuple(range(16, 32))


def test_magnitude_does_not_gut_a_layer_whose_weights_are_all_small():
    net = two_layers(torch.arange(1.0, 17) / 1000, torch.arange(1.0, 33))
    plan = choose_magnitude(net, find_groups(net), lambda widths: widths["a"] + widths["b"] <= 24)
    assert (len(plan.kept["a"]), len(plan.kept["b"])) == (8, 16)


@pytest.mark.parametrize("choose", [choose_uniform, choose_magnitude, partial(choose_random, seed=0)])
def test_of_a_grouped_convolution_whole_groups_are_kept(choose):
    nodes = [Node("image", "input", (), ImageAttributes(1 / 255, 0, (4, 4))), Node("a", "conv", ("image",), CONV)]
    nodes += [Node("b", "conv", ("a",), ConvAttributes(groups=8)), Node("c", "conv", ("b",), CONV)]
    shapes = {"a": (32, 3, 1, 1), "b": (32, 4, 1, 1), "c": (2, 32, 1, 1)}
    net = Network(nodes, {name: (torch.randn(shape), torch.zeros(shape[0])) for name, shape in shapes.items()}, "c")
    kept = choose(net, find_groups(net), lambda widths: widths["a"] <= 16).kept["a"]
    assert len(kept) in (8, 16)
    assert [c // 4 for c in kept[::4]] == sorted({c // 4 for c in kept})


def test_random_has_the_uniform_widths_and_its_channels_depend_on_the_seed_alone():
    channels = find_groups(RISING)

    def fits(widths):
        return widths["a"] + widths["b"] <= 24

    one, again, other = (choose_random(RISING, channels, fits, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert {name: len(kept) for name, kept in one.kept.items()} == {"image": 3, "a": 8, "b": 16, "c": 2}


@pytest.mark.parametrize("choose", [choose_uniform, choose_magnitude])
def test_the_budget_is_met_and_used_on_any_network(choose):
    net, _ = trace(TinyNet().eval(), (32, 32), 0, 3, (0.0,) * 3, (1.0,) * 3)
    channels = find_groups(net)
    whole = predicted_bytes(net, channels, {group.name: group.width for group in channels.groups.values()})
    plan = choose(net, channels, lambda widths: predicted_bytes(net, channels, widths) <= 0.6 * whole)
    assert 0.4 * whole < plan.predicted_bytes <= 0.6 * whole


def test_the_norm_of_a_transposed_convolutions_channel_is_over_its_inputs():
    net, _ = trace(TinyNet().eval(), (32, 32), 0, 3, (0.0,) * 3, (1.0,) * 3)
    weight = net.weight("up").detach()  # [48, 24, 2, 2]
    assert channel_norms(net, find_groups(net))["up"][5] == pytest.approx(weight[:, 5].norm().item(), rel=1e-5)
