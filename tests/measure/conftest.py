import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.runtime.session import describe


@pytest.fixture
def brightness(tmp_path):
    """A float ONNX file of 8x8 pixels and two classes: class 1 has sigmoid(20 * (mean of RGB - 0.5)),
    where pixels of 0..255 are 0..1 in the input."""
    weight = np.stack([np.zeros((3, 1, 1)), np.full((3, 1, 1), 20 / 3)]).astype(np.float32)
    bias = np.array([0, -10], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 2, 8, 8])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    path = tmp_path / "brightness.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return describe(path, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), activation="softmax")
