"""Repair: what least squares can win back exactly, it must."""

import pytest
import torch
from masked import every_other
from tiny import TinyNet

from compress.graph.channels import find_groups
from compress.graph.network import Network, Node
from compress.graph.operators import OPERATORS
from compress.graph.operators.attention import AttentionAttributes
from compress.graph.operators.image import ImageAttributes
from compress.graph.operators.norm import NormAttributes
from compress.graph.unfold import Taps, as_matrix, from_matrix
from compress.load.trace import fold_normalisation, trace
from compress.prune.cut import cut
from compress.prune.repair import images_in_memory, repair


def student_of(net, keep):
    channels = find_groups(net)
    kept = {g.name: tuple(range(g.width if g.frozen else keep(g.width))) for g in channels.groups.values()}
    return channels, kept, cut(net, channels, kept)


def pixels(count=12, size=32):
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return fold_normalisation(trace(TinyNet().eval(), (32, 32), 0, 3, (0.0,) * 3, (1.0,) * 3)[0])


def logits(network, x):
    return network.run(x, keep={"head"})["head"]


def test_channels_that_others_stand_in_for_are_won_back(net):
    """The second half of "merge" repeats the first: without it, the reader needs but the sum of its weights."""
    weights = {name: (weight.clone(), bias.clone()) for name, (weight, bias) in net.weights().items()}
    weight, bias = weights["merge"]
    weight[16:], bias[16:] = weight[:16], bias[:16]
    teacher = net.rewritten(weights)
    channels = find_groups(teacher)
    kept = {g.name: tuple(range(16 if g.name == "merge" else g.width)) for g in channels.groups.values()}
    student = cut(teacher, channels, kept)
    repaired = repair(teacher, student, channels, kept, pixels())
    x = teacher.real(pixels(4))
    with torch.no_grad():
        lost = (logits(student, x) - logits(teacher, x)).abs().mean()
        left = (logits(repaired, x) - logits(teacher, x)).abs().mean()
    assert left < 0.03 * lost


def test_a_student_of_half_the_width_is_nearer_to_the_teacher(net):
    channels, kept, student = student_of(net, lambda width: width // 2)
    repaired = repair(net, student, channels, kept, pixels())
    x = net.real(pixels(4))
    with torch.no_grad():
        before = (logits(student, x) - logits(net, x)).square().mean()
        after = (logits(repaired, x) - logits(net, x)).square().mean()
    assert after < 0.6 * before


def test_attention_between_layer_norms_is_refitted_too():
    torch.manual_seed(0)
    widths = {"a": (16, 3), "q": (16, 16), "k": (16, 16), "v": (16, 16), "out": (16, 16), "head": (3, 16)}
    nodes = [Node("image", "input", (), ImageAttributes(1 / 255, 0, (8, 8)))]

    def conv(name, source):
        nodes.append(Node(name, "conv", (source,), OPERATORS["conv"].attributes()))

    conv("a", "image")
    nodes.append(Node("norm", "layer_norm", ("a",), NormAttributes(1e-5)))
    for name in "qkv":
        conv(name, "norm")
    nodes.append(Node("attention", "attention", ("q", "k", "v"), AttentionAttributes(2, 0.35, 64)))
    conv("out", "attention")
    nodes.append(Node("sum", "add", ("a", "out")))
    conv("head", "sum")
    weights = {
        name: (torch.randn(*shape, 1, 1) / shape[1] ** 0.5, torch.randn(shape[0])) for name, shape in widths.items()
    }
    teacher = Network(nodes, weights, "head")
    channels = find_groups(teacher)
    kept = {group.name: every_other(group) for group in channels.groups.values()}
    student = cut(teacher, channels, kept)
    repaired = repair(teacher, student, channels, kept, pixels(size=8))
    x = teacher.real(pixels(4, 8))
    with torch.no_grad():
        before, after = ((net(x) - teacher(x)).square().mean() for net in (student, repaired))
    assert after < 0.2 * before


def test_a_student_that_lost_nothing_stays_as_it_is(net):
    channels, kept, student = student_of(net, lambda width: width)
    repaired = repair(net, student, channels, kept, pixels())
    x = net.real(pixels(2))
    with torch.no_grad():
        assert (repaired(x) - net(x)).abs().max() < 5e-3  # activations are kept as float16


def test_the_student_that_was_given_is_untouched(net):
    channels, kept, student = student_of(net, lambda width: width // 2)
    before = student.weight("merge").clone()
    repair(net, student, channels, kept, pixels(4))
    assert torch.equal(student.weight("merge"), before)


@pytest.mark.parametrize(
    ("op", "shape", "attrs"),
    [
        ("conv", (6, 4, 3, 3), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 1}),
        ("conv", (4, 1, 3, 3), {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 4}),
        ("conv", (6, 2, 1, 1), {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 2}),
        ("conv_transpose", (4, 6, 3, 2), {"stride": (2, 2), "padding": (1, 0), "dilation": (1, 1), "groups": 1,
                                          "output_padding": (1, 0)}),
        ("conv_transpose", (4, 3, 2, 2), {"stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "groups": 2,
                                          "output_padding": (0, 0)}),
    ],
)  # fmt: skip
def test_taps_times_matrix_is_the_convolution(op, shape, attrs):
    torch.manual_seed(0)
    node = Node("layer", op, ("image",), OPERATORS[op].attributes(**attrs))
    weight = torch.randn(shape)
    x = torch.randn(2, 4, 7, 9)
    image = Node("image", "input", (), ImageAttributes(1.0, 0, (7, 9)))
    outputs = shape[1] * attrs["groups"] if op == "conv_transpose" else shape[0]
    net = Network([image, node], {"layer": (weight, torch.zeros(outputs))}, "layer")
    with torch.no_grad():
        expected = net(x)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(*map(torch.arange, expected.shape[2:]), indexing="ij"))
    taps = Taps(node, weight).at(x, rows, columns)  # [N, C, k, n]
    groups = attrs["groups"]
    features = taps.reshape(2, groups, -1, taps.shape[-1])
    result = torch.einsum("ngfp,gfo->ngop", features, as_matrix(node, weight)).reshape(expected.shape)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(from_matrix(node, as_matrix(node, weight), weight), weight)


def test_images_are_limited_by_memory(net, monkeypatch):
    monkeypatch.setattr("compress.prune.repair.MEMORY_BYTES", 2_000_000)
    few = images_in_memory([net], pixels(64))
    monkeypatch.setattr("compress.prune.repair.MEMORY_BYTES", 4_000_000)
    assert 1 <= few < 64
    assert images_in_memory([net], pixels(64)) == pytest.approx(2 * few, abs=1)


@pytest.mark.parametrize("factor", [1e6, 1e-9])
def test_activations_beyond_the_range_of_float16_are_repaired_as_others_are(net, factor):
    """The same function: one layer's values in another unit, which the next layer's weights undo."""

    def scaled(name, weight, bias):
        return (
            (weight * factor, bias * factor)
            if name == "merge"
            else (weight / factor if name == "head" else weight, bias)
        )

    other = net.rewritten({name: scaled(name, *pair) for name, pair in net.weights().items()})
    results = []
    for teacher in (net, other):
        channels, kept, student = student_of(teacher, lambda width: width // 2)
        results.append(repair(teacher, student, channels, kept, pixels())(teacher.real(pixels(2))))
    torch.testing.assert_close(*results, atol=0.02, rtol=0)


@pytest.mark.parametrize("order", [("map", "f"), ("f", "map")])
def test_what_is_added_to_one_channel_or_one_value_is_repaired(order):
    torch.manual_seed(0)
    nodes = [
        Node("image", "input", (), ImageAttributes(1 / 255, 0, (32, 32))),
        *(Node(name, "conv", ("image",), OPERATORS["conv"].attributes()) for name in order),
        Node("mean", "mean", ("f",)),
        Node("spread", "add", ("map", "f")),
        Node("shifted", "add", ("spread", "mean")),
        Node("out", "conv", ("shifted",), OPERATORS["conv"].attributes()),
    ]
    shapes = {"map": (1, 3, 1, 1), "f": (16, 3, 1, 1), "out": (2, 16, 1, 1)}
    weights = {name: (torch.randn(shape), torch.zeros(shape[0])) for name, shape in shapes.items()}
    teacher = Network(nodes, weights, "out")
    channels, kept, student = student_of(teacher, lambda width: -(-width // 2))
    assert student.weight("f").shape[0] == 8
    assert student.weight("map").shape[0] == 1
    assert repair(teacher, student, channels, kept, pixels()).weight("f").isfinite().all()
