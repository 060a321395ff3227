"""What an app's user waits for, and what the system has to hold, when a file is opened in a fresh process."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from compress.machine import THREADS
from compress.measure.values import Cold
from compress.runtime.local import Child

_INFERENCES = 3  # the first allocates; memory has been seen to grow until the second


def launch(
    files: Mapping[str, Path],
    *,
    threads: int = THREADS,
    launches: int = 5,
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
