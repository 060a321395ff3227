"""What an exported file really stores: read back with the format's own parser, not with what wrote it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from compress.formats.tflite import in_layout
from compress.graph.quantized import QuantizedGraph, QuantizedOperator

_TYPES = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32, schema.TensorType.FLOAT32: np.float32}


@dataclass(frozen=True)
class Stored:
    """By operator: weights in the file's layout and biases. By tensor: scale and int8 zero point."""

    weights: dict[str, np.ndarray]
    biases: dict[str, np.ndarray]
    scales: dict[str, tuple[np.float32, int]]


def read_onnx(path: Path) -> Stored:
    model = onnx.load(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.initializer}
    maker = {output: node for node in model.node for output in node.output}
    weights, biases = {}, {}
    for node in model.node:
        arrays = [_constant(name, values, maker) for name in node.input[1:]] if node.name else []
        if arrays and arrays[0] is not None:
            weights[node.name] = arrays[0]
            if len(arrays) > 1 and arrays[1] is not None:
                biases[node.name] = arrays[1]
    scales = {
        node.output[0]: (np.float32(values[node.input[1]]), int(values[node.input[2]]) - 128)
        for node in model.node
        if node.op_type == "QuantizeLinear"
    }
    return Stored(weights, biases, scales)


def _constant(name: str, values: dict[str, np.ndarray], maker: dict[str, onnx.NodeProto]) -> np.ndarray | None:
    """An initializer, or the integers behind a DequantizeLinear of one."""
    if name in values:
        return values[name]
    node = maker.get(name)
    return values.get(node.input[0]) if node is not None and node.op_type == "DequantizeLinear" else None


def read_tflite(path: Path) -> Stored:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    tensors = {tensor.name.decode(): tensor for tensor in graph.tensors}
    constants = {name: tensor for name, tensor in tensors.items() if model.buffers[tensor.buffer].data is not None}
    arrays = {name: _array(model, each) for name, each in constants.items() if name.endswith((".weight", ".bias"))}
    weights = {name.removesuffix(".weight"): array for name, array in arrays.items() if name.endswith(".weight")}
    biases = {name.removesuffix(".bias"): array for name, array in arrays.items() if name.endswith(".bias")}
    scales = {}
    for name, tensor in tensors.items():
        if (
            tensor.type == schema.TensorType.INT8
            and tensor.quantization is not None
            and len(tensor.quantization.scale) == 1
        ):
            scales[name.removesuffix(".int8")] = (tensor.quantization.scale[0], int(tensor.quantization.zeroPoint[0]))
    return Stored(weights, biases, scales)


def _array(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray:
    return model.buffers[tensor.buffer].data.view(_TYPES[tensor.type]).reshape(tensor.shape)


READERS = {".onnx": read_onnx, ".tflite": read_tflite}


def differences(graph: QuantizedGraph, path: Path) -> list[str]:
    """What the file stores otherwise than the graph, one line each; empty when every integer and scale is equal, and
    for a format that cannot be read back, such as .ort, of which only what it computes can be compared.
    """
    if path.suffix not in READERS:
        return []
    stored = READERS[path.suffix](path)
    found = []
    for operator in graph.operators:
        ours = {"weight": _weight(graph, operator, path.suffix), "bias": operator.bias}
        for kind, there in (("weight", stored.weights), ("bias", stored.biases)):
            wanted = ours[kind]
            if wanted is not None and not np.array_equal(there.get(operator.name, ()), wanted):
                found.append(f"{path.name}: {operator.name}: {kind} differs from the graph's")
    for name, spec in graph.tensors.items():
        if spec.scale is None or name == graph.input:
            continue
        if stored.scales.get(name) != (np.float32(spec.scale), spec.zero_point):
            found.append(f"{path.name}: {name}: scale or zero point differs from the graph's")
    return found


def _weight(graph: QuantizedGraph, operator: QuantizedOperator, suffix: str) -> np.ndarray | None:
    """As a file of this kind stores it."""
    if operator.weight is None or suffix != ".tflite":
        return operator.weight
    specs = graph.tensors[operator.inputs[0]], graph.tensors[operator.output]
    return in_layout(operator.kind.tflite(operator, *specs)[0], operator.weight)
