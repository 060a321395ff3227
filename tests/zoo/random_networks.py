"""Networks drawn from the operator table: what people's modules do, one after the other, on tensors drawn from those
that there are."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

SIZES = [(16, 16), (12, 20), (15, 17)]
CLASSES = 3

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "nothing": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "gelu": nn.GELU, "elu": nn.ELU,
    "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid, "leaky": nn.LeakyReLU, "tanh": nn.Tanh, "mish": nn.Mish,
    "sigmoid": nn.Sigmoid, "clamp": lambda: nn.Hardtanh(-0.5, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """`kind`: a method of `Drawn`. `reads`: how far back among the tensors made so far each operand is. `choice`: a
    number that decides all else."""

    kind: str
    reads: tuple[int, ...]
    choice: int


@dataclass(frozen=True)
class Plan:
    size: tuple[int, int]
    width: int
    seed: int
    steps: tuple[Step, ...]


class Drawn(nn.Module):
    """The network of a plan. Layers are made when it is first run; `forward` is then what a user might have written."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan, self.layers = plan, nn.ModuleDict()
        with torch.no_grad():
            self.eval()(torch.zeros(1, 3, *plan.size))

    def forward(self, image: Tensor) -> Tensor:
        made = [self.layer("stem", lambda: nn.Conv2d(3, self.plan.width, 3, padding=1))(image)]
        for index, step in enumerate(self.plan.steps):
            read = [made[-1 - back % len(made)] for back in step.reads]
            made.append(getattr(self, step.kind)(f"{index}_{step.kind}", step.choice, *read))
        last = made[-1]
        logits = self.layer("head", lambda: nn.Conv2d(last.shape[1], CLASSES, 1))(last)
        return F.interpolate(logits, image.shape[2:], mode="bilinear")

    def layer(self, name: str, make: Callable[[], nn.Module]) -> nn.Module:
        if name not in self.layers:
            torch.manual_seed(self.plan.seed + len(self.layers))
            self.layers[name] = with_random_norms(make()).eval()
        return self.layers[name]

    def like(self, name: str, x: Tensor, wanted: Tensor) -> Tensor:
        """x with the channels and the size of another tensor."""
        if x.shape[1] != wanted.shape[1]:
            x = self.layer(f"{name}_fit", lambda: nn.Conv2d(x.shape[1], wanted.shape[1], 1))(x)
        return self.sized(x, wanted)

    def sized(self, x: Tensor, wanted: Tensor) -> Tensor:
        return x if x.shape[2:] == wanted.shape[2:] else F.interpolate(x, wanted.shape[2:], mode="nearest")

    def conv(self, name: str, choice: int, x: Tensor) -> Tensor:
        out, kernel, stride, dilation = pick(choice, (8, 12, 16, 24), (1, 3), (1, 2), (1, 2))
        stride = stride if min(x.shape[2:]) >= 6 else 1
        make = lambda: nn.Conv2d(x.shape[1], out, kernel, stride, dilation * (kernel // 2), dilation)  # noqa: E731
        return self.layer(name, make)(x)

    def depthwise(self, name: str, choice: int, x: Tensor) -> Tensor:
        return self.layer(name, lambda: nn.Conv2d(x.shape[1], x.shape[1], 3, padding=1, groups=x.shape[1]))(x)

    def grouped(self, name: str, choice: int, x: Tensor) -> Tensor:
        groups, times = pick(choice, divisors(x.shape[1]), (1, 2))
        return self.layer(name, lambda: nn.Conv2d(x.shape[1], times * x.shape[1], 3, padding=1, groups=groups))(x)

    def transposed(self, name: str, choice: int, x: Tensor) -> Tensor:
        if max(x.shape[2:]) > 12:
            return self.conv(name, choice, x)
        return self.layer(name, lambda: nn.ConvTranspose2d(x.shape[1], 8, 2, 2))(x)

    def add(self, name: str, choice: int, x: Tensor, y: Tensor) -> Tensor:
        y = self.like(name, y, x)
        return (x + y, x - y, x * y)[choice % 3]

    def concat(self, name: str, choice: int, x: Tensor, y: Tensor) -> Tensor:
        if x.shape[1] + y.shape[1] > 48:
            return self.add(name, choice, x, y)
        return torch.cat([x, self.sized(y, x)], 1)

    def gate(self, name: str, choice: int, x: Tensor, y: Tensor) -> Tensor:
        """By channel, or by place."""
        if choice % 2:
            return x * torch.sigmoid(self.layer(name, lambda: nn.Conv2d(x.shape[1], 1, 1))(x))
        flat = self.layer(name, lambda: nn.Linear(y.shape[1], x.shape[1]))(y.mean((2, 3)))
        return x * torch.sigmoid(flat)[:, :, None, None]

    def norm(self, name: str, choice: int, x: Tensor) -> Tensor:
        kind, groups = pick(choice, ("batch", "instance", "group", "layer", "group of all"), divisors(x.shape[1]))
        channels = x.shape[1]
        if kind == "layer":
            return self.layer(name, lambda: nn.LayerNorm(channels))(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        make = {
            "batch": lambda: nn.BatchNorm2d(channels), "instance": lambda: nn.InstanceNorm2d(channels, affine=True),
            "group": lambda: nn.GroupNorm(groups, channels), "group of all": lambda: nn.GroupNorm(1, channels),
        }[kind]  # fmt: skip
        return self.layer(name, make)(x)

    def pool(self, name: str, choice: int, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 6:
            return F.max_pool2d(x, 3, 1, 1)
        return (
            lambda: F.max_pool2d(x, 2),
            lambda: F.max_pool2d(x, 3, 2, 1),
            lambda: F.avg_pool2d(x, 2),
            lambda: F.avg_pool2d(x, 3, 1, 1),
            lambda: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
            lambda: F.adaptive_avg_pool2d(x, (3, 2)),
        )[choice % 6]()

    def resize(self, name: str, choice: int, x: Tensor) -> Tensor:
        mode, size = pick(choice, ("bilinear", "nearest", "bicubic", "aligned"), (8, 11, 16))
        if mode == "aligned":
            return F.interpolate(x, (size, size), mode="bilinear", align_corners=True)
        return F.interpolate(x, (size, size), mode=mode)

    def activation(self, name: str, choice: int, x: Tensor) -> Tensor:
        return self.layer(name, pick(choice, tuple(ACTIVATIONS.values()))[0])(x)

    def prelu(self, name: str, choice: int, x: Tensor) -> Tensor:
        return self.layer(name, lambda: nn.PReLU(x.shape[1]))(x)

    def attention(self, name: str, choice: int, x: Tensor, y: Tensor) -> Tensor:
        """In heads, of each pixel to those of another map."""
        heads, each = pick(choice, (1, 2, 4), (4, 8))
        if max(x.shape[2:]) > 12:
            x = F.max_pool2d(x, 2)
        y = F.max_pool2d(y, 2) if max(y.shape[2:]) > 12 else y

        def tokens(part: str, given: Tensor) -> Tensor:  # [1, heads, n, each]
            flat = given.flatten(2).transpose(1, 2)
            made = self.layer(f"{name}_{part}", lambda: nn.Linear(flat.shape[2], heads * each))(flat)
            return made.reshape(1, -1, heads, each).transpose(1, 2)

        scores = torch.softmax(tokens("q", x) @ tokens("k", y).transpose(2, 3) * each**-0.5, -1)
        out = (scores @ tokens("v", y)).transpose(1, 2).reshape(1, -1, heads * each)
        return out.transpose(1, 2).reshape(1, heads * each, *x.shape[2:])

    def parts(self, name: str, choice: int, x: Tensor) -> Tensor:
        """Halves that go other ways, are shuffled, or of which one is left."""
        if x.shape[1] % 2:
            return x.flip(1)
        a, b = x.chunk(2, 1)
        n, c, h, w = x.shape
        return (
            lambda: torch.cat([b, torch.relu(a)], 1),
            lambda: x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w),
            lambda: a * torch.sigmoid(b),
            lambda: x.flip(1),
            lambda: a,
        )[choice % 5]()

    def pad(self, name: str, choice: int, x: Tensor) -> Tensor:
        if max(x.shape[2:]) > 20:
            return x[:, :, 1:-1, 2:]
        return F.pad(x, ((0, 1, 2, 0), (1, 1, 1, 1), (0, -1, 0, 1))[choice % 3])

    def scaled(self, name: str, choice: int, x: Tensor) -> Tensor:
        return (lambda: x * 0.5 + 1, lambda: 1 - x, lambda: -x, lambda: x / 3 - 0.25)[choice % 4]()


KINDS = {
    "conv": 1, "depthwise": 1, "grouped": 1, "transposed": 1, "add": 2, "concat": 2, "gate": 2, "norm": 1, "pool": 1,
    "resize": 1, "activation": 1, "prelu": 1, "attention": 2, "parts": 1, "pad": 1, "scaled": 1,
}  # fmt: skip
"""How many tensors each reads."""


def pick(choice: int, *options: tuple) -> list:
    """One of each of these, all of which the choice decides."""
    picked = []
    for each in options:
        picked.append(each[choice % len(each)])
        choice //= len(each)
    return picked


def divisors(channels: int) -> tuple[int, ...]:
    return tuple(n for n in (2, 4, 8, 3) if channels % n == 0 and n < channels) or (1,)


def with_random_norms(module: nn.Module) -> nn.Module:
    """Factors, offsets and slopes that are not those that layers are born with."""
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        for each in module.parameters():
            nn.init.uniform_(each, 0.1, 1.5)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.running_mean, -0.5, 0.5)
        nn.init.uniform_(module.running_var, 0.2, 2.0)
    return module


@st.composite
def plans(draw) -> Plan:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=3, max_size=10))
    steps = [
        Step(kind, tuple(draw(st.integers(0, 3)) for _ in range(KINDS[kind])), draw(st.integers(0, 255)))
        for kind in kinds
    ]
    return Plan(
        draw(st.sampled_from(SIZES)), draw(st.sampled_from((8, 16, 24))), draw(st.integers(0, 999)), tuple(steps)
    )
