"""Every convolution is counted; what stayed float is found and named, with the reason."""

from dataclasses import replace

import numpy as np
import pytest
from integer_reference import GraphBuilder, run_reference
from operator_cases import CASES, u_shape

from compress.formats.onnx import to_onnx
from compress.formats.stored import differences
from compress.formats.tflite import to_tflite
from compress.runtime.kernels import KEPT, onnx_kernels, tflite_kernels
from compress.runtime.session import open_model


def sample():
    builder = GraphBuilder((16, 16))
    u_shape(builder)
    return builder.graph()


def with_float(graph, name):
    """The same graph with the weights of one convolution in float."""
    operators = list(graph.operators)
    index = next(i for i, operator in enumerate(operators) if operator.name == name)
    operator = operators[index]
    weight = operator.weight * operator.weight_scale.reshape(-1, 1, 1, 1)
    bias = operator.bias * (operator.weight_scale * np.float32(graph.tensors[operator.inputs[0]].scale))
    operators[index] = replace(
        operator, weight=weight.astype(np.float32), bias=bias.astype(np.float32), weight_scale=None
    )
    return replace(graph, operators=tuple(operators))


def test_an_int8_graph_runs_on_integers_but_for_what_has_no_kernel(tmp_path):
    graph = sample()
    to_onnx(graph, tmp_path / "model.onnx")
    to_tflite(graph, tmp_path / "model.tflite")
    convs = sum(operator.op == "conv" for operator in graph.operators)
    ours, theirs = onnx_kernels(tmp_path / "model.onnx", graph), tflite_kernels(tmp_path / "model.tflite", graph)
    assert ours.counts["QLinearConv"] == theirs.counts["CONV_2D"] == convs
    assert (ours.convs, ours.integer_convs) == (theirs.convs, theirs.integer_convs) == (convs, convs)
    (resize,) = ours.outside
    assert "(Resize): onnxruntime's integer kernel truncates" in resize
    assert [name.split(": ")[0].split()[-1] for name in theirs.outside] == ["(QUANTIZE)", "(QUANTIZE)"]


def test_a_transposed_convolution_is_a_convolution_that_onnxruntime_runs_in_float(tmp_path):
    builder = GraphBuilder((8, 8))
    builder.conv_transpose("image", 4)
    graph = builder.graph()
    to_onnx(graph, tmp_path / "model.onnx")
    to_tflite(graph, tmp_path / "model.tflite")
    ours, theirs = onnx_kernels(tmp_path / "model.onnx", graph), tflite_kernels(tmp_path / "model.tflite", graph)
    assert (ours.convs, ours.integer_convs) == (1, 0)
    assert "(ConvTranspose): onnxruntime has no integer kernel" in ours.outside[0]
    assert (theirs.convs, theirs.integer_convs) == (1, 1)


def test_a_layer_that_is_kept_float_is_float_in_both_files_and_said_to_be_on_purpose(tmp_path):
    graph = sample()
    first, second = [operator.name for operator in graph.operators if operator.op == "conv"][:2]
    graph = with_float(graph, second)
    image = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    exact = run_reference(graph, image.transpose(2, 0, 1)[None])
    for write, kernels, suffix in ((to_onnx, onnx_kernels, "onnx"), (to_tflite, tflite_kernels, "tflite")):
        path = tmp_path / f"model.{suffix}"
        write(graph, path)
        found = kernels(path, graph)
        assert found.integer_convs == found.convs - 1
        (kept,) = [line for line in found.outside if KEPT in line]
        assert second in kept
        assert first not in kept
        assert differences(graph, path) == []
        probabilities = open_model(path).probabilities(image)
        assert np.abs(np.rint(probabilities * 256) - 128 - exact[0]).max() <= 1


def test_a_float_graph_has_no_integer_kernel(tmp_path):
    builder = GraphBuilder((16, 16), quantized=False)
    u_shape(builder)
    graph = builder.graph()
    to_onnx(graph, tmp_path / "model.onnx")
    found = onnx_kernels(tmp_path / "model.onnx", graph)
    assert not [name for name in found.counts if name.startswith("QLinear")]
    assert found.integer_convs == 0


def test_of_a_file_alone_operators_are_counted_without_reasons(tmp_path):
    to_onnx(sample(), tmp_path / "model.onnx")
    found = onnx_kernels(tmp_path / "model.onnx")
    assert found.convs is None
    assert [line.split()[-1] for line in found.outside] == ["(Resize)"]


@pytest.mark.parametrize(
    ("name", "onnx", "tflite"),
    [
        ("leaky_relu", "", ""),
        ("elu", "Elu", ""),
        ("silu", "Sigmoid", "LOGISTIC"),
        ("hardswish", "HardSigmoid", "HARD_SWISH"),
    ],
)
def test_an_operator_without_an_integer_kernel_is_named_with_the_reason(name, onnx, tflite, tmp_path):
    builder = GraphBuilder()
    CASES[name](builder)
    builder.conv(builder.operators[-1].output, 4)
    graph = builder.graph()
    for write, kernels, wanted in ((to_onnx, onnx_kernels, onnx), (to_tflite, tflite_kernels, tflite)):
        path = tmp_path / f"model.{'onnx' if write is to_onnx else 'tflite'}"
        write(graph, path)
        outside = [line for line in kernels(path, graph).outside if "QUANTIZE" not in line]
        assert [line.startswith(f"{name}1 ({wanted}): ") for line in outside[:1]] == [True] * bool(wanted)
        assert not any("kept float on purpose" in line for line in outside)
