"""A colour for each class, in pictures and for the app that shows masks."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

Rgb = tuple[int, int, int]
PALE = ""
"""Of a class that is shown by being paler: the background."""
_COLOUR = re.compile("#[0-9a-f]{6}")
# After Okabe and Ito (2008), whom colour-blind readers can follow; magenta first, the rarest in photographs.
_FIRST: tuple[Rgb, ...] = (
    (208, 28, 139),
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
)
_NO_CLASS: tuple[Rgb, ...] = ((255, 255, 255), (128, 128, 128), (0, 0, 0))  # paler, ignored, shadow
_APART = 0.08  # in OKLab, where black and white are 1 apart: what two colours differ by at least that are told apart


def palette_of(classes: Sequence[str], named: Mapping[str, str], multilabel: bool = False) -> tuple[str, ...]:
    """ "#rrggbb" of each class: as it is named, or else one that is told apart from all others. PALE for class 0 where
    it is the background, by its name or of two classes, and nothing else is said. Of labels of which a pixel can have
    several none is."""
    pale = not multilabel and (len(classes) == 2 or [name.casefold() for name in classes[:1]] == ["background"])
    others = _others([rgb_of(colour) for colour in named.values()])
    return tuple(
        named[name] if name in named else PALE if pale and not id else next(others) for id, name in enumerate(classes)
    )


def is_palette(palette: Sequence[str], classes: Sequence[str]) -> bool:
    """Whether it may be one of these classes, as another program may have written it."""
    return len(palette) == len(classes) and all(each == PALE or _COLOUR.fullmatch(each) for each in palette)


def rgb_of(colour: str) -> Rgb:
    """Of "#rrggbb"."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _hex(colour: Sequence[int]) -> str:
    return f"#{bytes(colour).hex()}"


def _others(taken: Sequence[Rgb]) -> Iterator[str]:
    """The chosen colours that are told apart from those that are taken, then of a grid the one that is furthest from
    all before."""
    for colour in _FIRST:
        if not taken or _distances([colour], taken).min() >= _APART:
            yield _hex(colour)
    steps = np.linspace(0, 255, 9).round().astype(int)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    nearest = _distances(grid, [*_FIRST, *taken, *_NO_CLASS]).min(1)
    while True:
        furthest = grid[nearest.argmax()]
        yield _hex(furthest.tolist())
        nearest = np.minimum(nearest, _distances(grid, [furthest])[:, 0])


def _distances(some: ArrayLike, others: ArrayLike) -> np.ndarray:
    """As they look, float64 [some, others]."""
    distances: np.ndarray = np.linalg.norm(_oklab(some)[:, None] - _oklab(others), axis=-1)
    return distances


def _oklab(rgb: ArrayLike) -> np.ndarray:
    """OKLab (Ottosson 2020) of 8-bit sRGB, [N, 3]."""
    values = np.asarray(rgb) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(
        linear
        @ np.array(
            [
                [0.4122214708, 0.2119034982, 0.0883024619],
                [0.5363325363, 0.6806995451, 0.2817188376],
                [0.0514459929, 0.1073969566, 0.6299787005],
            ]
        )
    )
    lab: np.ndarray = cones @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    return lab
