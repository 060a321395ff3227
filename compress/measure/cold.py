"""What a file costs a phone besides inferences: bytes to download, time and memory when it is opened afresh."""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from compress.machine import THREADS
from compress.measure.values import Cold
from compress.runtime.local import Child
from compress.terminal.progress import tqdm

LAUNCHES = 5
_PIECE = 1 << 20
_INFERENCES = 3  # the first allocates; memory has been seen to grow until the second


def launch(
    files: Mapping[str, Path],
    *,
    threads: int = THREADS,
    launches: int = LAUNCHES,
    open_child: Callable[[Path, int], Child] = Child,
) -> dict[str, Cold]:
    """Opens each file `launches` times, one process at a time and in turns. Raises MeasureError.

    The system's cache holds the file from the first launch on: this is the time that the runtime takes, not the disk.
    """
    names = list(files)
    found: dict[str, list[tuple[float, float, int | None]]] = {name: [] for name in names}
    with tqdm(total=launches * len(names), desc="launching", unit="launch", delay=1) as bar:
        for turn in range(launches):
            for name in reversed(names) if turn % 2 else names:
                with open_child(files[name], threads) as child:
                    first_ms = child.time(_INFERENCES)[0]
                    found[name].append((child.load_ms, first_ms, child.memory_bytes()))
                bar.update()
    return {name: _median(each) for name, each in found.items()}


def _median(launches: list[tuple[float, float, int | None]]) -> Cold:
    load_ms, first_ms, memory = zip(*launches, strict=True)
    known = [size for size in memory if size is not None]
    return Cold(float(np.median(load_ms)), float(np.median(first_ms)), round(np.median(known)) if known else None)


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
