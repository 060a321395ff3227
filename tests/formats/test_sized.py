"""A file for images of any size, given one, computes what it did."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import MeasureError
from compress.formats.sized import is_free, with_size


def write(path, image, made=("a", "b", "c", "d")):
    """As exporters write a network for any size: halved, and resized to what the image was."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["image"], ["all"]),
        helper.make_node("Slice", ["all", "two", "four"], ["sides"]),
        helper.make_node("Concat", ["first", "sides"], ["wanted"], axis=0),
        helper.make_node("Resize", ["half", "", "", "wanted"], ["map"], mode="linear"),
    ]
    constants = {"two": [2], "four": [4], "first": [1, 3]}
    tensors = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", image), ("map", made))
    ]
    graph = helper.make_graph(nodes, "any", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("image", [("n", 3, "h", "w"), (1, 3, "h", 96), (1, 3, None, None)])
def test_the_copy_has_that_size_and_gives_the_same(tmp_path, image):
    path, place = write(tmp_path / "any.onnx", image), tmp_path / "sized.onnx"
    assert is_free(path)
    with_size(path, (32, 96), place)
    assert not is_free(place)
    any_size, sized = (onnxruntime.InferenceSession(each) for each in (path, place))
    assert [end.shape for end in (*sized.get_inputs(), *sized.get_outputs())] == [[1, 3, 32, 96]] * 2
    values = np.random.default_rng(0).random((1, 3, 32, 96), np.float32)
    np.testing.assert_array_equal(any_size.run(None, {"image": values})[0], sized.run(None, {"image": values})[0])


def test_a_file_of_one_size_is_not_free(tmp_path):
    assert not is_free(write(tmp_path / "one.onnx", (1, 3, 32, 96)))


def test_an_input_that_is_no_image_is_refused(tmp_path):
    path = write(tmp_path / "any.onnx", ("n", 50, "h", "w"))
    with pytest.raises(MeasureError, match="an RGB image"):
        with_size(path, (32, 96), tmp_path / "sized.onnx")
