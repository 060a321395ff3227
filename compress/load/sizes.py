"""Sizes that a network was seen to take: one that was traced at 65 pixels need not fit together at 64."""

import logging

from compress.errors import ModelError
from compress.graph.network import Network
from compress.recipe import Recipe

log = logging.getLogger("compress")

SECTIONS = ("plan", "repair", "train")
FARTHEST = 64
"""Pixels from the size that was asked for."""


def with_fitting_sizes(recipe: Recipe, net: Network) -> Recipe:
    """The recipe with the sizes nearest to its own that the network takes, none larger than those that it reads. Raises
    ModelError where there is none."""
    changed = {}
    for name in SECTIONS:
        section = getattr(recipe, name)
        height, width = (min(side, most) for side, most in zip(section.size, net.traced_size))
        size = nearest_size(net, (height, width))
        if size != section.size:
            log.warning("[%s] size: the network cannot take %s; %s is used", name, _text(section.size), _text(size))
            changed[name] = section.model_copy(update={"size": size})
    return recipe.model_copy(update=changed)


def nearest_size(net: Network, size: tuple[int, int]) -> tuple[int, int]:
    """The nearest height and width, not above those that it was traced at, that the network takes."""
    if net.takes(size):
        return size
    whole = net.traced_size
    height = next((high for high in _around(size[0], whole[0]) if net.takes((high, whole[1]))), whole[0])
    width = next((wide for wide in _around(size[1], whole[1]) if net.takes((whole[0], wide))), whole[1])
    if not net.takes((height, width)):
        raise ModelError(f"the model cannot take images of {_text(size)}, nor of a size near it; set size in [train]")
    return height, width


def _around(side: int, most: int) -> list[int]:
    """The nearest first."""
    found = range(max(1, side - FARTHEST), min(most, side + FARTHEST) + 1)
    return sorted(found, key=lambda other: (abs(other - side), -other))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
