"""Plans to compare with: what pruning brings when nothing is known of the damage that it does."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from compress.graph.channels import ChannelGroup, Channels
from compress.graph.network import Network
from compress.prune.widths import STEP, PrunePlan, plan_of

Fits = Callable[[Mapping[str, int]], bool]
"""Whether a network whose groups have these widths is within budget; if one is, so is every narrower one."""


def choose_uniform(net: Network, channels: Channels, fits: Fits) -> PrunePlan:
    """Every group keeps the same share of its channels, those of the largest L2 norm: the largest share that fits.
    Filters are ranked within their layer, as by Li et al. 2017 (arXiv 1608.08710)."""
    norms = channel_norms(net, channels)
    order = {name: tuple(norm.argsort(descending=True, stable=True).tolist()) for name, norm in norms.items()}
    return plan_of(net, channels, _with_frozen(channels, order), _largest_share(channels, fits))


def choose_random(net: Network, channels: Channels, fits: Fits, seed: int) -> PrunePlan:
    """The widths of `choose_uniform`, with channels drawn at random (Mittal et al. 2018, arXiv 1801.10447)."""
    generator = torch.Generator().manual_seed(seed)
    order = {
        group.name: tuple(torch.randperm(group.width, generator=generator).tolist()) for group in channels.prunable()
    }
    return plan_of(net, channels, _with_frozen(channels, order), _largest_share(channels, fits))


def choose_magnitude(net: Network, channels: Channels, fits: Fits) -> PrunePlan:
    """The channels of the largest L2 norm in the whole network, as many as fit. Norms are divided by their group's
    mean, as DepGraph does by default (Fang et al. 2023, arXiv 2301.12900): layers differ in scale."""
    norms = {name: norm / norm.mean().clamp_min(1e-12) for name, norm in channel_norms(net, channels).items()}
    order = {name: tuple(norm.argsort(descending=True, stable=True).tolist()) for name, norm in norms.items()}
    thresholds = torch.cat([torch.zeros(1), *norms.values()]).sort().values

    def widths(cut: int) -> dict[str, int]:
        above = {name: int((norm > thresholds[cut]).sum()) for name, norm in norms.items()}
        return {g.name: g.width if g.frozen else _step(above[g.name], g) for g in channels.groups.values()}

    return plan_of(net, channels, _with_frozen(channels, order), _first(widths, len(thresholds), fits))


def channel_norms(net: Network, channels: Channels) -> dict[str, Tensor]:
    """For each prunable group the L2 norm of its channels' filters [width], averaged over the group's producers."""
    return {
        group.name: torch.stack([_filter_norms(net, name) for name in group.producers]).mean(0)
        for group in channels.prunable()
    }


def _filter_norms(net: Network, name: str) -> Tensor:
    weight = net.weight(name).detach()
    return weight.movedim(net.by_name[name].weights.outputs, 0).flatten(1).norm(dim=1)


def _largest_share(channels: Channels, fits: Fits) -> dict[str, int]:
    groups = channels.groups.values()
    shares = 1000

    def widths(cut: int) -> dict[str, int]:
        return {g.name: g.width if g.frozen else _step(g.width * (shares - cut) // shares, g) for g in groups}

    return _first(widths, shares, fits)


def _first(widths: Callable[[int], dict[str, int]], count: int, fits: Fits) -> dict[str, int]:
    """The first of `count` ever narrower networks that fits; the narrowest if none does."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(widths(middle)) else (middle + 1, high)
    return widths(low)


def _step(width: float, group: ChannelGroup) -> int:
    """The nearest multiple of STEP, at least one, at most what the group has."""
    return min(group.width, max(STEP, round(width / STEP) * STEP))


def _with_frozen(channels: Channels, order: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {g.name: order.get(g.name, tuple(range(g.width))) for g in channels.groups.values()}


def random_widths(
    channels: Channels, pixels: Mapping[str, int], rng: np.random.Generator, fits: Fits
) -> dict[str, int]:
    """Widths to time: each group's share is drawn around a common one, the largest that fits, and differs between
    fine and coarse layers by chance too, so that bytes and multiply-accumulates do not go hand in hand.

    `pixels`: height times width of every tensor.
    """
    tilt = rng.uniform(-0.1, 0.3)
    coarsest = min(pixels[group.name] for group in channels.groups.values())
    weight = {
        group.name: np.exp(rng.normal(0, 0.4)) * (pixels[group.name] / coarsest) ** -tilt
        for group in channels.prunable()
    }
    steps = 1000

    def widths(cut: int) -> dict[str, int]:
        share = 2 * (1 - cut / steps)
        return {
            g.name: g.width if g.frozen else _step(g.width * share * weight[g.name], g)
            for g in channels.groups.values()
        }

    return _first(widths, steps, fits)
