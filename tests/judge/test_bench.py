"""`compress bench` on files that others wrote, and on what is no such file."""

import functools
import json
import os
import re
import signal
from dataclasses import replace

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from integer_reference import GraphBuilder
from onnx import TensorProto, helper, numpy_helper
from operator_cases import u_shape
from PIL import Image

import compress.judge.bench
from compress.cli import main
from compress.errors import MeasureError
from compress.formats.tflite import to_tflite
from compress.judge.bench import Options, _check_finite, _Opened, bench
from compress.judge.bench_text import describe_bench
from compress.measure.cold import launch
from compress.measure.values import Interval
from compress.runtime.local import Child

SHARP, COARSE = 1, 5


@pytest.fixture(autouse=True)
def _one_launch(monkeypatch):
    monkeypatch.setattr(compress.judge.bench, "launch", functools.partial(launch, launches=1))


def save(path, nodes, inputs, outputs, constants=()):
    def infos(ends):
        return [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in ends.items()]

    tensors = [numpy_helper.from_array(value, name) for name, value in dict(constants).items()]
    graph = helper.make_graph(nodes, "foreign", infos(inputs), infos(outputs), tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


IMAGE = {"image": (TensorProto.FLOAT, [1, 3, 64, 64])}
MAP = {"map": (TensorProto.FLOAT, [1, 3, 64, 64])}


def write_segmenter(path, window):
    """Finds the red disc (1) and the blue square (2) of the tiny task by their colour, after a blur of `window` pixels.

    Logits of three classes from pixels / 255 with mean and std 0.5, besides a second output, as a foreign file has it.
    """
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[1, 0] = weight[2, 2] = 20
    nodes = [
        helper.make_node("AveragePool", ["image"], ["blurred"], kernel_shape=[window] * 2, pads=[window // 2] * 4),
        helper.make_node("Conv", ["blurred", "weight", "bias"], ["map"]),
        helper.make_node("Sigmoid", ["map"], ["second"]),
    ]
    constants = {"weight": weight, "bias": np.array([0, -8.6, -8.6], np.float32)}
    return save(path, nodes, IMAGE, {**MAP, "second": MAP["map"]}, constants)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return write_segmenter(folder / "sharp.onnx", SHARP), write_segmenter(folder / "coarse.onnx", COARSE)


@pytest.fixture(scope="module")
def measured(files, tiny_data):
    """The coarse file against the sharp one."""
    sharp, coarse = files
    options = Options(sharp, tiny_data, None, 1, 0.1, 4, (0.5,) * 3, (0.5,) * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compress.judge.bench, "launch", functools.partial(launch, launches=1))
        return bench([coarse], options)


def test_accuracy_comes_from_the_file_that_ships(measured):
    sharp, coarse = measured.files["sharp.onnx"].measurement, measured.files["coarse.onnx"].measurement
    assert sharp.iou.mean == sharp.boundary_iou.mean == sharp.worst_decile_iou.mean == 1.0
    assert 0.5 < coarse.boundary_iou.mean < coarse.iou.mean < 0.99
    assert coarse.worst_decile_iou.mean == min(coarse.per_image_iou)
    assert coarse.iou_drop.mean == pytest.approx(1 - coarse.iou.mean)
    assert coarse.iou_drop.low > 0.01
    assert measured.files["coarse.onnx"].changes["IoU"] == "worse"
    assert 0 <= sharp.shift_flips.mean < 0.02
    assert list(measured.files["sharp.onnx"].class_iou) == ["class 0", "class 1", "class 2"]
    assert 0.98 < measured.files["coarse.onnx"].agreement.mean < 1


def test_of_many_classes_each_has_its_figures_and_their_mean_is_told(measured):
    coarse = measured.files["coarse.onnx"]
    figures = coarse.measurement.by_class
    assert {each.name: each.iou for each in figures} == coarse.class_iou
    assert coarse.measurement.miou.mean == pytest.approx(np.mean([each.iou.mean for each in figures]))
    assert coarse.measurement.miou_drop.mean == pytest.approx(1 - coarse.measurement.miou.mean)
    assert figures[1].taken_for[0][0] == "class 0"
    text = describe_bench(measured)
    assert "mIoU of 3 classes " in text
    assert "coarse.onnx: mIoU 0." in text
    assert "worst classes: class" in text


def test_speed_memory_and_bytes_are_there(measured):
    each = measured.files["coarse.onnx"]
    assert each.measurement.size_bytes == each.file.stat().st_size > each.deflated_bytes > 0
    assert each.measurement.speedup.low <= each.measurement.speedup.mean <= each.measurement.speedup.high
    assert each.cold.load_ms > 0
    assert each.kernels.counts["Conv"] == 1
    assert each.measurement.macs == 64 * 64 * 3 * 3
    assert "multiply-accumulates" in describe_bench(measured)
    assert measured.files["sharp.onnx"].measurement.speedup is None


def test_folds_and_small_sets_say_how_little_is_known(measured):
    assert len(measured.files["coarse.onnx"].folds) == 4
    assert np.mean(measured.files["coarse.onnx"].folds) == pytest.approx(
        measured.files["coarse.onnx"].measurement.iou.mean
    )
    assert "only 8 images" in " ".join(measured.warnings)


def test_the_table_names_differences_and_the_worst_images(measured):
    text = describe_bench(measured)
    assert "IoU lower than that of sharp.onnx in 4 of 4 folds" in text
    assert "margin 0.01: worse" in text
    assert "worst images: " in text


def test_a_file_against_itself_differs_by_nothing_that_a_user_could_notice(files, tiny_data, capsys):
    sharp, _ = map(str, files)
    flags = ["--seconds", "0.05", "--threads", "1", "--json"]
    assert main(["bench", sharp, "--against", sharp, "--data", str(tiny_data / "train"), *flags]) == 0
    document = json.loads(capsys.readouterr().out)
    ours = document["files"]["sharp.onnx"]
    assert document["against"] == "sharp.onnx (2)"
    assert set(ours["changes"].values()) == {"no difference that a user could notice"}
    assert ours["agreement"]["mean"] == 1.0
    assert ours["measurement"]["iou_drop"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert "--mean" in " ".join(document["warnings"])


def write_tflite(path, change=lambda model: None):
    builder = GraphBuilder((64, 64))
    u_shape(builder)
    to_tflite(builder.graph(), path)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    change(model)
    b = flatbuffers.Builder()
    b.Finish(model.Pack(b), file_identifier=b"TFL3")
    path.write_bytes(bytes(b.Output()))
    return path


def test_a_tflite_file_and_an_onnx_file_take_turns_without_images(files, tmp_path, capsys):
    path = write_tflite(tmp_path / "model.tflite")
    assert main(["bench", str(path), str(files[0]), "--seconds", "0.05", "--threads", "1"]) == 0
    text = capsys.readouterr().out
    assert "LiteRT" in text
    assert "onnxruntime" in text
    assert "IoU" not in text
    assert "outside the delegate: " in text


def refused(capsys, *arguments) -> str:
    assert main(["bench", *map(str, arguments)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compress: ")]
    assert len(lines) == 1
    return lines[0]


def cut(path):
    path.write_bytes(write_segmenter(path, SHARP).read_bytes()[:-100])


def with_text(path):
    path.write_text("this is no model")


def with_two_inputs(path):
    save(path, [helper.make_node("Add", ["image", "mask"], ["map"])], {**IMAGE, "mask": IMAGE["image"]}, MAP)


def with_dynamic_shapes(path):
    ends = {name: (TensorProto.FLOAT, [1, 3, "height", "width"]) for name in ("image", "map")}
    save(path, [helper.make_node("Relu", ["image"], ["map"])], {"image": ends["image"]}, {"map": ends["map"]})


def with_another_layout(path):
    ends = {name: (TensorProto.FLOAT, [1, 64, 3, 64]) for name in ("image", "map")}
    save(path, [helper.make_node("Relu", ["image"], ["map"])], {"image": ends["image"]}, {"map": ends["map"]})


def with_an_unknown_operator(path):
    save(path, [helper.make_node("Segment", ["image"], ["map"], domain="elsewhere")], IMAGE, MAP)


def with_dynamic_tflite(path):
    def change(model):
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shapeSignature = [1, -1, -1, 3]

    write_tflite(path, change)


def with_an_unknown_tflite_operator(path):
    def change(model):
        model.operatorCodes[0].customCode = "Segment"
        for name in ("builtinCode", "deprecatedBuiltinCode"):
            setattr(model.operatorCodes[0], name, schema.BuiltinOperator.CUSTOM)

    write_tflite(path, change)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("model.onnx", lambda path: None, "no such file"),
        ("model.pb", with_text, "no runtime for .pb"),
        ("model.onnx", with_text, "not a model"),
        ("model.tflite", with_text, "not a model"),
        ("model.onnx", cut, "not a model"),
        ("model.onnx", with_two_inputs, "2 inputs (image, mask)"),
        ("model.onnx", with_dynamic_shapes, "fixed size"),
        ("model.tflite", with_dynamic_tflite, "fixed size"),
        ("model.onnx", with_another_layout, "an RGB image"),
        ("model.onnx", with_an_unknown_operator, "Segment"),
        ("model.tflite", with_an_unknown_tflite_operator, "Segment"),
    ],
)
def test_a_file_that_cannot_be_measured_is_one_line(name, write, message, tmp_path, capsys):
    write(tmp_path / name)
    line = refused(capsys, tmp_path / name)
    assert message in line
    assert name in line


def test_a_file_that_the_runtime_refuses_while_it_computes(tmp_path, capsys):
    nodes = [
        helper.make_node("Cast", ["image"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Sub", ["whole", "whole"], ["zero"]),
        helper.make_node("Div", ["whole", "zero"], ["divided"]),
        helper.make_node("Cast", ["divided"], ["map"], to=TensorProto.FLOAT),
    ]
    assert "division by zero" in refused(capsys, save(tmp_path / "model.onnx", nodes, IMAGE, MAP))


def test_a_crash_in_native_code_takes_nothing_else_down(files, capsys, monkeypatch):
    """The runtime's process dies as it would of a bad pointer."""

    def crash(child, runs, time=Child.time):
        os.kill(child._process.pid, signal.SIGSEGV)
        return time(child, runs)

    monkeypatch.setattr(Child, "time", crash)
    assert "sharp.onnx: the runtime died on it (SIGSEGV)" in refused(capsys, files[0])


def test_a_file_that_reads_images_of_any_size_is_measured_at_the_size_that_is_given(tmp_path, capsys):
    path = tmp_path / "any.onnx"
    with_dynamic_shapes(path)
    line = refused(capsys, path)
    assert "any.onnx: reads images of any height and width; give one with --size" in line
    assert main(["bench", str(path), "--size", "32x96", "--seconds", "0.02", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["files"]["any.onnx"]
    assert (found["file"], found["measurement"]["size_bytes"]) == ("any.onnx", path.stat().st_size)


def test_so_is_a_tflite_file(tmp_path, capsys):
    with_dynamic_tflite(tmp_path / "any.tflite")
    assert main(["bench", str(tmp_path / "any.tflite"), "--size", "64x64", "--seconds", "0.02"]) == 0
    assert "LiteRT" in capsys.readouterr().out
    line = refused(capsys, tmp_path / "any.tflite", "--size", "50x64")  # its resizes are written for 64
    assert f"{tmp_path}/any.tflite: " in line


@pytest.mark.parametrize("size", ["64", "64x", "0x64", "64x99999", "-1x64", "axb", "64x64x3"])
def test_a_size_that_is_none(size, files, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["bench", str(files[0]), f"--size={size}"])
    assert caught.value.code == 2
    assert "--size" in capsys.readouterr().err


def test_a_bench_says_beforehand_how_long_it_will_take(files, caplog):
    with caplog.at_level("INFO", "compress"):
        bench([files[0]], Options(threads=1, seconds=0.02))
    assert re.search(r"bench: about \d+ (s|min)", caplog.text)


def test_the_expected_time_counts_openings_timed_inferences_and_images():
    """Opened in 1 s, an inference takes 0.1 s: 5 launches, latency, answers, stability."""
    opened = _Opened(None, None, 1.0, 0.1)
    assert opened.expected_seconds(5, 0) == pytest.approx(6 + 5)
    assert opened.expected_seconds(5, 100) == pytest.approx(8 + 5 + (100 + 3 * 16) * 0.12)


def test_a_figure_that_is_no_number_is_refused(measured):
    figures = measured.files["coarse.onnx"]
    _check_finite(figures)
    wrong = replace(figures.measurement, iou=Interval(float("nan"), 0, 1))
    with pytest.raises(MeasureError, match=r"coarse\.onnx: measurement\.iou\.mean is nan"):
        _check_finite(replace(figures, measurement=wrong))


def test_weights_outside_the_file_count(files, tmp_path):
    onnx.save(onnx.load(files[0]), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    each = bench([tmp_path / "m.onnx"], Options(threads=1, seconds=0.02)).files["m.onnx"]
    assert each.measurement.size_bytes == sum((tmp_path / name).stat().st_size for name in ("m.onnx", "w.bin"))


def test_masks_without_any_class_of_the_file(files, tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    Image.new("L", (64, 64), 7).save(tmp_path / "masks" / "a.png")
    assert "class id 7 in 4,096 pixels, but there are 3 classes" in refused(capsys, files[0], "--data", tmp_path)
    Image.new("L", (64, 64), 0).save(tmp_path / "masks" / "a.png")
    assert "no pixel of a class but background" in refused(capsys, files[0], "--data", tmp_path)


def test_flags_do_not_overrule_what_a_file_states_and_the_report_says_so(files, tiny_data, tmp_path, capsys):
    model = onnx.load(files[0])
    helper.set_model_props(model, {"input_mean": "127.5 127.5 127.5", "input_std": "127.5 127.5 127.5"})
    onnx.save(model, stating := tmp_path / "stating.onnx")
    flags = ["--data", str(tiny_data), "--mean", "0,0,0", "--std", "1,1,1", "--seconds", "0.02", "--threads", "1"]
    assert main(["bench", str(stating), *flags]) == 0
    out = capsys.readouterr().out
    assert "stating.onnx: its own mean and std are heard" in out
    assert "nothing says of what" not in out


def test_files_of_different_classes_are_not_compared_on_images(files, tiny_data, tmp_path, capsys):
    path = write_tflite(tmp_path / "model.tflite")
    line = refused(capsys, files[0], "--against", path, "--data", tiny_data)
    assert "sharp.onnx has 3, model.tflite has 2 classes" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds", "4"], "--data"),
        (["--folds", "1", "--data", "."], "at least 2"),
        (["--threads", "0"], "--threads"),
        (["--seconds", "-1"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--seconds", "1e300"], "--seconds"),
        (["--size", "64x64"], "no file leaves height and width open"),
        (["--mean", "0.5"], "reads 3 channels, and mean or std has 1 values"),
        (["--std", "1,0,1"], "--std: each must be more than 0"),
        (["--mean", "123,116,103"], "--mean: each must be from 0 to 1"),
        (["--mean", "nan,0,0"], "--mean.0: input should be a finite number"),
        (["--threads", "1000000"], "--threads"),
        (["--data", "nowhere"], "no such folder"),
    ],
)
def test_flags_that_make_no_sense(flags, message, files, capsys):
    assert message in refused(capsys, files[0], *flags)


def test_more_folds_than_images(files, tiny_data, capsys):
    assert "there are 8 images" in refused(capsys, files[0], "--data", tiny_data, "--folds", "9")
