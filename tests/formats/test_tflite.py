"""The TFLite file: what it stores, and which operators it is made of."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from integer_reference import GraphBuilder
from operator_cases import CASES, u_shape
from unary_cases import UNARY

from compress.errors import ExportError
from compress.formats.tflite import to_tflite

NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
TYPES = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32, schema.TensorType.FLOAT32: np.float32}


def sample(case=u_shape, quantized=True, size=(16, 16)):
    builder = GraphBuilder(size, quantized=quantized)
    case(builder)
    return builder.graph()


def exported(graph, path, **more):
    to_tflite(graph, path, **more)
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))


def operators(model):
    return [NAMES[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in model.subgraphs[0].operators]


def outside_xnnpack(path):
    """Operators that the delegate did not take: those that no walk from its outputs to its inputs passes."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    plain = [op for op in details if op["op_name"] != "DELEGATE"]
    maker = {output: op for op in plain for output in op["outputs"]}
    taken = set()
    for delegate in (op for op in details if op["op_name"] == "DELEGATE"):
        waiting = [maker[output] for output in delegate["outputs"]]
        while waiting:
            op = waiting.pop()
            taken.add(op["index"])
            inner = [t for t in op["inputs"] if t in maker and t not in delegate["inputs"]]
            waiting += [maker[t] for t in inner if maker[t]["index"] not in taken]
    return [op["op_name"] for op in plain if op["index"] not in taken]


def test_a_quantized_graph_has_no_operator_that_the_model_has_not(tmp_path):
    wanted = [
        "QUANTIZE",  # uint8 pixels to int8
        "CONV_2D",
        "MAX_POOL_2D",
        "CONV_2D",
        "RESIZE_BILINEAR",
        "CONV_2D",
        "CONCATENATION",
        "CONV_2D",
        "ADD",
        "CONV_2D",
        "CONV_2D",
        "LOGISTIC",
        "QUANTIZE",  # int8 probabilities to uint8
    ]
    assert operators(exported(sample(), tmp_path / "model.tflite")) == wanted
    assert operators(exported(sample(quantized=False), tmp_path / "model.tflite")) == wanted[1:-1]


def test_xnnpack_runs_everything_but_the_change_of_sign(tmp_path):
    to_tflite(sample(), tmp_path / "model.tflite")
    assert outside_xnnpack(tmp_path / "model.tflite") == ["QUANTIZE", "QUANTIZE"]
    to_tflite(sample(quantized=False), tmp_path / "model.tflite")
    assert outside_xnnpack(tmp_path / "model.tflite") == []


# int8 softmax, nearest resize, average pooling and a relu of its own have no XNNPACK operator.
BUILTIN = {
    "softmax": ["SOFTMAX"],
    "nearest_double": ["RESIZE_NEAREST_NEIGHBOR"],
    "nearest_odd": ["RESIZE_NEAREST_NEIGHBOR"],
    "nearest_down": ["RESIZE_NEAREST_NEIGHBOR"],
    "avg_pool": ["AVERAGE_POOL_2D"],
    "avg_pool_ceil": ["AVERAGE_POOL_2D"],
    "avg_pool_same": ["AVERAGE_POOL_2D"],
    "avg_pool_counting": ["AVERAGE_POOL_2D"],
    "adaptive_pool_even": ["AVERAGE_POOL_2D"],
    "relu": ["RELU"],
    "relu6": ["RELU6"],
    "max_pool_3_2_padded": ["PADV2"],
    **{f"{name}{case}": codes for name, unary in UNARY.items() for case, codes in unary.builtin.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_xnnpack_takes_every_int8_operator_that_it_has(case, tmp_path):
    to_tflite(sample(CASES[case]), tmp_path / "model.tflite")
    assert outside_xnnpack(tmp_path / "model.tflite") == ["QUANTIZE", *BUILTIN.get(case, []), "QUANTIZE"]


@pytest.mark.parametrize(
    ("case", "size", "pads"),
    [
        ("conv", (16, 16), []),
        ("conv_dilated", (16, 16), []),
        ("conv_unpadded", (16, 16), []),
        ("conv_stride_2", (15, 17), []),  # an odd size lacks a pixel on both sides, as SAME has it
        ("conv_stride_2", (16, 16), ["PAD"]),
        ("conv_stride_2_7x7", (15, 15), []),
        ("conv_transpose_3_2_1_1", (16, 16), []),
        ("max_pool_ceil", (15, 17), []),
        ("max_pool_3_2_padded_relu", (16, 16), ["PAD"]),  # zero is the lowest value after a relu
        ("max_pool_3_2_padded", (16, 16), ["PADV2"]),
    ],
)
@pytest.mark.parametrize("quantized", [True, False])
def test_padding_is_an_operator_only_where_it_must(case, size, pads, quantized, tmp_path):
    names = operators(exported(sample(CASES[case], quantized, size), tmp_path / "model.tflite"))
    assert [name for name in names if name.startswith("PAD")] == pads
    assert "TRANSPOSE" not in names


def test_two_convolutions_share_one_pad(tmp_path):
    def build(b):
        x = b.conv("image", 8)
        b.join("add", b.conv(x, 8, stride=(2, 2)), b.conv(x, 8, stride=(2, 2)))

    assert operators(exported(sample(build), tmp_path / "model.tflite")).count("PAD") == 1


LAYOUTS = {"CONV_2D": (0, 2, 3, 1), "DEPTHWISE_CONV_2D": (1, 2, 3, 0), "TRANSPOSE_CONV": (1, 2, 3, 0)}


@pytest.mark.parametrize("case", ["u_shape", "conv_transpose_relu", "conv_depthwise_doubling", "conv_grouped"])
def test_integers_and_scales_are_the_graphs(case, tmp_path):
    graph = sample({**CASES, "u_shape": u_shape}[case])
    model = exported(graph, tmp_path / "model.tflite")
    tensors = model.subgraphs[0].tensors
    by_name = {tensor.name.decode(): tensor for tensor in tensors}
    file_name = {graph.output: f"{graph.output}.int8"}

    def stored(tensor):
        return model.buffers[tensor.buffer].data.view(TYPES[tensor.type]).reshape(tensor.shape)

    for operator in graph.operators:
        spec = graph.tensors[operator.output]
        name = file_name.get(spec.name, spec.name)
        (scale,), (zero_point,) = by_name[name].quantization.scale, by_name[name].quantization.zeroPoint
        assert (scale, zero_point) == (np.float32(spec.scale), spec.zero_point)
        if operator.weight is None:
            continue
        made = next(op for op in model.subgraphs[0].operators if tensors[op.outputs[0]].name.decode() == name)
        code = NAMES[model.operatorCodes[made.opcodeIndex].builtinCode]
        weight, bias = by_name[f"{operator.name}.weight"], by_name[f"{operator.name}.bias"]
        np.testing.assert_array_equal(stored(weight), operator.weight.transpose(LAYOUTS[code]))
        np.testing.assert_array_equal(stored(bias), operator.bias)
        assert weight.quantization.quantizedDimension == (3 if code == "DEPTHWISE_CONV_2D" else 0)
        np.testing.assert_array_equal(weight.quantization.scale, operator.weight_scale)
        in_scale = np.float32(graph.tensors[operator.inputs[0]].scale)
        np.testing.assert_array_equal(bias.quantization.scale, in_scale * operator.weight_scale)
        for tensor in (weight, bias):
            np.testing.assert_array_equal(tensor.quantization.zeroPoint, np.zeros(len(operator.weight_scale)))
    ends = [tensors[model.subgraphs[0].inputs[0]], tensors[model.subgraphs[0].outputs[0]]]
    for end, name in zip(ends, (graph.input, graph.output), strict=True):
        assert (end.name.decode(), end.type) == (name, schema.TensorType.UINT8)
        assert end.quantization.scale[0] == np.float32(graph.tensors[name].scale)
        assert end.quantization.zeroPoint[0] == graph.tensors[name].zero_point + 128


def test_versions_are_the_lowest_and_old_runtimes_find_the_codes(tmp_path):
    codes = exported(sample(), tmp_path / "model.tflite").operatorCodes
    assert {NAMES[code.builtinCode]: code.version for code in codes} == {
        "QUANTIZE": 1,
        "CONV_2D": 3,
        "MAX_POOL_2D": 2,
        "RESIZE_BILINEAR": 3,
        "CONCATENATION": 2,
        "ADD": 2,
        "LOGISTIC": 2,
    }
    assert all(code.deprecatedBuiltinCode == code.builtinCode for code in codes)


@pytest.mark.parametrize(
    ("case", "runtime"),
    [("conv", "2.3.0"), ("conv_grouped", "2.9.0"), ("conv_transpose", "2.3.0"), ("conv_transpose_relu", "2.13.0")],
)
def test_metadata_names_the_oldest_runtime(case, runtime, tmp_path):
    model = exported(sample(CASES[case], quantized=False), tmp_path / "model.tflite")
    facts = {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    assert facts["min_runtime_version"].rstrip(b"\0").decode() == runtime


def test_buffers_lie_at_multiples_of_16_bytes(tmp_path):
    to_tflite(sample(), tmp_path / "model.tflite")
    data = (tmp_path / "model.tflite").read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    assert data[4:8] == b"TFL3"
    places = []
    for i in range(model.BuffersLength()):
        table = model.Buffers(i)._tab
        field = table.Offset(4)
        if field:
            places.append(table.Vector(field))
    assert len(places) > 10
    assert all(place % 16 == 0 for place in places)
    assert model.BuffersLength() == len(places) + 1  # buffer 0 is the empty one


def test_the_file_is_little_more_than_its_weights(tmp_path):
    """For each channel 4 bytes of bias and two scales; names, shapes and operators take about 300 bytes each."""
    graph = sample(lambda b: b.conv(b.conv("image", 256, activation="relu"), 256))
    to_tflite(graph, tmp_path / "model.tflite")
    weights = sum(operator.weight.size for operator in graph.operators)
    channels = sum(len(operator.bias) for operator in graph.operators)
    # one vector of 256 zero points serves all
    assert (tmp_path / "model.tflite").stat().st_size < weights + 12 * channels + 8 * 256 + 3000


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda b, x: b.conv_transpose(x, 8, groups=2), "conv_transpose1: TFLite has no transposed .* groups"),
        (lambda b, x: b.conv_transpose(x, 8, kernel=(3, 3), dilation=(2, 2)), "conv_transpose1: .* dilation"),
        (
            lambda b, x: b.conv_transpose(x, 8, kernel=(5, 5), padding=(1, 1)),
            r"conv_transpose1: .* kernel \(5, 5\), stride \(2, 2\), padding \(1, 1\)",
        ),
        (
            lambda b, x: b.pool("avg_pool", x, kernel=(3, 3), padding=(1, 1)),
            r"avg_pool1: TFLite averages .* kernel \(3, 3\), stride \(2, 2\), padding \(1, 1\) on 16x16",
        ),
    ],
)
def test_what_tflite_cannot_say_is_refused_by_name(build, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        to_tflite(sample(lambda b: build(b, b.conv("image", 8))), tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_tensorflow_is_not_needed():
    code = "import sys, compress.formats.tflite; sys.exit(any(m in sys.modules for m in ('tensorflow', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_hardswish_whose_result_has_steps_much_finer_than_what_it_reads_is_computed_in_float(tmp_path):
    graph = sample(lambda b: b.one("hardswish", "image"))
    fine = replace(graph.tensors[graph.output], scale=graph.tensors["image"].scale / 128)
    model = exported(replace(graph, tensors={**graph.tensors, graph.output: fine}), tmp_path / "model.tflite")
    assert operators(model)[1:4] == ["DEQUANTIZE", "HARD_SWISH", "QUANTIZE"]
    Interpreter(str(tmp_path / "model.tflite")).allocate_tensors()
