"""Latency of exported files, side by side."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from compress.machine import THREADS, busy, measuring
from compress.measure.statistics import turn_medians_ms
from compress.measure.values import Latency
from compress.runtime.local import Child
from compress.terminal.progress import tqdm

_WARM_UP = 3
_STANDS_OUT = 1.1  # times the slowest of the others
_RESTLESS = 1.25  # slow turns to fast ones: the 90th to the 10th percentile


def take_turns(
    files: Mapping[str, Path],
    *,
    threads: int = THREADS,
    turns: int = 10,
    seconds: float = 5.0,
    rest_seconds: float = 0.05,
    open_child: Callable[[Path, int], Child] = Child,
) -> dict[str, Latency]:
    """Latency of each file, in a child process of its own, of which one at a time computes.

    The order is reversed from turn to turn (A B, B A, ...), so that a machine that slows down or
    heats up does so for all; `seconds` is the time that each file's counted inferences take in all,
    by its warm-up. `rest_seconds` pass before a turn: onnxruntime's threads spin on for about 30 ms
    after an inference, as they would in an app, and then sleep. Runs that share this host pause
    meanwhile. `speedup` compares two of the results. Raises MeasureError.
    """
    names = list(files)
    samples: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack, tqdm(total=(turns + 1) * len(names), desc="measuring latency", unit="turn") as bar:
        stack.enter_context(measuring())
        children, runs = {}, {}
        for name in names:
            children[name] = stack.enter_context(open_child(files[name], threads))
            warm_ms = min(children[name].time(_WARM_UP))
            runs[name] = max(1, round(seconds * 1e3 / turns / warm_ms))
            bar.update()
        for turn in range(turns):
            for name in reversed(names) if turn % 2 else names:
                time.sleep(rest_seconds)
                samples[name] += children[name].time(runs[name] + 1)[1:]  # the first finds cold caches
                bar.update()
        return {name: _latency(samples[name], threads, children[name].runtime, turns) for name in names}


def _latency(samples_ms: list[float], threads: int, runtime: str, turns: int) -> Latency:
    p50_ms, p90_ms = np.percentile(samples_ms, [50, 90])
    return Latency(float(p50_ms), float(p90_ms), tuple(samples_ms), threads, runtime, turns)


def advice(
    latencies: Mapping[str, Latency], load: float, cores: int, longer: str = "with --seconds"
) -> tuple[str, ...]:
    """What makes the figures of one `take_turns` less certain, and what to do about it, one sentence each.

    `load` is the load average just before, `cores` the number of the machine's processors; `longer` says how to
    measure longer.
    """
    full = busy(load, cores)
    found = [full] if full else []
    restless, first = {}, {}
    for name, latency in latencies.items():
        medians = turn_medians_ms(latency)
        low, high = np.percentile(medians, [10, 90])
        if latency.turns > 1 and medians[0] > _STANDS_OUT * medians[1:].max():
            first[name] = medians[0] / np.median(medians[1:])
        elif high > _RESTLESS * low:
            restless[name] = high / low
    if first:
        name, times = max(first.items(), key=lambda item: item[1])
        found.append(
            f"the first turn of {name} stood out, {times:.1f} times slower than the others: the machine was still "
            f"warming up; measure again, or longer {longer}"
        )
    if restless:
        name, times = max(restless.items(), key=lambda item: item[1])
        found.append(
            f"the machine was noisy: turns of {name} differ by a factor of {times:.1f}; close other programs, use "
            f"fewer threads than cores, or measure longer {longer}"
        )
    return tuple(found)
