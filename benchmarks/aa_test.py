"""Does the interval of a latency ratio keep its promise? The same file against itself, again and again.

    python benchmarks/aa_test.py FILE [RUNS] [SECONDS] [THREADS]

FILE is an .onnx, .ort or .tflite file, RUNS the number of comparisons (default 100), SECONDS the time of counted
inferences for each side of one (default 2), THREADS those of the runtime (default 2, where there are as many cores).
Prints in how many runs the 95 % interval of the ratio contains 1, the truth here: at least 93 of 100 are expected. Run
it on the noisiest machine that there is.
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import trange

from compress.machine import THREADS
from compress.measure.latency import take_turns
from compress.measure.statistics import speedup


def main(file: Path, runs: int = 100, seconds: float = 2.0, threads: int = THREADS) -> None:
    ratios = []
    for _ in trange(runs, desc="A/A", unit="run"):
        latency = take_turns({"a": file, "b": file}, seconds=seconds, threads=threads)
        ratios.append(speedup(latency["a"], latency["b"]))
    held = sum(ratio.low <= 1 <= ratio.high for ratio in ratios)
    widths = [ratio.high / ratio.low - 1 for ratio in ratios]
    middles = [ratio.mean for ratio in ratios]
    print(f"{file.name}: the interval contains 1 in {held} of {runs} runs")
    print(f"median width of the interval {np.median(widths):.1%}, ratios from {min(middles):.3f} to {max(middles):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]), *map(float, sys.argv[3:4]), *map(int, sys.argv[4:5]))
