"""A network that computes as its int8 file will: fake-quantized weights and activations, learned ranges.

Activations are held in steps of their scale, real value / scale = integer - zero point, and every scale is multiplied
into the weights of the convolutions around it. So a quantizer is a rounding and a clamp and no more, the rectifier
before it is the clamp, and the gradients of the scales come with those of the weights, without a pass over
activations.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from compress.graph.network import Network, Node
from compress.graph.operators.operator import OnSteps
from compress.quantize.placement import Placement, place

LOWEST, HIGHEST = -128, 127
WEIGHT_LIMIT = 127
MOST_STEPS = 255
"""Of the output, that one step of the input times one of the weight makes."""
BIAS_LIMIT = 2**29 - 2**7  # so that what float32 rounds is within 2**29
"""Of an int32, so that what is added to it does not overflow."""


class _Quantize(torch.autograd.Function):
    """x in steps -> clamp(round(x), lowest, highest); the gradient passes where x is between the two, as in
    LSQ (Esser et al. 2020, arXiv 1902.08153)."""

    @staticmethod
    def forward(ctx, x: Tensor, lowest: int, highest: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits = lowest, highest
        return x.round().clamp_(lowest, highest)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, *ctx.limits), None, None


class _Round(torch.autograd.Function):
    """round(x), for what cannot leave the range; the gradient passes."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


class QuantizedNetwork(Network):
    """A network with quantizers where the placement puts them. Weights: symmetric, per output channel, the
    scale following the largest weight. Activations: per tensor; scales are learned, zero points stay as calibrated.

    Under `torch.autocast("cpu", torch.bfloat16)` convolutions take bfloat16: steps, at most 255, are exact in its 8
    bits, weights are rounded to a part in 512, and a value may be rounded to the next step. Without it, as in
    evaluation, everything is float32 and gives the integers that the files give, but for ties.

    Convolutions in `keep_float` keep their weights as they are, and compute in float between the same integers.
    """

    def __init__(
        self, net: Network, ranges: Mapping[str, tuple[float, float]], keep_float: Collection[str] = frozenset()
    ):
        """`ranges`: lowest and highest real value of each scale group that is not fixed."""
        super().__init__(net.nodes, net.weights(), net.output)
        self.keep_float = frozenset(keep_float)
        self.placement: Placement = place(net)
        self.log_scales = nn.ParameterDict()
        self.zero_points = {}
        for group, (low, high) in ranges.items():
            scale, self.zero_points[group] = affine(low, high)
            self.log_scales[group.replace(".", "/")] = nn.Parameter(torch.tensor(scale).log())

    def to_state(self) -> dict[str, Any]:
        return {
            **super().to_state(),
            "zero_points": dict(self.zero_points),
            "keep_float": sorted(self.keep_float),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "QuantizedNetwork":
        ranges = dict.fromkeys(state["zero_points"], (0.0, 1.0))
        net = cls(Network.from_state(state), ranges, state.get("keep_float", ()))
        net.zero_points = dict(state["zero_points"])
        net.load_state_dict(state["weights"])
        return net

    def unquantized(self) -> Network:
        """The float network with the same weights."""
        return self.rewritten(self.weights())

    def scale(self, group: str) -> Tensor:
        """Scale of a group, [] float32."""
        if group in self.placement.fixed:
            return torch.full((), self.placement.fixed[group][0], device=self.device)
        return self.log_scales[group.replace(".", "/")].exp()

    def zero_point(self, group: str) -> int:
        return self.placement.fixed[group][1] if group in self.placement.fixed else self.zero_points[group]

    def unit(self, name: str) -> str:
        """The group in whose steps a tensor is held; before a fused rectifier it is the rectifier's."""
        fused = self.placement.fused.get(name)
        return self.placement.group_of[fused.name if fused else name]

    def encode(self, name: str, real: Tensor) -> Tensor:
        return real / self.scale(self.unit(name))

    def decode(self, name: str, value: Tensor) -> Tensor:
        return value.float() * self.scale(self.unit(name))

    def compute(self, node: Node, inputs: list[Tensor], input_size: tuple[int, int]) -> Tensor:
        unit = self.unit(node.name)
        match node.kind.on_steps:
            case OnSteps.MOVES:  # of integers of one scale: integers of that scale
                joint = [self._brought(x, self.unit(name), unit) for name, x in zip(node.inputs, inputs)]
                return super().compute(node, joint, input_size)
            case OnSteps.AVERAGES:
                return _Round.apply(super().compute(node, inputs, input_size))
            case OnSteps.FILTERS:
                value = self._filtered(node, inputs, self.scale(unit))
            case OnSteps.RECTIFIES:
                value = self._rectified(node, inputs[0], unit)
            case OnSteps.LINEAR:  # from the inputs' steps to the result's at once
                scaled = [x * (self.scale(self.unit(n)) / self.scale(unit)) for n, x in zip(node.inputs, inputs)]
                value = super().compute(node, scaled, input_size)
            case OnSteps.REAL:
                real = [self.decode(name, x) for name, x in zip(node.inputs, inputs)]
                value = self.encode(node.name, super().compute(node, real, input_size))
            case other:
                assert_never(other)
        if node.name in self.placement.fused:
            return value
        zero_point = self.zero_point(unit)
        return _Quantize.apply(value, LOWEST - zero_point, HIGHEST - zero_point)

    def _brought(self, value: Tensor, given: str, unit: str) -> Tensor:
        """Integers of one group's scale -> those of another's."""
        if given == unit:
            return value
        zero_point = self.zero_point(unit)
        return _Quantize.apply(
            value * (self.scale(given) / self.scale(unit)), LOWEST - zero_point, HIGHEST - zero_point
        )

    def _filtered(self, node: Node, inputs: list[Tensor], scale: Tensor) -> Tensor:
        given = self.scale(self.unit(node.inputs[0]))
        weight, bias, ratio = self.weight(node.name), self.bias(node.name), given / scale
        if node.name not in self.keep_float:
            steps = weight_scale(node, weight, bias, given.detach(), scale.detach())
            weight = _Round.apply(weight / by_channel(node, steps)).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
            ratio = by_channel(node, steps * ratio)
        return node.kind.compute(inputs, node.attrs, weight * ratio, bias / scale)

    def _rectified(self, node: Node, value: Tensor, unit: str) -> Tensor:
        """Where the integers begin at zero and end below the ceiling, the clamp that follows is the rectifier."""
        assert node.kind.rectifier
        if self.zero_point(unit) != LOWEST:
            value = torch.relu(value)
        if math.isfinite(ceiling := node.kind.rectifier.ceiling):
            value = torch.minimum(value, ceiling / self.scale(unit))
        return value


def by_channel(node: Node, values: Tensor) -> Tensor:
    """One value for each output channel, [outputs], in the shape that multiplies the node's weight."""
    return values.reshape([-1 if axis == node.weights.outputs else 1 for axis in range(4)])


def weight_scale(
    node: Node, weight: Tensor, bias: Tensor, input_scale: Tensor | float, output_scale: Tensor | float
) -> Tensor:
    """[output channels] float32: the largest weight is 127. A channel that is all but zero beside the others, or beside
    its own bias, gets a larger scale: with its own, its int32 bias would overflow and kernels refuse the ratio of
    scales. One of which a single step would be more than all steps of the output gets a smaller one, and its weights
    are clipped: kernels refuse that ratio too, and the output is at its ends anyway."""
    others = [axis for axis in range(4) if axis != node.weights.outputs]
    largest = weight.detach().abs().amax(others).clamp_max(WEIGHT_LIMIT * MOST_STEPS * output_scale / input_scale)
    least = (1e-4 * largest.max()).clamp_min(1e-5)
    biases = bias.detach().abs().reshape(-1, len(largest)).amax(0)
    return torch.maximum(torch.maximum(largest, least) / WEIGHT_LIMIT, biases / (input_scale * BIAS_LIMIT))


def affine(low: float, high: float) -> tuple[float, int]:
    """Scale and int8 zero point of the narrowest int8 range that holds 0, low and high; that of 0..1 for a tensor
    that is always zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-5:
        low, high = 0.0, 1.0
    scale = (high - low) / (HIGHEST - LOWEST)
    return scale, round(LOWEST - low / scale)
