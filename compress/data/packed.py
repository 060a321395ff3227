"""Decoded and resized images in one file, so that each is read once whatever the number of epochs and runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from compress.data.coding import CLASS_IDS, Coding
from compress.data.images import RGB, LabelMasks, Mask, Reading, Size, read_all, read_image, read_mask
from compress.files import cached, content_hash, identity

Item = TypeVar("Item", bound=Mask)

_VERSIONS = {"images": 1, "masks": 2, "label masks": 1, "maps": 1}
"""Raised whenever reading or resizing gives other pixels, so that older entries are not met."""


@dataclass(frozen=True)
class Packed:
    """`array` is read from the disk as it is needed. `key` names its content: what is computed from
    the array alone can be cached under it."""

    array: np.ndarray
    key: str


def pack_images(paths: Sequence[Path], size: Size, cache: Path, reading: Reading = RGB) -> Packed:
    """uint8 [N, H, W, channels], in the order of `paths`. Raises DataError: unreadable image, disk full."""
    how: dict[str, Any] = {"range": reading.range} if reading.range else {}
    shape = (*size, reading.channels)
    return _pack("images", paths, shape, lambda path: read_image(path, size, reading), cache, **how)


def pack_masks(paths: Sequence[Mask], size: Size, cache: Path, coding: Coding = CLASS_IDS) -> Packed:
    """uint8 [N, H, W], class ids and 255 for void, or int32 sets of labels, in the order of `paths`. Raises as
    `pack_images` does."""
    if any(isinstance(path, LabelMasks) for path in paths):
        return _pack("label masks", paths, size, lambda path: read_mask(path, size=size), cache, np.int32)
    return _pack("masks", paths, size, lambda path: read_mask(path, coding, size), cache, coding=asdict(coding))


def pack_maps(
    maps: Sequence[Mask], shape: tuple[int, ...], read: Callable[[Mask], np.ndarray], cache: Path, **how: object
) -> Packed:
    """uint8 [N, *shape], in the order of `maps`: what `read` makes of each; `how`: all that decides it but the files.
    Raises as `pack_images` does."""
    return _pack("maps", maps, shape, read, cache, how=how)


def _pack(
    kind: str,
    paths: Sequence[Item],
    shape: tuple[int, ...],
    read: Callable[[Item], np.ndarray],
    cache: Path,
    dtype: type[np.generic] = np.uint8,
    **more: object,
) -> Packed:
    hashes = list(read_all(_hash_of, paths, f"hashing {kind}"))
    key = identity(kind, _VERSIONS[kind], shape=shape, images=hashes, **more)
    if not paths:
        return Packed(np.zeros((0, *shape), dtype), key)
    whole = (len(paths), *shape)
    target = cached(
        cache / f"{kind}-{key}.npy",
        lambda path: _write(path, whole, read_all(read, paths, f"reading {kind}"), np.dtype(dtype)),
        wanted=f" for {np.prod(whole) * np.dtype(dtype).itemsize / 1e6:.0f} MB",
    )
    return Packed(np.load(target, mmap_mode="r"), key)


def _hash_of(source: Mask) -> str | list[str | None]:
    if isinstance(source, LabelMasks):
        return [content_hash(path) if path else None for path in source.files]
    return content_hash(source)


def _write(path: Path, shape: tuple[int, ...], arrays: Iterable[np.ndarray], dtype: np.dtype[Any]) -> None:
    """In sequence, not through a memory map: on a full disk a write fails, but a mapped page kills the process."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
        for array in arrays:
            file.write(array.tobytes())
