"""Steps that count in what the layers compute, not in how their weights happen to be scaled."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.network import Network, Node
from compress.prune.unfold import Taps, as_matrix, by_group_all, from_matrix

DAMPING = 0.03
"""Of the mean diagonal of a layer's second moments; the closed-form repair has a ridge of the same kind."""

MOMENTUM, SCALE = 0.9, 0.95
POSITIONS = 4096
"""Positions that the second moments of a layer's inputs are taken from, at least; twice as many as unknowns."""

CHUNK = 4
SHARE = 0.05
"""Of the learning rate, for what is no convolution's weight: the scales of quantizers, in their logarithm."""


class Natural(torch.optim.Optimizer):
    """Gradient descent on the outputs of every convolution instead of on its weights (FOOF: Benzing 2022,
    arXiv 2201.12250).

    The weights that a cut and a repair leave are of very different sizes, and what a convolution reads is strongly
    correlated; so one rate for all weights is too much for some directions and next to nothing for others. Here the
    gradient is multiplied by the inverse of the second moments of the layer's inputs, a constant 1 for the bias among
    them, taken from real images, and channels count relative to their spread. Differently from the paper the step has
    a length: averaged over steps, divided by the root mean square of the gradient in the same norm, as Adam does it
    for every weight alone, times `lr`: about the share of its spread by which a step moves an output.
    """

    def __init__(self, net: Network, learning_rate: float):
        """Before the first step it must `measure`."""
        super().__init__(list(net.parameters()), {"lr": learning_rate})
        self.net = net
        self.moments: dict[str, _Moments] = {}
        convs = {parameter for pair in net.weights().values() for parameter in pair}
        self.others = [parameter for parameter in net.parameters() if parameter not in convs]

    def measure(self, net: Network, images: Tensor) -> None:
        """Take the second moments from `net`, which has the layers of the network that is trained. images: real values
        [N, 3, H, W]."""
        sums = {node.name: _Sums(node, net, len(images)) for node in net.convs()}
        kept = {name for node in net.convs() for name in (node.name, node.inputs[0])}
        generator = torch.Generator().manual_seed(0)
        device = net.weight(net.convs()[0].name).device
        with torch.no_grad():
            for part in images.to(device).split(CHUNK):
                values = net.run(part, keep=kept)
                for node in net.convs():
                    sums[node.name].add(values[node.inputs[0]], values[node.name], generator)
            self.moments = {name: one.moments() for name, one in sums.items()}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        rate = self.param_groups[0]["lr"]
        for node in self.net.convs():
            weight, bias = self.net.weight(node.name), self.net.bias(node.name)
            if weight.grad is not None and bias.grad is not None:
                change = self._change(node, weight, weight.grad, bias.grad, rate)
                weight.sub_(from_matrix(node, change[:, :-1], weight))
                bias.sub_(self.moments[node.name].one * change[:, -1].flatten())
        for parameter in self.others:
            if (slope := parameter.grad) is not None:
                parameter.sub_(self._averaged(parameter, slope, slope, parameter.numel(), SHARE * rate))

    def _change(self, node: Node, weight: Tensor, by_weight: Tensor, by_bias: Tensor, rate: float) -> Tensor:
        """What a step takes from the weights and the bias of a convolution, [G, f + 1, o]."""
        moments = self.moments[node.name]
        slope = torch.cat([as_matrix(node, by_weight), moments.one * by_bias.reshape(moments.spread.shape)], 1)
        slope = slope * moments.spread
        return self._averaged(weight, slope, moments.inverse @ slope, by_bias.numel(), rate) * moments.spread

    def _averaged(self, key: Tensor, slope: Tensor, direction: Tensor, outputs: int, rate: float) -> Tensor:
        """The average of `direction` over steps, of the length `rate` for each output where the steps agree."""
        state = self.state[key]
        if not state:
            state.update(steps=0, average=torch.zeros_like(direction), power=torch.zeros((), device=slope.device))
        state["steps"] += 1
        state["average"].lerp_(direction, 1 - MOMENTUM)
        state["power"].lerp_((slope * direction).sum() / outputs, 1 - SCALE)
        average = state["average"] / (1 - MOMENTUM ** state["steps"])
        power = state["power"] / (1 - SCALE ** state["steps"])
        return rate * average / (power.sqrt() + 1e-20)


@dataclass(frozen=True)
class _Moments:
    """Of one convolution, by group of filters: `inverse` [G, f + 1, f + 1] of its inputs' second moments, the last of
    them being the constant `one`, and the standard deviation of its outputs, `spread` [G, 1, o]."""

    inverse: Tensor
    spread: Tensor
    one: float


class _Sums:
    """Second moments of what a convolution reads and gives, as images come in."""

    def __init__(self, node: Node, net: Network, images: int):
        self.groups = node.attrs["groups"]
        self.taps = Taps(node, net.weight(node.name))
        unknowns = as_matrix(node, net.weight(node.name)).shape[1]
        self.each = -(-max(POSITIONS, 2 * unknowns) // images)
        self.count = 0
        self.second = self.first = self.outputs = self.squares = torch.zeros(())

    def add(self, given: Tensor, made: Tensor, generator: torch.Generator) -> None:
        height, width = made.shape[2:]
        picked = torch.randperm(height * width, generator=generator)[: self.each].to(made.device)
        taps = self.taps.at(given, picked // width, picked % width)
        features = by_group_all([taps], self.groups)
        self.second = self.second + features.mT @ features
        self.first = self.first + features.sum(1, keepdim=True)
        self.count += features.shape[1]
        values = made.flatten(2)[:, :, picked].float()
        self.outputs = self.outputs + values.sum((0, 2))
        self.squares = self.squares + values.square().sum((0, 2))

    def moments(self) -> _Moments:
        second, first = self.second / self.count, self.first / self.count
        one = float(second.diagonal(dim1=1, dim2=2).mean().sqrt()) or 1.0
        corner = torch.full_like(first[:, :, :1], one * one)
        whole = torch.cat([torch.cat([second, one * first], 1), torch.cat([one * first.mT, corner], 1)], 2)
        ridge = DAMPING * whole.diagonal(dim1=1, dim2=2).mean(1).reshape(-1, 1, 1) + 1e-12
        unit = torch.eye(whole.shape[1], device=whole.device)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(whole + ridge * unit).L)
        spread = (self.squares / self.count - (self.outputs / self.count).square()).clamp_min(0).sqrt()
        spread = spread.clamp_min(0.05 * float(spread.mean()) + 1e-12)
        return _Moments(inverse, spread.reshape(self.groups, 1, -1), one)
