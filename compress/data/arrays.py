"""Files of numbers that are no pictures to a viewer: NumPy arrays, and TIFF files of several bands."""

import math
from pathlib import Path

import numpy as np

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How such a file begins; the last two are BigTIFF."""
LARGEST = 1 << 30
"""Bytes of one image that are read."""
_DENSEST = 1100
"""Times that a deflated file grows at most."""


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped: its header is looked at, and nothing larger than the file is made. Raises
    ValueError, and whatever numpy raises for another file."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise ValueError("not one array, as numpy.save writes it")
    _check_bytes(values.nbytes)
    return values


def read_tiff(path: Path, channels: int) -> np.ndarray:
    """[H, W] or [H, W, C] of the first page, or of as many alike pages as `channels`, one of them each. Raises
    ValueError, and whatever tifffile raises for another file."""
    import tifffile

    tifffile.logger().setLevel("CRITICAL")  # what is wrong with a file is raised too
    with tifffile.TiffFile(path) as file:
        pages = list(file.pages[: channels + 1])
        first = pages[0]
        alike = len(pages) == channels and all((p.shape, p.dtype) == (first.shape, first.dtype) for p in pages)
        stack = pages if alike and first.axes == "YX" else [first]
        count = len(stack) * math.prod(first.shape) * np.dtype(first.dtype).itemsize
        _check_bytes(count)
        if count > _DENSEST * path.stat().st_size:
            raise ValueError("is cut off")
        values = [np.moveaxis(page.asarray(), 0, -1) if page.axes == "SYX" else page.asarray() for page in stack]
    return values[0] if len(values) == 1 else np.stack(values, axis=-1)


def _check_bytes(count: int) -> None:
    if count > LARGEST:
        raise ValueError(f"has {count:,} bytes, more than the {LARGEST:,} that are read of an image; cut it to tiles")
