"""Ranges of activations from real images, and what can be mended without training."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compress.graph.network import Network, Node, is_depthwise
from compress.graph.operators.operator import Channels
from compress.quantize.placement import place
from compress.quantize.training import HIGHEST, LOWEST, QuantizedNetwork
from compress.terminal.progress import tqdm

LARGEST_BALANCE = 64.0
"""How many times larger a channel is made at most: one that hardly ever speaks would only amplify its rounding."""

Ranges = dict[str, tuple[float, float]]


def calibrate(net: Network, images: Sequence[Tensor], percentile: float = 99.99) -> Ranges:
    """Lowest and highest value of each scale group that is not fixed, over real values [N, channels, H, W]; the
    average over images of each image's percentile, which a single outlier cannot stretch."""
    return calibrate_each(net, images, (percentile,))[0]


def calibrate_each(net: Network, images: Sequence[Tensor], percentiles: Sequence[float]) -> list[Ranges]:
    """The same for several percentiles at once."""
    placement = place(net)
    wanted = {name for name, group in placement.group_of.items() if group not in placement.fixed}
    sums: list[dict[str, list[tuple[float, float]]]] = [{} for _ in percentiles]
    with torch.no_grad():
        for image in tqdm(images, desc="calibration", unit="image", delay=1):
            found: list[Ranges] = [{} for _ in percentiles]
            for name, value in net.run(image, keep=wanted).items():
                if name not in wanted:
                    continue
                group, flat = placement.group_of[name], value.flatten()
                counts = [max(1, round(flat.numel() * (1 - percentile / 100))) for percentile in percentiles]
                highest = torch.topk(flat, max(counts)).values
                lowest = torch.topk(flat, max(counts), largest=False).values
                for bounds, count in zip(found, counts):
                    low, high = float(lowest[count - 1]), float(highest[count - 1])
                    known = bounds.get(group, (low, high))
                    bounds[group] = (min(low, known[0]), max(high, known[1]))
            for all_, bounds in zip(sums, found):
                for group, pair in bounds.items():
                    all_.setdefault(group, []).append(pair)
    return [
        {group: (sum(p[0] for p in pairs) / len(pairs), sum(p[1] for p in pairs) / len(pairs))
         for group, pairs in all_.items()}
        for all_ in sums
    ]  # fmt: skip


def correct_biases(quantized: QuantizedNetwork, net: Network, images: Tensor) -> None:
    """Shift each convolution's bias (in place) so that its channels have the means that they have in `net`, counting
    what the quantizer after it lets through.

    images: real values [N, channels, H, W]. In execution order, so that each layer is corrected for what the corrected
    ones before it give (Nagel et al. 2019, arXiv 1906.04721, section 4.2). Both means are of values clipped to the
    range of the int8 output: a range that leaves out the largest values leaves them out of both, where their absence
    would otherwise be made good by all the others.
    """
    means: dict[str, Tensor] = {}

    def passed(node: Node, value: Tensor) -> Tensor:
        unit = quantized.unit(node.name)
        scale, zero_point = quantized.scale(unit), quantized.zero_point(unit)
        return value.clamp((LOWEST - zero_point) * scale, (HIGHEST - zero_point) * scale).mean((0, 2, 3))

    def note(node: Node, value: Tensor) -> Tensor:
        if node.kind.weights:
            means[node.name] = passed(node, value)
        return value

    def correct(node: Node, value: Tensor) -> Tensor:
        if not node.kind.weights:
            return value
        shift = means[node.name] - passed(node, value)
        quantized.bias(node.name).add_(shift)
        return value + shift.reshape(1, -1, 1, 1)

    with torch.no_grad():
        net.run(images, visit=note)
        quantized.run(images, visit=correct)


def balance(net: Network, images: Sequence[Tensor]) -> Network:
    """The same function, with channels that share a scale brought to the same peak.

    A channel whose peak over real images is small beside that of its scale group uses few of the 256 steps. Where all
    that reads it are convolutions, through homogeneous operators, it is made larger and their weights smaller by as
    much (cross-layer equalisation, Nagel et al. 2019, arXiv 1906.04721, section 4.1, from peaks of activations instead
    of weights). images: real values [N, channels, H, W]; a peak is the average over images of the largest value.
    """
    shapes = net.shapes()
    readers = {node.name: _reading_convs(net, node, shapes) for node in net.weighted()}
    placement = place(net)
    ends = {name: placement.fused[name].name if name in placement.fused else name for name in readers}
    peaks: dict[str, Tensor] = {}
    with torch.no_grad():
        for image in tqdm(images, desc="channel peaks", unit="image", delay=1):
            values = net.run(image, keep=set(ends.values()))
            for name, end in ends.items():
                peak = values[end].abs().amax((0, 2, 3)) / len(images)
                peaks[name] = peaks[name] + peak if name in peaks else peak
    largest: dict[str, float] = {}
    for name, end in ends.items():
        group = placement.group_of[end]
        largest[group] = max(largest.get(group, 0.0), float(peaks[name].max()))
    weights = {name: (weight.detach().clone(), bias.detach().clone()) for name, (weight, bias) in net.weights().items()}
    for name, reading in readers.items():
        if not reading or placement.group_of[ends[name]] in placement.fixed:
            continue
        gain = (largest[placement.group_of[ends[name]]] / peaks[name].clamp_min(1e-12)).clamp(1.0, LARGEST_BALANCE)
        gain[peaks[name] == 0] = 1.0
        node = net.by_name[name]
        weight, bias = weights[name]
        weights[name] = node.scale_outputs(weight, gain), bias * gain
        for reader, offset in reading:
            _divide_inputs(reader, weights[reader.name][0], offset, gain)
    return net.rewritten(weights)


def _reading_convs(net: Network, conv: Node, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[Node, int]]:
    """The convolutions that alone read the channels of `conv`, each with the index that the first has there; empty
    where something else reads them too."""
    found: list[tuple[Node, int]] = []
    waiting = [(conv.name, 0)]
    while waiting:
        name, offset = waiting.pop()
        if name == net.output:
            return []
        for node in net.nodes:
            if name not in node.inputs:
                continue
            if node.kind.weights:
                weight = net.weight(node.name)
                if node.attrs.groups > 1 and (node.weights.transposed or not is_depthwise(node, weight)):
                    return []
                found.append((node, offset))
            elif not node.kind.homogeneous:
                return []
            elif node.kind.channels is Channels.JOINS:
                before = 0
                for other in node.inputs:
                    if other == name:
                        waiting.append((node.name, offset + before))
                    before += shapes[other][1]
            else:
                waiting.append((node.name, offset))
    return found


def _divide_inputs(node: Node, weight: Tensor, offset: int, gain: Tensor) -> None:
    """Divide a convolution's weights (in place) by the gain of the input channels from `offset` on."""
    part = slice(offset, offset + len(gain))
    if node.weights.inputs == 0 or node.attrs.groups > 1:
        weight[part] /= gain.reshape(-1, 1, 1, 1)
    else:
        weight[:, part] /= gain.reshape(1, -1, 1, 1)
