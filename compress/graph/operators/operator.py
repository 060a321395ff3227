"""What an operator is: one value that answers every question that a stage asks of it.

Stages walk a network and ask the operator of each node; none of them knows an operator by name, and none has an answer
of its own for one that it does not know. Nothing here imports torch or a runtime: writers of files read it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec

Pair = tuple[int, int]
"""Of height and width."""

Bounds = tuple[float, float]
"""What values cannot be below, and cannot be above."""


@dataclass(frozen=True)
class Attributes:
    """What an operator's nodes differ in, by the names and in the conventions of torch; here nothing."""

    def at(self, size: Pair, traced_size: Pair) -> Attributes:
        """The same for an image of `size`, where the network was traced at `traced_size`."""
        return self

    def stored_bytes(self) -> int:
        """Of constants among them, in a file."""
        return 0


class Channels(Enum):
    """Where the channels of an operator's result come from."""

    IMAGE = auto()  # red, green and blue
    MAKES = auto()  # from its weights; a depthwise convolution passes its input's on
    PASSES = auto()  # from its only input
    TIES = auto()  # from every input, so that channel c of one stays or goes with channel c of the others
    JOINS = auto()  # its inputs' channels side by side
    ARRANGES = auto()  # `made` of its attributes, out of all of its only input's, none of which can go
    MIXES = auto()  # from its only input, each changed by all that are left
    GROUPS = auto()  # from its only input, each changed by all of its group, of `attrs.groups`: whole groups are cut
    SHARES = auto()  # from its only input, none of which can go without changing what the others are for
    ATTENDS = auto()  # from its last input; the first two meet channel by channel, all are divided among `attrs.heads`


class Scale(Enum):
    """Where the scale and the zero point of an operator's result come from."""

    IMAGE = auto()  # from how the image is read
    OWN = auto()  # calibrated, of its own
    OF_INPUTS = auto()  # those of its inputs, which must agree
    FIXED = auto()  # `Operator.fixed`, which file formats prescribe


class OnSteps(Enum):
    """How training computes on activations in steps of their scale, real value / scale."""

    FILTERS = auto()  # scales go into the weights
    MOVES = auto()  # gives values that it was given
    AVERAGES = auto()  # averages of values that it was given: they are rounded
    RECTIFIES = auto()  # the clamp to the integers' range does most of it
    LINEAR = auto()  # its inputs are brought to the result's scale first
    REAL = auto()  # computed on real values


class Work(Enum):
    """What an operator costs on a phone."""

    NOTHING = auto()  # it is inside the operator before it
    WRITING = auto()  # the values that it writes
    MOVING = auto()  # the values that it reads and writes
    FILTERING = auto()  # multiply-accumulates, values read and written, weights
    ATTENDING = auto()  # multiply-accumulates of every position with every other, values read and written


@dataclass(frozen=True)
class Call:
    """A call of an ATen operator in a traced module: `arguments` by name, defaults included; shapes of the tensors
    among them, by name, and of the `result`."""

    arguments: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    result: tuple[int, ...]


FromAten = Callable[[Call], Attributes | str]
"""The attributes of the node that a call becomes, or why it cannot become one: "with dilation"."""


@dataclass(frozen=True)
class Weights:
    """The axes of output and input channels in an operator's weight. A transposed operator multiplies its weight with
    every input, and others with what they read for every output."""

    outputs: int
    inputs: int
    transposed: bool = False

    def out_channels(self, shape: Sequence[int], groups: int) -> int:
        return shape[self.outputs] * (groups if self.outputs else 1)

    def scaled(self, weight: Tensor, groups: int, scale: Tensor) -> Tensor:
        """The weight with each output channel multiplied by its part of `scale`, [outputs]."""
        if self.outputs == 0:
            return weight * scale.reshape(-1, 1, 1, 1)
        by_group = weight.reshape(groups, -1, *weight.shape[1:]) * scale.reshape(groups, 1, -1, 1, 1)
        return by_group.reshape(weight.shape)


@dataclass(frozen=True)
class Rectifier:
    """An activation that file formats have inside other operators: max(0, x), at most `ceiling`."""

    ceiling: float
    tflite: str  # its name in TFLite's ActivationFunctionType


Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Form:
    """One of the nodes of a file that compute an operator, one after the other. It reads what the one before it gave,
    the operator's own inputs if it is the first, or else what `reads` says: the operator's inputs are numbered from 0,
    the results of its forms go on from there, and -1 is the form before."""

    reads: tuple[int, ...] = ()

    def given(self, values: Sequence[Value], inputs: int) -> list[Value]:
        """What it reads of `values`: the operator's `inputs` inputs, and the results of the forms before it."""
        if self.reads:
            return [values[index] for index in self.reads]
        return list(values) if len(values) == inputs else [values[-1]]


@dataclass(frozen=True)
class OnnxForm(Form):
    """One node in ONNX's words: after what it reads come `constants` (None: left out), then the weights."""

    op_type: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[Any, ...] = ()
    output_axis: int = 0  # of the weight: that of the output channels


@dataclass(frozen=True)
class TfliteForm(Form):
    """One operator in TFLite's words.

    code, options   of the builtin operator, and the name and fields of its options table
    versions        the lowest of the operator that do what is asked here, for float32 and for int8
    since           the TensorFlow release that brought that version
    before, after   constants around the inputs, int32 or float32; weights come between inputs and `after`
    shape           of the result, NHWC, where another form reads it and it is not that of the input
    reals           real constants after the inputs, stored as the first input is: float32, or integers of its scale
    pads            of height and width, in an operator of their own
    pad_lowest      pad with the lowest value instead of zero
    widen           rows and columns of zeros behind the kernel
    axes            the weight's axes in TFLite's order, of which `output_axis` is that of the output channels
    weights_first   the weight stands before the input
    in_float        no integer kernel does this with one rounding: computed on real values between the same integers
    """

    code: str
    options: tuple[str, Mapping[str, Any]] | None = None
    versions: Pair = (1, 2)
    since: str = "2.3.0"
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()
    shape: tuple[int, ...] = ()
    reals: tuple[float, ...] = ()
    pads: tuple[Pair, ...] = ()
    pad_lowest: bool = False
    widen: Pair = (0, 0)
    axes: tuple[int, ...] = ()
    output_axis: int = 0
    weights_first: bool = False
    in_float: bool = False


IN_FLOAT = "onnxruntime has no integer kernel for it, so it runs in float between the same integers"
"""Of an operator: why `Operator.onnx_float`."""

ToOnnx = Callable[["QuantizedOperator", "TensorSpec", "TensorSpec"], tuple[OnnxForm, ...]]
ToTflite = Callable[["QuantizedOperator", "TensorSpec", "TensorSpec"], tuple[TfliteForm, ...]]
"""A node with the specs of its first input and of its result -> the forms that compute it, one after the other. Raise
ExportError, naming the node, for what the format cannot express."""


ToTorch = Callable[["QuantizedOperator", Sequence[str]], str]
"""A node, and what its inputs are called -> the expression that computes it in torch's own words; of a node with
weights the layer that holds them, which is called with its input. Of what came out of a file only numbers, and text
that is quoted, may be in it."""


def literal(value: Any) -> str:
    """A number, a quoted text, None or a tuple of these as Python reads it; of a pair of two equal numbers one."""
    if isinstance(value, tuple):
        return literal(value[0]) if len(value) == 2 and value[0] == value[1] else f"({', '.join(map(literal, value))})"
    if isinstance(value, str):
        return f'"{value}"' if re.fullmatch(r"\w*", value, re.ASCII) else ascii(value)
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, Integral):
        return str(int(value))
    return str(float(value)) if math.isfinite(value) else f'float("{float(value)}")'


def call(name: str, *positional: str, **named: Any) -> str:
    """The text of a call: `positional` are expressions, `named` values."""
    return f"{name}({', '.join([*positional, *(f'{key}={literal(value)}' for key, value in named.items())])})"


def unbounded(x: Sequence[Bounds], a: Any) -> Bounds:
    return -math.inf, math.inf


def of_inputs(x: Sequence[Bounds], a: Any) -> Bounds:
    """Of an operator that gives values which it was given, or averages of them."""
    return min(low for low, _ in x), max(high for _, high in x)


@dataclass(frozen=True)
class Operator:
    """Everything about an operator.

    inputs      how many tensors it reads; None: two or more
    attributes  the class of its nodes' attributes
    weights     None: it has none
    fixed       scale and int8 zero point of its result, where `scale` is FIXED
    aten        by the name of each ATen operator that becomes this one alone, its attributes; what is said of several
                operators, of constants or of dimensions, `compress.load.calls` reads
    compute     inputs, attributes (and weight, bias where it has them) -> result, as torch tensors
    torch       how people write it
    onnx_float  why onnxruntime has no integer kernel for it; empty where it has one
    rectifier   where the operator is one that others may have inside
    fuses       whether it may have a rectifier inside
    activation  it stands behind a layer and has its channels: what they are worth is told by its result
    homogeneous k times the input gives k times the result, channel by channel, for k > 0
    positive    its result is never below zero
    bounds      of its result, from those of its inputs and its attributes
    """

    name: str
    inputs: int | None
    attributes: type[Attributes]
    channels: Channels
    scale: Scale
    on_steps: OnSteps
    work: Work
    compute: Callable[..., Tensor]
    torch: ToTorch
    onnx: ToOnnx
    tflite: ToTflite
    aten: Mapping[str, FromAten] = field(default_factory=dict)
    weights: Weights | None = None
    fixed: tuple[float, int] | None = None
    onnx_float: str = ""
    rectifier: Rectifier | None = None
    fuses: bool = False
    activation: bool = False
    homogeneous: bool = False
    positive: bool = False
    bounds: Callable[[Sequence[Bounds], Any], Bounds] = unbounded


def plain(call: Call) -> Attributes:
    """The attributes of an operator that has none."""
    return Attributes()


def pair(value: Any) -> Pair:
    """Height and width of what torch also takes as one number or a list of one."""
    if isinstance(value, int):
        return (value, value)
    return (int(value[0]), int(value[-1]))
