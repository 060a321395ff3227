"""The integers that an int8 graph computes, in torch, with one rounding for each operator."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compress.graph.operators import OPERATORS
from compress.graph.operators.operator import Attributes
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec

LOWEST, HIGHEST = -128, 127


def simulate(graph: QuantizedGraph, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """uint8 [1, channels, H, W] -> every tensor of the graph, int8 NCHW (float32 where it has no scale).

    Sums are float32, as in training: off by at most some 1e-6 of themselves, which moves a value in a million.
    """
    values = {graph.input: (pixels.astype(np.int16) - 128).astype(np.int8)}
    for operator in graph.operators:
        inputs = [values[name] for name in operator.inputs]
        values[operator.output] = simulate_operator(graph, operator, inputs, torch.float32)
    return values


def simulate_operator(
    graph: QuantizedGraph, operator: QuantizedOperator, inputs: Sequence[np.ndarray], dtype: torch.dtype = torch.float64
) -> np.ndarray:
    """One operator on the given integers; float64 holds every sum of products of int8 exactly."""
    result = graph.tensors[operator.output]
    real = [_real(value, graph.tensors[name]).to(dtype) for value, name in zip(inputs, operator.inputs)]
    weights = [part.to(dtype) for part in _weights(graph, operator)] if operator.kind.weights else []
    value = operator.kind.compute(real, operator.attrs, *weights)
    if operator.activation:
        value = OPERATORS[operator.activation].compute([value], Attributes())
    if result.scale is None:
        return value.float().numpy()
    steps = (value.double() / float(np.float32(result.scale))).round() + result.zero_point
    return steps.clamp(LOWEST, HIGHEST).to(torch.int8).numpy()


def _real(value: np.ndarray, spec: TensorSpec) -> Tensor:
    if spec.scale is None:
        return torch.from_numpy(value).double()
    return (torch.from_numpy(value).double() - spec.zero_point) * float(np.float32(spec.scale))


def _weights(graph: QuantizedGraph, operator: QuantizedOperator) -> tuple[Tensor, Tensor]:
    assert operator.weight is not None
    assert operator.bias is not None
    weight, bias = torch.from_numpy(operator.weight).double(), torch.from_numpy(operator.bias).double()
    if operator.weight_scale is None:
        return weight, bias
    steps = torch.from_numpy(operator.weight_scale).double()
    scale = float(np.float32(graph.tensors[operator.inputs[0]].scale))
    assert operator.kind.weights
    return operator.kind.weights.scaled(weight, operator.attrs.groups, steps), bias * steps * scale
