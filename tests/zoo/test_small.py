"""Small networks, each built as a family of public architectures is, go the whole way."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from whole_way import whole_way

from compress.graph.channels import find_groups
from compress.load.trace import trace
from compress.prune.branches import branches, without

SIZE = 32


def block(inputs, outputs, norm=nn.BatchNorm2d, act=nn.ReLU, **more):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, **more), norm(outputs), act())


class UNet(nn.Module):
    """Two scales; `up` says how the lower one comes back."""

    def __init__(self, up=None, **more):
        super().__init__()
        self.first, self.second = block(3, 16, **more), block(16, 32, **more)
        self.third, self.head = block(48, 16, **more), nn.Conv2d(16, 3, 1)
        self.up = up or (lambda x, size: F.interpolate(x, size, mode="bilinear"))

    def forward(self, x):
        top = self.first(x)
        low = self.second(F.max_pool2d(top, 2))
        return self.head(self.third(torch.cat([top, self.up(low, top.shape[2:])], 1)))


class Pyramid(nn.Module):
    """PSPNet's bins, joined to the features."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(block(3, 24), nn.AvgPool2d(2), block(24, 24))
        self.bins = nn.ModuleList([nn.Sequential(nn.AdaptiveAvgPool2d(n), block(24, 8)) for n in (1, 2, 3, 6)])
        self.head = nn.Sequential(block(56, 16), nn.Dropout2d(), nn.Conv2d(16, 3, 1))

    def forward(self, x):
        f = self.body(x)
        parts = [F.interpolate(each(f), f.shape[2:], mode="bilinear", align_corners=True) for each in self.bins]
        return F.interpolate(self.head(torch.cat([f, *parts], 1)), x.shape[2:], mode="bilinear", align_corners=True)


class FeaturePyramid(nn.Module):
    """FPN's: scales added, stacked and summed, in groups."""

    def __init__(self):
        super().__init__()
        self.first, self.second = block(3, 16), block(16, 32, stride=2)
        self.side = nn.ModuleList([nn.Conv2d(16, 16, 1), nn.Conv2d(32, 16, 1)])
        self.out = nn.ModuleList([block(16, 16, norm=lambda c: nn.GroupNorm(4, c)) for _ in range(2)])
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.second(a)
        low = self.side[1](b)
        high = self.side[0](a) + F.interpolate(low, scale_factor=2.0, mode="nearest")
        scales = [self.out[0](high), F.interpolate(self.out[1](low), scale_factor=2.0, mode="nearest")]
        return self.head(torch.stack(scales).sum(0))


class Excited(nn.Module):
    """An inverted residual with squeeze and excite, as MobileNetV3 and EfficientNet have it, uneven padding too."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.Hardswish()
        )
        self.wide = nn.Sequential(nn.Conv2d(16, 48, 1), nn.BatchNorm2d(48), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(48, 48, 5, padding=2, groups=48), nn.BatchNorm2d(48), nn.SiLU())
        self.gate = nn.Sequential(nn.Linear(48, 12), nn.ReLU(), nn.Linear(12, 48), nn.Hardsigmoid())
        self.narrow, self.head = nn.Sequential(nn.Conv2d(48, 16, 1), nn.BatchNorm2d(16)), nn.Conv2d(16, 3, 1)

    def forward(self, x):
        f = self.stem(x)
        d = self.deep(self.wide(f))
        d = d * self.gate(d.mean((2, 3)))[:, :, None, None]
        return F.interpolate(self.head(f + self.narrow(d)), x.shape[2:], mode="bilinear")


class Tokens(nn.Module):
    """SegFormer's block: attention to a reduced map, a mixing MLP, layer norms, an all-linear head."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 32, 7, 4, 3), nn.LayerNorm(32)
        self.q, self.kv, self.out, self.reduce = (
            nn.Linear(32, 32),
            nn.Linear(32, 64),
            nn.Linear(32, 32),
            nn.Conv2d(32, 32, 2, 2),
        )
        self.norms = nn.ModuleList([nn.LayerNorm(32) for _ in range(3)])
        self.wide, self.mix, self.narrow = (
            nn.Linear(32, 96),
            nn.Conv2d(96, 96, 3, padding=1, groups=96),
            nn.Linear(96, 32),
        )
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        f = self.patches(x)
        n, c, h, w = f.shape
        t = self.norm(f.flatten(2).transpose(1, 2))
        y = self.norms[0](t)
        small = self.reduce(y.permute(0, 2, 1).reshape(n, c, h, w)).reshape(n, c, -1).permute(0, 2, 1)
        k, v = self.kv(self.norms[1](small)).reshape(n, -1, 2, 2, 16).permute(2, 0, 3, 1, 4)
        q = self.q(y).reshape(n, -1, 2, 16).permute(0, 2, 1, 3)
        attended = (torch.softmax(q @ k.transpose(-2, -1) * 0.25, -1) @ v).transpose(1, 2).reshape(n, -1, c)
        t = t + self.out(attended)
        y = self.wide(self.norms[2](t))
        y = self.mix(y.transpose(1, 2).view(n, 96, h, w)).flatten(2).transpose(1, 2)
        t = t + self.narrow(F.gelu(y))
        return F.interpolate(self.head(t).transpose(1, 2).view(n, 3, h, w), x.shape[2:], mode="bilinear")


class ChannelsLast(nn.Module):
    """ConvNeXt's block: a depthwise filter, a layer norm and an MLP over channels, layer scale."""

    def __init__(self):
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 24, 4, 4), nn.Conv2d(24, 24, 7, padding=3, groups=24)
        self.norm, self.wide, self.narrow = nn.LayerNorm(24), nn.Linear(24, 96), nn.Linear(96, 24)
        self.gamma, self.head = nn.Parameter(torch.full((24,), 0.5)), nn.Conv2d(24, 3, 1)

    def forward(self, x):
        f = self.stem(x)
        y = self.narrow(F.gelu(self.wide(self.norm(self.depth(f).permute(0, 2, 3, 1)))))
        f = f + (self.gamma * y).permute(0, 3, 1, 2)
        return F.interpolate(self.head(f), x.shape[2:], mode="bilinear")


class Shuffled(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, the halves are shuffled."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch = block(3, 16, stride=2), nn.Sequential(block(8, 8), nn.Conv2d(8, 8, 1))
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        f = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = f.shape
        f = f.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return F.interpolate(self.head(f), x.shape[2:], mode="bilinear")


class Dual(nn.Module):
    """DANet's attention by position."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(block(3, 16, stride=2), nn.MaxPool2d(2)), nn.Conv2d(16, 3, 1)
        self.q, self.k, self.v = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1), nn.Conv2d(16, 16, 1)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x):
        f = self.body(x)
        q, k = self.q(f).flatten(2).permute(0, 2, 1), self.k(f).flatten(2)
        scores = torch.softmax(torch.bmm(q, k), -1)
        out = torch.bmm(self.v(f).flatten(2), scores.permute(0, 2, 1)).view(f.shape)
        return F.interpolate(self.head(self.gamma * out + f), x.shape[2:], mode="bilinear")


class ClassToken(nn.Module):
    """ViT's, as DPT reads it: a token of the whole image beside those of patches, and places learned for all."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 3, 1)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 65, 16))
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.wide, self.narrow, self.read = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(32, 16)

    def forward(self, x):
        f = self.patches(x)
        t = torch.cat([self.token.expand(len(x), -1, -1), f.flatten(2).transpose(1, 2)], 1) + self.places
        y = self.norm(t)
        t = t + self.attention(y, y, y, need_weights=False)[0]
        t = t + self.narrow(F.gelu(self.wide(self.norm(t))))
        whole = t[:, :1].expand_as(t[:, 1:])
        t = F.gelu(self.read(torch.cat([t[:, 1:], whole], -1)))
        return F.interpolate(self.head(t.transpose(1, 2).reshape(f.shape)), x.shape[2:], mode="bilinear")


class Windows(nn.Module):
    """Swin's block, its windows shifted, with a bias for places within them; then four pixels become one."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.qkv = nn.Conv2d(3, 16, 2, 2), nn.LayerNorm(16), nn.Linear(16, 48)
        self.bias, self.out = nn.Parameter(torch.randn(2, 16, 16)), nn.Linear(16, 16)
        self.merge, self.head = nn.Linear(64, 32), nn.Conv2d(32, 3, 1)

    def forward(self, x):
        f = self.patches(x).permute(0, 2, 3, 1)
        y = torch.roll(self.norm(f), (-2, -2), (1, 2))
        y = y.view(-1, 4, 4, 4, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 16)
        q, k, v = self.qkv(y).reshape(-1, 16, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-2, -1) * 8**-0.5 + self.bias, -1) @ v
        y = self.out(y.transpose(1, 2).reshape(-1, 16, 16))
        y = y.view(-1, 4, 4, 4, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(f.shape)
        f = f + torch.roll(y, (2, 2), (1, 2))
        four = [f[:, i::2, j::2] for i in range(2) for j in range(2)]
        f = self.merge(torch.cat(four, -1)).permute(0, 3, 1, 2)
        return F.interpolate(self.head(f), x.shape[2:], mode="bilinear")


class Unpooled(nn.Module):
    """SegNet's: pixels go back to where the largest came from."""

    def __init__(self):
        super().__init__()
        self.first, self.second = block(3, 16), block(16, 16)
        self.third, self.head = nn.Conv2d(16, 64, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x):
        f, places = F.max_pool2d(self.first(x), 2, return_indices=True)
        low = F.pixel_shuffle(self.third(F.max_pool2d(self.second(f), 2)), 2)
        return self.head(F.max_unpool2d(low, places, 2))


NETWORKS = {
    "U-Net": UNet,
    "U-Net, aligned corners": lambda: UNet(lambda x, size: F.interpolate(x, size, mode="bilinear", align_corners=True)),
    "U-Net, bicubic": lambda: UNet(lambda x, size: F.interpolate(x, size, mode="bicubic")),
    "U-Net, instance norm and PReLU": lambda: UNet(norm=lambda c: nn.InstanceNorm2d(c, affine=True), act=nn.PReLU),
    "U-Net, group norm and SiLU": lambda: UNet(norm=lambda c: nn.GroupNorm(8, c), act=nn.SiLU),
    "pyramid of bins": Pyramid,
    "feature pyramid": FeaturePyramid,
    "squeeze and excite": Excited,
    "tokens and attention": Tokens,
    "channels last": ChannelsLast,
    "shuffled channels": Shuffled,
    "attention by position": Dual,
    "class token": ClassToken,
    "windows": Windows,
    "unpooled": Unpooled,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_goes_the_whole_way(name, tmp_path):
    outcome = whole_way(NETWORKS[name], SIZE, tmp_path, exactly_half=False)
    assert outcome.whole, outcome.reason
    assert outcome.layers[0] == outcome.layers[1] > 10


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_branch_it_computes_what_it_does_where_that_is_zero(name):
    torch.manual_seed(0)
    net, _ = trace(NETWORKS[name]().eval(), (SIZE, SIZE), 0, 3, (0.0,) * 3, (1.0,) * 3)
    channels, image = find_groups(net), torch.rand(1, 3, SIZE, SIZE)
    for branch in branches(net):
        narrow, _ = without(net, channels, (branch,))
        with torch.no_grad():
            torch.testing.assert_close(narrow(image), silent(net, branch, image), rtol=1e-4, atol=1e-5)


def silent(net, branch, image):
    """The network's answer when that input of that concat or sum is zero."""

    def visit(node, value):
        if node.name != branch.at:
            return value
        inputs = [values[name] * (name != branch.gone) for name in node.inputs]
        return net.compute(node, inputs, (SIZE, SIZE))

    with torch.no_grad():
        values = net.run(image, keep=net.by_name)
        return net.run(image, visit=visit)[net.output]
