"""What the student learns from: a teacher whose maps and features are computed once, or one that looks at each view."""

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.data.images import Mask, Size
from compress.data.maps import Maps
from compress.data.packed import Packed, pack_maps
from compress.files import cached, identity, unwritten, written
from compress.graph.channels import Channels
from compress.graph.network import Network
from compress.load.walk import NORMALISE
from compress.machine import give_way
from compress.prune.cut import kept_channels
from compress.terminal.progress import tqdm
from compress.train import processes
from compress.train.device import autocast, best_device, placed
from compress.train.members import Member
from compress.train.views import View

FEATURE_SIZE = 32
"""Features are compared after averaging to at most this height and width."""

HALF = torch.finfo(torch.float16).max

FEATURE_BYTES = 4_000_000_000
"""On the disk, while it is trained."""

ROUNDED = 0.25 / 255
"""What a probability that is stored as 0 is on average, where the logits of several teachers are averaged."""
_VERSION = 4  # raised whenever the same teachers give other maps of the same images


@dataclass(frozen=True)
class Features:
    """The teacher's values at the student's channels, for views of some of the images.

    images  index of the image of each view, int64 [n]
    views   the part of it that was looked at
    values  by tensor, float16 [n, C, h, w], divided by `scales`
    std     by tensor, standard deviation by channel, float32 [1, C, 1, 1]
    scales  by tensor, a power of two: float16 ends at 65,504
    """

    images: Tensor
    views: Sequence[View]
    values: Mapping[str, np.ndarray]
    std: Mapping[str, Tensor]
    scales: Mapping[str, float]


class Teacher(Protocol):
    """What a step of training asks of a teacher.

    features    those that are stored, of views that are drawn again and again; None where there are none
    std         by tensor, standard deviation of its features by channel, float32 [1, C, 1, 1]
    multilabel  whether it tells several labels at once
    """

    @property
    def features(self) -> Features | None: ...

    @property
    def std(self) -> Mapping[str, Tensor]: ...

    @property
    def multilabel(self) -> bool: ...

    def batch(
        self, indices: Tensor, views: Sequence[View], size: tuple[int, int], rows: Tensor | None, device: torch.device
    ) -> list[Tensor]:
        """What is stored of some views of the images `indices`, at `size`; `rows`: which of the stored features."""

    def targets(self, pixels: Tensor, *stored: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """uint8 [n, H, W, 3], and what `batch` gave for it -> [n, classes + 1, H, W] in 0..1: the probabilities of all
        classes, then the uncertainty; and the features by tensor."""


@dataclass(frozen=True)
class StoredTeacher:
    """A teacher whose answers were computed once for every image.

    maps         probabilities of every class but the first, uint8 [N, classes - 1, H, W]; with `multilabel` of every
                 label, uint8 [N, labels, H, W]
    uncertainty  of each pixel, uint8 [N, H, W], 255 being no idea at all
    """

    maps: np.ndarray
    uncertainty: np.ndarray
    features: Features | None = None
    multilabel: bool = False

    @property
    def std(self) -> Mapping[str, Tensor]:
        return self.features.std if self.features else {}

    def predicted(self, indices: Tensor) -> Tensor:
        """Of whole images, in 0..1, as `joined` gives it."""
        picked = indices.numpy()
        maps, uncertainty = torch.from_numpy(self.maps[picked]), torch.from_numpy(self.uncertainty[picked])
        return torch.cat([maps, uncertainty[:, None]], 1).float() / 255

    def batch(
        self, indices: Tensor, views: Sequence[View], size: tuple[int, int], rows: Tensor | None, device: torch.device
    ) -> list[Tensor]:
        maps = self.predicted(indices).to(device).split(1)
        parts = [torch.cat([view.of(one, size) for one, view in zip(maps, views)])]
        if self.features is not None and rows is not None:
            picked = [values[rows.numpy()] for values in self.features.values.values()]
            parts += [torch.from_numpy(values).to(device) for values in picked]
        return parts

    def targets(self, pixels: Tensor, *stored: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        predicted, *values = stored
        predicted = all_classes(predicted, self.multilabel)
        if self.features is None or not values:
            return predicted, {}
        scales = self.features.scales
        return predicted, {
            name: value.float() * scales[name] for name, value in zip(self.features.values, values, strict=True)
        }


@dataclass(frozen=True)
class LiveTeacher:
    """Teachers that look at each view themselves, in place of maps that are computed once. A student that sees every
    image many times learns their function so, rather than their answers to some thousands of images (Beyer et al. 2022,
    arXiv 2106.05237). On a GPU the teacher costs a part of what the student does; on a processor it doubles the cost.

    members  each teacher's copy where training runs
    heavy    of the network whose features are compared, the same
    index    by tensor, the channels that the student has, int64 [C]
    """

    members: Mapping[Network, Network]
    heavy: Network | None = None
    index: Mapping[str, Tensor] = field(default_factory=dict)
    std: Mapping[str, Tensor] = field(default_factory=dict)
    features: Features | None = None
    multilabel: bool = False

    @classmethod
    def of(cls, teachers: Sequence[Network], multilabel: bool = False) -> "LiveTeacher":
        return cls({net: placed(net) for net in teachers}, multilabel=multilabel)

    def with_features(
        self,
        heavy: Network,
        channels: Channels,
        kept: Mapping[str, tuple[int, ...]],
        pixels: Tensor,
        names: Sequence[str] | None = None,
    ) -> "LiveTeacher":
        """One that gives the features of `heavy` too, at `names` or else its `feature_tensors`; their deviation is that
        on some images, uint8 [N, H, W, 3]."""
        device, names = best_device(), names or feature_tensors(heavy)
        index = {name: torch.as_tensor(kept_channels(name, channels, kept), device=device) for name in names}
        one = replace(self, heavy=self.members[heavy] if heavy in self.members else placed(heavy), index=index)
        _, values = one.targets(pixels.to(device))
        variances = {name: value.var((0, 2, 3), correction=0, keepdim=True) for name, value in values.items()}
        return replace(one, std={name: each.clamp_min(1e-6).sqrt() for name, each in variances.items()})

    def batch(
        self, indices: Tensor, views: Sequence[View], size: tuple[int, int], rows: Tensor | None, device: torch.device
    ) -> list[Tensor]:
        return []

    @torch.no_grad()
    def targets(self, pixels: Tensor, *stored: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        heavy = self.heavy
        with autocast(pixels.device):
            values = {} if heavy is None else heavy.run(heavy.real(pixels, torch.channels_last), keep=self.index)
            views = [
                values[net.output] if net is heavy else net(net.real(pixels, torch.channels_last))
                for net in self.members.values()
            ]
        features = {name: pooled(values[name].float()[:, kept]) for name, kept in self.index.items()}
        return all_classes(joined(torch.stack(views).float(), self.multilabel), self.multilabel), features


def teacher_maps(
    member: Member, images: Packed, size: Size, cache: Path, tta: Sequence[str] = (), multilabel: bool = False
) -> np.ndarray:
    """What a teacher says of each image at `size`, uint8 [N, classes, H, W] or with `multilabel` [N, labels + 1, H, W]:
    as `joined` has it, 255 being 1. `images` are of the size that it reads.

    Kept in the cache under what they were made from. An interrupted computation goes on where it stopped, a second
    process waits for the first, and an image that the same teacher had in another set costs nothing. Processes that
    train together (`compress.train.processes`) look at a part of the images each. Raises DataError on a full disk, and
    what the teacher does.
    """
    shape = (len(images.array), member.classes + multilabel, *size)
    kind = "label maps" if multilabel else "maps"
    of_teacher = identity(kind, _VERSION, teachers=member.identity, tta=sorted(tta), shape=shape[1:])
    target = cache / f"maps-{of_teacher}-{images.key}.u8"
    processes.cached_in_shares(
        target, lambda partial: _compute_maps(member, tta, images.array, target, partial, shape[1:], multilabel)
    )
    return np.memmap(target, np.uint8, mode="r", shape=shape)


def _compute_maps(
    member: Member,
    tta: Sequence[str],
    images: np.ndarray,
    target: Path,
    partial: Path | None,
    shape: tuple[int, ...],
    multilabel: bool,
) -> None:
    """Adds to `partial` what is missing; the images' hashes lie beside `target`, for `_known`. Without a `partial` it
    helps another process, which has one."""
    with member.looking(tta) as look:

        def answer(index: int) -> np.ndarray:
            give_way()
            views = at_size(look(torch.from_numpy(images[index : index + 1].copy())), (shape[1], shape[2]))
            return in_bytes(joined(views, multilabel))

        if partial is None:
            deque(processes.in_shares(processes.from_first(list), answer), maxlen=0)
            return
        map_bytes = int(np.prod(shape))
        hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        known = _known(target, map_bytes)
        with partial.open("ab") as file:
            done = os.path.getsize(partial) // map_bytes
            file.truncate(done * map_bytes)
            missing = [index for index in range(done, len(images)) if hashes[index] not in known]
            made = processes.in_shares(processes.from_first(lambda: missing), answer)
            for index in tqdm(range(len(images)), desc="teacher's maps", unit="image", delay=1):
                if index >= done:
                    file.write((known[hashes[index]] if hashes[index] in known else next(made)).tobytes())
    with written(target.with_suffix(".json")) as listed:
        listed.write_text(json.dumps(hashes))


def maps_in_folder(maps: Maps, size: Size, cache: Path) -> np.ndarray:
    """The same of a folder of maps, in the order of its images."""
    folder = maps.folder

    def read(mask: Mask) -> np.ndarray:
        probabilities = torch.from_numpy(maps.probabilities(mask))[None]
        return in_bytes(joined(at_size(probabilities, size), folder.multilabel))

    shape = (len(folder.classes) + folder.multilabel, *size)
    return pack_maps(maps.files, shape, read, cache, **maps.how).array


def at_size(probabilities: Tensor, size: Size) -> Tensor:
    """[N, classes, h, w] -> [N, classes, H, W]."""
    if probabilities.shape[2:] == size:
        return probabilities
    return F.interpolate(probabilities, size, mode="bilinear", antialias=True)


def in_bytes(maps: Tensor) -> np.ndarray:
    return (maps * 255).round().byte().numpy()


def joined_maps(
    stored: Sequence[np.ndarray], names: Sequence[str], key: str, cache: Path, multilabel: bool
) -> np.ndarray:
    """What several teachers, called `names`, say together of the images that `key` names; `stored` is what each says.
    Kept in the cache. Raises DataError."""
    if len(stored) == 1:
        return stored[0]
    of_all = identity("joined maps", 1, teachers=list(names), shape=stored[0].shape[1:], multilabel=multilabel)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            for maps in tqdm(zip(*stored), desc="teachers' maps", total=len(stored[0]), unit="image", delay=1):
                each = all_classes(torch.from_numpy(np.stack(maps)).float() / 255, multilabel)[:, :-1]
                file.write(in_bytes(joined(each.clamp(ROUNDED, 1 - ROUNDED), multilabel)).tobytes())

    target = cached(cache / f"maps-{of_all}-{key}.u8", write)
    return np.memmap(target, np.uint8, mode="r", shape=stored[0].shape)


def _known(target: Path, map_bytes: int) -> dict[str, np.ndarray]:
    """The maps of finished files of the same teachers, uint8 [map_bytes] by the sha256 of the image's pixels."""
    found: dict[str, np.ndarray] = {}
    for hashes in target.parent.glob(f"{target.stem.rsplit('-', 1)[0]}-*.json"):
        if (maps := hashes.with_suffix(".u8")).exists():
            rows = np.memmap(maps, np.uint8, mode="r").reshape(-1, map_bytes)
            found.update(zip(json.loads(hashes.read_text()), rows, strict=True))
    return found


def joined(members: Tensor, multilabel: bool = False) -> Tensor:
    """Probabilities [M, ..., classes, H, W] of M members -> [..., classes, H, W]: those of every class but the first,
    then the uncertainty; with `multilabel` [..., labels + 1, H, W]: those of every label, then the uncertainty.

    The members' logits are averaged. The uncertainty, from 0 to 1, is the larger of how far the likeliest class is from
    certain and of how far the members are apart: twice their mean total variation from the average. Of labels it is
    that of the one that is least certain, each against its absence.
    """
    if multilabel:
        return _joined_labels(members)
    logits = members.clamp(1e-5, 1).log()
    mean = torch.softmax((logits - logits.mean(-3, keepdim=True)).mean(0), -3)
    classes = mean.shape[-3]
    unsure = (1 - mean.amax(-3, keepdim=True)) * classes / (classes - 1)
    apart = (members / members.sum(-3, keepdim=True) - mean).abs().sum(-3, keepdim=True).mean(0)
    return torch.cat([mean[..., 1:, :, :], torch.maximum(unsure, apart).clamp(max=1)], -3)


def _joined_labels(members: Tensor) -> Tensor:
    mean = torch.logit(members, 1e-5).mean(0).sigmoid()
    unsure = 1 - (2 * mean - 1).abs()
    apart = 2 * (members - mean).abs().mean(0)
    return torch.cat([mean, torch.maximum(unsure, apart).amax(-3, keepdim=True).clamp(max=1)], -3)


def all_classes(predicted: Tensor, multilabel: bool = False) -> Tensor:
    """What `joined` gives, and before it the probability of the first class, [n, classes + 1, H, W]; labels have
    none."""
    others = predicted[:, :-1]
    return predicted if multilabel else torch.cat([(1 - others.sum(1, keepdim=True)).clamp_min(0), predicted], 1)


def feature_tensors(net: Network) -> list[str]:
    """Where features are compared: the results of additions, which end a block; where a network has few,
    convolutions spread evenly over it, but for the normalisation, which no student has."""
    sums = [node.name for node in net.nodes if node.op == "add"]
    if len(sums) >= 4:
        return sums
    layers = [node for node in net.nodes if node.kind.weights and node.name != NORMALISE]
    convs = [node.name for node in layers if node.attrs.groups == 1][:-1]
    return sorted({*sums, *convs[:: max(1, len(convs) // 8)]})


def teacher_features(
    teacher: Network,
    channels: Channels,
    kept: Mapping[str, tuple[int, ...]],
    images: np.ndarray,
    looked_at: Sequence[tuple[int, View]],
    size: tuple[int, int],
    folder: Path,
    names: Sequence[str] | None = None,
) -> Features:
    """Features of views of the images of these indices, at `size`, of the tensors `names` or else `feature_tensors`; as
    many as `FEATURE_BYTES` hold. They lie in files of `folder` that have no name, and are gone with them. Processes
    that train together look at a part of the views each, and keep all. Raises DataError on a full disk."""
    names = names or feature_tensors(teacher)
    heavy, device = placed(teacher), best_device()
    index = {name: kept_channels(name, channels, kept) for name in names}
    limit = len(looked_at)
    shapes: dict[str, torch.Size] = {}
    scales: dict[str, float] = {}
    sums = {name: torch.zeros(()) for name in names}
    squares = {name: torch.zeros(()) for name in names}

    def look(at: tuple[int, View]) -> np.ndarray:
        """float32 values of all tensors, as bytes."""
        give_way()
        i, view = at
        pixels = view.of_pixels(torch.from_numpy(images[i : i + 1].copy()), size)
        with autocast(device):
            values = heavy.run(teacher.real(pixels, torch.channels_last).to(device), keep=names)
        kept = [pooled(values[name].float()[:, index[name]]).cpu() for name in names]
        shapes.update({name: value.shape for name, value in zip(names, kept, strict=True)})
        return torch.cat([value.flatten() for value in kept]).numpy().view(np.uint8)

    try:
        with torch.no_grad(), ExitStack() as stack:
            files = {name: stack.enter_context(TemporaryFile(dir=folder)) for name in names}
            bar = {"desc": "teacher's features", "total": len(looked_at), "unit": "image", "delay": 1}
            for count, made in enumerate(tqdm(processes.in_shares(looked_at, look), **bar)):
                if count >= limit:
                    break
                parts = torch.from_numpy(made.view(np.float32)).split([shapes[name].numel() for name in names])
                for name, part in zip(names, parts, strict=True):
                    value = part.reshape(shapes[name])
                    sums[name] = sums[name] + value.double().mean((2, 3), keepdim=True)
                    squares[name] = squares[name] + value.double().square().mean((2, 3), keepdim=True)
                    scales.setdefault(name, _scale(value))
                    files[name].write((value / scales[name]).clamp(-HALF, HALF).half().contiguous().numpy().tobytes())
                limit = min(limit, FEATURE_BYTES // sum(2 * shape.numel() for shape in shapes.values()))
            count = min(limit, len(looked_at))
            kept = {name: (count, *shapes[name][1:]) for name in names}
            stored = {name: np.memmap(files[name], np.float16, "r", shape=kept[name]) for name in names}
    except OSError as error:
        raise unwritten(folder, error) from None
    std = {n: (squares[n] / count - (sums[n] / count).square()).clamp_min(1e-6).sqrt().float() for n in names}
    picked = looked_at[:count]
    return Features(torch.tensor([i for i, _ in picked]), [view for _, view in picked], stored, std, scales)


def _scale(values: Tensor) -> float:
    """The power of two that leaves the largest of other values 128 times as much as the largest of these."""
    return 2.0 ** (math.frexp(float(values.abs().max()))[1] - 9)


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
        whole = rows.expand(count, height, down, width, across, channels)
        return whole.reshape(count, height * down, width * across, channels).permute(0, 3, 1, 2), None
