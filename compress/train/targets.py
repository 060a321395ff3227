"""What the student learns from: the teacher's soft maps, computed once, and its features."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from compress.data.packed import Packed
from compress.errors import DataError
from compress.network import CONVS, Network
from compress.prune.cut import kept_channels
from compress.prune.groups import Channels

FEATURE_SIZE = 32
"""Features are compared after averaging to at most this height and width."""

FEATURE_BYTES = 1_000_000_000
_VERSION = "1"


@dataclass(frozen=True)
class Features:
    """The teacher's values at the student's channels for some of the images.

    images  indices of those images, int64 [n]
    values  by tensor, float16 [n, C, h, w]
    spread  by tensor, standard deviation by channel, float32 [1, C, 1, 1]
    """

    images: Tensor
    values: Mapping[str, Tensor]
    spread: Mapping[str, Tensor]


def teacher_maps(net: Network, images: Packed, model_key: str, cache: Path) -> np.ndarray:
    """The teacher's probabilities of every class but the first: uint8 [N, classes - 1, H, W], 255 being certain.

    Kept in the cache under a key of the images' content and `model_key`; an interrupted computation goes on
    where it stopped. Raises DataError on a full disk, or when another process is computing the same.
    """
    count, height, width = images.array.shape[:3]
    shape = (count, net.shapes()[net.output][1] - 1, height, width)
    key = hashlib.sha256(f"{_VERSION} {images.key} {model_key}".encode()).hexdigest()[:32]
    target = cache / f"maps-{key}.u8"
    if not target.exists():
        _compute_maps(net, images.array, target, int(np.prod(shape[1:])))
    return np.memmap(target, np.uint8, mode="r", shape=shape)


def _compute_maps(net: Network, images: np.ndarray, target: Path, map_bytes: int) -> None:
    partial = target.with_suffix(".partial")
    try:
        with partial.open("ab") as file, torch.no_grad():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            done = os.path.getsize(partial) // map_bytes
            file.truncate(done * map_bytes)
            for start in tqdm(range(done, len(images)), desc="teacher's maps", unit="image", delay=1):
                maps = net(net.real(torch.from_numpy(images[start : start + 1].copy())))[:, 1:]
                file.write((maps * 255).round().byte().numpy().tobytes())
        os.replace(partial, target)
    except BlockingIOError:
        raise DataError(f"{partial}: another run is computing the same; wait for it") from None
    except OSError as error:
        what = "no space left" if error.errno == errno.ENOSPC else error.strerror
        raise DataError(f"{target.parent}: {what}; free some or name another folder in COMPRESS_CACHE") from None


def feature_tensors(net: Network) -> list[str]:
    """Where features are compared: the results of additions, which end a block; where a network has few,
    convolutions spread evenly over it."""
    sums = [node.name for node in net.nodes if node.op == "add"]
    if len(sums) >= 4:
        return sums
    convs = [node.name for node in net.nodes if node.op in CONVS and node.attrs["groups"] == 1][:-1]
    return sorted({*sums, *convs[:: max(1, len(convs) // 8)]})


def teacher_features(
    teacher: Network,
    channels: Channels,
    kept: Mapping[str, tuple[int, ...]],
    images: np.ndarray,
    picked: Sequence[int],
    size: tuple[int, int],
) -> Features:
    """Features of the images `picked`, shrunk to `size`, as many as `FEATURE_BYTES` hold."""
    names = feature_tensors(teacher)
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    index = {name: kept_channels(name, channels, kept) for name in names}
    used: list[int] = []
    limit = len(picked)
    with torch.no_grad():
        for i in tqdm(picked, desc="teacher's features", unit="image", delay=1):
            if len(used) >= limit:
                break
            shrunk = shrink(torch.from_numpy(images[i : i + 1].copy()), size)
            for name, value in teacher.run(teacher.real(shrunk), keep=names).items():
                if name in values:
                    values[name].append(pooled(value[:, index[name]]).half())
            used.append(i)
            limit = min(limit, FEATURE_BYTES // sum(2 * parts[0].numel() for parts in values.values()))
    stacked = {name: torch.cat(parts) for name, parts in values.items()}
    spread = {name: all_.float().std((0, 2, 3), keepdim=True).clamp_min(1e-3) for name, all_ in stacked.items()}
    return Features(torch.tensor(used), stacked, spread)


def pooled(value: Tensor) -> Tensor:
    """Averaged to at most FEATURE_SIZE in height and width."""
    height, width = value.shape[2:]
    if max(height, width) <= FEATURE_SIZE:
        return value
    return F.adaptive_avg_pool2d(value, (min(height, FEATURE_SIZE), min(width, FEATURE_SIZE)))


def shrink(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [N, H, W, 3] -> the same at `size`, antialiased."""
    if tuple(pixels.shape[1:3]) == tuple(size):
        return pixels
    resized = F.interpolate(pixels.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
