"""Latency of an .onnx or .ort file layer by layer, by onnxruntime's own profiler in a process of its own.

    python -m compress.runtime.layers FILE THREADS RUNS SECONDS

prints the profiler's events as JSON, where each run ends within SECONDS. The profiler's clock reads whole microseconds
and costs some itself, so the sum is a little above the file's latency. LiteRT's Python package has no such profiler.
"""

import json
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compress.errors import MeasureError
from compress.machine import THREADS, measuring
from compress.runtime import deadline

SUFFIXES = (".onnx", ".ort")
_WARM_UP = 3
_END_OF_RUN = "model_run"
_ADDED = re.compile(r"(_token_\d+)?_kernel_time$")  # by onnxruntime, to the name of a node


@dataclass(frozen=True)
class LayerTime:
    """Nodes without a name of their own, such as QuantizeLinear, are summed under their kernel's."""

    name: str
    kernel: str  # as onnxruntime calls what it ran, after fusion
    ms: float  # median over the runs


def layer_times(path: Path, *, threads: int = THREADS, runs: int = 20) -> tuple[LayerTime, ...]:
    """In order of execution. Raises MeasureError for a file that onnxruntime cannot run, or that gives no answer."""
    seconds = deadline.limit_seconds(path)
    command = [sys.executable, "-P", "-m", "compress.runtime.layers", str(path)]
    command += map(str, (threads, runs + _WARM_UP, seconds))
    with measuring():
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if deadline.ran_out(done.returncode):
        raise MeasureError(deadline.says(path, seconds))
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise MeasureError(f"{path}: onnxruntime cannot profile it: {reason}; export it again")
    return summarize(json.loads(done.stdout), _WARM_UP)


def summarize(events: Iterable[dict[str, Any]], warm_up: int) -> tuple[LayerTime, ...]:
    """The profiler's events -> one value for each layer; the first `warm_up` runs are not counted."""
    kernels: dict[str, str] = {}
    runs: list[dict[str, float]] = []
    current: dict[str, float] = defaultdict(float)
    for event in events:
        if event["name"] == _END_OF_RUN:
            runs.append(current)
            current = defaultdict(float)
        elif _ADDED.search(event["name"]):
            kernel = event["args"]["op_name"]
            name = _ADDED.sub("", event["name"])
            name = kernel if re.fullmatch(rf"{re.escape(kernel)}(_\d+)*", name) else name
            kernels.setdefault(name, kernel)
            current[name] += event["dur"] / 1e3
    counted = runs[warm_up:]
    return tuple(
        LayerTime(name, kernel, statistics.median(run.get(name, 0.0) for run in counted))
        for name, kernel in kernels.items()
    )


def main(path: Path, threads: int, runs: int, seconds: int) -> None:
    import numpy as np
    import onnxruntime as ort

    deadline.prepare_child()
    deadline.start(seconds)

    with TemporaryDirectory(prefix="compress-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0]
        noise = np.random.default_rng(0).integers(0, 256, [1, *source.shape[1:]])
        dtype = np.float32 if source.type == "tensor(float)" else np.uint8
        feed = {source.name: noise.astype(dtype)}
        for _ in range(runs):
            deadline.start(seconds)
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    wanted = [event for event in events if event["cat"] == "Node" or event["name"] == _END_OF_RUN]
    json.dump(wanted, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
