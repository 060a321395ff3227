"""Which images are worth a label: uncertain ones, of every kind."""

from dataclasses import dataclass

import numpy as np

from compress.data.duplicates import duplicates

_CELLS = 8


@dataclass(frozen=True)
class Pick:
    """An image by index, and its distance from the nearest one picked before (None for the first)."""

    index: int
    apart: float | None


def kinds(thumbnails: np.ndarray, foregrounds: np.ndarray) -> np.ndarray:
    """What kind of image each is, float32 [N, 256]: its colours and where its object is, both on 8x8 cells.

    `thumbnails` are uint8 [N, 32, 32, 3], `foregrounds` probabilities [N, 8, 8]. Colours and place weigh the same,
    and two images drawn at random are at distance 1 (root mean square).
    """
    count, size = thumbnails.shape[:2]
    side = size // _CELLS
    colours = thumbnails.reshape(count, _CELLS, side, _CELLS, side, 3).astype(np.float32).mean((2, 4))
    parts = [part.reshape(count, -1) for part in (colours, foregrounds)]
    scaled = [part / np.sqrt(4 * max(part.var(0).sum(), 1e-12)) for part in parts]
    return np.concatenate(scaled, axis=1).astype(np.float32)


def cells(foreground: np.ndarray) -> np.ndarray:
    """A map [H, W], whose sides are multiples of 8, averaged to [8, 8]."""
    height, width = foreground.shape
    return foreground.reshape(_CELLS, height // _CELLS, _CELLS, width // _CELLS).mean((1, 3))


def pick(uncertainties: np.ndarray, kinds: np.ndarray, thumbnails: np.ndarray, count: int) -> list[Pick]:
    """At most `count` images, the best first: the most uncertain one, then always the one with the largest product of
    its uncertainty [N] and its distance from the nearest one picked.

    That is the farthest-point rule (Gonzalez 1985) which covers a set with few centres, as used for labelling by
    Sener and Savarese (2018), weighted by uncertainty. Of near-duplicates only one is picked, so there may be fewer
    than `count`; and of images without any uncertainty none.
    """
    twins: dict[int, set[int]] = {}
    for i, j in duplicates(thumbnails, thumbnails):
        twins.setdefault(i, set()).add(j)
    free = uncertainties > 0
    distance = np.full(len(uncertainties), np.inf)
    picked: list[Pick] = []
    while len(picked) < count and free.any():
        worth = uncertainties * distance if picked else uncertainties
        best = int(np.where(free, worth, -1).argmax())
        picked.append(Pick(best, float(distance[best]) if picked else None))
        distance = np.minimum(distance, np.linalg.norm(kinds - kinds[best], axis=1))
        free &= distance > 0  # leaves out the picked one itself, and flat pictures of one colour
        free[list(twins.get(best, ()))] = False
    return picked
