"""Which kernels a runtime really runs a file with: what it fused to integers, and what stayed float."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


@dataclass(frozen=True)
class Kernels:
    """`counts`: operators as the runtime runs them. `outside`: those that LiteRT did not hand to XNNPACK, or that
    onnxruntime runs in float, by name of their layer."""

    counts: dict[str, int]
    outside: tuple[str, ...]


def onnx_kernels(path: Path) -> Kernels:
    """Read from the graph that onnxruntime itself optimized."""
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
    outside = [
        f"{node.name or node.output[0]} ({node.op_type})"
        for node in nodes
        if node.op_type not in ("DequantizeLinear", "QuantizeLinear")
        if any(made_by.get(name) == "DequantizeLinear" for name in node.input)
    ]
    return Kernels(dict(Counter(node.op_type for node in nodes)), tuple(outside))


def tflite_kernels(path: Path) -> Kernels:
    """Read from LiteRT's execution plan: a delegate's operators are those between its inputs and outputs."""
    from compress.formats.runtime import open_interpreter

    interpreter = open_interpreter(path, threads=1)
    details: list[dict[str, Any]] = interpreter._get_ops_details()  # the only way to see the plan
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
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
    outside = [
        f"{names.get(op['outputs'][0], op['index'])} ({op['op_name']})" for op in plain if op["index"] not in taken
    ]
    return Kernels(dict(Counter(op["op_name"] for op in plain)), tuple(outside))


KERNELS = {"onnx": onnx_kernels, "ort": onnx_kernels, "tflite": tflite_kernels}
