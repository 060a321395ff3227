"""Whole branches: what is left without one is the network in which it says nothing."""

import pytest
import torch

from compress.graph.channels import find_groups
from compress.graph.network import Network, Node
from compress.graph.operators.conv import ConvAttributes
from compress.graph.operators.image import ImageAttributes
from compress.graph.operators.operator import Attributes
from compress.prune.branches import Branch, branches, measure_branches, nested, without

CONV, NONE = ConvAttributes(), Attributes()
SIZE = (8, 8)


def forked(joined: str = "concat", again: float | None = None) -> Network:
    """image -> first 8 -> near 8 and deep 8 -> deeper 8, which are joined, and read by last 2, whose sigmoid is the
    map. `again`: deeper is so many times near."""
    layers = {"first": ("image", 3), "near": ("first", 8), "deep": ("first", 8), "deeper": ("deep", 8)}
    nodes = [Node("image", "input", (), ImageAttributes(1 / 255, 0, SIZE))]
    nodes += [Node(name, "conv", (source,), CONV) for name, (source, _) in layers.items()]
    nodes += [Node("joined", joined, ("near", "deeper"), NONE), Node("last", "conv", ("joined",), CONV)]
    nodes.append(Node("map", "sigmoid", ("last",), NONE))
    torch.manual_seed(0)
    weights = {name: (torch.randn(8, inputs, 1, 1), torch.randn(8)) for name, (_, inputs) in layers.items()}
    weights["last"] = torch.randn(2, 16 if joined == "concat" else 8, 1, 1), torch.randn(2)
    if again is not None:
        weights["deep"] = weights["near"]
        weights["deeper"] = again * torch.eye(8)[:, :, None, None], torch.zeros(8)
    return Network(nodes, weights, "map")


def silenced(net: Network, name: str) -> Network:
    weights = net.weights()
    weights[name] = torch.zeros_like(weights[name][0]), torch.zeros_like(weights[name][1])
    return net.rewritten(weights)


@pytest.mark.parametrize("joined", ["concat", "add"])
@pytest.mark.parametrize(
    ("gone", "left"), [("near", ["first", "deep", "deeper", "last"]), ("deeper", ["first", "near", "last"])]
)
def test_what_is_left_computes_what_the_whole_does_where_the_branch_is_zero(joined, gone, left):
    net, image = forked(joined), torch.rand(2, 3, *SIZE)
    narrow, channels = without(net, find_groups(net), (Branch("joined", gone),))
    assert [node.name for node in narrow.weighted()] == left
    torch.testing.assert_close(narrow(image), silenced(net, gone)(image))
    assert channels.segments["last"] == find_groups(net).segments["last"]
    assert set(channels.segments) == {node.name for node in narrow.nodes}


def test_of_three_inputs_two_stay_joined():
    net = forked()
    nodes = [node for node in net.nodes if node.name not in ("joined", "last", "map")]
    nodes += [Node("joined", "concat", ("near", "first", "deeper"), NONE), *net.nodes[-2:]]
    weights = net.weights() | {"last": (torch.randn(2, 24, 1, 1), torch.zeros(2))}
    net = Network(nodes, weights, "map")
    narrow, channels = without(net, find_groups(net), (Branch("joined", "near"),))
    assert narrow.by_name["joined"].inputs == ("first", "deeper")
    image = torch.rand(1, 3, *SIZE)
    torch.testing.assert_close(narrow(image), silenced(net, "near")(image))
    assert channels.segments["joined"] == ("first", "deeper")


def test_a_branch_that_the_other_tells_costs_nothing_and_one_of_its_own_does():
    images = [torch.rand(1, 3, *SIZE) for _ in range(8)]
    own, told = (measure_branches(forked(again=again), images)[Branch("joined", "deeper")] for again in (None, 2.0))
    assert told < 0.01 * own


def test_the_damage_of_a_branch_of_which_nothing_else_tells_is_its_variance_times_what_the_loss_depends_on_it():
    """The image is the branch, and what it is joined with is constant: 0.25 of variance of each channel."""
    nodes = [Node("image", "input", (), ImageAttributes(1 / 255, 0, SIZE)), Node("own", "conv", ("image",), CONV)]
    nodes += [Node("flat", "conv", ("image",), CONV), Node("joined", "concat", ("flat", "own"), NONE)]
    nodes += [Node("last", "conv", ("joined",), CONV), Node("map", "sigmoid", ("last",), NONE)]
    eye, nothing = torch.eye(3)[:, :, None, None], torch.zeros(3)
    weights = {"own": (eye, nothing), "flat": (torch.zeros(1, 3, 1, 1), torch.ones(1))}
    weights["last"] = torch.tensor([0.0, 0.1, 0.0, 0.0])[None, :, None, None], torch.zeros(1)
    net = Network(nodes, weights, "map")
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(2, (1, 3, *SIZE), generator=generator).float() for _ in range(64)]
    # d log likelihood / d logit is 1 - p or -p, of p near a half: a quarter when squared; at 64 places
    expected = 64 * 0.1**2 * 0.25 * 0.25
    assert measure_branches(net, images, multilabel=True)[Branch("joined", "own")] == pytest.approx(expected, rel=0.05)


def test_sets_begin_with_none_and_take_what_does_least_for_what_it_saves():
    net = forked()
    channels = find_groups(net)
    damage = {Branch("joined", "near"): 1.0, Branch("joined", "deeper"): 1.5}
    assert nested(net, channels, damage) == [(), (Branch("joined", "deeper"),)]
    assert nested(net, channels, damage | {Branch("joined", "near"): 0.1})[-1] == (Branch("joined", "near"),)
    assert nested(net, channels, {}) == [()]


def test_what_is_read_by_more_than_convolutions_and_what_is_twice_the_same_is_no_branch():
    net = forked()
    read = [
        *net.nodes[:-2],
        Node("relu", "relu", ("joined",), NONE),
        Node("last", "conv", ("relu",), CONV),
        net.nodes[-1],
    ]
    assert branches(Network(read, net.weights(), "map")) == []
    twice = forked("add")
    nodes = [Node("joined", "add", ("near", "near"), NONE) if node.name == "joined" else node for node in twice.nodes]
    assert branches(Network(nodes, twice.weights(), "map")) == []
    assert branches(twice) == [Branch("joined", "near"), Branch("joined", "deeper")]
