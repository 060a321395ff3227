"""Plans to compare with: what pruning brings when nothing is known of the damage that it does."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from compress.graph.channels import ChannelGroup, Channels
from compress.graph.network import Network, Node, is_depthwise
from compress.prune.units import in_units, step_of
from compress.prune.widths import PrunePlan, plan_of

Fits = Callable[[Mapping[str, int]], bool]
"""Whether a network whose groups have these widths is within budget; if one is, so is every narrower one."""


def choose_uniform(net: Network, channels: Channels, fits: Fits) -> PrunePlan:
    """Every group keeps the same share of its channels, those of the largest L2 norm: the largest share that fits.
    Filters are ranked within their layer, as by Li et al. 2017 (arXiv 1608.08710)."""
    order = _largest_first(channels, channel_norms(net, channels))
    return plan_of(net, channels, order, _largest_share(channels, fits))


def choose_random(net: Network, channels: Channels, fits: Fits, seed: int) -> PrunePlan:
    """The widths of `choose_uniform`, with channels drawn at random (Mittal et al. 2018, arXiv 1801.10447)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {group.name: torch.randperm(group.width, generator=generator) for group in channels.prunable()}
    # the channel that is drawn first is kept first
    order = _largest_first(channels, {name: -places.argsort().float() for name, places in drawn.items()})
    return plan_of(net, channels, order, _largest_share(channels, fits))


def choose_magnitude(net: Network, channels: Channels, fits: Fits) -> PrunePlan:
    """The channels of the largest L2 norm in the whole network, as many as fit. Norms are divided by their group's
    mean, as DepGraph does by default (Fang et al. 2023, arXiv 2301.12900): layers differ in scale."""
    norms = {name: norm / norm.mean().clamp_min(1e-12) for name, norm in channel_norms(net, channels).items()}
    order = _largest_first(channels, norms)
    thresholds = torch.cat([torch.zeros(1), *norms.values()]).sort().values

    def widths(cut: int) -> dict[str, int]:
        above = {name: int((norm > thresholds[cut]).sum()) for name, norm in norms.items()}
        return {g.name: g.width if g.frozen else _step(above[g.name], g) for g in channels.groups.values()}

    return plan_of(net, channels, order, _first(widths, len(thresholds), fits))


def channel_norms(net: Network, channels: Channels) -> dict[str, Tensor]:
    """For each prunable group the L2 norm of its channels' filters [width], averaged over the group's producers."""
    found: dict[str, list[Tensor]] = {group.name: [] for group in channels.prunable()}
    for node in net.weighted():
        if is_depthwise(node, net.weight(node.name)):
            continue
        made = channels.segments[node.name]
        for name, norms in zip(made, _filter_norms(net, node).split([channels.groups[name].width for name in made])):
            if name in found:
                found[name].append(norms)
    return {name: torch.stack(norms).mean(0) for name, norms in found.items()}


def _filter_norms(net: Network, node: Node) -> Tensor:
    """Of each output channel; of a transposed convolution in groups too, whose weight has those of one group beside
    each other."""
    weight, groups = net.weight(node.name).detach(), node.attrs.groups
    rows = weight.unflatten(0, (groups, -1)).movedim(1 + node.weights.outputs, 1)
    return rows.flatten(0, 1).flatten(1).norm(dim=1)


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
    """The nearest multiple of the group's step, at least one, at most what the group has."""
    step = step_of(group)
    return min(group.width, max(step, round(width / step) * step))


def _largest_first(channels: Channels, worth: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """An order of the channels of every group, by what they are worth [width]."""
    order = channels.whole()
    for name, each in worth.items():
        ranked = each.argsort(descending=True, stable=True).tolist()
        order[name] = in_units(channels.groups[name], ranked, each.tolist())
    return order


def random_widths(
    channels: Channels, pixels: Mapping[str, int], rng: np.random.Generator, fits: Fits
) -> dict[str, int]:
    """Widths to time: each group's share is drawn around a common one, the largest that fits, and differs between
    fine and coarse layers by chance too, so that bytes and multiply-accumulates do not go hand in hand.

    `pixels`: height times width of every tensor.
    """
    tilt = rng.uniform(-0.1, 0.3)
    coarsest = min(pixels[group.producers[0]] for group in channels.groups.values())
    weight = {
        group.name: np.exp(rng.normal(0, 0.4)) * (pixels[group.producers[0]] / coarsest) ** -tilt
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
