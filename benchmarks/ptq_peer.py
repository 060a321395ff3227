"""What neural-compressor's static quantization makes of the student that `--quantize ptq` is given.

    python -m venv PEER
    PEER/bin/pip install --constraint constraints.txt . 'neural-compressor[pt]==3.10' onnxscript
    PEER/bin/python benchmarks/ptq_peer.py RUN --data DIR [--images 12] [--calibration 8] [--size 320]

RUN is the output folder of `compress run`, of which the float student is read; DIR has train/ and val/. Both calibrate
on the same images of train/. neural-compressor runs its PT2E static quantization: its default, which has a scale for
each channel of the weights; one scale for each weight; and what its `autotune` takes of the two by the IoU on a quarter
as many further images of train/. Ours takes ranges, balance and biases by the same images, as a run does. The table has
the IoU on images of val/, and the convolutions that onnxruntime fuses to integers in the exported file.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from int8_speed import float_student
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import StaticQuantConfig, TuningConfig, autotune, convert, prepare
from torch import Tensor
from tqdm import tqdm

from compress.data.folders import Sample, open_dataset
from compress.data.images import read_image, read_mask
from compress.formats.onnx import to_onnx
from compress.graph.network import Network
from compress.measure.masks import class_ids, image_iou
from compress.measure.statistics import SHARE, bootstrap_mean
from compress.quantize.calibration import balance, calibrate_each, correct_biases
from compress.quantize.convert import quantized_graph
from compress.quantize.training import QuantizedNetwork
from compress.runtime.kernels import onnx_kernels

PERCENTILES = (99.9, 99.99, 100.0)
CONFIGS = {"per channel, the default": {}, "per tensor": {"w_granularity": "per_tensor"}}
Model = Callable[[Tensor], Tensor]


def ours(student: Network, pixels: Sequence[Tensor], iou: Callable[[Model], float]) -> QuantizedNetwork:
    """The best of what a run tries without training."""
    tried = [
        QuantizedNetwork(net, ranges)
        for net in (balance(student, pixels), student)
        for ranges in calibrate_each(net, pixels, PERCENTILES)
    ]
    best = max(tried, key=iou)
    corrected = copy.deepcopy(best)
    correct_biases(corrected, best.unquantized(), torch.cat(list(pixels[:4])))
    return max((corrected, best), key=iou)


def fused(write: Callable[[Path], object]) -> str:
    """How many convolutions onnxruntime fuses in the file that `write` makes, or why there is none."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            write(path)
            counts = onnx_kernels(path).counts
        except Exception as error:  # the exporter and the runtime raise types of their own
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"none: {type(error).__name__}: {(lines or [''])[0][:100]}".replace("|", "/")
        return f"{counts.get('QLinearConv', 0)} fused, {counts.get('Conv', 0) + counts.get('FusedConv', 0)} in float"


def main(run: Path, data: Path, images: int, calibration: int, size: int | None) -> None:
    student = float_student(run).eval().requires_grad_(False)
    shape = (size, size) if size else student.traced_size
    classes = student.shapes()[student.output][1]
    dataset = open_dataset(data, tuple(map(str, range(classes))))

    def read(sample: Sample) -> Tensor:
        return student.real(torch.from_numpy(read_image(sample.image, shape).copy())[None])

    pixels = [read(sample) for sample in dataset.train[:calibration]]
    chosen_on = dataset.train[calibration : calibration + max(1, calibration // 4)]
    judged_on = dataset.val[:images]

    def each_iou(model: Model, samples: Sequence[Sample]) -> list[float]:
        found = []
        for sample in tqdm(samples, desc="IoU", unit="image", delay=1):
            mask = read_mask(sample.mask, dataset.coding, shape)
            with torch.no_grad():
                found.append(image_iou(class_ids(model(read(sample))[0].numpy()), mask, classes))
        return found

    def iou(model: Model) -> float:
        return float(np.mean(each_iou(model, chosen_on)))

    def row(name: str, model: Model, kernels: str) -> None:
        mean = bootstrap_mean(each_iou(model, judged_on), within=SHARE)
        print(f"| {name} | {mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}] | {kernels} |", flush=True)

    def calibrate(model: Model) -> None:
        with torch.no_grad():
            for image in tqdm(pixels, desc="neural-compressor", unit="image", delay=1):
                model(image)

    def traced() -> torch.fx.GraphModule:
        return export(copy.deepcopy(student), (pixels[0],))

    def in_onnx(model: torch.nn.Module) -> str:
        return fused(
            lambda path: torch.onnx.export(model, (pixels[0],), path, dynamo=True, external_data=False, verbose=False)
        )

    print(f"{len(judged_on)} images of val/ at {shape[0]}x{shape[1]}, {len(pixels)} to calibrate on\n")
    print("| quantized by | IoU | convolutions in onnxruntime |\n|---|---|---|")
    row("nothing: the float student", student, "-")
    best = ours(student, pixels, iou)
    row("compress, ptq", best, fused(lambda path: to_onnx(quantized_graph(best, "student"), path)))
    for name, options in CONFIGS.items():
        prepared = prepare(traced(), StaticQuantConfig(**options))
        calibrate(prepared)
        quantized = convert(prepared)
        row(f"neural-compressor, {name}", quantized, in_onnx(quantized))
    tuning = TuningConfig(config_set=[StaticQuantConfig(**options) for options in CONFIGS.values()])
    tuned = autotune(traced(), tuning, eval_fn=iou, run_fn=calibrate)
    row("neural-compressor, autotune", tuned, in_onnx(tuned))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--calibration", type=int, default=8)
    parser.add_argument("--size", type=int)
    main(**vars(parser.parse_args()))
