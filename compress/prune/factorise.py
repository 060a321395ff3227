"""Convolutions of k x k as a depthwise k x k and a pointwise 1x1, where that costs less than it saves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.graph.channels import Channels
from compress.graph.network import Network, Node, is_depthwise
from compress.graph.operators.conv import POINTWISE
from compress.graph.unfold import Taps
from compress.machine import give_way
from compress.prune.importance import likelihood_gradients
from compress.terminal.progress import tqdm

RIDGE = 0.01
"""Of the mean diagonal of the normal equations."""

POSITIONS = 1000
"""Of each image, at which a layer is looked at."""

SHARES = tuple(eighth / 8 for eighth in range(9))
"""Of the multiply-accumulates that factorising could save: what is saved in the plans that are compared."""


@dataclass(frozen=True)
class Factors:
    """What a convolution becomes: float32 [I, 1, kh, kw], [O, I, 1, 1] and [O], and the expected rise of the loss, as
    GroupDamage counts it."""

    depthwise: Tensor
    pointwise: Tensor
    bias: Tensor
    damage: float


def measure_factors(net: Network, images: Sequence[Tensor], multilabel: bool = False) -> dict[str, Factors]:
    """Of every convolution that can be factorised, from real images: real values [N, channels, H, W].

    The filter of an input channel is the best one that all its output channels can share: the first right singular
    vector of its weights [O, kh * kw], each output weighted by how much the loss depends on it, the taps by their
    covariance. The pointwise weights are those of least squares towards the convolution's own output on one half of
    the images; the damage is what is left of that output's variance on the other half, weighted in the same way.
    Jaderberg et al. 2014 (arXiv 1405.3866) and Zhang et al. 2015 (arXiv 1505.06798) factorise towards responses too;
    Guo et al. 2018 (arXiv 1808.07241) into depthwise and pointwise, without activations.
    """
    layers = [node for node in net.weighted() if _divisible(node, net.weight(node.name))]
    taps, dependence = _look(net, layers, images, multilabel)
    rough = {
        node.name: _by_channel(net.weight(node.name).detach(), _covariance(taps[node.name]), dependence[node.name])
        for node in layers
    }
    filters = {name: depthwise for name, (depthwise, _) in rough.items()}
    fitted, checked = (_products(net, layers, filters, part) for part in (images[::2], images[1::2] or images))
    found = {}
    for node in layers:
        pointwise, bias = _refit(rough[node.name][1], fitted[node.name])
        left = _left(pointwise, bias, checked[node.name])
        inputs, _, height, width = (len(filters[node.name]), 1, *net.weight(node.name).shape[2:])
        found[node.name] = Factors(
            filters[node.name].reshape(inputs, 1, height, width).float(),
            pointwise[:, :, None, None].float(),
            bias.float(),
            float(dependence[node.name] @ left),
        )
    return found


def factorised(net: Network, channels: Channels, factors: Mapping[str, Factors]) -> tuple[Network, Channels]:
    """A copy in which the convolutions named are factorised. The pointwise one bears the name; the groups of channels
    stay what they are."""
    nodes, weights, segments = [], net.weights(), dict(channels.segments)
    for node in net.nodes:
        if part := factors.get(node.name):
            before = replace(node, name=f"{node.name}.depthwise", attrs=replace(node.attrs, groups=len(part.depthwise)))
            nodes.append(before)
            weights[before.name] = part.depthwise, torch.zeros(len(part.depthwise))
            weights[node.name] = part.pointwise, part.bias
            segments[before.name] = segments[node.inputs[0]]
            node = replace(node, inputs=(before.name,), attrs=POINTWISE)
        nodes.append(node)
    return net.rewritten(weights, nodes), Channels(channels.groups, segments)


def nested(net: Network, factors: Mapping[str, Factors]) -> Iterator[dict[str, Factors]]:
    """Ever more of them, none at first: those that do the least damage for the multiply-accumulates that they save."""
    shapes = net.shapes()
    saved = {name: _saved(net.weight(name), shapes[name]) for name in factors}
    order = sorted((name for name in saved if saved[name] > 0), key=lambda name: factors[name].damage / saved[name])
    sums = [0, *accumulate(saved[name] for name in order)]
    for share in SHARES:
        count = next(place for place, so_far in enumerate(sums) if so_far >= share * sums[-1])
        yield {name: factors[name] for name in order[:count]}


def _saved(weight: Tensor, made: tuple[int, ...]) -> int:
    """Multiply-accumulates of a convolution that factorising saves; `made` is the shape of its result."""
    outputs, inputs, height, width = weight.shape
    return made[2] * made[3] * inputs * (outputs * height * width - height * width - outputs)


def _divisible(node: Node, weight: Tensor) -> bool:
    plain = not node.weights.transposed and node.attrs.groups == 1 and not is_depthwise(node, weight)
    return plain and weight.shape[2] * weight.shape[3] > 1


def _look(
    net: Network, layers: Sequence[Node], images: Sequence[Tensor], multilabel: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """For each layer the products of what its taps read, summed over positions [I, kh * kw + 1, kh * kw + 1], and for
    an image the squared gradients of its outputs [O]; float64."""
    generator = torch.Generator().manual_seed(0)
    products: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    for image in tqdm(images, desc="factorising", unit="image", delay=1):
        give_way()
        values, gradients = likelihood_gradients(net, image, _seen(layers), multilabel, generator)
        for node in layers:
            read, _ = _samples(net, node, values, generator)
            _add(products, node.name, _product(read))
            _add(squares, node.name, gradients[node.name].square().sum((0, 2, 3)).double() / len(images))
    return products, squares


def _products(
    net: Network, layers: Sequence[Node], filters: Mapping[str, Tensor], images: Sequence[Tensor]
) -> dict[str, Tensor]:
    """For each layer the products of what its depthwise filters give and of its own output, summed over positions,
    float64 [I + O + 1, I + O + 1]."""
    generator = torch.Generator().manual_seed(1)
    products: dict[str, Tensor] = {}
    for image in tqdm(images, desc="refitting", unit="image", delay=1):
        give_way()
        with torch.no_grad():
            values = net.run(image, keep=_seen(layers))
        for node in layers:
            read, made = _samples(net, node, values, generator)
            given = torch.einsum("ck,ckn->cn", filters[node.name].float(), read)
            _add(products, node.name, _product(torch.cat([given, made])))
    return products


def _seen(layers: Sequence[Node]) -> list[str]:
    return list(dict.fromkeys(name for node in layers for name in (*node.inputs, node.name)))


def _samples(
    net: Network, node: Node, values: Mapping[str, Tensor], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What a convolution reads at some positions [I, kh * kw, n], and what it makes of it [O, n]."""
    made = values[node.name].detach()
    height, width = made.shape[2:]
    picked = torch.randperm(height * width, generator=generator)[:POSITIONS]
    rows, columns = picked // width, picked % width
    read = Taps(node, net.weight(node.name)).at(values[node.inputs[0]].detach(), rows, columns)
    return read.movedim(0, 2).flatten(2), made[:, :, rows, columns].transpose(0, 1).flatten(1)


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value


def _product(samples: Tensor) -> Tensor:
    """Of features at n positions [..., f, n], and of one [..., f + 1, f + 1]."""
    whole = F.pad(samples, (0, 0, 0, 1), value=1.0)
    return (whole @ whole.mT).double()


def _covariance(products: Tensor) -> Tensor:
    mean = products[..., :-1, -1:] / products[..., -1:, -1:]
    return products[..., :-1, :-1] / products[..., -1:, -1:] - mean @ mean.mT


def _by_channel(weight: Tensor, covariance: Tensor, dependence: Tensor) -> tuple[Tensor, Tensor]:
    """The best depthwise filters [I, k] for weights [O, I, kh, kw] where taps have this covariance [I, k, k], and what
    each gives every output [O, I]; both of equal size, so that integers hold both."""
    taps = covariance.shape[-1]
    floor = 1e-4 * covariance.diagonal(dim1=1, dim2=2).mean() + 1e-12  # a channel that never varies has filters too
    spread, turned = torch.linalg.eigh(covariance + floor * torch.eye(taps, dtype=torch.float64))
    root = turned @ spread.clamp_min(floor).sqrt().diag_embed() @ turned.mT  # symmetric
    seen = weight.flatten(2).transpose(0, 1).double() @ root  # [I, O, k]
    weighted = dependence.sqrt()[:, None] * seen
    first = torch.linalg.eigh(weighted.mT @ weighted).eigenvectors[..., -1:]  # of the largest eigenvalue, [I, k, 1]
    filters, shares = torch.linalg.solve(root, first).squeeze(2), (seen @ first).squeeze(2)
    size = shares.norm(dim=1, keepdim=True).clamp_min(1e-6).sqrt()
    return filters * size, (shares / size).T


def _refit(rough: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression towards `rough` -> pointwise weights [O, I] and bias [O]."""
    inputs = rough.shape[1]
    covariance, mean = _covariance(products), products[:-1, -1] / products[-1, -1]
    given, wanted = covariance[:inputs, :inputs], covariance[inputs:, :inputs]
    ridge = RIDGE * given.diagonal().mean() + 1e-9
    change = torch.linalg.solve(given + ridge * torch.eye(inputs, dtype=torch.float64), (wanted - rough @ given).mT)
    pointwise = rough + change.mT
    return pointwise, mean[inputs:] - pointwise @ mean[:inputs]


def _left(pointwise: Tensor, bias: Tensor, products: Tensor) -> Tensor:
    """The mean square of what an output is off [O]."""
    off = torch.cat([-pointwise, torch.eye(len(bias), dtype=torch.float64), -bias[:, None]], 1)
    return ((off @ products) * off).sum(1).clamp_min(0) / products[-1, -1]
