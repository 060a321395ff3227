"""Network -> QuantizedGraph: the integers and scales that both files are written from."""

from collections.abc import Collection

import numpy as np

from compress.graph.network import Network, Node
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec
from compress.quantize.halves import Steps, off_halves
from compress.quantize.placement import input_scale, place
from compress.quantize.training import WEIGHT_LIMIT, QuantizedNetwork, by_channel, weight_scale


def quantized_graph(net: QuantizedNetwork, name: str) -> QuantizedGraph:
    """The int8 graph of a trained network, at its traced size."""
    groups = dict.fromkeys(net.placement.group_of.values())
    calibrated = {g: Steps(np.float32(net.scale(g).item()), net.zero_point(g)) for g in groups}
    steps = off_halves(net, net.placement, calibrated)
    pairs = {tensor: (float(steps[g].scale), steps[g].zero_point) for tensor, g in net.placement.group_of.items()}
    return _graph(net, name, pairs, net.keep_float)


def float_graph(net: Network, name: str) -> QuantizedGraph:
    """The same operators in float32."""
    return _graph(net, name, {})


def _graph(
    net: Network, name: str, scales: dict[str, tuple[float, int]], keep_float: Collection[str] = ()
) -> QuantizedGraph:
    shapes, fused = net.shapes(), place(net).fused
    rectifiers = {node.name for node in fused.values()}
    operators = []
    for node in net.nodes:
        if node.op == "input" or node.name in rectifiers:
            continue
        after = fused.get(node.name)
        made = after.name if after else node.name
        weight, weight_scales, bias = _weights(net, node, made, {} if node.name in keep_float else scales)
        operators.append(
            QuantizedOperator(
                node.op,
                node.name,
                node.inputs,
                made,
                node.attrs,
                after.op if after else None,
                weight,
                weight_scales,
                bias,
            )
        )
    tensors = {}
    for tensor in (net.input.name, *(operator.output for operator in operators)):
        scale, zero_point = scales.get(tensor, (None, 0))
        tensors[tensor] = TensorSpec(tensor, shapes[tensor], scale, zero_point)
    image_scale, image_zero = input_scale(net.input)
    tensors[net.input.name] = TensorSpec(net.input.name, shapes[net.input.name], image_scale, image_zero)
    return QuantizedGraph(name, tensors, tuple(operators), net.input.name, net.output)


def _weights(
    net: Network, node: Node, output: str, scales: dict[str, tuple[float, int]]
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    if not node.kind.weights:
        return None, None, None
    weight, bias = net.weight(node.name).detach().cpu(), net.bias(node.name).detach().cpu()
    if node.inputs[0] not in scales:
        return weight.numpy(), None, bias.numpy()
    given = scales[node.inputs[0]][0]
    steps = weight_scale(node, weight, bias, given, scales[output][0])
    integers = (weight / by_channel(node, steps)).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
    steps = steps.repeat(len(bias) // len(steps))  # filters of several groups that share their scales
    biases = (bias.double() / (steps.double() * given)).round()
    return integers.numpy().astype(np.int8), steps.numpy(), biases.numpy().astype(np.int32)
