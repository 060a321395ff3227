"""Bytes that a file costs on its way to a phone."""

import zlib
from pathlib import Path

from tqdm import tqdm

_PIECE = 1 << 20


def deflated_bytes(path: Path) -> int:
    """Size as an entry of an APK that is not stored as it is: raw deflate at zip's usual level, 6, without headers.

    Shops compress a download in this way too, whether the file lies compressed on the phone or not.
    """
    deflate, size = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS), 0
    with (
        path.open("rb") as file,
        tqdm(total=path.stat().st_size, desc=f"deflating {path.name}", unit="B", unit_scale=True, delay=1) as bar,
    ):
        while piece := file.read(_PIECE):
            size += len(deflate.compress(piece))
            bar.update(len(piece))
    return size + len(deflate.flush())
