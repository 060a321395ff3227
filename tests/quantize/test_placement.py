"""Which tensors share a scale, worked out by hand on the tiny network."""

import pytest
import torch
from tiny import TinyNet

from compress.graph.network import Network, Node
from compress.graph.operators.conv import ConvAttributes
from compress.graph.operators.image import ImageAttributes
from compress.graph.operators.unary import PROBABILITY
from compress.load.trace import fold_normalisation, trace
from compress.quantize.placement import place


@pytest.fixture(scope="module")
def net():
    return fold_normalisation(trace(TinyNet().eval(), (64, 64), 0, 3, (0.485, 0.456, 0.406), (0.2, 0.2, 0.2))[0])


def reader_of(net, name):
    return next(node.name for node in net.nodes if name in node.inputs)


def test_a_rectifier_is_fused_and_no_quantizer_stands_before_it(net):
    placement = place(net)
    assert placement.fused["stem"].op == "relu"
    assert "stem" not in placement.group_of
    assert reader_of(net, "stem") in placement.group_of


def test_concat_pooling_and_resize_share_their_inputs_scale(net):
    groups = place(net).group_of
    concat = next(node for node in net.nodes if node.op == "concat")
    pool = next(node for node in net.nodes if node.op == "max_pool")
    resize = next(node for node in net.nodes if node.op == "resize")
    assert {groups[name] for name in concat.inputs} == {groups[concat.name]}
    assert groups[pool.name] == groups[pool.inputs[0]]
    assert groups[resize.name] == groups[resize.inputs[0]]
    assert groups[pool.name] != groups[concat.name]


def test_image_and_class_map_have_fixed_scales(net):
    placement = place(net)
    assert placement.fixed[placement.group_of["image"]] == (1 / 255, round(255 * (0.485 + 0.456 + 0.406) / 3) - 128)
    assert placement.fixed[placement.group_of[net.output]] == PROBABILITY


def test_a_rectifier_that_is_not_alone_keeps_its_inputs_scale():
    conv = ConvAttributes()
    nodes = [
        Node("image", "input", (), ImageAttributes(1 / 255, 0, (4, 4))),
        Node("a", "conv", ("image",), conv),
        Node("r", "relu", ("a",)),
        Node("sum", "add", ("a", "r")),
    ]
    placement = place(Network(nodes, {"a": (torch.ones(2, 3, 1, 1), torch.zeros(2))}, "sum"))
    assert placement.fused == {}
    assert placement.group_of["r"] == placement.group_of["a"]


def concat_of(*inputs):
    """The image, three channels of a convolution, the sigmoid of those, and some of them joined."""
    nodes = [
        Node("image", "input", (), ImageAttributes(1 / 255, 0, (4, 4))),
        Node("f", "conv", ("image",), ConvAttributes()),
        Node("s", "sigmoid", ("f",)),
        Node("t", "sigmoid", ("f",)),
        Node("both", "concat", inputs),
        Node("out", "conv", ("both",), ConvAttributes()),
    ]
    weights = {"f": (torch.ones(3, 3, 1, 1), torch.zeros(3)), "out": (torch.ones(2, 6, 1, 1), torch.zeros(2))}
    return place(Network(nodes, weights, "out"))


@pytest.mark.parametrize("inputs", [("f", "s"), ("s", "f"), ("image", "f")])
def test_a_fixed_scale_is_not_that_of_what_it_is_joined_with(inputs):
    placement = concat_of(*inputs)
    groups, fixed = placement.group_of, placement.fixed
    assert groups["both"] == groups["f"] == "f"
    assert "f" not in fixed
    assert fixed[groups[next(name for name in inputs if name != "f")]] in (PROBABILITY, (1 / 255, -128))


def test_two_fixed_scales_that_differ_leave_what_is_joined_a_scale_of_its_own():
    placement = concat_of("image", "s")
    assert placement.group_of["both"] == "both"
    assert "both" not in placement.fixed


def test_one_fixed_scale_of_all_inputs_is_that_of_what_is_joined():
    placement = concat_of("s", "t")
    assert placement.fixed[placement.group_of["both"]] == PROBABILITY
