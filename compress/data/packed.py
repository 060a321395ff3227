"""Decoded and resized images in one file, so that each is read once whatever the number of epochs and runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from compress.data.coding import CLASS_IDS, Coding
from compress.data.images import RGB, Reading, Size, read_all, read_image, read_mask
from compress.files import cached, content_hash, identity

_VERSIONS = {"images": 1, "masks": 2}
"""Raised whenever reading or resizing gives other pixels, so that older entries are not met."""


@dataclass(frozen=True)
class Packed:
    """`array` is read from the disk as it is needed. `key` names its content: what is computed from
    the array alone can be cached under it."""

    array: np.ndarray
    key: str


def pack_images(paths: Sequence[Path], size: Size, cache: Path, reading: Reading = RGB) -> Packed:
    """uint8 [N, H, W, channels], in the order of `paths`. Raises DataError: unreadable image, disk full."""
    how = {"range": reading.range} if reading.range else {}
    shape = (*size, reading.channels)
    return _pack("images", paths, shape, lambda path: read_image(path, size, reading), cache, **how)


def pack_masks(paths: Sequence[Path], size: Size, cache: Path, coding: Coding = CLASS_IDS) -> Packed:
    """uint8 [N, H, W], class ids and 255 for void, in the order of `paths`. Raises as `pack_images` does."""
    return _pack("masks", paths, size, lambda path: read_mask(path, coding, size), cache, coding=asdict(coding))


def _pack(
    kind: str,
    paths: Sequence[Path],
    shape: tuple[int, ...],
    read: Callable[[Path], np.ndarray],
    cache: Path,
    **more: object,
) -> Packed:
    hashes = list(read_all(content_hash, paths, f"hashing {kind}"))
    key = identity(kind, _VERSIONS[kind], shape=shape, images=hashes, **more)
    if not paths:
        return Packed(np.zeros((0, *shape), np.uint8), key)
    whole = (len(paths), *shape)
    target = cached(
        cache / f"{kind}-{key}.npy",
        lambda path: _write(path, whole, read_all(read, paths, f"reading {kind}")),
        wanted=f" for {np.prod(whole) / 1e6:.0f} MB",
    )
    return Packed(np.load(target, mmap_mode="r"), key)


def _write(path: Path, shape: tuple[int, ...], arrays: Iterable[np.ndarray]) -> None:
    """In sequence, not through a memory map: on a full disk a write fails, but a mapped page kills the process."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for array in arrays:
            file.write(array.tobytes())
