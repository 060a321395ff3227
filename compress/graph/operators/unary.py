"""Functions of single values: rectifiers and other activations, and what makes probabilities of logits.

A function of an int8 value is a table of 256 entries, so training and both files can agree on it exactly. Where a
runtime has an integer kernel, the file asks for that; where it has none, the file computes on real values between the
same integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.graph.operators.operator import (
    IN_FLOAT,
    Attributes,
    Bounds,
    Call,
    Channels,
    FromAten,
    OnnxForm,
    OnSteps,
    Operator,
    Rectifier,
    Scale,
    TfliteForm,
    ToTorch,
    Work,
    call,
    literal,
    plain,
)

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec

PROBABILITY = (1 / 256, -128)
"""Scale and int8 zero point that TensorFlow Lite's specification fixes for sigmoid and softmax."""

SIGNED_UNIT = (1 / 128, 0)
"""... and for tanh."""


@dataclass(frozen=True)
class LeakyReluAttributes(Attributes):
    negative_slope: float


@dataclass(frozen=True)
class GeluAttributes(Attributes):
    """`approximate`: "none", by the error function, or "tanh"."""

    approximate: str


@dataclass(frozen=True)
class EluAttributes(Attributes):
    """scale * x above zero, scale * alpha * (exp(input_scale * x) - 1) below."""

    alpha: float = 1.0
    scale: float = 1.0
    input_scale: float = 1.0


@dataclass(frozen=True)
class ClampAttributes(Attributes):
    """None: no limit on that side."""

    lowest: float | None
    highest: float | None


_SETTINGS: dict[str, Any] = {
    "inputs": 1,
    "attributes": Attributes,
    "channels": Channels.PASSES,
    "scale": Scale.OWN,
    "on_steps": OnSteps.REAL,
    "work": Work.MOVING,
    "onnx_float": IN_FLOAT,
    "activation": True,
}
"""Of one input, with a scale of its own, computed in training on real values."""


def _unary(
    name: str,
    compute: Callable[..., Tensor],
    aten: Mapping[str, FromAten],
    torch: ToTorch,
    onnx: Callable[[Any], tuple[OnnxForm, ...]],
    tflite: Callable[[Any], tuple[TfliteForm, ...]],
    **more: Any,
) -> Operator:
    """An operator with these settings, unless `more` says otherwise. `onnx` and `tflite` take the node's attributes."""
    return Operator(
        name=name,
        aten=aten,
        compute=compute,
        torch=torch,
        onnx=lambda node, source, result: onnx(node.attrs),
        tflite=lambda node, source, result: tflite(node.attrs),
        **{**_SETTINGS, **more},
    )


def _in_place_too(name: str, rule: FromAten = plain) -> dict[str, FromAten]:
    return {f"{name}.default": rule, f"{name}_.default": rule}


def _limits(call: Call) -> tuple[float | None, float | None]:
    """Of a clamp, by whichever of its names it was called."""
    names = (("min", "min_val"), ("max", "max_val"))
    low, high = (next((call.arguments[key] for key in keys if key in call.arguments), None) for keys in names)
    return low, high


def _rectifier_of(ceiling: float | None) -> FromAten:
    def rule(call: Call) -> Attributes | str:
        low, high = _limits(call)
        return Attributes() if (low, high) == (0, ceiling) else f"with limits {low}..{high}"

    return rule


def _clamp_of(call: Call) -> ClampAttributes:
    low, high = _limits(call)
    return ClampAttributes(None if low is None else float(low), None if high is None else float(high))


def _elu_of(call: Call) -> EluAttributes:
    return EluAttributes(*(float(call.arguments[key]) for key in ("alpha", "scale", "input_scale")))


def _celu_of(call: Call) -> EluAttributes:
    alpha = float(call.arguments["alpha"])
    return EluAttributes(alpha, 1.0, 1 / alpha)


_SELU = (1.6732632423543772, 1.0507009873554805)
"""Of the self-normalising unit (Klambauer et al. 2017, arXiv 1706.02515)."""


def _elu(x: Sequence[Tensor], a: EluAttributes) -> Tensor:
    """The exponential where it is wanted: elsewhere it may overflow."""
    low = (x[0].clamp(max=0) * a.input_scale).expm1()
    return a.scale * (x[0].clamp(min=0) + a.alpha * low)


def _elu_torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    a = node.attrs
    if a.scale == a.input_scale == 1:
        return call("F.elu", x[0], **({} if a.alpha == 1 else {"alpha": a.alpha}))
    if a == EluAttributes(*_SELU):
        return call("F.selu", x[0])
    low = f"torch.expm1({literal(a.input_scale)} * {x[0]}.clamp(max=0))"
    return f"{literal(a.scale)} * (torch.relu({x[0]}) + {literal(a.alpha)} * {low})"


def _elu_onnx(a: EluAttributes) -> tuple[OnnxForm, ...]:
    if a.scale == a.input_scale == 1:
        return (OnnxForm("Elu", {"alpha": a.alpha}),)
    return (
        OnnxForm("Mul", constants=(_real(a.input_scale),)),
        OnnxForm("Min", constants=(_real(0),)),
        OnnxForm("Elu", {"alpha": a.alpha}),
        OnnxForm("Relu", reads=(0,)),
        OnnxForm("Add", reads=(3, 4)),
        OnnxForm("Mul", constants=(_real(a.scale),)),
    )


def _elu_tflite(a: EluAttributes) -> tuple[TfliteForm, ...]:
    if a == EluAttributes():
        return (TfliteForm("ELU", versions=(1, 1)),)
    return (
        TfliteForm("MUL", ("MulOptions", {}), reals=(a.input_scale,), in_float=True),
        TfliteForm("MINIMUM", ("MaximumMinimumOptions", {}), reals=(0.0,), in_float=True),
        TfliteForm("ELU", versions=(1, 1), in_float=True),
        TfliteForm("MUL", ("MulOptions", {}), reals=(a.alpha * a.scale,), in_float=True),
        TfliteForm("RELU", reads=(0,), in_float=True),
        TfliteForm("MUL", ("MulOptions", {}), reals=(a.scale,), in_float=True),
        TfliteForm("ADD", ("AddOptions", {}), reads=(4, 6), in_float=True),
    )


def _unit(x: Sequence[Bounds], a: Attributes) -> Bounds:
    return 0.0, 1.0


def _clamped(bounds: Bounds, lowest: float | None, highest: float | None) -> Bounds:
    low, high = (-math.inf if lowest is None else lowest), (math.inf if highest is None else highest)
    return min(max(bounds[0], low), high), min(max(bounds[1], low), high)


def _relu(x: Sequence[Tensor], a: Attributes) -> Tensor:
    import torch

    return torch.relu(x[0])


def _sigmoid(x: Sequence[Tensor], a: Attributes) -> Tensor:
    import torch

    return torch.sigmoid(x[0])


def _softmax(x: Sequence[Tensor], a: Attributes) -> Tensor:
    import torch

    return torch.softmax(x[0], 1)


def _functional(name: str, *attributes: str) -> Callable[..., Tensor]:
    """The function of that name in torch.nn.functional, with these attributes by name."""

    def compute(x: Sequence[Tensor], a: Attributes) -> Tensor:
        from torch.nn import functional as F

        return getattr(F, name)(x[0], **{key: getattr(a, key) for key in attributes})

    return compute


def _written(name: str, *attributes: str) -> ToTorch:
    """The call of that function with these attributes by name."""
    return lambda node, x: call(name, x[0], **{key: getattr(node.attrs, key) for key in attributes})


def _gelu_onnx(a: GeluAttributes) -> tuple[OnnxForm, ...]:
    """x / 2 * (1 + erf(x / sqrt 2)), or its approximation (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    if a.approximate == "none":
        inside = [OnnxForm("Mul", constants=(_real(math.sqrt(0.5)),)), OnnxForm("Erf")]
    else:  # x + 0.044715 x^3 as x * (1 + 0.044715 x * x)
        inside = [
            OnnxForm("Mul", constants=(_real(0.044715),)),
            OnnxForm("Mul", reads=(-1, 0)),
            OnnxForm("Add", constants=(_real(1),)),
            OnnxForm("Mul", reads=(-1, 0)),
            OnnxForm("Mul", constants=(_real(math.sqrt(2 / math.pi)),)),
            OnnxForm("Tanh"),
        ]
    end = [OnnxForm("Add", constants=(_real(1),)), OnnxForm("Mul", reads=(-1, 0))]
    return (*inside, *end, OnnxForm("Mul", constants=(_real(0.5),)))


def _clamp_tflite(a: ClampAttributes) -> tuple[TfliteForm, ...]:
    limits = (("MAXIMUM", a.lowest), ("MINIMUM", a.highest))
    return tuple(
        TfliteForm(code, ("MaximumMinimumOptions", {}), reals=(limit,)) for code, limit in limits if limit is not None
    )


def _real(value: float | None) -> Any:
    import numpy as np

    return None if value is None else np.float32(value)


RELU = _unary(
    "relu",
    _relu,
    {
        **_in_place_too("relu"),
        **_in_place_too("clamp", _rectifier_of(None)),
        **_in_place_too("clamp_min", _rectifier_of(None)),
    },
    torch=_written("torch.relu"),
    onnx=lambda a: (OnnxForm("Relu"),),
    tflite=lambda a: (TfliteForm("RELU"),),
    scale=Scale.OF_INPUTS,
    on_steps=OnSteps.RECTIFIES,
    work=Work.NOTHING,
    onnx_float="",
    rectifier=Rectifier(math.inf, "RELU"),
    homogeneous=True,
    positive=True,
    bounds=lambda x, a: (max(x[0][0], 0.0), max(x[0][1], 0.0)),
)
RELU6 = _unary(
    "relu6",
    _functional("relu6"),
    {
        **_in_place_too("relu6"),
        **_in_place_too("hardtanh", _rectifier_of(6)),
        **_in_place_too("clamp", _rectifier_of(6)),
    },
    torch=_written("F.relu6"),
    onnx=lambda a: (OnnxForm("Clip", constants=(_real(0), _real(6))),),
    tflite=lambda a: (TfliteForm("RELU6"),),
    scale=Scale.OF_INPUTS,
    on_steps=OnSteps.RECTIFIES,
    work=Work.NOTHING,
    onnx_float="",
    rectifier=Rectifier(6.0, "RELU6"),
    positive=True,
    bounds=lambda x, a: _clamped(x[0], 0.0, 6.0),
)
SIGMOID = _unary(
    "sigmoid",
    _sigmoid,
    _in_place_too("sigmoid"),
    torch=_written("torch.sigmoid"),
    onnx=lambda a: (OnnxForm("Sigmoid"),),
    tflite=lambda a: (TfliteForm("LOGISTIC"),),
    scale=Scale.FIXED,
    fixed=PROBABILITY,
    onnx_float="",
    activation=False,
    positive=True,
    bounds=_unit,
)
SOFTMAX = _unary(
    "softmax",
    _softmax,
    {},
    torch=lambda node, x: f"torch.softmax({x[0]}, 1)",
    onnx=lambda a: (OnnxForm("Softmax", {"axis": 1}),),
    tflite=lambda a: (TfliteForm("SOFTMAX", ("SoftmaxOptions", {"beta": 1.0})),),
    channels=Channels.SHARES,
    scale=Scale.FIXED,
    fixed=PROBABILITY,
    onnx_float="",
    activation=False,
    positive=True,
    bounds=_unit,
)
LEAKY_RELU = _unary(
    "leaky_relu",
    _functional("leaky_relu", "negative_slope"),
    _in_place_too("leaky_relu", lambda call: LeakyReluAttributes(float(call.arguments["negative_slope"]))),
    torch=_written("F.leaky_relu", "negative_slope"),
    onnx=lambda a: (OnnxForm("LeakyRelu", {"alpha": a.negative_slope}),),
    tflite=lambda a: (TfliteForm("LEAKY_RELU", ("LeakyReluOptions", {"alpha": a.negative_slope})),),
    attributes=LeakyReluAttributes,
    onnx_float="",
    homogeneous=True,
)


def _hardswish_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    """The integer kernel does not take an input whose steps are 128 times the result's or larger."""
    coarse = bool(source.scale and result.scale and source.scale > 127 * result.scale)
    return (TfliteForm("HARD_SWISH", ("HardSwishOptions", {}), (1, 1), in_float=coarse),)


HARDSWISH = Operator(
    name="hardswish",
    aten=_in_place_too("hardswish"),
    compute=_functional("hardswish"),
    torch=_written("F.hardswish"),
    onnx=lambda node, source, result: (
        OnnxForm("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
        OnnxForm("Mul", reads=(-1, 0)),
    ),
    tflite=_hardswish_tflite,
    **_SETTINGS,
)
HARDSIGMOID = _unary(
    "hardsigmoid",
    _functional("hardsigmoid"),
    _in_place_too("hardsigmoid"),
    torch=_written("F.hardsigmoid"),
    onnx=lambda a: (OnnxForm("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),),
    tflite=lambda a: (
        TfliteForm("ADD", ("AddOptions", {}), reals=(3.0,), in_float=True),
        TfliteForm("RELU6", in_float=True),
        TfliteForm("MUL", ("MulOptions", {}), reals=(1 / 6,), in_float=True),
    ),
    activation=False,
    positive=True,
    bounds=_unit,
)
SILU = _unary(
    "silu",
    _functional("silu"),
    _in_place_too("silu"),
    torch=_written("F.silu"),
    onnx=lambda a: (OnnxForm("Sigmoid"), OnnxForm("Mul", reads=(-1, 0))),
    tflite=lambda a: (
        TfliteForm("LOGISTIC", in_float=True),
        TfliteForm("MUL", ("MulOptions", {}), reads=(-1, 0), in_float=True),
    ),
)
MISH = _unary(
    "mish",
    _functional("mish"),
    _in_place_too("mish"),
    torch=_written("F.mish"),
    onnx=lambda a: (OnnxForm("Softplus"), OnnxForm("Tanh"), OnnxForm("Mul", reads=(-1, 0))),
    tflite=lambda a: (
        TfliteForm("EXP", ("ExpOptions", {}), in_float=True),
        TfliteForm("ADD", ("AddOptions", {}), reals=(1.0,), in_float=True),
        TfliteForm("LOG", in_float=True),
        TfliteForm("TANH", in_float=True),
        TfliteForm("MUL", ("MulOptions", {}), reads=(-1, 0), in_float=True),
    ),
)
GELU = _unary(
    "gelu",
    _functional("gelu", "approximate"),
    {"gelu.default": lambda call: GeluAttributes(call.arguments["approximate"])},
    torch=_written("F.gelu", "approximate"),
    onnx=_gelu_onnx,
    tflite=lambda a: (TfliteForm("GELU", ("GeluOptions", {"approximate": a.approximate == "tanh"}), since="2.9.0"),),
    attributes=GeluAttributes,
)
ELU = _unary(
    "elu",
    _elu,
    {
        **_in_place_too("elu", _elu_of),
        **_in_place_too("celu", _celu_of),
        **_in_place_too("selu", lambda call: EluAttributes(*_SELU)),
    },
    torch=_elu_torch,
    onnx=_elu_onnx,
    tflite=_elu_tflite,
    attributes=EluAttributes,
)
TANH = _unary(
    "tanh",
    _functional("tanh"),
    _in_place_too("tanh"),
    torch=_written("torch.tanh"),
    onnx=lambda a: (OnnxForm("Tanh"),),
    tflite=lambda a: (TfliteForm("TANH"),),
    scale=Scale.FIXED,
    fixed=SIGNED_UNIT,
)
CLAMP = _unary(
    "clamp",
    lambda x, a: x[0].clamp(a.lowest, a.highest),
    {
        name: _clamp_of
        for one in ("clamp", "clamp_min", "clamp_max", "hardtanh")
        for name in (f"{one}.default", f"{one}_.default")
    },
    torch=lambda node, x: call(f"{x[0]}.clamp", literal(node.attrs.lowest), literal(node.attrs.highest)),
    onnx=lambda a: (OnnxForm("Clip", constants=(_real(a.lowest), _real(a.highest))),),
    tflite=_clamp_tflite,
    attributes=ClampAttributes,
    scale=Scale.OF_INPUTS,
    onnx_float="",
    bounds=lambda x, a: _clamped(x[0], a.lowest, a.highest),
)
UNARY = (
    RELU,
    RELU6,
    SIGMOID,
    SOFTMAX,
    LEAKY_RELU,
    HARDSWISH,
    HARDSIGMOID,
    SILU,
    MISH,
    GELU,
    ELU,
    TANH,
    CLAMP,
)
"""A clamp comes after the rectifiers, whose limits are theirs."""
