"""Networks that no package has, small ones, each as its paper describes it: they have operators that those of the
packages lack."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, act: nn.Module | None = None, **more
) -> nn.Module:
    """With its batch normalisation, and zeros around so that the size stays but for the stride."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    dilation = more.get("dilation", 1)
    padding = tuple(side // 2 * dilation for side in sides)
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **more), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, act or nn.ReLU())


def plain(inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, **more) -> nn.Module:
    return conv(inputs, outputs, kernel, nn.Identity(), **more)


def resized(x: Tensor, like: Tensor, align_corners: bool = False) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=align_corners)


class ENet(nn.Module):
    """Paszke et al. 2016, arXiv 1606.02147: bottlenecks with PReLU, and unpooling by the indices of the pooling."""

    class Bottleneck(nn.Module):
        def __init__(self, channels: int, kernel: int | tuple[int, int] = 3, dilation: int = 1):
            super().__init__()
            inner, parts = channels // 4, [(kernel, kernel)] if isinstance(kernel, int) else [kernel, kernel[::-1]]
            middle = [conv(inner, inner, part, nn.PReLU(inner), dilation=dilation) for part in parts]
            self.branch = nn.Sequential(
                conv(channels, inner, 1, nn.PReLU(inner)), *middle, plain(inner, channels, 1), nn.Dropout2d(0.1)
            )
            self.act = nn.PReLU(channels)

        def forward(self, x):
            return self.act(x + self.branch(x))

    class Down(nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            inner = inputs // 4 or 4
            self.more, self.pool = outputs - inputs, nn.MaxPool2d(2, return_indices=True)
            self.branch = nn.Sequential(
                nn.Conv2d(inputs, inner, 2, 2, bias=False), nn.BatchNorm2d(inner), nn.PReLU(inner),
                conv(inner, inner, 3, nn.PReLU(inner)), plain(inner, outputs, 1), nn.Dropout2d(0.1),
            )  # fmt: skip
            self.act = nn.PReLU(outputs)

        def forward(self, x):
            pooled, indices = self.pool(x)
            wider = torch.cat([pooled, pooled.new_zeros(len(x), self.more, *pooled.shape[2:])], 1)
            return self.act(wider + self.branch(x)), indices

    class Up(nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            inner = inputs // 4
            self.main, self.unpool = plain(inputs, outputs, 1), nn.MaxUnpool2d(2)
            self.branch = nn.Sequential(
                conv(inputs, inner, 1), nn.ConvTranspose2d(inner, inner, 2, 2), nn.BatchNorm2d(inner), nn.ReLU(),
                plain(inner, outputs, 1),
            )  # fmt: skip

        def forward(self, x, indices):
            return F.relu(self.unpool(self.main(x), indices) + self.branch(x))

    def __init__(self, classes: int = 2):
        super().__init__()
        each = ENet.Bottleneck
        self.first, self.pool = nn.Conv2d(3, 13, 3, 2, 1, bias=False), nn.MaxPool2d(2)
        self.act = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU(16))
        self.down1, self.stage1 = ENet.Down(16, 64), nn.Sequential(*[each(64) for _ in range(4)])
        turns = [(3, 1), (3, 2), ((5, 1), 1), (3, 4), (3, 1), (3, 8), ((5, 1), 1), (3, 16)]
        self.down2, self.stage2 = ENet.Down(64, 128), nn.Sequential(*[each(128, *turn) for turn in turns * 2])
        self.up4, self.stage4 = ENet.Up(128, 64), nn.Sequential(each(64), each(64))
        self.up5, self.stage5 = ENet.Up(64, 16), each(16)
        self.head = nn.ConvTranspose2d(16, classes, 2, 2)

    def forward(self, x):
        x = self.act(torch.cat([self.first(x), self.pool(x)], 1))
        x, first = self.down1(x)
        x, second = self.down2(self.stage1(x))
        x = self.stage4(self.up4(self.stage2(x), second))
        return self.head(self.stage5(self.up5(x, first)))


class SegNet(nn.Module):
    """Badrinarayanan et al. 2015, arXiv 1511.00561, its basic form: four poolings, unpooled by their indices."""

    def __init__(self, classes: int = 2, width: int = 64):
        super().__init__()
        self.down = nn.ModuleList([conv(3 if i == 0 else width, width, 7) for i in range(4)])
        self.up = nn.ModuleList([plain(width, width, 7) for _ in range(4)])
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        indices = []
        for layer in self.down:
            x, index = self.pool(layer(x))
            indices.append(index)
        for layer in self.up:
            x = layer(self.unpool(x, indices.pop()))
        return self.head(x)


class LEDNet(nn.Module):
    """Wang et al. 2019, arXiv 1905.02423: split channels, filters of one dimension, shuffled channels, and a head
    that attends by a pyramid."""

    class Unit(nn.Module):
        def __init__(self, channels: int, dilation: int):
            super().__init__()
            half = channels // 2
            self.branches = nn.ModuleList()
            for first, second in (((3, 1), (1, 3)), ((1, 3), (3, 1))):
                near = [nn.Conv2d(half, half, first, padding=_half(first)), nn.ReLU(), conv(half, half, second)]
                far = [
                    nn.Conv2d(half, half, first, padding=_half(first, dilation), dilation=dilation), nn.ReLU(),
                    plain(half, half, second, dilation=dilation),
                ]  # fmt: skip
                self.branches.append(nn.Sequential(*near, *far))
            self.drop = nn.Dropout2d(0.3)

        def forward(self, x):
            left, right = torch.split(x, x.shape[1] // 2, 1)
            both = self.drop(torch.cat([self.branches[0](left), self.branches[1](right)], 1))
            return shuffled(F.relu(x + both), 2)

    class Down(nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(inputs, outputs - inputs, 3, 2, 1), nn.MaxPool2d(2)
            self.act = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU())

        def forward(self, x):
            return self.act(torch.cat([self.conv(x), self.pool(x)], 1))

    class Attention(nn.Module):
        def __init__(self, channels: int, classes: int):
            super().__init__()
            self.main, self.all = conv(channels, classes, 1), conv(channels, classes, 1)
            self.steps = nn.ModuleList(
                [conv(channels, 1, 7, stride=2), conv(1, 1, 5, stride=2), conv(1, 1, 3, stride=2)]
            )
            self.sides = nn.ModuleList([conv(1, 1, 7), conv(1, 1, 5), conv(1, 1, 3)])

        def forward(self, x):
            first = self.steps[0](x)
            second = self.steps[1](first)
            third = self.sides[2](self.steps[2](second))
            up = self.sides[1](second) + resized(third, second, True)
            up = resized(self.sides[0](first) + resized(up, first, True), x, True)
            return up * self.main(x) + resized(self.all(F.adaptive_avg_pool2d(x, 1)), x, True)

    def __init__(self, classes: int = 2):
        super().__init__()
        unit, down = LEDNet.Unit, LEDNet.Down
        layers = [down(3, 32), unit(32, 1), unit(32, 1), down(32, 64), unit(64, 1), unit(64, 1), down(64, 128)]
        self.encoder = nn.Sequential(*layers, *[unit(128, dilation) for dilation in (1, 2, 5, 9, 2, 5, 9, 17)])
        self.head = LEDNet.Attention(128, classes)

    def forward(self, x):
        return resized(self.head(self.encoder(x)), x, True)


def _half(kernel: tuple[int, int], dilation: int = 1) -> tuple[int, int]:
    return kernel[0] // 2 * dilation, kernel[1] // 2 * dilation


def shuffled(x: Tensor, groups: int) -> Tensor:
    """ShuffleNet's, Zhang et al. 2017, arXiv 1707.01083."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class BiSeNetV2(nn.Module):
    """Yu et al. 2020, arXiv 2004.02147: depthwise filters that widen, two branches that gate each other, average
    pooling that counts its padding."""

    class Expand(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            wide = inputs * 6
            first = [conv(inputs, inputs), plain(inputs, wide, stride=stride, groups=inputs)]
            more = [plain(wide, wide, groups=wide)] if stride == 2 else []
            self.branch = nn.Sequential(*first, *more, plain(wide, outputs, 1))
            self.side = nn.Identity()
            if stride == 2:
                self.side = nn.Sequential(plain(inputs, inputs, stride=2, groups=inputs), plain(inputs, outputs, 1))

        def forward(self, x):
            return F.relu(self.branch(x) + self.side(x))

    def __init__(self, classes: int = 2):
        super().__init__()
        expand = BiSeNetV2.Expand
        self.detail = nn.Sequential(
            conv(3, 64, stride=2), conv(64, 64), conv(64, 64, stride=2), conv(64, 64), conv(64, 64),
            conv(64, 128, stride=2), conv(128, 128), conv(128, 128),
        )  # fmt: skip
        self.stem, self.left = conv(3, 16, stride=2), nn.Sequential(conv(16, 8, 1), conv(8, 16, stride=2))
        self.right, self.fuse = nn.MaxPool2d(3, 2, 1), conv(32, 16)
        self.semantic = nn.Sequential(
            expand(16, 32, 2), expand(32, 32, 1), expand(32, 64, 2), expand(64, 64, 1), expand(64, 128, 2),
            expand(128, 128, 1), expand(128, 128, 1), expand(128, 128, 1),
        )  # fmt: skip
        self.context, self.after = nn.Sequential(nn.BatchNorm2d(128), conv(128, 128, 1)), nn.Conv2d(128, 128, 3, 1, 1)
        self.detail_same = nn.Sequential(plain(128, 128, groups=128), nn.Conv2d(128, 128, 1))
        self.detail_down = nn.Sequential(plain(128, 128, stride=2), nn.AvgPool2d(3, 2, 1))
        self.semantic_same = nn.Sequential(plain(128, 128, groups=128), nn.Conv2d(128, 128, 1), nn.Sigmoid())
        self.semantic_up, self.out = plain(128, 128), plain(128, 128)
        self.head = nn.Sequential(conv(128, 256), nn.Dropout(0.1), nn.Conv2d(256, classes, 1))

    def forward(self, x):
        detail, s = self.detail(x), self.stem(x)
        s = self.semantic(self.fuse(torch.cat([self.left(s), self.right(s)], 1)))
        s = self.after(s + self.context(s.mean((2, 3), keepdim=True)))
        fine = self.detail_same(detail) * torch.sigmoid(resized(self.semantic_up(s), detail))
        coarse = self.detail_down(detail) * self.semantic_same(s)
        return resized(self.head(self.out(fine + resized(coarse, fine))), x)


class CGNet(nn.Module):
    """Wu et al. 2018, arXiv 1811.08201: near and far filters of each channel beside each other, weighed by linear
    layers that see the whole map."""

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, dilation: int, reduction: int, down: bool):
            super().__init__()
            self.down, inner = down, outputs if down else outputs // 2
            self.first = conv(inputs, inner, 3 if down else 1, nn.PReLU(inner), stride=2 if down else 1)
            self.near = nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False)
            self.far = nn.Conv2d(inner, inner, 3, 1, dilation, dilation, groups=inner, bias=False)
            self.act = nn.Sequential(nn.BatchNorm2d(2 * inner), nn.PReLU(2 * inner))
            self.reduce = nn.Conv2d(2 * inner, outputs, 1, bias=False) if down else nn.Identity()
            self.gate = nn.Sequential(
                nn.Linear(outputs, outputs // reduction),
                nn.ReLU(),
                nn.Linear(outputs // reduction, outputs),
                nn.Sigmoid(),
            )

        def forward(self, x):
            y = self.first(x)
            y = self.reduce(self.act(torch.cat([self.near(y), self.far(y)], 1)))
            n, c, _, _ = y.shape
            y = y * self.gate(F.adaptive_avg_pool2d(y, 1).view(n, c)).view(n, c, 1, 1)
            return y if self.down else x + y

    def __init__(self, classes: int = 2):
        super().__init__()
        block = CGNet.Block
        self.stem = nn.Sequential(*[conv(i, 32, 3, nn.PReLU(32), stride=s) for i, s in ((3, 2), (32, 1), (32, 1))])
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.act1, self.act2, self.act3 = (nn.Sequential(nn.BatchNorm2d(c), nn.PReLU(c)) for c in (35, 131, 256))
        self.down2, self.stage2 = (
            block(35, 64, 2, 8, True),
            nn.ModuleList([block(64, 64, 2, 8, False) for _ in range(2)]),
        )
        self.down3 = block(131, 128, 4, 16, True)
        self.stage3 = nn.ModuleList([block(128, 128, 4, 16, False) for _ in range(8)])
        self.head = nn.Conv2d(256, classes, 1)

    def forward(self, x):
        half = self.pool(x)
        quarter = self.pool(half)
        y = self.act1(torch.cat([self.stem(x), half], 1))
        first = y = self.down2(y)
        for layer in self.stage2:
            y = layer(y)
        y = self.act2(torch.cat([y, first, quarter], 1))
        first = y = self.down3(y)
        for layer in self.stage3:
            y = layer(y)
        return resized(self.head(self.act3(torch.cat([first, y], 1))), x)


class ESPNet(nn.Module):
    """Mehta et al. 2018, arXiv 1803.06815, its encoder (ESPNet-C) with a transposed head: pyramids of dilated filters
    whose sums are joined."""

    class Pyramid(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int = 1):
            super().__init__()
            self.add, each = stride == 1, outputs // 5
            self.reduce = nn.Conv2d(inputs, each, 3 if stride == 2 else 1, stride, 1 if stride == 2 else 0, bias=False)
            widths = [outputs - 4 * each, each, each, each, each]
            self.far = nn.ModuleList(
                [nn.Conv2d(each, width, 3, 1, 2**i, 2**i, bias=False) for i, width in enumerate(widths)]
            )
            self.norm, self.act = nn.BatchNorm2d(outputs), nn.PReLU(outputs)

        def forward(self, x):
            y = self.reduce(x)
            near, second, *others = (each(y) for each in self.far)
            sums = [second]
            for other in others:
                sums.append(sums[-1] + other)
            joined = torch.cat([near, *sums], 1)
            return self.act(self.norm(x + joined if self.add else joined))

    def __init__(self, classes: int = 2):
        super().__init__()
        each = ESPNet.Pyramid
        self.first, self.pool = conv(3, 16, 3, nn.PReLU(16), stride=2), nn.AvgPool2d(3, 2, 1)
        self.act1, self.act2, self.act3 = (nn.Sequential(nn.BatchNorm2d(c), nn.PReLU(c)) for c in (19, 131, 256))
        self.down2, self.stage2 = each(19, 64, 2), nn.Sequential(*[each(64, 64) for _ in range(2)])
        self.down3, self.stage3 = each(131, 128, 2), nn.Sequential(*[each(128, 128) for _ in range(3)])
        self.head = nn.Conv2d(256, classes, 1, bias=False)
        self.up = nn.Sequential(*[nn.ConvTranspose2d(classes, classes, 2, 2, bias=False) for _ in range(3)])

    def forward(self, x):
        half = self.pool(x)
        quarter = self.pool(half)
        y = self.act1(torch.cat([self.first(x), half], 1))
        y = self.down2(y)
        y = self.act2(torch.cat([self.stage2(y), y, quarter], 1))
        y = self.down3(y)
        return self.up(self.head(self.act3(torch.cat([self.stage3(y), y], 1))))


class FastSCNN(nn.Module):
    """Poudel et al. 2019, arXiv 1902.04502: inverted residuals, a pyramid of 1, 2, 3 and 6 bins, two branches."""

    class Inverted(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            self.add, wide = stride == 1 and inputs == outputs, 6 * inputs
            self.layers = nn.Sequential(
                conv(inputs, wide, 1), conv(wide, wide, stride=stride, groups=wide), plain(wide, outputs, 1)
            )

        def forward(self, x):
            return x + self.layers(x) if self.add else self.layers(x)

    def __init__(self, classes: int = 2):
        super().__init__()
        self.down = nn.Sequential(conv(3, 32, stride=2), _separable(32, 48, 2), _separable(48, 64, 2))
        turns = [(64, 64, 2), (64, 64, 1), (64, 64, 1), (64, 96, 2), (96, 96, 1), (96, 96, 1), (96, 128, 1)]
        self.features = nn.Sequential(*[FastSCNN.Inverted(*turn) for turn in turns], FastSCNN.Inverted(128, 128, 1))
        self.bins = nn.ModuleList([nn.Sequential(nn.AdaptiveAvgPool2d(n), conv(128, 32, 1)) for n in (1, 2, 3, 6)])
        self.join = conv(256, 128, 1)
        self.low = nn.Sequential(conv(128, 128, dilation=4, groups=128), nn.Conv2d(128, 128, 1), nn.BatchNorm2d(128))
        self.high = nn.Sequential(nn.Conv2d(64, 128, 1), nn.BatchNorm2d(128))
        self.head = nn.Sequential(
            _separable(128, 128), _separable(128, 128), nn.Dropout(0.1), nn.Conv2d(128, classes, 1)
        )

    def forward(self, x):
        high = self.down(x)
        f = self.features(high)
        f = self.join(torch.cat([f, *(resized(each(f), f, True) for each in self.bins)], 1))
        low = self.low(F.interpolate(f, scale_factor=4, mode="bilinear", align_corners=True))
        return resized(self.head(F.relu(self.high(high) + low)), x, True)


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(conv(inputs, inputs, stride=stride, groups=inputs), conv(inputs, outputs, 1))


class Residual(nn.Module):
    """ResNet's basic block, He et al. 2015, arXiv 1512.03385."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.layers = nn.Sequential(conv(inputs, outputs, stride=stride), plain(outputs, outputs))
        same = inputs == outputs and stride == 1
        self.side = nn.Identity() if same else plain(inputs, outputs, 1, stride=stride)

    def forward(self, x):
        return F.relu(self.layers(x) + self.side(x))


class DDRNet(nn.Module):
    """Hong et al. 2021, arXiv 2101.06085, the slim one: two resolutions that exchange, and DAPPM, whose average pooling
    counts its padding."""

    class Context(nn.Module):
        def __init__(self, inputs: int, inner: int, outputs: int):
            super().__init__()
            pools = [nn.AvgPool2d(k, s, p) for k, s, p in ((5, 2, 2), (9, 4, 4), (17, 8, 8))]
            self.pools = nn.ModuleList([nn.Identity(), *pools, nn.AdaptiveAvgPool2d(1)])
            self.scales = nn.ModuleList([_before(inputs, inner, 1) for _ in self.pools])
            self.mixed = nn.ModuleList([_before(inner, inner, 3) for _ in self.pools[1:]])
            self.join, self.side = _before(5 * inner, outputs, 1), _before(inputs, outputs, 1)

        def forward(self, x):
            found = [self.scales[0](x)]
            for pool, scale, mixed in zip(self.pools[1:], self.scales[1:], self.mixed):
                found.append(mixed(resized(scale(pool(x)), x) + found[-1]))
            return self.join(torch.cat(found, 1)) + self.side(x)

    def __init__(self, classes: int = 2, width: int = 32):
        super().__init__()
        w = width
        self.stem = nn.Sequential(conv(3, w, stride=2), conv(w, w, stride=2), Residual(w, w), Residual(w, w))
        self.layer2 = nn.Sequential(Residual(w, 2 * w, 2), Residual(2 * w, 2 * w))
        self.low3, self.high3 = nn.Sequential(Residual(2 * w, 4 * w, 2), Residual(4 * w, 4 * w)), Residual(2 * w, 2 * w)
        self.to_high3, self.to_low3 = plain(4 * w, 2 * w, 1), plain(2 * w, 4 * w, stride=2)
        self.low4, self.high4 = nn.Sequential(Residual(4 * w, 8 * w, 2), Residual(8 * w, 8 * w)), Residual(2 * w, 2 * w)
        self.to_high4 = plain(8 * w, 2 * w, 1)
        self.to_low4 = nn.Sequential(conv(2 * w, 4 * w, stride=2), plain(4 * w, 8 * w, stride=2))
        self.high5, self.low5 = Residual(2 * w, 4 * w), Residual(8 * w, 16 * w, 2)
        self.context = DDRNet.Context(16 * w, 4 * w, 4 * w)
        self.head = nn.Sequential(
            _before(4 * w, 2 * w, 3), nn.BatchNorm2d(2 * w), nn.ReLU(), nn.Conv2d(2 * w, classes, 1)
        )

    def forward(self, x):
        f = self.layer2(self.stem(x))
        low, high = self.low3(f), self.high3(f)
        low, high = low + self.to_low3(F.relu(high)), high + resized(self.to_high3(F.relu(low)), high)
        deep, fine = self.low4(F.relu(low)), self.high4(F.relu(high))
        deep, fine = deep + self.to_low4(F.relu(fine)), fine + resized(self.to_high4(F.relu(deep)), fine)
        high = self.high5(F.relu(fine))
        return resized(self.head(high + resized(self.context(self.low5(F.relu(deep))), high)), x)


def _before(inputs: int, outputs: int, kernel: int) -> nn.Module:
    """Norm and activation stand before the convolution."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    )


class PIDNet(nn.Module):
    """Xu et al. 2022, arXiv 2206.02066, its two guides in a short network: pixels weighed by the sum over channels of
    a product, and a mix of two branches by a third's sigmoid."""

    def __init__(self, classes: int = 2, width: int = 32):
        super().__init__()
        w = width
        self.stem = nn.Sequential(conv(3, w, stride=2), conv(w, w, stride=2), Residual(w, 2 * w, 2))
        self.deep = nn.Sequential(Residual(2 * w, 4 * w, 2), Residual(4 * w, 8 * w, 2))
        self.fine, self.edge = Residual(2 * w, 2 * w), Residual(2 * w, 2 * w)
        self.value, self.key, self.query = plain(8 * w, 2 * w, 1), plain(8 * w, w, 1), plain(2 * w, w, 1)
        self.context = DDRNet.Context(8 * w, 2 * w, 2 * w)
        self.from_fine, self.from_deep = plain(2 * w, 2 * w, 1), plain(2 * w, 2 * w, 1)
        self.head = nn.Sequential(conv(2 * w, 4 * w), nn.Conv2d(4 * w, classes, 1))

    def forward(self, x):
        f = self.stem(x)
        deep, fine, edge = self.deep(f), self.fine(f), self.edge(f)
        weight = torch.sigmoid(torch.sum(resized(self.key(deep), fine) * self.query(fine), 1).unsqueeze(1))
        fine = (1 - weight) * fine + weight * resized(self.value(deep), fine)
        gate, context = torch.sigmoid(edge), resized(self.context(deep), fine)
        mixed = self.from_fine((1 - gate) * context + fine) + self.from_deep(context + gate * fine)
        return resized(self.head(mixed), x)


class DANet(nn.Module):
    """Fu et al. 2018, arXiv 1809.02983, its head on a short body: attention by position, and by channel."""

    def __init__(self, classes: int = 2, width: int = 64):
        super().__init__()
        w = width
        self.body = nn.Sequential(conv(3, w // 2, stride=2), Residual(w // 2, w, 2), Residual(w, 2 * w, 2))
        self.before, self.after = (nn.ModuleList([conv(a, w) for _ in range(2)]) for a in (2 * w, w))
        self.query, self.key, self.value = nn.Conv2d(w, w // 8, 1), nn.Conv2d(w, w // 8, 1), nn.Conv2d(w, w, 1)
        self.gammas = nn.Parameter(torch.ones(2))
        self.head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(w, classes, 1))

    def position(self, x):
        n, c, h, w = x.shape
        scores = torch.bmm(self.query(x).view(n, -1, h * w).permute(0, 2, 1), self.key(x).view(n, -1, h * w))
        out = torch.bmm(self.value(x).view(n, -1, h * w), torch.softmax(scores, -1).permute(0, 2, 1))
        return self.gammas[0] * out.view(n, c, h, w) + x

    def channel(self, x):
        n, c, h, w = x.shape
        flat = x.view(n, c, -1)
        scores = torch.bmm(flat, flat.permute(0, 2, 1))
        scores = torch.max(scores, -1, keepdim=True)[0].expand_as(scores) - scores
        return self.gammas[1] * torch.bmm(torch.softmax(scores, -1), flat).view(n, c, h, w) + x

    def forward(self, x):
        f = self.body(x)
        position = self.after[0](self.position(self.before[0](f)))
        channel = self.after[1](self.channel(self.before[1](f)))
        return resized(self.head(position + channel), x, True)


class MODNet(nn.Module):
    """Ke et al. 2020, arXiv 2011.11961, its low and high resolution branches in short: half of the channels normalised
    by the batch's statistics and half by the image's, squeeze and excite by linear layers."""

    class Both(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.half = channels // 2
            self.batch, self.image = nn.BatchNorm2d(self.half), nn.InstanceNorm2d(channels - self.half, affine=False)

        def forward(self, x):
            batch = self.batch(x[:, : self.half].contiguous())
            return torch.cat([batch, self.image(x[:, self.half :].contiguous())], 1)

    @classmethod
    def block(cls, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), cls.Both(outputs), nn.ReLU())

    def __init__(self, classes: int = 1, width: int = 32):
        super().__init__()
        w, block = width, MODNet.block
        self.first, self.second, self.third = block(3, w, 2), block(w, 2 * w, 2), block(2 * w, 4 * w, 2)
        self.gate = nn.Sequential(
            nn.Linear(4 * w, w, bias=False), nn.ReLU(), nn.Linear(w, 4 * w, bias=False), nn.Sigmoid()
        )
        self.low, self.middle, self.high = block(4 * w, 2 * w), block(4 * w, w), block(2 * w + 3, w)
        self.head = nn.Conv2d(w, classes, 1)

    def forward(self, x):
        first = self.first(x)
        second = self.second(first)
        f = self.third(second)
        n, c, _, _ = f.shape
        f = f * self.gate(F.adaptive_avg_pool2d(f, 1).view(n, c)).view(n, c, 1, 1).expand_as(f)
        f = torch.cat([F.interpolate(self.low(f), scale_factor=2, mode="bilinear"), second], 1)
        f = torch.cat([F.interpolate(self.middle(f), scale_factor=2, mode="bilinear"), first], 1)
        f = torch.cat([f, F.interpolate(x, scale_factor=0.5, mode="bilinear")], 1)
        return torch.sigmoid(self.head(F.interpolate(self.high(f), scale_factor=2, mode="bilinear")))


class MilesialUNet(nn.Module):
    """Ronneberger et al. 2015, arXiv 1505.04597, as github.com/milesial/Pytorch-UNet builds it: what comes from below
    is padded to the size of what it joins."""

    def __init__(self, classes: int = 2, bilinear: bool = True, width: int = 64):
        super().__init__()
        last = 2 if bilinear else 1
        widths = [width, 2 * width, 4 * width, 8 * width, 16 * width // last]
        self.first = self.double(3, widths[0])
        self.down = nn.ModuleList(
            [nn.Sequential(nn.MaxPool2d(2), self.double(a, b)) for a, b in zip(widths, widths[1:])]
        )
        self.ups, self.up = nn.ModuleList(), nn.ModuleList()
        below = widths[-1]
        for level in range(3, -1, -1):
            out = widths[level] // (last if level else 1)
            up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.ups.append(up if bilinear else nn.ConvTranspose2d(below, below // 2, 2, 2))
            self.up.append(self.double(widths[level] + (below if bilinear else below // 2), out))
            below = out
        self.head = nn.Conv2d(below, classes, 1)

    @staticmethod
    def double(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))

    def forward(self, x):
        scales = [self.first(x)]
        for layer in self.down:
            scales.append(layer(scales[-1]))
        x = scales.pop()
        for up, layer in zip(self.ups, self.up):
            x, other = up(x), scales.pop()
            dy, dx = other.shape[2] - x.shape[2], other.shape[3] - x.shape[3]
            x = F.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            x = layer(torch.cat([other, x], 1))
        return self.head(x)


class SubPixel(nn.Module):
    """A U-Net whose ways up are sub-pixel convolutions, Shi et al. 2016, arXiv 1609.05158."""

    def __init__(self, classes: int = 2, width: int = 32):
        super().__init__()
        w = width
        self.first, self.second, self.third = conv(3, w), conv(w, 2 * w, stride=2), conv(2 * w, 4 * w, stride=2)
        self.up1 = nn.Sequential(nn.Conv2d(4 * w, 8 * w, 3, padding=1), nn.PixelShuffle(2))
        self.up2 = nn.Sequential(nn.Conv2d(4 * w, 4 * w, 3, padding=1), nn.PixelShuffle(2))
        self.head = nn.Sequential(conv(2 * w, w), nn.Conv2d(w, classes, 1))

    def forward(self, x):
        first = self.first(x)
        second = self.second(first)
        f = torch.cat([self.up1(self.third(second)), second], 1)
        return self.head(torch.cat([self.up2(f), first], 1))


PAPERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "BiSeNetV2": (BiSeNetV2, 128),
    "CGNet": (CGNet, 128),
    "DANet's head": (DANet, 64),
    "DDRNet-23 slim": (DDRNet, 128),
    "ENet": (ENet, 64),
    "ESPNet-C": (ESPNet, 128),
    "Fast-SCNN": (FastSCNN, 128),
    "LEDNet": (LEDNet, 128),
    "MODNet's blocks": (MODNet, 64),
    "PIDNet's guides": (PIDNet, 128),
    "SegNet": (SegNet, 64),
    "U-Net with sub-pixel convolutions": (SubPixel, 64),
    "U-Net, milesial's, bilinear": (MilesialUNet, 64),
    "U-Net, milesial's, transposed, odd size": (lambda: MilesialUNet(bilinear=False), 72),
}
