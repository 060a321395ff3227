"""What stayed float is found and named."""

from integer_reference import GraphBuilder
from operator_cases import u_shape

from compress.formats.kernels import onnx_kernels, tflite_kernels
from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite


def sample():
    builder = GraphBuilder((16, 16))
    u_shape(builder)
    return builder.graph()


def test_an_int8_graph_runs_on_integers_but_for_what_has_no_kernel(tmp_path):
    graph = sample()
    to_onnx(graph, tmp_path / "model.onnx")
    to_tflite(graph, tmp_path / "model.tflite")
    convs = sum(operator.op == "conv" for operator in graph.operators)
    ours, theirs = onnx_kernels(tmp_path / "model.onnx"), tflite_kernels(tmp_path / "model.tflite")
    assert ours.counts["QLinearConv"] == theirs.counts["CONV_2D"] == convs
    assert [name.split()[-1] for name in ours.outside] == ["(Resize)"]
    assert [name.split()[-1] for name in theirs.outside] == ["(QUANTIZE)", "(QUANTIZE)"]


def test_a_float_graph_has_no_integer_kernel(tmp_path):
    builder = GraphBuilder((16, 16), quantized=False)
    u_shape(builder)
    to_onnx(builder.graph(), tmp_path / "model.onnx")
    counts = onnx_kernels(tmp_path / "model.onnx").counts
    assert not [name for name in counts if name.startswith("QLinear")]
