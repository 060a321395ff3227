"""Channel groups of the tiny network, worked out by hand."""

import pytest
import torch
from masked import every_other, masked
from tiny import TinyNet

from compress.errors import ModelError
from compress.graph.channels import find_groups
from compress.graph.network import Network, Node
from compress.graph.operators.attention import AttentionAttributes
from compress.graph.operators.conv import ConvAttributes
from compress.graph.operators.image import ImageAttributes
from compress.graph.operators.norm import GroupNormAttributes, NormAttributes
from compress.load.trace import fold_normalisation, trace
from compress.prune.cut import check_cut, cut


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    traced, _ = trace(TinyNet(), (64, 64), 0, 3, (0.0,) * 3, (1.0,) * 3)
    return fold_normalisation(traced)


def test_groups_follow_residual_depthwise_and_concat(net):
    channels = find_groups(net)
    expected = {  # the depthwise convolution passes channels on; the residual ties "down" and the pointwise one
        frozenset({"image"}): (3, "input image"),
        frozenset({"stem"}): (16, ""),
        frozenset({"down", "block.pointwise"}): (32, ""),
        frozenset({"deep"}): (48, ""),
        frozenset({"up"}): (24, ""),
        frozenset({"merge"}): (32, ""),
        frozenset({"head"}): (3, "class map"),
    }
    assert {frozenset(g.producers): (g.width, g.frozen) for g in channels.groups.values()} == expected
    merged = net.by_name["merge"].inputs[0]
    assert channels.segments[merged] == ("stem", "up")


def test_cutting_channels_that_are_zero_changes_nothing(net):
    """An independent check of every index: channels that are dead in the whole group can go without a trace."""
    channels = find_groups(net)
    weights = {name: (weight.clone(), bias.clone()) for name, (weight, bias) in net.weights().items()}
    kept = {}
    for group in channels.groups.values():
        keep = range(group.width) if group.frozen else range(0, group.width, 2)
        kept[group.name] = tuple(keep)
        for producer in group.producers:
            if producer not in weights:
                continue
            weight, bias = weights[producer]
            dead = [c for c in range(group.width) if c not in kept[group.name]]
            if producer == "up":
                weight[:, dead] = 0
            else:
                weight[dead] = 0
            bias[dead] = 0
    # what is dead must also stay dead through the depthwise convolution
    depthwise, bias = weights["block.depthwise"]
    bias[1::2] = 0
    sparse = net.rewritten(weights)
    small = cut(sparse, channels, kept)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(small(x), sparse(x), atol=1e-5, rtol=1e-4)
    assert small.weight("merge").shape == (16, 8 + 12, 3, 3)
    assert small.weight("up").shape == (24, 12, 2, 2)
    assert small.by_name["block.depthwise"].attrs.groups == 16
    assert net.weight("merge").shape == (32, 40, 3, 3)  # the network that was given is untouched


def network(*nodes, **widths) -> Network:
    """1x1 convolutions of these widths, in groups where a width is a pair, with other nodes between; "head" ends it."""
    made = [Node("image", "input", (), ImageAttributes(1 / 255, 0, (4, 6)))]
    channels, weights = {"image": 3}, {}
    torch.manual_seed(0)
    for name, op, inputs, *attrs in nodes:
        if op == "conv":
            out, groups = widths[name] if isinstance(widths[name], tuple) else (widths[name], 1)
            channels[name] = out
            weights[name] = torch.randn(out, channels[inputs[0]] // groups, 1, 1), torch.randn(out)
            made.append(Node(name, "conv", inputs, ConvAttributes(groups=groups)))
        else:
            channels[name] = sum(channels[each] for each in inputs) if op == "concat" else channels[inputs[-1]]
            made.append(Node(name, op, inputs, *attrs))
    return Network(made, weights, made[-1].name)


def conv(name, source):
    return name, "conv", (source,)


def found(net) -> dict[str, tuple[int, int, int, str]]:
    """Width, parts, block and reason of every group that is not of the image or the map."""
    return {
        group.name: (group.width, group.parts, group.block, group.frozen)
        for group in find_groups(net).groups.values()
        if group.frozen not in ("input image", "class map")
    }


def assert_half_is_the_masked_one(net):
    channels = find_groups(net)
    kept = {group.name: every_other(group) for group in channels.groups.values()}
    image = torch.rand(1, 3, 4, 6)
    small = cut(net, channels, kept)
    check_cut(net, small, channels, kept, image)
    with torch.no_grad():
        torch.testing.assert_close(small(image), masked(net, channels, kept, image), atol=1e-5, rtol=1e-4)
    return small


def test_whole_groups_of_a_grouped_convolution_are_cut():
    net = network(conv("a", "image"), conv("b", "a"), conv("head", "b"), a=24, b=(24, 6), head=2)
    assert found(net) == {"a": (24, 1, 4, "")}
    small = assert_half_is_the_masked_one(net)
    assert small.by_name["b"].attrs.groups == 3
    assert small.weight("b").shape == (12, 4, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_normalisation_of_an_image_makes_no_channels_of_its_own(channels):
    module = torch.nn.Sequential(torch.nn.Conv2d(channels, 8, 1), torch.nn.Conv2d(8, 2, 1))
    net, _ = trace(module, (8, 8), 0, 2, (0.5,) * channels, (0.25,) * channels)
    assert len(net.weighted()) == 3
    assert find_groups(net).groups == find_groups(fold_normalisation(net)).groups


def test_one_channel_that_a_convolution_makes_of_one_is_the_same():
    net = network(conv("a", "image"), conv("b", "a"), conv("c", "b"), conv("head", "c"), a=1, b=1, c=16, head=2)
    assert found(net) == {"a": (1, 1, 1, ""), "c": (16, 1, 1, "")}
    assert_half_is_the_masked_one(net)


def test_of_a_grouped_convolution_of_other_width_each_group_loses_as_much():
    net = network(conv("a", "image"), conv("b", "a"), conv("head", "b"), a=24, b=(12, 3), head=2)
    assert found(net) == {"a": (24, 3, 1, ""), "b": (12, 3, 1, "")}
    small = assert_half_is_the_masked_one(net)
    assert small.by_name["b"].attrs.groups == 3
    assert small.weight("b").shape == (6, 4, 1, 1)


def test_a_grouped_convolution_of_one_channel_each_and_two_results_stays_whole():
    net = network(conv("a", "image"), conv("b", "a"), conv("head", "b"), a=8, b=(16, 8), head=2)
    assert found(net)["a"] == (8, 1, 1, "in heads or groups that cannot be narrower")


def test_whole_groups_of_a_group_norm_are_cut_and_any_channel_of_a_layer_norm():
    nodes = [conv("a", "image"), ("n", "group_norm", ("a",), GroupNormAttributes(1e-5, 4)), conv("b", "n")]
    net = network(*nodes, ("l", "layer_norm", ("b",), NormAttributes(1e-5)), conv("head", "l"), a=16, b=16, head=2)
    assert found(net) == {"a": (16, 1, 4, ""), "b": (16, 1, 1, "")}
    small = assert_half_is_the_masked_one(net)
    assert small.by_name["n"].attrs.groups == 2


def test_heads_lose_equally_many_channels_queries_the_same_as_keys():
    read = [conv(name, "image") for name in "qkv"]
    attended = ("t", "attention", ("q", "k", "v"), AttentionAttributes(2, 0.5, 24))
    net = network(*read, attended, conv("head", "t"), q=8, k=8, v=16, head=2)
    assert found(net) == {"q": (8, 2, 1, ""), "v": (16, 2, 1, "")}
    assert find_groups(net).groups["q"].producers == ("q", "k")
    assert_half_is_the_masked_one(net)


def test_channels_that_are_added_to_a_concat_are_divided_where_its_parts_begin():
    nodes = [conv("a", "image"), conv("b", "image"), ("ab", "concat", ("a", "b")), conv("c", "image")]
    net = network(*nodes, ("sum", "add", ("ab", "c")), conv("head", "sum"), a=8, b=16, c=24, head=2)
    assert found(net) == {"a": (8, 1, 1, ""), "b": (16, 1, 1, "")}
    channels = find_groups(net)
    assert channels.segments["c"] == channels.segments["sum"] == ("a", "b")
    assert {name: channels.groups[name].producers for name in "ab"} == {"a": ("a", "c"), "b": ("b", "c")}
    assert_half_is_the_masked_one(net)


def test_channels_that_a_softmax_shares_out_stay_whole():
    net = network(conv("a", "image"), ("s", "softmax", ("a",)), conv("head", "s"), a=16, head=2)
    assert found(net) == {"a": (16, 1, 1, "read by s, a softmax")}


def test_channels_of_a_cut_network_are_those_left_of_each_group():
    net = network(conv("a", "image"), conv("b", "a"), conv("head", "b"), a=24, b=(24, 6), head=2)
    channels = find_groups(net)
    kept = {"image": (0, 1, 2), "a": tuple(range(8, 16)), "head": (0, 1)}
    narrow = channels.narrowed(kept)
    assert (narrow.groups["a"].width, narrow.groups["a"].block) == (8, 4)
    assert narrow.segments == channels.segments


def test_a_cut_that_is_not_the_masked_network_names_its_first_layer():
    net = network(conv("a", "image"), conv("b", "a"), conv("head", "b"), a=16, b=16, head=2)
    channels = find_groups(net)
    kept = {group.name: every_other(group) for group in channels.groups.values()}
    small = cut(net, channels, kept)
    with torch.no_grad():
        small.weight("b")[3, 2] += 0.1
    with pytest.raises(ModelError, match="^b: the cut conv gives values that are up to .* off"):
        check_cut(net, small, channels, kept, torch.rand(1, 3, 4, 6))
