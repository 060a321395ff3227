"""Sums of integers that every runtime rounds alike, in whatever order it computes them in float32."""

import numpy as np
import pytest

from compress.graph.network import Network, Node
from compress.graph.operators.image import ImageAttributes
from compress.quantize.calibration import calibrate
from compress.quantize.convert import quantized_graph
from compress.quantize.halves import FAR, Steps, nearest_half, off_halves
from compress.quantize.training import QuantizedNetwork

FOUND = Steps(np.float32(0.02489404), -128), Steps(np.float32(0.03412911), -128), Steps(np.float32(0.03782978), -128)
"""Of a released network: 122 and 8, as uint8, add to 87.4999957."""


def orders(first, second, result, sign=1):
    """What three runtimes make of all pairs: [256, 256] each, uint8 values as int."""
    f = np.float32
    a, b = (f(np.arange(-128, 128) - each.zero_point) for each in (first, second))
    a, b, zero = a[:, None], f(sign) * b[None], f(result.zero_point)
    ratio, other = f(first.scale / result.scale), f(second.scale / result.scale)
    fused = np.float64(ratio) * a + np.float64(other) * b
    real = first.scale * a + second.scale * b
    sums = [f(fused), ratio * a + other * b, real / result.scale, real * f(f(1) / result.scale)]
    return [np.clip(np.rint(each) + zero, -128, 127) for each in sums]


class Placed:
    """A placement in which every tensor is a group of its own."""

    def __init__(self, net, fixed=()):
        self.group_of = {node.name: node.name for node in net.nodes}
        self.fixed, self.fused = dict.fromkeys(fixed), {}


def joined(op: str) -> Network:
    image = Node("a", "input", (), ImageAttributes(1.0, 0, (1, 1)))
    return Network([image, Node("b", "relu", ("a",)), Node("c", op, ("a", "b"))], {}, "c")


def moved(steps, op="add", fixed=()) -> Steps:
    net = joined(op)
    return off_halves(net, Placed(net, fixed), dict(zip("abc", steps, strict=True)))["c"]


def test_a_sum_close_to_a_half_is_found():
    assert 0 < nearest_half(*FOUND) < 1e-5


def test_sums_close_to_a_half_are_rounded_alike_after_the_scale_moved_a_little():
    first, second, _ = FOUND
    result = moved(FOUND)
    assert any((one != orders(*FOUND)[0]).any() for one in orders(*FOUND))
    assert all((one == orders(first, second, result)[0]).all() for one in orders(first, second, result))
    assert nearest_half(first, second, result) >= FAR
    assert result.scale != FOUND[2].scale
    assert result.scale == pytest.approx(FOUND[2].scale, rel=5e-4)
    assert result.zero_point == FOUND[2].zero_point


@pytest.mark.parametrize("op", ["add", "sub"])
@pytest.mark.parametrize("seed", range(6))
def test_any_two_scales_add_and_subtract_alike_in_every_order(op, seed):
    random = np.random.default_rng(seed)
    steps = [Steps(np.float32(0.01 * np.exp(random.normal())), int(random.integers(-128, 128))) for _ in range(3)]
    sign = 1 if op == "add" else -1
    result = moved(steps, op)
    assert nearest_half(*steps[:2], result, sign) > 1e-5
    made = orders(*steps[:2], result, sign)
    assert all((one == made[0]).all() for one in made)


def test_a_fixed_scale_and_one_that_is_far_from_halves_stay():
    assert moved(FOUND, fixed=["c"]) == FOUND[2]
    whole = [Steps(np.float32(0.25), 0)] * 3
    assert moved(whole) == whole[2]


def test_the_graph_of_a_network_has_sums_that_are_far_from_halves(net, pixels):
    graph = quantized_graph(QuantizedNetwork(net, calibrate(net, [net.real(pixels[:2])])), "tiny")
    sums = [operator for operator in graph.operators if operator.op == "add"]
    assert sums
    for one in sums:
        specs = [graph.tensors[name] for name in (*one.inputs, one.output)]
        assert nearest_half(*(Steps(np.float32(spec.scale), spec.zero_point) for spec in specs)) > 1e-5
