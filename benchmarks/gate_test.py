"""Does the gate catch what it should, and let pass what it should?

    python benchmarks/gate_test.py RUN --data DIR [--times 20] [--only VARIANT ...]

RUN is the output folder of `compress run`, DIR a folder with val/images and val/masks. From the run's quantized graph
three regressions of its TFLite file are made: 5 % more bytes (a longer description), 15 % slower (extra layers that
change no answer), 0.02 less IoU (a shifted bias). Each, and a copy of the file, is gated so many times against the
same budget, at the default settings. Exit code 1 where one regression is let pass or one copy is not.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from compress.formats.metadata import Card
from compress.formats.npz import read_graph
from compress.graph.operators.conv import ConvAttributes
from compress.graph.quantized import QuantizedGraph, QuantizedOperator
from compress.judge.gate import Rules, gate
from compress.measure.latency import take_turns
from compress.measure.statistics import speedup
from compress.release.export import EXPORTERS

VARIANTS = ["unchanged", "larger", "worse", "slower"]
MORE_BYTES, SLOWER, LESS_IOU = 1.05, 1.15, 0.02
SIZE_LIMIT, LATENCY_LIMIT, DROP_LIMIT = 1.02, 1.1, 0.01


def larger(graph: QuantizedGraph, base: Path, path: Path) -> None:
    wanted = MORE_BYTES * base.stat().st_size
    letters = "".join(np.random.default_rng(0).choice(list("abcdefgh"), int(wanted)))
    for length in count(0, max(1, base.stat().st_size // 200)):
        EXPORTERS["tflite"](graph, path, card=Card(graph.name, description=letters[:length]))
        if path.stat().st_size >= wanted:
            return


def multiplications(graph: QuantizedGraph, operator: QuantizedOperator) -> int:
    height, width = graph.tensors[operator.output].shape[2:]
    return 0 if operator.weight is None else operator.weight.size * height * width


def extra_layer(graph: QuantizedGraph, share: float) -> QuantizedGraph:
    """With one convolution more, of about `share` of all multiplications, that leaves every value as it is."""
    wanted = share * sum(multiplications(graph, operator) for operator in graph.operators)
    places = [
        (abs(np.log(channels**2 * kernel**2 * height * width / wanted)), kernel, operator)
        for operator in graph.operators
        if operator.op == "conv" and operator.weight_scale is not None
        for (_, channels, height, width) in [graph.tensors[operator.output].shape]
        for kernel in (1, 3, 5)
    ]
    _, kernel, before = min(places, key=lambda place: place[0])
    spec = graph.tensors[before.output]
    raw = f"{spec.name}_before_{len(graph.operators)}"
    channels = spec.shape[1]
    weight = np.zeros((channels, channels, kernel, kernel), np.int8)
    weight[range(channels), range(channels), kernel // 2, kernel // 2] = 127
    attrs = ConvAttributes(padding=(kernel // 2,) * 2)
    same = np.full(channels, 1 / 127, np.float32)
    layer = QuantizedOperator("conv", f"extra_{len(graph.operators)}", (raw,), spec.name, attrs, None, weight, same)
    layer = replace(layer, bias=np.zeros(channels, np.int32))
    at = graph.operators.index(before)
    operators = (*graph.operators[:at], replace(before, output=raw), layer, *graph.operators[at + 1 :])
    return replace(graph, tensors={**graph.tensors, raw: replace(spec, name=raw)}, operators=operators)


def slower(graph: QuantizedGraph, base: Path, path: Path) -> float:
    """How many times slower it came out, measured for long: with a layer that should do, then one for what is left."""
    missing = SLOWER - 1
    while True:
        graph = extra_layer(graph, missing)
        EXPORTERS["tflite"](graph, path)
        turns = take_turns({"slower": path, "base": base}, seconds=10, turns=20)
        ratio = speedup(turns["slower"], turns["base"])
        print(f"slower: {ratio.mean:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] times the base's latency", flush=True)
        if ratio.mean >= SLOWER:
            return ratio.mean
        missing = max(0.01, SLOWER / ratio.mean - 1)


def worse(graph: QuantizedGraph, base: Path, path: Path, data: Path) -> float:
    """The drop of IoU that it came out with: about the weakest shift of the last bias that reaches it."""
    last = max(i for i, operator in enumerate(graph.operators) if operator.bias is not None)
    operator = graph.operators[last]
    real = operator.weight_scale * graph.tensors[operator.inputs[0]].scale
    first = np.zeros(len(operator.bias))
    first[0] = -1 if len(first) == 1 else 1  # less of the object, or more background

    def drop(logits: float) -> float:
        shifted = replace(operator, bias=operator.bias + np.rint(first * logits / real).astype(np.int32))
        operators = (*graph.operators[:last], shifted, *graph.operators[last + 1 :])
        EXPORTERS["tflite"](replace(graph, operators=operators), path)
        (check,) = gate(path, Rules((f"iou_drop<=0 {base}",)), data=data).verdict.checks
        return check.measured or 0.0

    high = next((logits for logits in 0.05 * 2.0 ** np.arange(12) if drop(logits) >= LESS_IOU), None)
    if high is None:
        raise SystemExit("no shift of the last bias lowers IoU that far")
    low = high / 2
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (low, middle) if drop(middle) >= LESS_IOU else (middle, high)
    return drop(high)


def variants(run: Path, data: Path, folder: Path, base: Path, wanted: list[str]) -> Iterator[tuple[str, Path]]:
    graph = read_graph(run / "checkpoints" / "graph.npz")
    paths = {name: folder / f"{name}.tflite" for name in wanted}
    if path := paths.get("unchanged"):
        yield "unchanged", Path(shutil.copy(base, path))
    if path := paths.get("larger"):
        larger(graph, base, path)
        yield f"{path.stat().st_size / base.stat().st_size - 1:.1%} more bytes", path
    if path := paths.get("worse"):
        yield f"{worse(graph, base, path, data):.3f} less IoU", path
    if path := paths.get("slower"):
        yield f"{slower(graph, base, path) - 1:.1%} slower", path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=VARIANTS, choices=VARIANTS)
    options = parser.parse_args()
    base = (options.run / "model.tflite").absolute()
    limits = (
        f"{int(SIZE_LIMIT * base.stat().st_size)}B",
        f"latency<={LATENCY_LIMIT}x {base}",
        f"iou_drop<={DROP_LIMIT} {base}",
    )
    print("\n".join(limits), flush=True)
    right = True
    with TemporaryDirectory() as folder:
        for name, path in variants(options.run, options.data, Path(folder), base, options.only):
            passed, undecided, start = 0, 0, time.monotonic()
            for _ in range(options.times):
                verdict = gate(path, Rules(limits), data=options.data).verdict
                passed += verdict.passed
                undecided += any(check.undecided for check in verdict.checks)
            seconds = (time.monotonic() - start) / options.times
            good = passed if path.stem == "unchanged" else options.times - passed
            word = "passed" if path.stem == "unchanged" else "caught"
            print(f"{name}: {word} {good} of {options.times}, {undecided} undecided, {seconds:.0f} s each", flush=True)
            right = right and good == options.times
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
