"""How much faster int8 is than the same student in fp32, in each runtime.

    python benchmarks/int8_speed.py RUN

RUN is the output folder of `compress run`. The fp32 files are written from the student as it was before quantization;
all four files take turns, each in a process of its own, on 2 threads.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from compress.graph.network import Network
from compress.measure.latency import take_turns
from compress.measure.statistics import speedup
from compress.quantize.convert import float_graph
from compress.release.export import EXPORTERS


def float_student(run: Path) -> Network:
    """The student of a run as it was before quantization."""
    checkpoints = [run / "checkpoints" / f"{stage}.pt" for stage in ("distil", "repair")]
    kept = torch.load(next(path for path in checkpoints if path.exists()), weights_only=True)
    return Network.from_state(kept["state"])


def main(run: Path) -> None:
    graph = float_graph(float_student(run), "student")
    with TemporaryDirectory() as folder:
        files = {}
        for name in ("onnx", "tflite"):
            EXPORTERS[name](graph, Path(folder) / f"float.{name}")
            files |= {f"{name} fp32": Path(folder) / f"float.{name}", f"{name} int8": run / f"model.{name}"}
        latency = take_turns(files)
    for name, measured in latency.items():
        print(f"{name}: p50 {measured.p50_ms:.1f} ms, p90 {measured.p90_ms:.1f} ms")
    for name in ("onnx", "tflite"):
        ratio = speedup(latency[f"{name} fp32"], latency[f"{name} int8"])
        print(f"{name}: int8 is {ratio.mean:.2f} times faster [{ratio.low:.2f}, {ratio.high:.2f}]")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
