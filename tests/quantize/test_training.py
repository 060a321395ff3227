"""Fake quantization, against arithmetic by hand, torch's own operators and exact integers."""

import numpy as np
import pytest
import torch
from integer_reference import run_reference
from torch import nn

from compress.errors import RecipeError
from compress.formats.tflite import to_tflite
from compress.graph.network import Network, Node
from compress.graph.operators.conv import ConvAttributes
from compress.graph.operators.image import ImageAttributes
from compress.load.trace import trace
from compress.quantize.calibration import calibrate
from compress.quantize.convert import float_graph, quantized_graph
from compress.quantize.placement import check_keep_float
from compress.quantize.training import QuantizedNetwork, _Quantize, affine, weight_scale
from compress.runtime.local import describe_in_child


@pytest.fixture(scope="module")
def quantized(net, pixels):
    return QuantizedNetwork(net, calibrate(net, [net.real(one[None]) for one in pixels]))


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [(0.0, 2.55, 0.01, -128), (-1.28, 1.27, 0.01, 0), (0.5, 2.55, 0.01, -128), (-2.55, -1.0, 0.01, 127)],
)
def test_ranges_always_hold_zero(low, high, scale, zero_point):
    got = affine(low, high)
    assert got[0] == pytest.approx(scale)
    assert got[1] == zero_point


def test_a_quantizer_rounds_clips_and_passes_gradients_inside_its_range():
    x = torch.tensor([-10.0, 0.4, 0.6, 10.0, 300.0], requires_grad=True)
    y = _Quantize.apply(x, 0, 255)
    assert y.tolist() == [0.0, 0.0, 1.0, 10.0, 255.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


class Plain(QuantizedNetwork):
    """The same in real values and in plain autograd: each quantizer is scale * round(clamp(x / scale)), and rounding
    has a gradient of one (Esser et al. 2020, equations 1 to 3 in sum)."""

    def encode(self, name, real):
        return real

    decode = encode

    def compute(self, node, inputs, input_size):
        if node.kind.weights:
            weight, axis = self.weight(node.name), 1 if node.op == "conv_transpose" else 0
            given, made = (self.scale(self.unit(name)).detach() for name in (node.inputs[0], node.name))
            steps = weight_scale(node, weight, self.bias(node.name), given, made)
            scale = steps.reshape([-1 if i == axis else 1 for i in range(4)])
            weight = weight + ((weight / scale).round() * scale - weight).detach()
            value = node.kind.compute(inputs, node.attrs, weight, self.bias(node.name))
        else:
            value = Network.compute(self, node, inputs, input_size)
        if node.name in self.placement.fused or node.op in ("concat", "max_pool"):
            return value
        scale, zero_point = self.scale(self.unit(node.name)), self.zero_point(self.unit(node.name))
        steps = (value / scale).clamp(-128 - zero_point, 127 - zero_point)
        return (steps + (steps.round() - steps).detach()) * scale


def gradients(net, image):
    net.zero_grad()
    output = net(image)
    (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def test_values_and_gradients_are_those_of_learned_step_size_quantization(net, pixels):
    """With ranges so narrow that every quantizer clips."""
    image = net.real(pixels[:2])
    ranges = {group: (low / 2, high / 2) for group, (low, high) in calibrate(net, [image]).items()}
    ours, plain = QuantizedNetwork(net, ranges), Plain(net, ranges)
    with torch.no_grad():
        assert ((ours(image) - plain(image)).abs() * 256 <= 1.001).all()
    found, expected = gradients(ours, image), gradients(plain, image)
    assert found.keys() == expected.keys()
    for name, theirs in expected.items():
        apart = (found[name] - theirs).norm()
        assert apart < 0.01 * theirs.norm() + 1e-3, name  # a value at a tie may be rounded either way


def test_what_is_kept_and_visited_is_real(net, quantized, pixels):
    image = net.real(pixels[:1])
    seen = {}

    def visit(node, value):
        seen[node.name] = value
        return value

    with torch.no_grad():
        kept = quantized.run(image, keep=quantized.by_name, visit=visit)
        exact = net.run(image, keep=net.by_name)
    for name, value in kept.items():
        spread = exact[name].std() + exact[name].abs().mean()
        assert (value - exact[name]).abs().mean() < 0.1 * spread, name
        if name != net.input.name:
            torch.testing.assert_close(seen[name], value)


def test_training_in_bfloat16_stays_within_a_few_steps_of_float32(quantized, net, pixels):
    image = net.real(pixels[:2])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = quantized(image)
    with torch.no_grad():
        exact = quantized(image)
    assert narrow.dtype == torch.float32
    assert (narrow - exact).abs().mean() * 256 < 2
    with torch.autocast("cpu", torch.bfloat16):
        loss = quantized(image).square().mean()
    quantized.zero_grad()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in quantized.parameters())
    quantized.zero_grad()


def test_a_step_in_channels_last_is_the_same(quantized, net, pixels):
    image = net.real(pixels[:2])
    with torch.no_grad():
        torch.testing.assert_close(
            quantized(image.to(memory_format=torch.channels_last)), quantized(image), atol=1.1 / 256, rtol=0
        )


def test_a_relu6_clips_at_6_where_the_range_is_wider():
    conv = ConvAttributes()
    nodes = [
        Node("image", "input", (), ImageAttributes(1 / 16, 0, (1, 4))),
        Node("a", "conv", ("image",), conv),
        Node("r", "relu6", ("a",)),
    ]
    plain = Network(nodes, {"a": (torch.ones(1, 3, 1, 1), torch.zeros(1))}, "r")
    image = torch.tensor([-1.0, 1.0, 1.9, 4.0]).expand(1, 3, 1, 4)
    for high, expected in ((12.75, [0.0, 3.0, 5.7, 6.0]), (5.1, [0.0, 3.0, 5.1, 5.1])):
        with torch.no_grad():
            given = QuantizedNetwork(plain, {"r": (0.0, high)})(image).flatten()
        torch.testing.assert_close(given, torch.tensor(expected), atol=1e-3, rtol=0)


def test_training_simulates_the_integers_of_the_graph(quantized, net, pixels):
    """The network that is trained and exact integer arithmetic differ by at most 1 of 256 steps on 99.9 % of values."""
    graph = quantized_graph(quantized, "tiny")
    differences = []
    for one in pixels:
        with torch.no_grad():
            simulated = quantized(net.real(one[None]))
        exact = run_reference(graph, one.permute(2, 0, 1)[None].numpy())
        differences.append(np.abs(np.rint(simulated.numpy() * 256) - 128 - exact))
    assert np.mean(np.concatenate(differences) <= 1) >= 0.999


def test_the_float_graph_is_the_network(net, pixels):
    exact = run_reference(float_graph(net, "tiny"), pixels[:1].permute(0, 3, 1, 2).numpy())
    with torch.no_grad():
        np.testing.assert_allclose(net(net.real(pixels[:1])).numpy(), exact, atol=1e-5)


def test_weights_are_symmetric_and_each_output_channel_uses_its_range(quantized):
    for operator in quantized_graph(quantized, "tiny").operators:
        if operator.weight is not None:
            axis = (0, 2, 3) if operator.op == "conv_transpose" else (1, 2, 3)
            assert operator.weight.dtype == np.int8
            assert (np.abs(operator.weight.astype(int)).max(axis) == 127).all()


def test_scales_are_learned(quantized, net, pixels):
    import copy

    learner = copy.deepcopy(quantized)
    before = {name: value.item() for name, value in learner.log_scales.items()}
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    learner(net.real(pixels[:2])).square().mean().backward()
    optimizer.step()
    assert sum(value.item() != before[name] for name, value in learner.log_scales.items()) >= len(before) - 1


def test_a_layer_that_is_kept_float_has_its_own_weights_between_the_same_integers(net, pixels):
    image = net.real(pixels[:2])
    ranges = calibrate(net, [image])
    kept, plain = QuantizedNetwork(net, ranges, {"merge"}), QuantizedNetwork(net, ranges)
    with torch.no_grad():
        merged = kept.run(image, keep=kept.by_name)
        source = merged[kept.by_name["merge"].inputs[0]]
        expected = torch.relu(torch.nn.functional.conv2d(source, net.weight("merge"), net.bias("merge"), padding=1))
        scale = kept.scale(kept.unit("merge"))
        expected = expected.clamp_max(255 * scale)
        assert ((merged[kept.placement.fused["merge"].name] - expected).abs() <= 0.501 * scale).all()
    graph = quantized_graph(kept, "tiny")
    floats = [
        operator.name for operator in graph.operators if operator.weight is not None and not graph.is_integer(operator)
    ]
    assert floats == ["merge"]
    exact = run_reference(graph, pixels[:1].permute(0, 3, 1, 2).numpy())
    with torch.no_grad():
        simulated = kept(image[:1]).numpy()
    assert np.mean(np.abs(np.rint(simulated * 256) - 128 - exact) <= 1) >= 0.999
    again = QuantizedNetwork.from_state(kept.to_state())
    assert again.keep_float == {"merge"}
    assert plain.keep_float == frozenset()


def test_a_layer_that_cannot_be_kept_float_is_named_with_what_it_may_be(net):
    check_keep_float(net, ["merge", "block.depthwise"])
    with pytest.raises(RecipeError, match="no layer 'block.depthwize'; did you mean block.depthwise"):
        check_keep_float(net, ["block.depthwize"])
    concat = next(node.name for node in net.nodes if node.op == "concat")
    with pytest.raises(RecipeError, match=f"{concat} is a concat, which has no weights"):
        check_keep_float(net, [concat])


def test_a_channel_that_is_nothing_but_a_large_bias_keeps_it_in_an_int32(net, pixels):
    one = net.rewritten(net.weights())
    name = one.weighted()[1].name
    with torch.no_grad():
        one.weight(name)[0] *= 1e-9
        one.bias(name)[0] = 1e4
    image = one.real(pixels[:1])
    quantized = QuantizedNetwork(one, calibrate(one, [image]))
    graph = quantized_graph(quantized, "biased")
    operator = next(operator for operator in graph.operators if operator.name == name)
    assert 2**28 < operator.bias[0] <= 2**29
    scale = graph.tensors[operator.inputs[0]].scale
    assert float(operator.bias[0]) * operator.weight_scale[0] * scale == pytest.approx(1e4, rel=1e-5)
    assert not operator.weight[0].any()


class Filters(nn.Module):
    """One filter for each channel, of which the last reads nothing but zero."""

    def __init__(self):
        super().__init__()
        self.each, self.sum = nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        seen = torch.relu(x - torch.tensor([0.0, 0.0, 2.0]).reshape(1, 3, 1, 1))
        return torch.softmax(self.sum(torch.relu(self.each(seen))), 1)


def test_a_channel_whose_weights_have_grown_without_bound_has_a_scale_that_kernels_take(tmp_path):
    torch.manual_seed(0)
    net = trace(Filters().eval(), (16, 16), 0, 2, (0.0,) * 3, (1.0,) * 3)[0]
    weight, bias = net.weights()["each"]
    weight = weight.detach().clone()
    weight[2] = 1e5
    net = net.rewritten({**net.weights(), "each": (weight, bias)})
    image = torch.rand(2, 3, 16, 16)
    twin = QuantizedNetwork(net, calibrate(net, [image], 100.0)).eval()
    graph = quantized_graph(twin, "one")
    (operator,) = [each for each in graph.operators if each.name == "each"]
    given, made = (graph.tensors[name].scale for name in (operator.inputs[0], operator.output))
    assert (given * operator.weight_scale / made).max() == pytest.approx(255, rel=1e-3)
    assert np.abs(operator.weight).max() == 127
    to_tflite(graph, tmp_path / "model.tflite")
    assert describe_in_child(tmp_path / "model.tflite").size == (16, 16)
    with torch.no_grad():
        kept = twin.run(image, keep={"each"})
    assert torch.isfinite(kept["each"]).all()
