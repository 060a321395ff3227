"""The float student -> an int8 one, without training: where quantization-aware training begins, and all there is for
those who have no minutes."""

import copy
import logging
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from compress.graph.network import Network
from compress.pipeline.plan import PlanSettings, untrained
from compress.pipeline.prepare import random_pixels
from compress.quantize.calibration import balance, calibrate_each, correct_biases
from compress.quantize.sensitivity import affordable, rank
from compress.quantize.training import QuantizedNetwork
from compress.train.examples import Examples, held_out_iou

log = logging.getLogger("compress")

CALIBRATION = 32
CORRECTED = 8
CHOSEN_ON = 16
RANKED = 4
KEPT_FLOAT = 5
PERCENTILES = (99.99, 100.0)


def calibrated(
    student: Network, examples: Examples, settings: PlanSettings, worst_float_within: int | None = None
) -> tuple[QuantizedNetwork, float]:
    """The student with int8 ranges from real images, and its IoU on the held-out images: channels balanced or not, and
    the ranges of one percentile or another, as does best there after its biases were corrected. Where the bytes
    `worst_float_within` are given, the layers that suffer most from int8 stay float, as far as the files fit."""
    sample = random_pixels(examples, CALIBRATION, student.traced_size, settings.seed)
    images = [student.real(one[None]) for one in sample]
    few = replace(examples, held_out=examples.held_out[:CHOSEN_ON], references=examples.references[:CHOSEN_ON])
    tried = []
    for net, how in ((balance(student, images), "balanced"), (student, "given")):
        for percentile, ranges in zip(PERCENTILES, calibrate_each(net, images, PERCENTILES)):
            quantized = QuantizedNetwork(net, ranges, settings.keep_float)
            correct_biases(quantized, quantized.unquantized(), torch.cat(images[:CORRECTED]))
            tried.append((held_out_iou(quantized, few), f"channels as {how}, {percentile} % of values", quantized))
            log.info("ptq: IoU %.4f with %s", *tried[-1][:2])
    _, _, best = max(tried, key=lambda attempt: attempt[0])
    iou = held_out_iou(best, examples)
    if worst_float_within is None:
        return best, iou
    spare = worst_float_within - _largest_file(student, settings)
    return _with_worst_float(best, iou, images[:RANKED], examples, spare)


def _with_worst_float(
    quantized: QuantizedNetwork, iou: float, images: list[torch.Tensor], examples: Examples, spare_bytes: int
) -> tuple[QuantizedNetwork, float]:
    """With the few layers kept float whose quantization does most damage, as far as the budget has bytes left and if
    that helps on the held-out images."""
    ranked = rank(quantized, images)
    for place_, one in enumerate(ranked[:10], 1):
        log.info("sensitivity: %d. %s: %.1f %% of the error", place_, one.layer, 100 * one.damage)
    chosen = affordable(ranked, spare_bytes, KEPT_FLOAT)
    kept = copy.deepcopy(quantized)
    kept.keep_float = quantized.keep_float | set(chosen)
    kept_iou = held_out_iou(kept, examples) if chosen else iou
    if kept_iou <= iou:
        log.info("sensitivity: no layer is kept float: %s", "it helps none" if chosen else "none is worth its bytes")
        return quantized, iou
    log.info("sensitivity: kept float, IoU %.4f instead of %.4f: %s", kept_iou, iou, ", ".join(chosen))
    return kept, kept_iou


def _largest_file(student: Network, settings: PlanSettings) -> int:
    with TemporaryDirectory(prefix="compress-") as folder:
        return max(path.stat().st_size for path in untrained(student, settings, Path(folder)))
