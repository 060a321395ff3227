"""Multiply-accumulates of files, against counts by hand and by other means."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny import TinyNet

from compress.errors import MeasureError
from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite
from compress.graph.channels import find_groups
from compress.load.trace import trace
from compress.prune.cost import MACS, Workload
from compress.quantize.convert import quantized_graph
from compress.quantize.placement import place
from compress.quantize.training import QuantizedNetwork
from compress.runtime.local import Child
from compress.runtime.macs import _FUSED, _TFLITE, _Node, count_macs

RELEASE = Path(__file__).parent.parent.parent / "export" / "u2net-4mb"


def save(path: Path, nodes, constants, shape, result) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def weight(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_a_network_by_hand(tmp_path):
    nodes = [
        helper.make_node("Conv", ["image", "plain"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "grouped"], ["b"], group=2, dilations=[2, 2], pads=[2, 2, 2, 2]),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("ConvTranspose", ["d", "up"], ["map"], strides=[2, 2]),
    ]
    constants = {
        "plain": weight(8, 3, 3, 3),
        "grouped": weight(8, 4, 3, 3),
        "depthwise": weight(8, 1, 3, 3),
        "up": weight(8, 2, 2, 2),
    }
    path = save(tmp_path / "net.onnx", nodes, constants, [1, 3, 12, 16], [1, 2, 12, 16])
    pixels = 6 * 8
    assert count_macs(path) == pixels * (8 * 3 * 9 + 8 * 4 * 9 + 8 * 9 + 8 * 2 * 4)


def test_products_of_matrices_whose_shapes_the_file_computes(tmp_path):
    """Tokens attend to each other: [1, 6, 4, 4] -> 16 tokens of 6."""
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["ends"]),
        helper.make_node("Concat", ["ends", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["image", "flat"], ["keys"]),
        helper.make_node("Transpose", ["keys"], ["queries"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["queries", "keys"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"]),
        helper.make_node("MatMul", ["weights", "queries"], ["seen"]),
        helper.make_node("Reshape", ["seen", "tokens"], ["rows"]),
        helper.make_node("Gemm", ["rows", "wide"], ["made"], transA=1, transB=1),
        helper.make_node("Reshape", ["made", "whole"], ["map"]),
    ]
    constants = {
        "zero": np.array([0]),
        "two": np.array([2]),
        "rest": np.array([-1]),
        "tokens": np.array([6, 16]),
        "wide": weight(10, 6),
        "whole": np.array([1, 10, 4, 4]),
    }
    path = save(tmp_path / "net.onnx", nodes, constants, [1, 6, 4, 4], [1, 10, 4, 4])
    assert count_macs(path) == 16 * 16 * 6 + 16 * 6 * 16 + 16 * 10 * 6


@pytest.mark.parametrize(
    ("counts", "name", "shapes", "result", "flags", "macs"),
    [
        (_TFLITE, "CONV_2D", [(1, 8, 8, 6), (4, 3, 3, 2)], (1, 8, 8, 4), {}, 64 * 4 * 18),  # in three groups
        (_TFLITE, "DEPTHWISE_CONV_2D", [(1, 8, 8, 6), (1, 3, 3, 12)], (1, 4, 4, 12), {}, 16 * 12 * 9),
        (_TFLITE, "TRANSPOSE_CONV", [(4,), (5, 2, 2, 6), (1, 8, 8, 6)], (1, 16, 16, 5), {}, 64 * 6 * 5 * 4),
        (_TFLITE, "CONV_3D", [(1, 4, 8, 8, 6), (3, 3, 3, 6, 5)], (1, 4, 8, 8, 5), {}, 256 * 5 * 27 * 6),
        (_TFLITE, "FULLY_CONNECTED", [(7, 6), (5, 6)], (7, 5), {}, 7 * 5 * 6),
        (_TFLITE, "BATCH_MATMUL", [(2, 7, 6), (2, 6, 5)], (2, 7, 5), {}, 2 * 7 * 5 * 6),
        (_TFLITE, "BATCH_MATMUL", [(2, 6, 7), (2, 6, 5)], (2, 7, 5), {}, 2 * 7 * 5 * 6),  # the first one turned
        (_FUSED, "QLinearConv", [(1, 8, 8, 6), (), (), (4, 6, 3, 3)], (1, 8, 8, 4), {}, 64 * 4 * 54),
        (_FUSED, "QGemm", [(6, 7), (), (), (5, 6)], (7, 5), {"transA": 1}, 7 * 5 * 6),
    ],
)
def test_an_operator_by_hand(counts, name, shapes, result, flags, macs):
    assert counts[name](_Node(name, shapes, result, flags)) == macs


def fuse(path: Path) -> None:
    """An ORT file of it, with all that onnxruntime fuses."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".ort"))
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_the_tiny_network_has_in_every_file_what_the_planner_predicts(tmp_path):
    torch.manual_seed(0)
    net, _ = trace(TinyNet().eval(), (64, 64), 0, 3, (0.0,) * 3, (1.0,) * 3)
    channels, placement = find_groups(net), place(net)
    ranges = dict.fromkeys(set(placement.group_of.values()) - set(placement.fixed), (0.0, 1.0))
    graph = quantized_graph(QuantizedNetwork(net, ranges, ()), "tiny")
    for kind, write in {"onnx": to_onnx, "tflite": to_tflite}.items():
        write(graph, tmp_path / f"model.{kind}")
    fuse(tmp_path / "model.onnx")
    predicted = 1e6 * Workload(net, channels).total(channels.widths())[:MACS].sum()
    counts = [count_macs(tmp_path / f"model.{kind}") for kind in ("onnx", "ort", "tflite")]
    assert counts == pytest.approx([predicted] * 3)


def test_a_release_has_what_shape_inference_says_of_its_convolutions():
    model = onnx.shape_inference.infer_shapes(onnx.load(RELEASE / "model.onnx"))
    graph = model.graph
    shapes = {each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in graph.value_info}
    weights = {each.name: each.dims for each in graph.initializer}
    of_weight = {node.output[0]: weights.get(node.input[0]) for node in graph.node}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    wanted = sum(np.prod(shapes[node.output[0]]) * np.prod(of_weight[node.input[1]][1:]) for node in convs)
    assert count_macs(RELEASE / "model.onnx") == count_macs(RELEASE / "model.tflite") == wanted == 17_547_247_200


def with_recurrence(path: Path) -> Path:
    """A file that runs, with an operator that multiplies as often as the image is wide."""
    nodes = [
        helper.make_node("Reshape", ["image", "steps"], ["rows"]),
        helper.make_node("GRU", ["rows", "w", "r"], ["all"], hidden_size=1),
        helper.make_node("Reshape", ["all", "whole"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["map"]),
    ]
    constants = {
        "steps": np.array([64, 1, 3]),
        "w": weight(1, 3, 3),
        "r": weight(1, 3, 1),
        "whole": np.array([1, 1, 8, 8]),
    }
    return save(path, nodes, constants, [1, 3, 8, 8], [1, 1, 8, 8])


def test_a_file_with_an_operator_of_unknown_work_is_not_counted_and_serves_on(tmp_path):
    with Child(with_recurrence(tmp_path / "net.onnx"), threads=1) as child:
        with pytest.raises(MeasureError, match=r"net\.onnx: .* cannot be counted: what a GRU multiplies is not known$"):
            child.macs()
        assert child.describe().macs is None
        assert len(child.time(1)) == 1


def test_a_file_of_no_fixed_size_is_not_counted(tmp_path):
    nodes = [helper.make_node("Conv", ["image", "w"], ["map"])]
    path = save(tmp_path / "net.onnx", nodes, {"w": weight(2, 3, 1, 1)}, [1, 3, "h", "w"], [1, 2, "h", "w"])
    with pytest.raises(MeasureError, match="the shapes of a Conv are not fixed$"):
        count_macs(path)


@pytest.mark.parametrize("name", ["model.onnx", "model.ort", "model.tflite"])
def test_what_is_no_model_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(range(256)) * 4)
    with pytest.raises(MeasureError, match="cannot be counted") as caught:
        count_macs(tmp_path / name)
    assert "\n" not in str(caught.value)
