"""What the student learns from: the teacher's soft maps, computed once, and its features."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from compress.data.packed import Packed
from compress.errors import DataError
from compress.files import digest, unwritten, write_whole
from compress.graph.channels import Channels
from compress.graph.network import Network
from compress.prune.cut import kept_channels
from compress.train.device import autocast, best_device, placed
from compress.train.views import View

FEATURE_SIZE = 32
"""Features are compared after averaging to at most this height and width."""

FEATURE_BYTES = 4_000_000_000
"""On the disk, while it is trained."""

TTA = ("flip", "scale")
SCALE = 0.75
_VERSION = "3"


@dataclass(frozen=True)
class Features:
    """The teacher's values at the student's channels, for views of some of the images.

    images  index of the image of each view, int64 [n]
    views   what is seen of it
    values  by tensor, float16 [n, C, h, w]
    spread  by tensor, standard deviation by channel, float32 [1, C, 1, 1]
    """

    images: Tensor
    views: Sequence[View]
    values: Mapping[str, np.ndarray]
    spread: Mapping[str, Tensor]


@dataclass(frozen=True)
class LiveTeacher:
    """Teachers that look at each view themselves, in place of maps that are computed once. A student that sees every
    image many times learns their function so, rather than their answers to some thousands of images (Beyer et al. 2022,
    arXiv 2106.05237). On a GPU the teacher costs a part of what the student does; on a processor it doubles the cost.

    members  each teacher's copy where training runs
    heavy    of the network whose features are compared, the same
    index    by tensor, the channels that the student has, int64 [C]
    spread   by tensor, standard deviation by channel, float32 [1, C, 1, 1]
    """

    members: Mapping[Network, Network]
    heavy: Network | None = None
    index: Mapping[str, Tensor] = field(default_factory=dict)
    spread: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, teachers: Sequence[Network]) -> "LiveTeacher":
        return cls({net: placed(net) for net in teachers})

    def with_features(
        self, heavy: Network, channels: Channels, kept: Mapping[str, tuple[int, ...]], pixels: Tensor
    ) -> "LiveTeacher":
        """One that gives the features of `heavy` too, whose spread is that on some images, uint8 [N, H, W, 3]."""
        device, names = best_device(), feature_tensors(heavy)
        index = {name: torch.as_tensor(kept_channels(name, channels, kept), device=device) for name in names}
        one = replace(self, heavy=self.members[heavy] if heavy in self.members else placed(heavy), index=index)
        _, values = one.sees(pixels.to(device))
        variances = {name: value.var((0, 2, 3), correction=0, keepdim=True) for name, value in values.items()}
        return replace(one, spread={name: each.clamp_min(1e-6).sqrt() for name, each in variances.items()})

    @torch.no_grad()
    def sees(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """uint8 [N, H, W, 3] -> as `joined`, [N, classes, H, W], and the features by tensor, float32."""
        heavy = self.heavy
        with autocast(pixels.device):
            values = {} if heavy is None else heavy.run(heavy.real(pixels, torch.channels_last), keep=self.index)
            views = [
                values[net.output] if net is heavy else net(net.real(pixels, torch.channels_last))
                for net in self.members.values()
            ]
        features = {name: pooled(values[name].float()[:, kept]) for name, kept in self.index.items()}
        return joined(torch.stack(views).float()), features


def teacher_maps(
    teachers: Sequence[Network], images: Packed, key: str, cache: Path, tta: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """What the teachers see in each image: the probabilities of every class but the first, uint8
    [N, classes - 1, H, W], 255 being certain, and their doubt, uint8 [N, H, W], 255 being no idea.

    Kept in the cache under a key of the images' content, `key`, which names the teachers, and `tta`; an interrupted
    computation goes on where it stopped, and an image that the same teachers saw in another set costs nothing. Raises
    DataError on a full disk, or when another process is computing the same.
    """
    count, height, width = images.array.shape[:3]
    shape = (count, teachers[0].shapes()[teachers[0].output][1], height, width)
    target = cache / f"maps-{digest(_VERSION, key, sorted(tta), shape[1:])}-{digest(images.key)}.u8"
    if not target.exists():
        _compute_maps([placed(net) for net in teachers], tta, images.array, target, int(np.prod(shape[1:])))
    stored = np.memmap(target, np.uint8, mode="r", shape=shape)
    return stored[:, :-1], stored[:, -1]


def _compute_maps(
    teachers: Sequence[Network], tta: Sequence[str], images: np.ndarray, target: Path, map_bytes: int
) -> None:
    partial = target.with_suffix(".partial")
    try:
        with partial.open("ab") as file, torch.no_grad():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            done = os.path.getsize(partial) // map_bytes
            file.truncate(done * map_bytes)
            seen, hashes = _seen(target, map_bytes), []
            for index, image in enumerate(tqdm(images, desc="teacher's maps", unit="image", delay=1)):
                hashes.append(hashlib.sha256(image.tobytes()).hexdigest())
                if index < done:
                    continue
                if hashes[index] in seen:
                    file.write(seen[hashes[index]].tobytes())
                    continue
                pixels = torch.from_numpy(image[None].copy())
                views = [view for net in teachers for view in _views(net, pixels, tta)]
                file.write((joined(torch.cat(views)) * 255).round().byte().numpy().tobytes())
        write_whole(target.with_suffix(".json"), json.dumps(hashes).encode())
        os.replace(partial, target)
    except BlockingIOError:
        raise DataError(f"{partial}: another run is computing the same; wait for it") from None
    except OSError as error:
        raise unwritten(target.parent, error) from None


def _seen(target: Path, map_bytes: int) -> dict[str, np.ndarray]:
    """The maps of finished files of the same teachers, uint8 [map_bytes] by the sha256 of the image's pixels."""
    found: dict[str, np.ndarray] = {}
    for hashes in target.parent.glob(f"{target.stem.rsplit('-', 1)[0]}-*.json"):
        if (maps := hashes.with_suffix(".u8")).exists():
            rows = np.memmap(maps, np.uint8, mode="r").reshape(-1, map_bytes)
            found.update(zip(json.loads(hashes.read_text()), rows, strict=True))
    return found


def _views(net: Network, pixels: Tensor, tta: Sequence[str]) -> list[Tensor]:
    """Probabilities [1, classes, H, W] from the image as it is, mirrored, and made smaller, all in its own frame."""
    image = net.real(pixels)
    size = (image.shape[2], image.shape[3])

    def seen(view: Tensor) -> Tensor:
        device = net.weight(net.weighted()[0].name).device
        with autocast(device):
            return net(view.to(device, memory_format=torch.channels_last)).float().cpu()

    views = [seen(image)]
    if "flip" in tta:
        views.append(seen(image.flip(3)).flip(3))
    if "scale" in tta:
        smaller = [max(32, round(SCALE * side / 32) * 32) for side in size]
        view = F.interpolate(image, smaller, mode="bilinear", antialias=True)
        views.append(F.interpolate(seen(view), size, mode="bilinear"))
    return views


def joined(members: Tensor) -> Tensor:
    """Probabilities [M, ..., classes, H, W] of M members -> [..., classes, H, W]: those of every class but the first,
    then doubt.

    The members' logits are averaged. Doubt, from 0 to 1, is the larger of how far the likeliest class is from
    certain and of how far the members are apart: twice their mean total variation from the average.
    """
    logits = members.clamp(1e-5, 1).log()
    mean = torch.softmax((logits - logits.mean(-3, keepdim=True)).mean(0), -3)
    classes = mean.shape[-3]
    unsure = (1 - mean.amax(-3, keepdim=True)) * classes / (classes - 1)
    apart = (members / members.sum(-3, keepdim=True) - mean).abs().sum(-3, keepdim=True).mean(0)
    return torch.cat([mean[..., 1:, :, :], torch.maximum(unsure, apart).clamp(max=1)], -3)


def feature_tensors(net: Network) -> list[str]:
    """Where features are compared: the results of additions, which end a block; where a network has few,
    convolutions spread evenly over it."""
    sums = [node.name for node in net.nodes if node.op == "add"]
    if len(sums) >= 4:
        return sums
    convs = [node.name for node in net.nodes if node.kind.weights and node.attrs.groups == 1][:-1]
    return sorted({*sums, *convs[:: max(1, len(convs) // 8)]})


def teacher_features(
    teacher: Network,
    channels: Channels,
    kept: Mapping[str, tuple[int, ...]],
    images: np.ndarray,
    seen: Sequence[tuple[int, View]],
    size: tuple[int, int],
    folder: Path,
) -> Features:
    """Features of what is `seen` of which images, at `size`; as many as `FEATURE_BYTES` hold. They lie in files of
    `folder` that have no name, and are gone with them. Raises DataError on a full disk."""
    names = feature_tensors(teacher)
    heavy, device = placed(teacher), best_device()
    index = {name: kept_channels(name, channels, kept) for name in names}
    limit, shapes = len(seen), {}
    sums = {name: torch.zeros(()) for name in names}
    squares = {name: torch.zeros(()) for name in names}
    try:
        with torch.no_grad(), ExitStack() as stack:
            files = {name: stack.enter_context(TemporaryFile(dir=folder)) for name in names}
            for count, (i, view) in enumerate(tqdm(seen, desc="teacher's features", unit="image", delay=1)):
                if count >= limit:
                    break
                pixels = view.of_pixels(torch.from_numpy(images[i : i + 1].copy()), size)
                with autocast(device):
                    values = heavy.run(teacher.real(pixels, torch.channels_last).to(device), keep=names)
                for name in names:
                    value = pooled(values[name].float()[:, index[name]]).cpu()
                    sums[name] = sums[name] + value.double().mean((2, 3), keepdim=True)
                    squares[name] = squares[name] + value.double().square().mean((2, 3), keepdim=True)
                    shapes[name] = value.shape[1:]
                    files[name].write(value.half().contiguous().numpy().tobytes())
                limit = min(limit, FEATURE_BYTES // sum(2 * shape.numel() for shape in shapes.values()))
            count = min(limit, len(seen))
            stored = {name: np.memmap(files[name], np.float16, "r", shape=(count, *shapes[name])) for name in names}
    except OSError as error:
        raise unwritten(folder, error) from None
    spread = {n: (squares[n] / count - (sums[n] / count).square()).clamp_min(1e-6).sqrt().float() for n in names}
    return Features(torch.tensor([i for i, _ in seen[:count]]), [view for _, view in seen[:count]], stored, spread)


def pooled(value: Tensor) -> Tensor:
    """Averaged to at most FEATURE_SIZE in height and width: over blocks where both are a multiple of one."""
    height, width = value.shape[2:]
    if max(height, width) <= FEATURE_SIZE:
        return value
    block = -(-height // FEATURE_SIZE), -(-width // FEATURE_SIZE)
    if height % block[0] == 0 and width % block[1] == 0:
        return cast(Tensor, _BlockMean.apply(value, block))
    return F.adaptive_avg_pool2d(value, (min(height, FEATURE_SIZE), min(width, FEATURE_SIZE)))


class _BlockMean(torch.autograd.Function):
    """F.avg_pool2d over blocks that do not overlap, with a gradient in channels_last that is four times faster."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, block: tuple[int, int]) -> Tensor:
        ctx.block = block
        return F.avg_pool2d(value, block)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (count, channels, height, width), (down, across) = gradient.shape, ctx.block
        rows = (gradient / (down * across)).permute(0, 2, 3, 1)[:, :, None, :, None]
        spread = rows.expand(count, height, down, width, across, channels)
        return spread.reshape(count, height * down, width * across, channels).permute(0, 3, 1, 2), None
