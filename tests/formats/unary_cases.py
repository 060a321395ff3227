"""Functions of single values, each worked out in numpy and named in torch, with the attributes to try."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import erf
from torch import nn


@dataclass(frozen=True)
class Unary:
    """`of`: x and the operator's attributes -> the result, in numpy. `modules`: by case, a torch module that becomes
    the operator. `attrs`: by case, its attributes. `inputs_scale`: the result keeps the input's scale; `fixed`: scale
    and zero point that file formats prescribe. `builtin`: by case, int8 operators that XNNPACK
    does not take."""

    of: Callable[[np.ndarray, Any], np.ndarray]
    modules: dict[str, nn.Module]
    attrs: dict[str, dict[str, Any]]
    inputs_scale: bool = False
    fixed: tuple[float, int] | None = None
    builtin: dict[str, list[str]] = field(default_factory=dict)


def _gelu(x: np.ndarray, a: Any) -> np.ndarray:
    if a.approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


class Clamp(nn.Module):
    def __init__(self, lowest: float | None, highest: float | None):
        super().__init__()
        self.limits = lowest, highest

    def forward(self, x):
        return x.clamp(*self.limits)


UNARY = {
    "hardswish": Unary(
        lambda x, a: x * np.clip(x + 3, 0, 6) / 6, {"": nn.Hardswish()}, {"": {}}, builtin={"": ["HARD_SWISH"]}
    ),
    "hardsigmoid": Unary(lambda x, a: np.clip(x + 3, 0, 6) / 6, {"": nn.Hardsigmoid()}, {"": {}}),
    "silu": Unary(lambda x, a: x / (1 + np.exp(-x)), {"": nn.SiLU(inplace=True)}, {"": {}}),
    "mish": Unary(lambda x, a: x * np.tanh(np.log1p(np.exp(x))), {"": nn.Mish()}, {"": {}}),
    "gelu": Unary(
        _gelu,
        {"": nn.GELU(), "_tanh": nn.GELU("tanh")},
        {"": {"approximate": "none"}, "_tanh": {"approximate": "tanh"}},
        builtin={"": ["GELU"], "_tanh": ["GELU"]},
    ),
    "leaky_relu": Unary(
        lambda x, a: np.where(x > 0, x, a.negative_slope * x),
        {"": nn.LeakyReLU(), "_steep": nn.LeakyReLU(0.3, inplace=True)},
        {"": {"negative_slope": 0.01}, "_steep": {"negative_slope": 0.3}},
    ),
    "elu": Unary(
        lambda x, a: a.scale * np.where(x > 0, x, a.alpha * np.expm1(np.minimum(a.input_scale * x, 0))),
        {"": nn.ELU(), "_half": nn.ELU(0.5), "_selu": nn.SELU(), "_celu": nn.CELU(2.0)},
        {
            "": {"alpha": 1.0, "scale": 1.0, "input_scale": 1.0},
            "_half": {"alpha": 0.5, "scale": 1.0, "input_scale": 1.0},
            "_selu": {"alpha": 1.6732632423543772, "scale": 1.0507009873554805, "input_scale": 1.0},
            "_celu": {"alpha": 2.0, "scale": 1.0, "input_scale": 0.5},
        },
    ),
    "tanh": Unary(lambda x, a: np.tanh(x), {"": nn.Tanh()}, {"": {}}, fixed=(1 / 128, 0)),
    "clamp": Unary(
        lambda x, a: np.clip(x, a.lowest, a.highest),
        {"": nn.Hardtanh(), "_below": Clamp(-0.25, None), "_above": Clamp(None, 0.4)},
        {
            "": {"lowest": -1.0, "highest": 1.0},
            "_below": {"lowest": -0.25, "highest": None},
            "_above": {"lowest": None, "highest": 0.4},
        },
        inputs_scale=True,
        builtin={"": ["MAXIMUM", "MINIMUM"], "_below": ["MAXIMUM"], "_above": ["MINIMUM"]},
    ),
}
CASES = {f"{name}{case}": (name, case) for name, unary in UNARY.items() for case in unary.attrs}
