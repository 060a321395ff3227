"""The quantized graph: the one value that every file format is written from. Nothing of torch is in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Pair = tuple[int, int]


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


@dataclass(frozen=True)
class Operator:
    """One operator, in torch's conventions.

    op          inputs, attributes (pairs are height, width)
    ----------  ------------------------------------------------------------------------------
    conv        1; stride, padding, dilation: pairs; groups: int. weight [O, I/groups, kh, kw]
    conv_transpose
                1; stride, padding, dilation, output_padding: pairs; groups.
                weight [I, O/groups, kh, kw]
    add, mul    2; broadcast over height and width is allowed
    concat      2 or more, along channels; every input has the output's scale
    max_pool    1; kernel, stride, padding: pairs. Padding never wins the maximum
    avg_pool    1; kernel, stride, padding: pairs. Padded positions are not counted
    mean        1; over height and width, which stay as 1x1
    resize      1; mode: "bilinear" or "nearest"; to the output's height and width, half-pixel
                centres (align_corners false)
    relu, relu6, sigmoid, softmax
                1; softmax is over channels

    `activation` ("relu", "relu6" or None) is applied to the result of conv, conv_transpose, add and
    mul before it is quantized. Quantized operators: `weight` int8, symmetric, -127..127, real
    weight = weight * weight_scale[output channel]; `bias` int32 with scale
    input scale * weight_scale[output channel]. Float operators: float32, weight_scale None.
    Pooling, resize, concat and relu keep their input's scale and zero point; sigmoid and softmax
    always have scale 1/256 and zero point -128.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, object] = field(default_factory=dict)
    activation: str | None = None
    weight: np.ndarray | None = None
    weight_scale: np.ndarray | None = None
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class QuantizedGraph:
    """Operators in execution order, from one input to one output.

    The input is an RGB image: real value = input scale * (pixel - (zero_point + 128)), pixels
    0..255, also where the graph is float (then the input tensor has scale and zero point too, and
    the file's input is the float32 real value). The output holds one probability per class,
    [1, classes, H, W].
    """

    name: str
    tensors: Mapping[str, TensorSpec]
    operators: tuple[Operator, ...]
    input: str
    output: str
