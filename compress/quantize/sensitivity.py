"""Which layers suffer most from being quantized, and which of them to keep float."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.graph.network import Network
from compress.quantize.training import QuantizedNetwork
from compress.terminal.progress import tqdm


@dataclass(frozen=True)
class Sensitivity:
    """`damage`: how much nearer the output comes to the float network's when the layer alone is kept float, as a
    share of the error of the network with every layer quantized (mean squared difference of probabilities).
    `extra_bytes`: what float32 weights take beyond int8 ones."""

    layer: str
    damage: float
    extra_bytes: int


def rank(quantized: QuantizedNetwork, images: Sequence[Tensor]) -> list[Sensitivity]:
    """Every convolution that is not kept float, the worst first. images: real values [N, channels, H, W]."""
    net = quantized.unquantized()
    with torch.no_grad():
        wanted = [net(image) for image in images]
        whole = _error(quantized, images, wanted)
        kept = quantized.keep_float
        found = []
        try:
            for node in tqdm(quantized.weighted(), desc="sensitivity", unit="layer", delay=1):
                if node.name in kept:
                    continue
                quantized.keep_float = kept | {node.name}
                damage = 1 - _error(quantized, images, wanted) / max(whole, 1e-12)
                weight, bias = quantized.weight(node.name), quantized.bias(node.name)
                found.append(Sensitivity(node.name, damage, 3 * weight.numel() - 4 * bias.numel()))
        finally:
            quantized.keep_float = kept
    return sorted(found, key=lambda one: -one.damage)


def _error(quantized: Network, images: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    errors = [float((quantized(image) - target).square().mean()) for image, target in zip(images, wanted)]
    return sum(errors) / len(errors)


def affordable(ranked: Sequence[Sensitivity], spare_bytes: int, most: int, least: float = 0.02) -> tuple[str, ...]:
    """The worst layers, `most` of them at most, that fit together in `spare_bytes`; none that does less than `least`
    of the damage."""
    chosen: list[str] = []
    for one in ranked:
        if len(chosen) < most and one.damage >= least and one.extra_bytes <= spare_bytes:
            chosen.append(one.layer)
            spare_bytes -= one.extra_bytes
    return tuple(chosen)
