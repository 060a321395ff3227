"""Random parts of images, each mirrored or not: what a step gets of an image, and of its target."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 0.75
"""The least share of its height and width that a part of an image has."""


class View(NamedTuple):
    rows: slice
    columns: slice
    mirrored: bool

    def of(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """[N, C, H, W] -> the part that is in view, at `size`, antialiased."""
        part = values[:, :, self.rows, self.columns]
        if tuple(part.shape[2:]) != tuple(size):
            part = F.interpolate(part, size, mode="bilinear", antialias=True)
        return part.flip(3) if self.mirrored else part

    def of_pixels(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """uint8 [N, H, W, 3] -> the same part of the pixels, at `size`."""
        part = shrink(pixels[:, self.rows, self.columns], size)
        return part.flip(2) if self.mirrored else part


WHOLE = View(slice(None), slice(None), False)


def random_view(height: int, width: int, generator: torch.Generator) -> View:
    """Of an image of that size: as high and as wide as LEAST says at least, and mirrored every other time."""
    share, down, right, side = torch.rand(4, generator=generator).tolist()
    high, wide = (round((LEAST + (1 - LEAST) * share) * whole) for whole in (height, width))
    top, left = round(down * (height - high)), round(right * (width - wide))
    return View(slice(top, top + high), slice(left, left + wide), side < 0.5)


def shrink(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [N, H, W, 3] -> the same at `size`, antialiased."""
    if tuple(pixels.shape[1:3]) == tuple(size):
        return pixels
    resized = F.interpolate(pixels.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
