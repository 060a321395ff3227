"""Ranges of activations from real images, and what can be mended without training."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from compress.network import CONVS, Network, Node
from compress.quantize.placement import place
from compress.quantize.training import QuantizedNetwork


def calibrate(net: Network, images: Sequence[Tensor], percentile: float = 99.99) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each scale group that is not fixed, over real values [N, 3, H, W]; the
    average over images of each image's percentile, which a single outlier cannot stretch."""
    placement = place(net)
    wanted = {name for name, group in placement.group_of.items() if group not in placement.fixed}
    sums: dict[str, list[tuple[float, float]]] = {}
    with torch.no_grad():
        for image in tqdm(images, desc="calibration", unit="image", delay=1):
            seen: dict[str, tuple[float, float]] = {}
            for name, value in net.run(image, keep=wanted).items():
                if name not in wanted:
                    continue
                group, flat = placement.group_of[name], value.flatten()
                count = max(1, round(flat.numel() * (1 - percentile / 100)))
                high = float(torch.topk(flat, count).values[-1])
                low = float(torch.topk(flat, count, largest=False).values[-1])
                known = seen.get(group, (low, high))
                seen[group] = (min(low, known[0]), max(high, known[1]))
            for group, bounds in seen.items():
                sums.setdefault(group, []).append(bounds)
    return {
        group: (sum(b[0] for b in all_) / len(all_), sum(b[1] for b in all_) / len(all_))
        for group, all_ in sums.items()
    }


def correct_biases(quantized: QuantizedNetwork, net: Network, images: Tensor) -> None:
    """Shift each convolution's bias (in place) so that its channels have the means that they have in `net`.

    images: real values [N, 3, H, W]. In execution order, so that each layer is corrected for what the corrected ones
    before it give (Nagel et al. 2019, arXiv 1906.04721, section 4.2).
    """
    means: dict[str, Tensor] = {}

    def note(node: Node, value: Tensor) -> Tensor:
        if node.op in CONVS:
            means[node.name] = value.mean((0, 2, 3))
        return value

    def correct(node: Node, value: Tensor) -> Tensor:
        if node.op not in CONVS:
            return value
        shift = means[node.name] - value.mean((0, 2, 3))
        quantized.bias(node.name).add_(shift)
        return value + shift.reshape(1, -1, 1, 1)

    with torch.no_grad():
        net.run(images, visit=note)
        quantized.run(images, visit=correct)
