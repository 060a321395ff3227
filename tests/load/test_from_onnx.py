"""Nodes of ONNX files, against onnxruntime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from compress.load.from_onnx import read_onnx
from compress.load.trace import trace

SIZE = (8, 12)


def node(op_type, *inputs, **attributes):
    return op_type, inputs, attributes


def whole(*values):
    return np.array(values, np.int64)


def real(*values):
    return np.array(values, np.float32)


RANDOM = np.random.default_rng(0)
VECTOR = RANDOM.normal(0, 1, 16).astype(np.float32)

GELU = [
    node("Div", "x", real(2**0.5)),
    node("Erf", 0),
    node("Add", 1, real(1)),
    node("Mul", "x", 2),
    node("Mul", 3, real(0.5)),
]
NORM = [
    node("ReduceMean", "x", axes=[1], keepdims=1),
    node("Sub", "x", 0),
    node("Pow", 1, real(2)),
    node("ReduceMean", 2, axes=[1], keepdims=1),
    node("Add", 3, real(1e-6)),
    node("Sqrt", 4),
    node("Div", 1, 5),
    node("Mul", 6, VECTOR.reshape(16, 1, 1)),
    node("Add", 7, VECTOR.reshape(16, 1, 1)),
]
EINSUM = [
    node("Reshape", "x", whole(1, 16, 96)),
    node("Einsum", 0, 0, equation="bcq,bck->bqk"),
    node("Mul", 1, real(0.1)),
    node("Softmax", 2, axis=-1),
    node("Einsum", 3, 0, equation="bqk,bck->bcq"),
    node("Reshape", 4, whole(1, 16, *SIZE)),
]
UNPOOLED = [
    node("MaxPool", "x", outputs=2, kernel_shape=[2, 2], strides=[2, 2]),
    node("Mul", 0, real(2)),
    node("MaxUnpool", 1, "0.1", kernel_shape=[2, 2], strides=[2, 2]),
]
AT = {"coordinate_transformation_mode": "half_pixel"}
CASES = {
    "gelu by erf": (GELU, 13),
    "norm in pieces": (NORM, 13),
    "attention by einsum": (EINSUM, 13),
    "gelu": ([node("Gelu", "x", approximate="tanh")], 20),
    "group norm of opset 18": ([node("GroupNormalization", "x", VECTOR[:4], VECTOR[4:8], num_groups=4)], 18),
    "group norm of opset 21": ([node("GroupNormalization", "x", VECTOR, VECTOR, num_groups=4)], 21),
    "max unpooling": (UNPOOLED, 12),
    "max pooling, padded at the end": (
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        11,
    ),
    "largest": ([node("GlobalMaxPool", "x"), node("Sub", "x", 0), node("ReduceMax", 1, axes=[1], keepdims=1)], 13),
    "limits": ([node("Max", "x", real(-0.2)), node("Min", 0, real(0.3)), node("Sum", 1, "x", "x")], 13),
    "space to depth and back": (
        [node("SpaceToDepth", "x", blocksize=2), node("DepthToSpace", 0, blocksize=2, mode="CRD")],
        13,
    ),
    "every second pixel": ([node("Slice", "x", whole(1, 0), whole(99, 99), whole(2, -1), whole(2, 3))], 13),
    "flipped channels": ([node("Slice", "x", whole(-1), whole(-99), whole(1), whole(-1))], 13),
    "channels picked": ([node("Gather", "x", whole(3, 1, 15), axis=1)], 13),
    "selu": ([node("Selu", "x")], 13),
    "mish": ([node("Mish", "x")], 18),
    "mish in pieces": ([node("Softplus", "x"), node("Tanh", 0), node("Mul", "x", 1)], 13),
    "hardswish": ([node("HardSwish", "x")], 14),
    "gemm": (
        [
            node("GlobalAveragePool", "x"),
            node("Flatten", 0, axis=1),
            node("Gemm", 1, RANDOM.normal(0, 1, (16, 16)).astype(np.float32), VECTOR, transB=1, alpha=0.5, beta=2.0),
            node("Unsqueeze", 2, whole(2, 3)),
            node("Sigmoid", 3),
            node("Mul", "x", 4),
        ],
        13,
    ),
    "resized along axes": ([node("Resize", "x", None, real(2, 3), mode="linear", axes=[2, 3], **AT)], 18),
    "resized to the nearest": ([node("Resize", "x", None, real(1, 1, 2, 2), mode="nearest", **AT)], 13),
    "resized by cubes": ([node("Resize", "x", None, None, whole(1, 16, 5, 7), mode="cubic", **AT)], 13),
    "upsampled in opset 9": ([node("Upsample", "x", real(1, 1, 2, 2), mode="nearest")], 9),
    "shape of a part": (
        [
            node("Shape", "x", start=2),
            node("Concat", whole(1), whole(-1), 0, axis=0),
            node("Reshape", "x", 1),
        ],
        15,
    ),
}  # fmt: skip


def model(nodes, opset, dtype=np.float32) -> onnx.ModelProto:
    """A convolution to 16 channels, the nodes, of which each reads `x`, constants, and results by number."""
    weight = np.random.default_rng(1).normal(0, 0.5, (16, 3, 3, 3)).astype(dtype)
    stored, made = [numpy_helper.from_array(weight, "weight")], [
        helper.make_node("Conv", ["image", "weight"], ["x"], pads=[1, 1, 1, 1])
    ]  # fmt: skip
    for place, (op_type, inputs, attributes) in enumerate(nodes):
        names = []
        for given in inputs:
            if isinstance(given, np.ndarray):
                own = given.astype(dtype) if given.dtype == np.float32 else given
                stored.append(numpy_helper.from_array(own, f"c{len(stored)}"))
                names.append(stored[-1].name)
            else:
                names.append("" if given is None else str(given))
        attributes = dict(attributes)
        outputs = [str(place), *(f"{place}.{more}" for more in range(1, attributes.pop("outputs", 1)))]
        made.append(helper.make_node(op_type, names, outputs, **attributes))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        made,
        "nodes",
        [helper.make_tensor_value_info("image", kind, [1, 3, *SIZE])],
        [helper.make_tensor_value_info(made[-1].output[0], kind, None)],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def image():
    return np.random.default_rng(2).normal(0, 1, (1, 3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_a_module_gives_what_onnxruntime_gives(case, image, tmp_path):
    file = model(*CASES[case])
    onnx.save(file, tmp_path / "model.onnx")
    (wanted,) = onnxruntime.InferenceSession(file.SerializeToString()).run(None, {"image": image})
    with torch.no_grad():
        (given,) = read_onnx(tmp_path / "model.onnx")(torch.from_numpy(image)).values()
    np.testing.assert_allclose(given.numpy(), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("nodes", [GELU + [node("Identity", 4)], NORM, EINSUM], ids=["gelu", "norm", "einsum"])
def test_what_is_written_in_pieces_is_one_operator(nodes, tmp_path):
    onnx.save(model(nodes, 13, np.float16), tmp_path / "model.onnx")
    net, _ = trace(read_onnx(tmp_path / "model.onnx").eval(), SIZE, 0, 16, (0.5,) * 3, (0.5,) * 3)
    assert {node.op for node in net.nodes} - {"input", "conv", "softmax"} in (
        {"gelu"}, {"layer_norm"}, {"attention"}
    )  # fmt: skip
