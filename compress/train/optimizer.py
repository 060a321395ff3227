"""Steps that count in what the layers compute, not in how their weights happen to be scaled."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.graph.network import Network, Node
from compress.graph.unfold import Taps, as_matrix, by_group, by_output, from_output

DAMPING = 0.03
"""Of the mean square of what a layer reads; the closed-form repair has a ridge of the same kind."""

SILENT = 1e-3
"""Of the power of a layer's inputs: a group of filters is taken to read at least so much. One that read nothing in the
images that were looked at may read something in a step, which would move it without bound else."""

MOMENTUM, SCALE = 0.9, 0.95
POSITIONS = 4096
"""Positions that the moments of a layer's inputs are taken from, at least; twice as many as unknowns."""

CHUNK = 4
SHARE = 0.05
"""Of the learning rate, for what is no convolution's weight: the scales of quantizers, in their logarithm."""


class Natural(torch.optim.Optimizer):
    """Gradient descent on the outputs of every convolution instead of on its weights (FOOF: Benzing 2022,
    arXiv 2201.12250).

    The weights that a cut and a repair leave are of very different sizes, and what a convolution reads is strongly
    correlated; so one rate for all weights is too much for some directions and next to nothing for others. Here the
    gradient is multiplied by the inverse of the covariance of the layer's inputs, taken from real images, and channels
    count relative to how much they vary; a bias is moved so that it means the level of its output, whatever the mean of
    the inputs. Differently from the paper the covariance is one over channels times one over the kernel's positions,
    with the variances along their common eigenvectors as they are (EKFAC: George et al. 2018, arXiv 1806.03884), which
    makes a step several times cheaper; and the step has a length: averaged over steps, divided by the root mean square
    of the gradient in the same norm, as Adam does it for every weight alone, times `lr`: about the share of its
    standard deviation by which a step moves an output.
    """

    def __init__(self, net: Network, learning_rate: float):
        """Before the first step it must `measure`. The rate and the number of steps are tensors on the network's
        device, which a step that is replayed (`compress.train.device.Replayed`) reads anew."""
        parameters = list(net.parameters())
        rate, steps = (torch.tensor(value, device=parameters[0].device) for value in (learning_rate, 0.0))
        super().__init__(parameters, {"lr": rate, "steps": steps})
        self.net = net
        self.moments: dict[str, _Moments] = {}
        convs = {parameter for pair in net.weights().values() for parameter in pair}
        self.others = [parameter for parameter in net.parameters() if parameter not in convs]

    def measure(self, net: Network, images: Tensor) -> None:
        """Take the moments from `net`, which has the layers of the network that is trained. images: real values
        [N, 3, H, W]. The averages of steps before are dropped: in the new moments they would be too long where
        activations have grown."""
        sums = {node.name: _Sums(node, net, len(images)) for node in net.weighted()}
        kept = {name for node in net.weighted() for name in (node.name, node.inputs[0])}
        generator = torch.Generator().manual_seed(0)
        device = net.weight(net.weighted()[0].name).device
        with torch.no_grad():
            for part in images.to(device).split(CHUNK):
                values = net.run(part, keep=kept)
                for node in net.weighted():
                    sums[node.name].add(values[node.inputs[0]], values[node.name], generator)
            self.moments = {name: one.moments() for name, one in sums.items()}
        self.state.clear()
        self.param_groups[0]["steps"].zero_()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        rate, steps = (self.param_groups[0][name] for name in ("lr", "steps"))
        steps.add_(1)
        corrected = rate / (1 - MOMENTUM**steps), 1 - SCALE**steps
        for node in self.net.weighted():
            weight, bias = self.net.weight(node.name), self.net.bias(node.name)
            if weight.grad is not None and bias.grad is not None:
                self._step(node, (weight, weight.grad), (bias, bias.grad), corrected)
        for parameter in self.others:
            if (gradient := parameter.grad) is not None:
                length, (average,) = self._averaged(parameter, gradient.square().mean(), [gradient], corrected)
                parameter.sub_(SHARE * length * average)

    def _step(
        self,
        node: Node,
        weights: tuple[Tensor, Tensor],
        biases: tuple[Tensor, Tensor],
        corrected: tuple[Tensor, Tensor],
    ) -> None:
        """Of one convolution, each with its gradient. The bias' share of the direction is that of the level, which has
        a variance of 1."""
        (weight, by_weight), (bias, by_bias) = weights, biases
        moments = self.moments[node.name]
        level = by_bias.reshape(moments.std.shape) * moments.std
        gradient = (by_output(node, by_weight) * moments.std).addcmul_(level, moments.mean, value=-1)
        direction = moments.whitened(gradient)
        power = (_dot(gradient, direction) + _dot(level, level)) / bias.numel()
        length, (change, shift) = self._averaged(weight, power, [direction, level], corrected)
        length = length * moments.std
        change, shift = change * length, shift * length
        weight.sub_(from_output(node, change, weight))
        bias.sub_((shift - (change * moments.mean).sum((2, 3), keepdim=True)).flatten())

    def _averaged(
        self, key: Tensor, power: Tensor, directions: list[Tensor], corrected: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The averages of `directions` over steps, and what to multiply them by, so that they have the rate's length
        for each output where the steps agree. `corrected`: the rate, over the share of its weights that an average has
        been given after so few steps, and that share of `power`'s."""
        state = self.state[key]
        if not state:
            state.update(average=[torch.zeros_like(each) for each in directions], power=torch.zeros_like(power))
        torch._foreach_lerp_(state["average"], directions, 1 - MOMENTUM)
        state["power"].lerp_(power, 1 - SCALE)
        rate, share = corrected
        size = (state["power"] / share).sqrt() + 1e-20
        return rate / size, state["average"]


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return torch.dot(one.flatten(), other.flatten())


@dataclass(frozen=True)
class _Moments:
    """Of one convolution, by group of filters: the `mean` of its inputs, [G, 1, k, c]; their covariance as eigenvectors
    over channels, [G, c, c], and over the positions of the kernel, [G, k, k], with `inverse` [G, 1, k, c] of the
    variances along them; and the standard deviation of its outputs, `std` [G, o, 1, 1]."""

    mean: Tensor
    channels: Tensor
    positions: Tensor
    inverse: Tensor
    std: Tensor

    def whitened(self, gradient: Tensor) -> Tensor:
        """[G, o, k, c] times the covariance's inverse."""
        turned = (gradient.flatten(1, 2) @ self.channels).reshape(gradient.shape)
        scaled = (self.positions.mT[:, None] @ turned) * self.inverse
        back = self.positions[:, None] @ scaled
        return (back.flatten(1, 2) @ self.channels.mT).reshape(gradient.shape)


class _Sums:
    """Second moments of what a convolution reads and gives, as images come in."""

    def __init__(self, node: Node, net: Network, images: int):
        self.groups = node.attrs.groups
        self.taps = Taps(node, net.weight(node.name))
        unknowns = as_matrix(node, net.weight(node.name)).shape[1]
        self.each = -(-max(POSITIONS, 2 * unknowns) // images)
        self.count = 0
        self.second = self.first = self.outputs = self.squares = torch.zeros(())

    def add(self, given: Tensor, made: Tensor, generator: torch.Generator) -> None:
        height, width = made.shape[2:]
        picked = torch.randperm(height * width, generator=generator)[: self.each].to(made.device)
        taps = self.taps.at(given, picked // width, picked % width)
        features = by_group(taps.flatten(1, 2), self.groups)
        self.second = self.second + features.mT @ features
        self.first = self.first + features.sum(1, keepdim=True)
        self.count += features.shape[1]
        values = made.flatten(2)[:, :, picked].float()
        self.outputs = self.outputs + values.sum((0, 2))
        self.squares = self.squares + values.square().sum((0, 2))

    def moments(self) -> _Moments:
        mean = (self.first / self.count).mT
        second = self.second / self.count
        power = second.diagonal(dim1=1, dim2=2).mean(1)
        ridge = DAMPING * torch.maximum(power, SILENT * power.mean()).reshape(-1, 1, 1, 1) + 1e-12
        groups, kernel = len(second), math.prod(self.taps.kernel)
        four = (second - mean @ mean.mT).reshape(groups, -1, kernel, second.shape[1] // kernel, kernel)
        values, channels = _axes(torch.einsum("gctdt->gcd", four) / kernel)
        turned = torch.einsum("gca,gctdu,gda->gatu", channels, four, channels)
        _, positions = _axes((turned / (values.clamp_min(0)[:, :, None, None] + ridge)).mean(1))
        variances = torch.einsum("gtb,gatu,gub->gab", positions, turned, positions).clamp_min(0)
        std = (self.squares / self.count - (self.outputs / self.count).square()).clamp_min(0).sqrt()
        std = std.clamp_min(0.05 * float(std.mean()) + 1e-12)
        inverse = (1 / (variances[..., None] + ridge)).reshape(groups, 1, -1, kernel).mT
        mean = mean.reshape(groups, 1, -1, kernel).mT
        return _Moments(mean.contiguous(), channels, positions, inverse.contiguous(), std.reshape(groups, -1, 1, 1))


def _axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, in float64, where the iteration ends for any finite matrix; for one that is not
    finite, some axes: the loss will say that it is not."""
    finite = torch.nan_to_num(covariance.double(), nan=0.0, posinf=0.0, neginf=0.0)
    values, vectors = torch.linalg.eigh(finite)
    return values.to(covariance.dtype), vectors.to(covariance.dtype)
