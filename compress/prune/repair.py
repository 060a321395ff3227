"""Closed-form repair of a pruned network, before any training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.graph.channels import Channels
from compress.graph.network import Network, Node
from compress.graph.operators.operator import Rectifier
from compress.graph.unfold import Taps, as_matrix, by_group, from_matrix
from compress.machine import give_way
from compress.prune.cut import kept_channels
from compress.terminal.progress import tqdm

RIDGE = 0.01
"""Of the mean diagonal of the normal equations."""

SAMPLES = 60_000
"""Positions that a layer is refitted on; deep layers have fewer."""

CHUNK = 8
MEMORY_BYTES = 3_000_000_000
"""For the activations of both networks."""


def repair(
    teacher: Network,
    student: Network,
    channels: Channels,
    kept: Mapping[str, tuple[int, ...]],
    pixels: Tensor,
    solutions: int = 8,
) -> Network:
    """A copy of the student, each convolution refitted by least squares onto the teacher's activations.

    pixels     uint8 [N, H, W, channels]: unlabelled images, of which as many are used as fit into memory
    solutions  how often a layer that a rectifier follows is solved

    Channel reconstruction after He et al. 2017 (arXiv 1707.06168) and ThiNet (arXiv 1707.06342), with four
    differences. Layers are refitted in execution order, and each reads what the already refitted student
    computes, so that errors do not pile up. Where a rectifier follows and the teacher is negative, any negative
    value will do: the target becomes min(student, 0) and the system is solved again (Zhang et al. 2015,
    arXiv 1505.06798, alternate likewise), all solutions from one factorisation. The convolution before an
    addition also absorbs the error of the other branch. The ridge pulls towards the pruned weights, not to zero.
    """
    generator = torch.Generator().manual_seed(0)
    repaired = student.rewritten(student.weights())
    pixels = pixels[: images_in_memory([teacher, student], pixels)]
    heavy, light = _Activations(teacher, pixels), _Activations(repaired, pixels)
    with torch.no_grad(), tqdm(total=len(repaired.weighted()), desc="repair", unit="layer") as progress:
        for node in teacher.nodes[1:]:
            give_way()
            heavy.advance(node)
            if node.name not in repaired.by_name:
                continue
            own = repaired.by_name[node.name]
            if node.kind.weights:
                outputs = kept_channels(node.name, channels, kept)
                samples = _collect(own, repaired, heavy, light, outputs, generator)
                weight, bias = _solve(samples, as_matrix(own, repaired.weight(node.name)), solutions)
                repaired.weight(node.name).copy_(from_matrix(own, weight, repaired.weight(node.name)))
                repaired.bias(node.name).copy_(bias)
                progress.update()
            light.advance(own)
    return repaired


def images_in_memory(nets: list[Network], pixels: Tensor) -> int:
    """How many of the images can be in flight at once: float16 values that are waiting for a reader."""
    size = (pixels.shape[1], pixels.shape[2])
    peak = 0
    for net in nets:
        waiting, live, most = dict(net.readers), 0, 0
        values = {name: shape[1] * shape[2] * shape[3] for name, shape in net.shapes(size).items()}
        for node in net.nodes:
            live += values[node.name]
            most = max(most, live)
            for name in node.inputs:
                waiting[name] -= 1
                live -= values[name] if not waiting[name] else 0
        peak += most
    return max(1, min(len(pixels), MEMORY_BYTES // (2 * peak)))


@dataclass(frozen=True)
class _Chunk:
    """Values of some images, [N, C, H, W]: in float16, which ends at 65,504, divided by a power of two."""

    halves: Tensor
    scale: float

    @classmethod
    def of(cls, values: Tensor) -> "_Chunk":
        peak = float(values.abs().max())
        scale = 2.0 ** (math.frexp(peak)[1] - 15)
        return cls((values / scale).half(), scale)

    def real(self) -> Tensor:
        return self.halves.float() * self.scale

    def at(self, channels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Some channels at n positions, [N, C, n]."""
        return self.halves[:, channels][:, :, rows, columns].float() * self.scale


class _Activations:
    """Values of one network for all images, as chunks of images, freed after their last reader."""

    def __init__(self, net: Network, pixels: Tensor):
        self.net, self.waiting = net, dict(net.readers)
        self.size = (pixels.shape[1], pixels.shape[2])
        self.chunks = {net.input.name: [_Chunk.of(net.real(part)) for part in pixels.split(CHUNK)]}

    def advance(self, node: Node) -> None:
        inputs = [self.chunks[name] for name in node.inputs]
        self.chunks[node.name] = [
            _Chunk.of(self.net.compute(node, [part.real() for part in parts], self.size)) for parts in zip(*inputs)
        ]
        for name in node.inputs:
            self.waiting[name] -= 1
            if not self.waiting[name]:
                del self.chunks[name]

    def shape(self, name: str) -> torch.Size:
        """Of one image's values."""
        return self.chunks[name][0].halves.shape[1:]


@dataclass(frozen=True)
class _Samples:
    """features [G, n, f] and the wanted results [G, n, o] at n positions, for each of G filter groups;
    `before` is the teacher's value before the rectifier, where there is one, `wanted` what should follow it."""

    features: Tensor
    before: Tensor
    wanted: Tensor
    rectifier: Rectifier | None


def _collect(
    node: Node, student: Network, heavy: _Activations, light: _Activations, outputs: Tensor, generator: torch.Generator
) -> _Samples:
    rectifier, skip = _what_follows(student, node, heavy, light)
    groups, weight = node.attrs.groups, student.weight(node.name)
    taps, chunks = Taps(node, weight), heavy.chunks[node.name]
    count, (height, width) = sum(len(chunk.halves) for chunk in chunks), heavy.shape(node.name)[1:]
    positions = min(height * width, -(-SAMPLES // count))  # of each image
    features = torch.empty(groups, count * positions, as_matrix(node, weight).shape[1])  # several times 100 MB
    places = features.split([len(chunk.halves) * positions for chunk in chunks], 1)
    before, wanted = [], []
    for index, chunk in enumerate(chunks):
        picked = torch.randperm(height * width, generator=generator)[:positions]
        rows, columns = picked // width, picked % width
        read = light.chunks[node.inputs[0]][index]
        inputs = taps.at(read.halves, rows, columns) * read.scale
        places[index].copy_(by_group(inputs.flatten(1, 2), groups))
        value = chunk.at(outputs, rows, columns)
        result = value if rectifier is None else rectifier.kind.compute([value], rectifier.attrs)
        if skip:
            narrow = torch.arange(len(outputs))
            given = light.chunks[skip][index].at(narrow, rows, columns)
            result = result + heavy.chunks[skip][index].at(outputs, rows, columns) - given
        before.append(by_group(value, groups))
        wanted.append(by_group(result, groups))
    kind = rectifier.kind.rectifier if rectifier else None
    return _Samples(features, torch.cat(before, 1), torch.cat(wanted, 1), kind)


def _what_follows(net: Network, node: Node, heavy: _Activations, light: _Activations) -> tuple[Node | None, str | None]:
    """The rectifier after a convolution, and the other input of the addition after that, if it is known already."""
    rectifier, last = None, node
    while net.readers[last.name] == 1:
        last = next(n for n in net.nodes if last.name in n.inputs)
        if last.kind.rectifier and rectifier is None:
            rectifier = last
            continue
        if last.op == "add":
            branch = [
                name
                for name in last.inputs
                if name in heavy.chunks and name in light.chunks and name != node.name
                if heavy.shape(name) == heavy.shape(node.name)  # not one that is spread over the other
            ]
            return rectifier, branch[0] if branch else None
        break
    return rectifier, None


def _solve(samples: _Samples, start: Tensor, solutions: int) -> tuple[Tensor, Tensor]:
    """Ridge regression towards `start` -> weights [G, f, o] and bias [G * o]; centres the features where they lie."""
    centre = samples.features.mean(1, keepdim=True)
    features = samples.features.sub_(centre)
    gram = torch.stack([(part.mT @ part).double() for part in features.split(8192, 1)]).sum(0)
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).reshape(-1, 1, 1) + 1e-9
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(gram.shape[1], dtype=torch.float64))
    rounds = solutions if samples.rectifier else 1
    result = None
    for _ in range(rounds):
        goal = _goal(samples, result)
        mean = goal.mean(1, keepdim=True)
        change = features.mT @ (goal - mean - features @ start)
        weight = start + torch.cholesky_solve(change.double(), factor).float()
        result = features @ weight + mean
    return weight, (mean - centre @ weight).flatten()


def _goal(samples: _Samples, result: Tensor | None) -> Tensor:
    """What the convolution should give: where the rectifier cuts, whatever it gives already beyond the limit."""
    if samples.rectifier is None:
        return samples.wanted
    given = samples.before if result is None else result
    goal = torch.where(samples.wanted > 0, samples.wanted, given.clamp(max=0))
    if math.isfinite(ceiling := samples.rectifier.ceiling):
        goal = torch.where(samples.wanted >= ceiling, given.clamp(min=ceiling), goal)
    return goal
