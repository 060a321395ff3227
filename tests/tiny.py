"""A network with what networks are made of: normalisation, depthwise and transposed convolutions, residual, concat."""

from collections.abc import Callable
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Depthwise and pointwise convolutions around a residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.depthwise(x)))
        return torch.relu(self.norm2(self.pointwise(y)) + x)


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.block = Block(32)
        self.deep = nn.Conv2d(32, 48, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(48, 24, 2, stride=2)
        self.merge = nn.Conv2d(16 + 24, 32, 3, padding=1)
        self.head = nn.Conv2d(32, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.relu(self.stem_norm(self.stem(x)))
        coarse = self.block(torch.relu(self.down(fine)))
        deep = torch.relu(self.deep(nn.functional.max_pool2d(coarse, 2)))
        deep = nn.functional.interpolate(deep, size=coarse.shape[2:], mode="bilinear", align_corners=False)
        merged = torch.relu(self.merge(torch.cat([fine, torch.relu(self.up(deep))], 1)))
        return self.head(merged)


class TinyBinary(TinyNet):
    """Disc or square against the rest: two maps of one sigmoid channel, of which the first is deployed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(32, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        map_ = torch.sigmoid(super().forward(x))
        return map_, map_ * map_


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that is so many seconds later each time that it is read."""
    readings = count()
    return lambda: seconds * next(readings)


def picture(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One RGB image, uint8 [size, size, 3], and its class ids, uint8 [size, size]."""
    image = rng.integers(90, 160, (size, size, 3)).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    y, x, reach = rng.integers(12, size - 12, 2).tolist() + [int(rng.integers(6, 12))]
    if rng.random() < 0.5:
        mask[(rows - y) ** 2 + (columns - x) ** 2 < reach**2] = 1
    else:
        mask[(abs(rows - y) < reach) & (abs(columns - x) < reach)] = 2
    image[mask == 1, 0] = 240
    image[mask == 2, 2] = 240
    return image, mask
