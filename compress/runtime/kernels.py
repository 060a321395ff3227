"""Which kernels a runtime really runs a file with: what it fused to integers, and what stayed float, and why."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a gate on sizes alone has no need of numpy
    from compress.graph.operators.operator import TfliteForm
    from compress.graph.quantized import QuantizedGraph, QuantizedOperator

KEPT = "kept float on purpose"
NO_ONNX_KERNEL = "onnxruntime fused no integer kernel here"
TFLITE_REASONS = {
    "QUANTIZE": "changes uint8 to int8, rounds after a float layer, brings an input to the scale of what it is "
    "joined with, and computes nothing else",
    "DEQUANTIZE": "stands before a layer that is kept float",
}
IN_FLOAT = "TensorFlow Lite has no integer kernel that rounds once, so it runs in float between the same integers"
NO_XNNPACK = "XNNPACK has no int8 operator for it; TensorFlow Lite's own integer kernel runs it"


@dataclass(frozen=True)
class Kernels:
    """`counts`: operators as the runtime runs them. `outside`: "layer (operator)" of what onnxruntime runs in float,
    and of what LiteRT runs in float or did not hand to XNNPACK. Where the graph is known, ": reason" follows, and
    `convs` is its number of convolutions, transposed ones among them, `integer_convs` of those that run on integers."""

    counts: dict[str, int]
    outside: tuple[str, ...]
    convs: int | None = None
    integer_convs: int | None = None


def onnx_kernels(path: Path, graph: "QuantizedGraph | None" = None) -> Kernels:
    """Read from the graph that onnxruntime itself optimized. `graph`: what the file was written from."""
    import onnx
    import onnxruntime as ort

    with TemporaryDirectory(prefix="compress-") as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.log_severity_level = 3
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    made_by = {node.output[0]: node.op_type for node in nodes}
    kept = _kept_float(graph) if graph else set()
    reasons = {operator.name: operator.kind.onnx_float for operator in graph.operators} if graph else {}
    outside = []
    for node in nodes:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            continue
        if any(made_by.get(name) == "DequantizeLinear" for name in node.input):
            layer = node.name or node.output[0]
            if layer.rpartition(".")[0] in reasons:  # one of several nodes that are one operator
                layer = layer.rpartition(".")[0]
            reason = KEPT if layer in kept else reasons.get(layer) or NO_ONNX_KERNEL
            outside.append(f"{layer} ({node.op_type})" + (f": {reason}" if graph else ""))
    counts = Counter(node.op_type for node in nodes)
    known = (len(_convs(graph)), counts["QLinearConv"]) if graph else (None, None)
    return Kernels(dict(counts), tuple(dict.fromkeys(outside)), *known)


def tflite_kernels(path: Path, graph: "QuantizedGraph | None" = None) -> Kernels:
    """Read from LiteRT's execution plan: a delegate's operators are those between its inputs and outputs. `graph`:
    what the file was written from."""
    from compress.runtime.session import open_interpreter

    interpreter = open_interpreter(path, threads=1)
    details: list[dict[str, Any]] = interpreter._get_ops_details()  # the only way to see the plan
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    plain = [op for op in details if op["op_name"] != "DELEGATE"]
    maker = {output: op for op in plain for output in op["outputs"]}
    taken: set[int] = set()
    for delegate in (op for op in details if op["op_name"] == "DELEGATE"):
        waiting = [maker[output] for output in delegate["outputs"] if output in maker]
        while waiting:
            op = waiting.pop()
            if op["index"] not in taken:
                taken.add(op["index"])
                waiting += [maker[t] for t in op["inputs"] if t in maker and t not in delegate["inputs"]]

    def in_float(op: dict[str, Any]) -> bool:
        result = tensors.get(op["outputs"][0])
        return result is not None and result["dtype"].__name__ == "float32" and op["op_name"] != "DEQUANTIZE"

    outside = []
    between = {o.output for o in graph.operators if _tflite_forms(graph, o)[0].in_float} if graph else set()
    for op in plain:
        kept = graph is not None and not graph.is_float and in_float(op)
        if op["index"] in taken and not kept:
            continue
        name = tensors[op["outputs"][0]]["name"] if op["outputs"][0] in tensors else op["index"]
        reason = TFLITE_REASONS.get(op["op_name"], NO_XNNPACK)
        if kept:
            layer = str(name).rpartition(".")[0]  # the value has ".float32" behind it, or its place among several
            name, reason = (layer, IN_FLOAT) if layer in between else (name, KEPT)
        outside.append(f"{name} ({op['op_name']})" + (f": {reason}" if graph else ""))
    codes = _codes(graph) if graph else set()
    integer = sum(op["op_name"] in codes and not in_float(op) for op in plain)
    known = (len(_convs(graph)), integer) if graph else (None, None)
    return Kernels(dict(Counter(op["op_name"] for op in plain)), tuple(outside), *known)


def _convs(graph: "QuantizedGraph") -> "list[QuantizedOperator]":
    return [operator for operator in graph.operators if operator.weight is not None]


def _codes(graph: "QuantizedGraph") -> set[str]:
    """What TFLite calls the convolutions."""
    return {form.code for operator in _convs(graph) for form in _tflite_forms(graph, operator)}


def _tflite_forms(graph: "QuantizedGraph", operator: "QuantizedOperator") -> "tuple[TfliteForm, ...]":
    return operator.kind.tflite(operator, graph.tensors[operator.inputs[0]], graph.tensors[operator.output])


def _kept_float(graph: "QuantizedGraph") -> set[str]:
    """Names and outputs of the convolutions whose weights are float in a graph that is not."""
    return {name for operator in _convs(graph) if operator.weight_scale is None and not graph.is_float
            for name in (operator.name, operator.output)}  # fmt: skip


KERNELS = {"onnx": onnx_kernels, "ort": onnx_kernels, "tflite": tflite_kernels}
