"""Light students of our own: inverted residuals that halve the image five times, and a decoder of few channels.

Encoder: Sandler et al. 2018, "MobileNetV2", arXiv 1801.04381, with the widths of Tan and Le 2019, "EfficientNet",
arXiv 1905.11946, in the Lite0 variant (ReLU6, no squeeze-and-excite), so that weights which were trained on ImageNet
fit. Decoder: Lin et al. 2017, "Feature pyramid networks", arXiv 1612.03144, and above it what the whole image looks
like (Liu et al. 2015, "ParseNet", arXiv 1506.04579).
"""

import torch.nn.functional as F
from torch import Tensor, nn

STEM = 32
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
"""Of each stage: blocks at most, kernel, stride of the first, expansion, channels."""
SKIPS = (0, 1, 2, 4, 5)
"""The stages whose maps, at a half to a thirty-second of the image, the decoder reads."""


SIZES = {
    "large": ((1, 2, 2, 3, 3, 4), (128, 96, 64, 32)),
    "medium": ((1, 2, 2, 3, 3, 2), (96, 64, 48, 24)),
    "small": ((1, 2, 2, 2, 2, 1), (64, 48, 32, 16)),
    "tiny": ((1, 1, 1, 1, 1, 1), (48, 32, 24, 16)),
}
"""What `Light` is made of: 3.3, 1.9, 1.0 and 0.6 MB of int8, and 1.34, 0.87, 0.52 and 0.33 billion
multiply-accumulates at 256 x 256. Fewer blocks, not narrower ones, so that weights of one fit all."""


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to what came in where the shapes are equal."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expand = nn.Conv2d(inputs, inner, 1, bias=False) if expansion > 1 else None
        self.norm0 = norm(inner) if expansion > 1 else None
        self.depthwise = nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False)
        self.norm1 = norm(inner)
        self.project = nn.Conv2d(inner, outputs, 1, bias=False)
        self.norm2 = norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        if self.expand is not None and self.norm0 is not None:
            inner = F.relu6(self.norm0(self.expand(x)))
        inner = F.relu6(self.norm1(self.depthwise(inner)))
        out = self.norm2(self.project(inner))
        return out + x if self.residual else out


class Light(nn.Module):
    """RGB [N, 3, H, W], (pixel - 127) / 128, sides multiples of 32 -> logits [N, classes, H, W]; of two classes one
    map, the logit of the second.

    blocks   of each of the six stages; with fewer than Lite0 has, the first ones are kept
    decoder  channels at a thirty-second and a sixteenth of the image, an eighth, a quarter and a half
    """

    MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(
        self,
        classes: int = 2,
        blocks: tuple[int, ...] = SIZES["medium"][0],
        decoder: tuple[int, ...] = SIZES["medium"][1],
    ) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, STEM, 3, 2, 1, bias=False), norm(STEM)
        self.stages, channels = nn.ModuleList(), STEM
        for count, (_, kernel, stride, expansion, outputs) in zip(blocks, STAGES, strict=True):
            stage = nn.Sequential()
            for index in range(count):
                stage.append(InvertedResidual(channels, outputs, kernel, 1 if index else stride, expansion))
                channels = outputs
            self.stages.append(stage)
        widths = (decoder[0], *decoder)
        given = [STAGES[stage][4] for stage in reversed(SKIPS)]
        self.sides = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs, width in zip(given, widths, strict=True))
        self.whole = nn.Conv2d(given[0], widths[0], 1)
        self.down = nn.ModuleList(nn.Conv2d(above, width, 1) for above, width in zip(widths, widths[1:], strict=False))
        self.blend = nn.ModuleList([nn.Sequential(*[_block(width) for _ in range(2)]) for width in widths[1:]])
        self.head = nn.Conv2d(widths[-1], 1 if classes == 2 else classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu6(self.stem_norm(self.stem(image)))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        deep = F.relu(self.sides[0](x) + self.whole(F.adaptive_avg_pool2d(x, 1)))
        for side, down, blend, skip in zip(self.sides[1:], self.down, self.blend, SKIPS[-2::-1], strict=True):
            beside = side(maps[skip])
            above = F.interpolate(down(deep), size=beside.shape[2:], mode="bilinear")
            deep = blend(F.relu(beside + above))
        return F.interpolate(self.head(deep), size=image.shape[2:], mode="bilinear")


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
