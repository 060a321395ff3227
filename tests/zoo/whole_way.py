"""An architecture through the whole of the product but for a training of any length: read, planned to half its bytes,
cut, trained for one step, quantized, written in both formats, read back and run layer by layer."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import nn

from compress.errors import CompressError
from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite
from compress.graph.channels import find_groups
from compress.judge.verify import compare
from compress.load.trace import fold_normalisation, trace
from compress.prune.cost import predicted_bytes
from compress.prune.cut import check_cut, cut
from compress.prune.importance import measure_damage
from compress.prune.widths import choose, narrowest
from compress.quantize.calibration import balance, calibrate
from compress.quantize.convert import quantized_graph
from compress.quantize.training import QuantizedNetwork

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Outcome:
    """parameters in millions, layers that both files compute right of all, bytes asked for and written, the least share
    of pixels of one class among the files and torch, seconds of a core in all; `reason`, where it did not go the whole
    way."""

    loads: bool = False
    parameters: float = 0.0
    layers: tuple[int, int] = (0, 0)
    half_bytes: int = 0
    bytes: int = 0
    masks: float = 0.0
    seconds: float = 0.0
    reason: str = ""

    @property
    def whole(self) -> bool:
        return not self.reason


def photographs(size: int) -> np.ndarray:
    """uint8 [4, size, size, 3], public domain and CC0."""
    pictures = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    return np.stack([np.asarray(Image.fromarray(each).resize((size, size))) for each in pictures])


def whole_way(make: Callable[[], nn.Module], size: int, folder: Path, exactly_half: bool = True) -> Outcome:
    """What becomes of the module that `make` gives, for images of `size` pixels square; files go to `folder`. A network
    of a few kilobytes is not to lose half of them, if not `exactly_half`: most are not its weights."""
    start, done = time.process_time(), Outcome(reason="it cannot be built")
    try:
        torch.manual_seed(0)
        module = make().eval()
        done = Outcome(parameters=sum(each.numel() for each in module.parameters()) / 1e6)
        with torch.no_grad():
            classes = max(module(torch.rand(1, 3, size, size)).shape[1], 2)
        net, _ = trace(module, (size, size), 0, classes, MEAN, STD)
        done = Outcome(True, done.parameters)
        outcome = _after_the_door(fold_normalisation(net), size, folder, exactly_half)
        return Outcome(True, done.parameters, *outcome, seconds=round(time.process_time() - start, 1))
    except CompressError as error:
        return Outcome(done.loads, done.parameters, reason=str(error).replace(f"{folder}/", ""))
    except Unequal as error:
        return Outcome(True, done.parameters, reason=str(error))


class Unequal(Exception):
    """What was written is not what was trained."""


def _after_the_door(net, size: int, folder: Path, exactly_half: bool) -> tuple[tuple[int, int], int, int, float]:
    pixels = photographs(size)
    images = list(net.real(torch.from_numpy(pixels)).split(1))
    channels = find_groups(net)
    whole = predicted_bytes(net, channels, {group.name: group.width for group in channels.groups.values()})
    least = predicted_bytes(net, channels, narrowest(channels))
    half = whole // 2 if exactly_half else max(whole // 2, round(1.02 * least))
    plan = choose(net, channels, measure_damage(net, channels, images), half, 1.0)
    narrow = cut(net, channels, plan.kept)
    check_cut(net, narrow, channels, plan.kept, images[0])
    student = balance(narrow, images)
    quantized = QuantizedNetwork(student, calibrate(student, images))
    optimizer = torch.optim.SGD(quantized.parameters(), 1e-6)
    loss = (quantized(images[0]) - net(images[0]).detach()).square().mean()
    loss.backward()
    optimizer.step()
    if not torch.isfinite(loss):
        raise Unequal("its loss is not finite")
    graph = quantized_graph(quantized.eval(), "zoo")
    files = {"onnx": folder / "model.onnx", "tflite": folder / "model.tflite"}
    to_onnx(graph, files["onnx"])
    to_tflite(graph, files["tflite"])
    parity = compare(graph, files, pixels[:2])
    right = sum(layer.passed for layer in parity.layers)
    if parity.stored or right < len(parity.layers):
        wrong = next((f"{each.layer} in {each.runtime}" for each in parity.layers if not each.passed), "")
        raise Unequal(f"the files differ: {'; '.join(parity.stored[:2]) or wrong}")
    written = files["tflite"].stat().st_size
    return (right, len(parity.layers)), half, written, min(end.masks for end in parity.ends)
