"""One way to run an exported file, whatever its format."""

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from integer_reference import GraphBuilder, run_reference
from onnx import TensorProto, helper
from operator_cases import u_shape

from compress.errors import MeasureError
from compress.formats.artifact import IOSpec
from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite
from compress.runtime.local import describe_in_child
from compress.runtime.session import open_model, saturates

EXPORTERS = {"onnx": to_onnx, "tflite": to_tflite}
HEIGHT, WIDTH = 24, 20
# The builder's image: real = (pixel - 118) / 64.
MEAN, STD = (118.0,) * 3, (64.0,) * 3


def write(folder, kind, quantized):
    builder = GraphBuilder((HEIGHT, WIDTH), quantized=quantized)
    u_shape(builder)
    EXPORTERS[kind](builder.graph(), folder / f"model.{kind}")
    return builder, folder / f"model.{kind}"


@pytest.mark.parametrize("kind", EXPORTERS)
def test_probabilities_of_a_float_file_are_the_references(kind, tmp_path):
    builder, path = write(tmp_path, kind, quantized=False)
    wanted = run_reference(builder.graph(), builder.image)[0]
    result = open_model(path).probabilities(builder.image[0].transpose(1, 2, 0), MEAN, STD)
    assert (result.shape, result.dtype) == ((2, HEIGHT, WIDTH), np.float32)
    np.testing.assert_allclose(result, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", EXPORTERS)
def test_probabilities_of_a_quantized_file_need_no_mean(kind, tmp_path):
    builder, path = write(tmp_path, kind, quantized=True)
    wanted = (run_reference(builder.graph(), builder.image)[0] + 128) / 256
    result = open_model(path).probabilities(builder.image[0].transpose(1, 2, 0))
    assert (result.shape, result.dtype) == ((2, HEIGHT, WIDTH), np.float32)
    assert np.abs(result - wanted).mean() < 1 / 256


@pytest.mark.parametrize(
    ("kind", "quantized", "inputs", "outputs"),
    [
        (
            "onnx",
            True,
            IOSpec("image", (1, 3, HEIGHT, WIDTH), "uint8", "NCHW", 1 / 64, 118),
            IOSpec("sigmoid10", (1, 2, HEIGHT, WIDTH), "uint8", "NCHW", 1 / 256, 0, activation="sigmoid"),
        ),
        (
            "onnx",
            False,
            IOSpec("image", (1, 3, HEIGHT, WIDTH), "float32", "NCHW", mean=MEAN, std=STD),
            IOSpec("sigmoid10", (1, 2, HEIGHT, WIDTH), "float32", "NCHW", activation="sigmoid"),
        ),
        (
            "tflite",
            True,
            IOSpec("image", (1, HEIGHT, WIDTH, 3), "uint8", "NHWC", 1 / 64, 118),
            IOSpec("sigmoid10", (1, HEIGHT, WIDTH, 2), "uint8", "NHWC", 1 / 256, 0, activation="sigmoid"),
        ),
        (
            "tflite",
            False,
            IOSpec("image", (1, HEIGHT, WIDTH, 3), "float32", "NHWC", mean=MEAN, std=STD),
            IOSpec("sigmoid10", (1, HEIGHT, WIDTH, 2), "float32", "NHWC", activation="sigmoid"),
        ),
    ],
)
def test_a_file_is_described_by_what_it_holds(kind, quantized, inputs, outputs, tmp_path):
    _, path = write(tmp_path, kind, quantized)
    artifact = describe_in_child(path, "sigmoid").reading(MEAN, STD)
    assert (artifact.input, artifact.output) == (inputs, outputs)
    assert (artifact.path, artifact.format, artifact.size_bytes) == (path, kind, path.stat().st_size)
    assert artifact.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_ort_file_says_and_does_the_same(tmp_path):
    builder, path = write(tmp_path, "onnx", quantized=True)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".ort"))
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    sessions = [open_model(path), open_model(path.with_suffix(".ort"))]
    image = builder.image[0].transpose(1, 2, 0)
    assert sessions[0].output == sessions[1].output
    if saturates(path.with_suffix(".ort")):
        pytest.skip("onnxruntime saturates .ort files on a processor without VNNI: the answers are not compared")
    np.testing.assert_array_equal(*(session.probabilities(image) for session in sessions))


@pytest.mark.parametrize("kind", EXPORTERS)
def test_another_size_or_dtype_is_an_error(kind, tmp_path):
    _, path = write(tmp_path, kind, quantized=True)
    session = open_model(path)
    with pytest.raises(MeasureError, match=r"the input is uint8 .*, not uint8"):
        session.probabilities(np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with pytest.raises(MeasureError, match=r"an image must be uint8 \[H, W, 3\]"):
        session.probabilities(np.zeros((HEIGHT, WIDTH, 3), np.float32))
    with pytest.raises(MeasureError, match="not float32"):
        session.run(np.zeros(session.input.shape, np.float32))


def test_a_float_input_without_mean_and_std_is_an_error(tmp_path):
    _, path = write(tmp_path, "onnx", quantized=False)
    with pytest.raises(MeasureError, match="needs the mean and std"):
        open_model(path).probabilities(np.zeros((HEIGHT, WIDTH, 3), np.uint8))


@pytest.mark.parametrize("damage", ["empty", "text", "half", "last byte", "zeros"])
@pytest.mark.parametrize("kind", EXPORTERS)
def test_a_damaged_file_is_one_line(kind, damage, tmp_path):
    _, path = write(tmp_path, kind, quantized=True)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"this is not a model\n" * 30,
            "half": whole[: len(whole) // 2],
            "last byte": whole[:-1],
            "zeros": bytes(1000),
        }[damage]
    )
    with pytest.raises(MeasureError, match=r"model\.\w+: not a model that the runtime can load: .+") as error:
        open_model(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_foreign_suffix_are_named(tmp_path):
    with pytest.raises(MeasureError, match="nothing.onnx: no such file"):
        open_model(tmp_path / "nothing.onnx")
    with pytest.raises(MeasureError, match=r"weights.pt: no runtime for .pt"):
        open_model(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        (TensorProto.FLOAT, (1, 40, 50, 60), "an RGB image, .* is expected"),
        (TensorProto.FLOAT, (1, 3, "height", "width"), "one image of a fixed size"),
        (TensorProto.INT64, (1, 3, 8, 8), "'x' is int64; only uint8 and float32"),
        (TensorProto.UINT8, (1, 3, 8, 8), "the uint8 output states no output_scale"),
    ],
)
def test_a_foreign_model_that_is_no_segmenter_is_refused(dtype, shape, message, tmp_path):
    ends = [helper.make_tensor_value_info(name, dtype, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "foreign", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=7), tmp_path / "foreign.onnx")
    with pytest.raises(MeasureError, match=message):
        open_model(tmp_path / "foreign.onnx")


def identity(folder, shapes, outputs, dtype=TensorProto.FLOAT):
    """An ONNX file of inputs of these shapes, and outputs, of any shape, that are the first input reshaped."""
    ends = [helper.make_tensor_value_info(f"x{i}", dtype, shape) for i, shape in enumerate(shapes)]
    made = [helper.make_tensor_value_info(f"y{i}", dtype, shape) for i, shape in enumerate(outputs)]
    sizes = [helper.make_tensor(f"s{i}", TensorProto.INT64, [len(shape)], shape) for i, shape in enumerate(outputs)]
    nodes = [helper.make_node("Reshape", ["x0", f"s{i}"], [f"y{i}"]) for i in range(len(outputs))]
    graph = helper.make_graph(nodes, "identity", ends, made, sizes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, folder / "identity.onnx")
    return folder / "identity.onnx"


def test_two_inputs_are_refused_and_named(tmp_path):
    with pytest.raises(MeasureError, match=r"2 inputs \(x0, x1\); a network that reads one image"):
        open_model(identity(tmp_path, [(1, 3, 8, 8)] * 2, [(1, 3, 8, 8)]))


def test_of_several_outputs_the_first_counts(tmp_path):
    session = open_model(identity(tmp_path, [(1, 3, 8, 8)], [(1, 3, 8, 8), (1, 192)]))
    assert session.output.name == "y0"


@pytest.mark.parametrize(
    ("given", "made", "layout"),
    [
        ((1, 3, 8, 12), (1, 3, 8, 12), "NCHW"),
        ((1, 8, 12, 3), (1, 8, 12, 3), "NHWC"),
        ((1, 3, 8, 12), (1, 8, 12, 3), "NHWC"),  # channels first in, channels last out
        ((1, 3, 8, 12), (1, 12, 4, 6), "NCHW"),  # a map at half the size
        ((1, 3, 8, 12), (1, 4, 6, 12), "NHWC"),
    ],
)
def test_the_layout_of_a_map_is_known_by_the_images_proportions(given, made, layout, tmp_path):
    assert open_model(identity(tmp_path, [given], [made])).output.layout == layout


def test_an_output_that_is_no_map_is_refused(tmp_path):
    with pytest.raises(MeasureError, match="a map of classes in the image's proportions"):
        open_model(identity(tmp_path, [(1, 3, 8, 12)], [(1, 24, 1, 12)])).probabilities(np.zeros((8, 12, 3), np.uint8))


def ending(folder, nodes, outputs, shape=(1, 3, 8, 8), constants=()):
    """An ONNX file that reads the image x and ends in `nodes`; `outputs`: name, dtype and shape."""
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    made = [helper.make_tensor_value_info(*output) for output in outputs]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in constants]
    graph = helper.make_graph(nodes, "ending", ends, made, constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), folder / "ending.onnx"
    )
    return folder / "ending.onnx"


@pytest.mark.parametrize(
    ("nodes", "outputs", "shape", "message"),
    [
        (
            [helper.make_node("ArgMax", ["x"], ["ids"], axis=1, keepdims=0)],
            [("ids", TensorProto.INT64, (1, 8, 8))],
            (1, 3, 8, 8),
            r"output 'ids' is int64 \[1, 8, 8\]: class ids, .*export the map that they are taken from",
        ),
        (
            [helper.make_node("ReduceMean", ["x"], ["p"], axes=[1], keepdims=0)],
            [("p", TensorProto.FLOAT, (1, 8, 8))],
            (1, 3, 8, 8),
            r"no channel axis; export it as \[1, 1, 8, 8\]",
        ),
        (
            [helper.make_node("Sigmoid", ["x"], ["p"])],
            [("p", TensorProto.FLOAT, (4, 3, 8, 8))],
            (4, 3, 8, 8),
            "input 'x' .*: a batch of 4; export it with one image",
        ),
        (
            [helper.make_node("Sigmoid", ["x"], ["p"]), helper.make_node("GlobalAveragePool", ["x"], ["score"])],
            [("score", TensorProto.FLOAT, (1, 3, 1, 1)), ("p", TensorProto.FLOAT, (1, 3, 8, 8))],
            (1, 3, 8, 8),
            r"the first output, 'score', is \[1, 3, 1, 1\] and no map; the second output, 'p', is one",
        ),
        (
            [helper.make_node("Flatten", ["x"], ["p"])],
            [("p", TensorProto.FLOAT, (1, 192))],
            (1, 3, 8, 8),
            r"output 'p' is float32 \[1, 192\]: no map of the image; export its map of classes",
        ),
    ],
    ids=["class ids", "no channels", "batch", "score first", "no map"],
)
def test_what_an_output_is_and_what_to_do_is_said(nodes, outputs, shape, message, tmp_path):
    with pytest.raises(MeasureError, match=message):
        open_model(ending(tmp_path, nodes, outputs, shape))


@pytest.mark.parametrize(("factor", "message"), [(np.nan, "gives NaN"), (np.inf, "gives infinite values")])
def test_values_that_are_no_numbers_are_an_error(factor, message, tmp_path):
    nodes = [helper.make_node("Mul", ["x", "factor"], ["p"])]
    path = ending(
        tmp_path, nodes, [("p", TensorProto.FLOAT, (1, 3, 8, 8))], constants=[("factor", np.float32([factor]))]
    )
    with pytest.raises(MeasureError, match=rf"ending\.onnx: output 'p' {message}"):
        open_model(path).probabilities(np.full((8, 8, 3), 9, np.uint8), (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("scale", ["nan", "inf", "0", "-1"])
def test_a_scale_that_cannot_be_is_an_error(scale, tmp_path):
    _, path = write(tmp_path, "onnx", quantized=True)
    model = onnx.load(path)
    next(each for each in model.metadata_props if each.key == "output_scale").value = scale
    onnx.save(model, path)
    with pytest.raises(MeasureError, match="the scale of 'sigmoid10' is .*, not more than 0"):
        open_model(path)


def test_pixels_go_into_a_uint8_file_that_states_no_input_scale(tmp_path):
    quantized = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    ends = [
        helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 8, 8, 3)),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8, 8, 3)),
    ]
    graph = helper.make_graph([quantized], "cast", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=7), tmp_path / "cast.onnx")
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(open_model(tmp_path / "cast.onnx").probabilities(image), image.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", EXPORTERS)
def test_a_session_says_how_long_it_took_to_open(kind, tmp_path):
    _, path = write(tmp_path, kind, quantized=True)
    start = time.perf_counter()
    load_ms = open_model(path).load_ms
    assert 0 < load_ms <= (time.perf_counter() - start) * 1e3


@pytest.mark.parametrize(("kind", "other"), [("onnx", "ai_edge_litert"), ("tflite", "onnxruntime")])
def test_a_process_holds_only_the_runtime_that_it_needs(kind, other, tmp_path):
    _, path = write(tmp_path, kind, quantized=True)
    code = (
        "import sys, pathlib; from compress.runtime.session import open_model; "
        f"open_model(pathlib.Path(sys.argv[1])); sys.exit({other!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a processor")
def test_a_process_that_has_one_core_gives_a_runtime_one_thread():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from compress.machine import THREADS; print(THREADS)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"
