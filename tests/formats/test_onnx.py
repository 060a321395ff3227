"""The ONNX file: what it stores, and what onnxruntime makes of it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from integer_reference import GraphBuilder, run_reference
from onnx import numpy_helper
from operator_cases import CASES, u_shape

from compress.errors import ExportError
from compress.formats.metadata import Card
from compress.formats.onnx import to_onnx
from compress.runtime.session import open_model


def sample(case=u_shape, quantized=True, size=(16, 16)):
    builder = GraphBuilder(size, quantized=quantized)
    case(builder)
    return builder.graph()


def fused(path, folder):
    """How often each operator runs after onnxruntime's own rewriting."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def test_onnxruntime_runs_a_quantized_graph_on_integers(tmp_path):
    to_onnx(sample(), tmp_path / "model.onnx")
    assert fused(tmp_path / "model.onnx", tmp_path) == {
        "QLinearConv": 6,
        "MaxPool": 1,
        "DequantizeLinear": 1,
        "Resize": 1,
        "QuantizeLinear": 1,
        "QLinearConcat": 1,
        "QLinearAdd": 1,
        "QLinearSigmoid": 1,
    }


@pytest.mark.parametrize(
    ("case", "operator"),
    [
        ("conv_relu", "QLinearConv"),
        ("conv_relu6", "QLinearConv"),
        ("conv_depthwise", "QLinearConv"),
        ("conv_grouped", "QLinearConv"),
        ("add_relu", "QLinearAdd"),
        ("mul_broadcast", "QLinearMul"),
        ("avg_pool", "QLinearAveragePool"),
        ("mean", "QLinearGlobalAveragePool"),
        ("softmax", "QLinearSoftmax"),
        ("max_pool_3_2_padded", "MaxPool"),
    ],
)
def test_nothing_in_float_is_left_around(case, operator, tmp_path):
    to_onnx(sample(CASES[case]), tmp_path / "model.onnx")
    operators = fused(tmp_path / "model.onnx", tmp_path)
    assert operators[operator]
    assert not operators["DequantizeLinear"] + operators["QuantizeLinear"]


@pytest.mark.parametrize("case", ["u_shape", "conv_transpose_relu", "conv_depthwise_doubling"])
def test_integers_and_scales_are_the_graphs(case, tmp_path):
    graph = sample({**CASES, "u_shape": u_shape}[case])
    to_onnx(graph, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.initializer}
    maker = {node.output[0]: node for node in model.node}
    named = {node.name: node for node in model.node if node.name}
    assert set(named) == {operator.name for operator in graph.operators}

    def parameters(node):
        return [stored[name] for name in node.input[1:3]]

    for operator in graph.operators:
        spec = graph.tensors[operator.output]
        scale, zero_point = parameters(maker[spec.name])
        assert (scale, zero_point) == (np.float32(spec.scale), spec.zero_point + 128)
        assert zero_point.dtype == np.uint8
        if operator.weight is None:
            continue
        weight, bias = (maker[name] for name in named[operator.name].input[1:])
        np.testing.assert_array_equal(stored[weight.input[0]], operator.weight)
        np.testing.assert_array_equal(stored[bias.input[0]], operator.bias)
        assert (stored[weight.input[0]].dtype, stored[bias.input[0]].dtype) == (np.int8, np.int32)
        np.testing.assert_array_equal(parameters(weight)[0], operator.weight_scale)
        in_scale = np.float32(graph.tensors[operator.inputs[0]].scale)
        np.testing.assert_array_equal(parameters(bias)[0], in_scale * operator.weight_scale)
        assert not any(parameters(node)[1].any() for node in (weight, bias))


def test_input_and_output_are_integers_or_floats_as_the_graph_is(tmp_path):
    types = {}
    for quantized in (True, False):
        to_onnx(sample(quantized=quantized), tmp_path / "model.onnx")
        ends = onnx.load(tmp_path / "model.onnx").graph
        types[quantized] = [end.type.tensor_type.elem_type for end in (*ends.input, *ends.output)]
    assert types == {True: [onnx.TensorProto.UINT8] * 2, False: [onnx.TensorProto.FLOAT] * 2}


def test_old_runtimes_can_read_it_and_find_the_metadata(tmp_path):
    to_onnx(sample(), tmp_path / "model.onnx", card=Card("rocks", licence="CC0", labels=("background", "object")))
    model = onnx.load(tmp_path / "model.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (13, 7)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts == {
        "input_scale": "0.015625",
        "input_zero_point": "118",
        "output_scale": "0.00390625",
        "output_zero_point": "0",
        "name": "rocks",
        "license": "CC0",
        "labels": "background\nobject",
        "color_space": "RGB",
        "preprocessing": "none: uint8 pixels, 0..255",
    }


def test_a_convolution_without_bias_stays_without(tmp_path):
    graph = sample(CASES["conv"])
    graph = replace(graph, operators=(replace(graph.operators[0], bias=None),))
    to_onnx(graph, tmp_path / "model.onnx")
    conv = next(node for node in onnx.load(tmp_path / "model.onnx").graph.node if node.op_type == "Conv")
    assert len(conv.input) == 2


def test_every_layer_has_int8_weights_of_its_own_since_onnxruntime_rewrites_them_without_vnni(tmp_path):
    graph = sample(CASES["conv_1x1"])
    first = graph.operators[0]
    twice = (first, replace(first, name="again", output="again"))
    tensors = {**graph.tensors, "again": replace(graph.tensors[first.output], name="again")}
    total = replace(graph, tensors=tensors, operators=twice, output="again")
    to_onnx(total, tmp_path / "model.onnx")
    weights = [t for t in onnx.load(tmp_path / "model.onnx").graph.initializer if len(t.dims) == 4]
    assert len(weights) == 2
    open_model(tmp_path / "model.onnx")


def test_a_grouped_transposed_convolution_is_float_or_refused_by_name(tmp_path):
    graph = sample(lambda b: b.conv_transpose(b.conv("image", 8), 8, groups=2))
    with pytest.raises(ExportError, match=r"conv_transpose1: .*--keep-float conv_transpose1"):
        to_onnx(graph, tmp_path / "model.onnx")
    to_onnx(
        sample(lambda b: b.conv_transpose(b.conv("image", 8), 8, groups=2), quantized=False), tmp_path / "float.onnx"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["float.onnx"]


def test_a_depthwise_transposed_convolution_keeps_its_scales_per_channel(tmp_path):
    builder = GraphBuilder()
    builder.conv_transpose(builder.conv("image", 8), 8, groups=8)
    to_onnx(builder.graph(), tmp_path / "model.onnx")
    result = open_model(tmp_path / "model.onnx").run(builder.image)
    assert np.abs(result.astype(int) - 128 - run_reference(builder.graph(), builder.image)).max() <= 1


def test_int8_weights_beside_a_float_tensor_are_refused(tmp_path):
    graph = sample(lambda b: b.conv(b.conv("image", 8), 8))
    first = graph.operators[0].output
    mixed = replace(graph, tensors={**graph.tensors, first: replace(graph.tensors[first], scale=None)})
    with pytest.raises(ExportError, match="conv0: int8 weights need an int8 input and output"):
        to_onnx(mixed, tmp_path / "model.onnx")


def test_a_folder_that_does_not_exist_is_one_line(tmp_path):
    with pytest.raises(ExportError, match=r"model.onnx: cannot be written: .*choose another folder"):
        to_onnx(sample(), tmp_path / "nowhere" / "model.onnx")
