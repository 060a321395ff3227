"""The quantized graph: the one value that every file format is written from. Nothing of torch is in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compress.errors import ExportError
from compress.graph.operators import OPERATORS
from compress.graph.operators.operator import Attributes, Operator


@dataclass(frozen=True)
class TensorSpec:
    """One activation tensor: NCHW shape, and how its integers map to real values.

    real = scale * (integer - zero_point), with int8 integers in -128..127 (a file that stores
    uint8 adds 128 to integer and zero point). `scale` None: the tensor is float32.
    """

    name: str
    shape: tuple[int, int, int, int]
    scale: float | None = None
    zero_point: int = 0

    def clamps(self, activation: str | None) -> bool:
        """Whether saturation to the integers' range already is this activation, so that it needs no operator."""
        if activation is None or self.scale is None or self.zero_point != -128:
            return activation is None
        rectifier = OPERATORS[activation].rectifier
        return rectifier is not None and 255 * self.scale <= rectifier.ceiling + self.scale / 2


@dataclass(frozen=True)
class QuantizedOperator:
    """One node: an operator of `compress.graph.operators` by its name, and what it has here.

    `activation`, the name of a rectifier or None, is applied to the result of an operator that `fuses` before it is
    quantized. Quantized operators: `weight` int8, symmetric, -127..127, real weight = weight * weight_scale[output
    channel]; `bias` int32 with scale input scale * weight_scale[output channel]. Float operators: float32, weight_scale
    None.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attrs: Any = field(default_factory=Attributes)
    activation: str | None = None
    weight: np.ndarray | None = None
    weight_scale: np.ndarray | None = None
    bias: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises ExportError, naming the layer, for an operator that is not known here: nothing passes it over."""
        if self.op not in OPERATORS:
            raise ExportError(f"{self.name}: there is no operator {self.op!r}; a graph has {', '.join(OPERATORS)}")
        if type(self.attrs) is not self.kind.attributes:
            raise ExportError(f"{self.name}: {self.op} has {self.kind.attributes.__name__}, not {self.attrs!r}")
        if self.activation is not None and not (self.kind.fuses and OPERATORS[self.activation].rectifier):
            raise ExportError(f"{self.name}: {self.op} cannot have {self.activation} inside")

    @property
    def kind(self) -> Operator:
        return OPERATORS[self.op]


@dataclass(frozen=True)
class QuantizedGraph:
    """Operators in execution order, from one input to one output.

    The input is an image: real value = input scale * (pixel - (zero_point + 128)), pixels
    0..255, also where the graph is float (then the input tensor has scale and zero point too, and
    the file's input is the float32 real value). The output holds one probability per class,
    [1, classes, H, W].
    """

    name: str
    tensors: Mapping[str, TensorSpec]
    operators: tuple[QuantizedOperator, ...]
    input: str
    output: str

    @property
    def is_float(self) -> bool:
        """Whether nothing but the input has a scale: the file's input is then float32."""
        return all(spec.scale is None for name, spec in self.tensors.items() if name != self.input)

    @property
    def activation(self) -> str | None:
        """What made probabilities of logits, also where they were resized or multiplied since: "sigmoid" or "softmax";
        None: nothing did."""
        maker = {operator.output: operator for operator in self.operators}
        operator: QuantizedOperator | None = self.operators[-1]
        while operator and operator.op not in ("sigmoid", "softmax"):
            if operator.weight is not None and operator is not self.operators[-1]:
                return None
            operator = maker.get(operator.inputs[0])
        return operator.op if operator else None

    def is_integer(self, operator: QuantizedOperator) -> bool:
        """Whether the operator computes on integers: its tensors have scales and its weights, if any, are int8.

        Any other one computes in float. Raises ExportError for int8 weights beside a float tensor.
        """
        specs = [self.tensors[name] for name in (*operator.inputs, operator.output)]
        quantized = all(spec.scale is not None for spec in specs) and not self.is_float
        if operator.weight_scale is not None and not quantized:
            raise ExportError(f"{operator.name}: int8 weights need an int8 input and output; leave its weights float")
        return quantized and (operator.weight is None or operator.weight_scale is not None)

    def never_negative(self, spec: TensorSpec, integer: bool) -> bool:
        """Whether zero is the lowest value of a tensor, as integers or as real numbers."""
        if integer:
            return spec.zero_point == -128
        maker = next((made for made in self.operators if made.output == spec.name), None)
        return maker is not None and (maker.kind.positive or maker.activation is not None)
