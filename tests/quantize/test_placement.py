"""Which tensors share a scale, worked out by hand on the tiny network."""

import pytest
import torch
from tiny import TinyNet

from compress.errors import ExportError
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


def test_two_fixed_scales_cannot_meet_in_one_tensor():
    nodes = [
        Node("image", "input", (), ImageAttributes(1 / 255, 0, (4, 4))),
        Node("s", "sigmoid", ("image",)),
        Node("both", "concat", ("image", "s")),
        Node("out", "conv", ("both",), ConvAttributes()),
    ]
    with pytest.raises(ExportError, match="both"):
        place(Network(nodes, {"out": (torch.ones(2, 6, 1, 1), torch.zeros(2))}, "out"))
