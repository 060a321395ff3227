"""A network that computes as its int8 file will: fake-quantized weights and activations, learned ranges."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.network import CONVS, Network, Node
from compress.quantize.placement import Placement, place

LOWEST, HIGHEST = -128, 127
WEIGHT_LIMIT = 127


class _FakeQuantize(torch.autograd.Function):
    """x -> scale * (clamp(round(x / scale) + zero point) - zero point), with the gradients of
    LSQ (Esser et al. 2020, arXiv 1902.08153) for x and for the scale.

    Inside the range d/dscale is (y - x) / scale, outside it is y / scale: summed against the incoming
    gradient g, and with h = g inside the range and 0 outside, that is (g.y - h.x) / scale.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        y, inside = torch._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
            x, scale, zero_point, torch.ones(1, device=x.device), LOWEST, HIGHEST
        )
        ctx.save_for_backward(x, y, inside, scale)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, y, inside, scale = ctx.saved_tensors
        passed = gradient * inside
        total = torch.dot(gradient.flatten(), y.flatten()) - torch.dot(passed.flatten(), x.flatten())
        return passed, (total / scale / (x.numel() * HIGHEST) ** 0.5).reshape(scale.shape), None


class QuantizedNetwork(Network):
    """A network with quantizers where the placement puts them. Weights: symmetric, per output channel, the
    scale following the largest weight. Activations: per tensor; scales are learned, zero points stay as calibrated.
    """

    def __init__(self, net: Network, ranges: Mapping[str, tuple[float, float]]):
        """`ranges`: lowest and highest real value of each scale group that is not fixed."""
        super().__init__(net.nodes, net.weights(), net.output)
        self.placement: Placement = place(net)
        self.log_scales = nn.ParameterDict()
        self.zero_points = {}
        for group, (low, high) in ranges.items():
            scale, self.zero_points[group] = affine(low, high)
            self.log_scales[group.replace(".", "/")] = nn.Parameter(torch.tensor([scale]).log())

    def to_state(self) -> dict[str, Any]:
        return {**super().to_state(), "zero_points": dict(self.zero_points)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "QuantizedNetwork":
        net = cls(Network.from_state(state), dict.fromkeys(state["zero_points"], (0.0, 1.0)))
        net.zero_points = dict(state["zero_points"])
        net.load_state_dict(state["weights"])
        return net

    def scale(self, group: str) -> Tensor:
        """Scale of a group, [1] float32."""
        if group in self.placement.fixed:
            return torch.tensor([self.placement.fixed[group][0]], device=self.weight(self.convs()[0].name).device)
        return self.log_scales[group.replace(".", "/")].exp()

    def zero_point(self, group: str) -> int:
        return self.placement.fixed[group][1] if group in self.placement.fixed else self.zero_points[group]

    def compute(self, node: Node, inputs: list[Tensor], input_size: tuple[int, int]) -> Tensor:
        if node.op in CONVS:
            weight = self.weight(node.name)
            axis = channel_axis(node)
            weight = torch.fake_quantize_per_channel_affine(
                weight,
                weight_scale(node, weight),
                torch.zeros(weight.shape[axis], dtype=torch.int32, device=weight.device),
                axis,
                -WEIGHT_LIMIT,
                WEIGHT_LIMIT,
            )
            value = CONVS[node.op](inputs, node.attrs, weight, self.bias(node.name))
        else:
            value = super().compute(node, inputs, input_size)
        group = self.placement.group_of.get(node.name)
        if group is None or self._keeps_scale(node):
            return value
        zero_point = torch.tensor([self.zero_point(group)], dtype=torch.int32, device=value.device)
        return _FakeQuantize.apply(value, self.scale(group), zero_point)

    def _keeps_scale(self, node: Node) -> bool:
        """Concat and maximum of integers are integers of the same scale already."""
        return node.op in ("concat", "max_pool")


def channel_axis(node: Node) -> int:
    """The axis of a convolution's weights that is its output channels."""
    return 1 if node.op == "conv_transpose" else 0


def weight_scale(node: Node, weight: Tensor) -> Tensor:
    """[output channels] float32: the largest weight is 127. A channel that is all but zero beside the others gets
    a larger scale: with its own, its int32 bias would overflow and kernels refuse the ratio of scales."""
    others = [axis for axis in range(4) if axis != channel_axis(node)]
    largest = weight.detach().abs().amax(others)
    return largest.clamp_min(max(1e-4 * float(largest.max()), 1e-5)) / WEIGHT_LIMIT


def affine(low: float, high: float) -> tuple[float, int]:
    """Scale and int8 zero point of the narrowest int8 range that holds 0, low and high; that of 0..1 for a tensor
    that is always zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-5:
        low, high = 0.0, 1.0
    scale = (high - low) / (HIGHEST - LOWEST)
    return scale, round(LOWEST - low / scale)
