import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from compress.errors import MeasureError
from compress.runtime import deadline, local
from compress.runtime.local import Child, samples_ms


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_samples_are_the_milliseconds_of_each_call():
    ticks = iter([0.0, 0.010, 1.0, 1.025])
    assert samples_ms(lambda: None, 2, clock=lambda: next(ticks)) == pytest.approx([10, 25])


def test_answers_probabilities_and_times(brightness):
    image = np.zeros((8, 8, 3), np.uint8)
    image[2, 3] = 255
    with Child(brightness.path) as child:
        probabilities = child.probabilities(image, (0,) * 3, (255,) * 3)
        samples = child.time(4)
        assert child.runtime.startswith("onnxruntime ")
    assert (probabilities.shape, probabilities.dtype) == ((2, 8, 8), np.float32)
    assert probabilities[1, 2, 3] == pytest.approx(1 / (1 + np.exp(-10)))
    assert probabilities[1, 0, 0] == pytest.approx(1 / (1 + np.exp(10)), rel=1e-4)
    assert len(samples) == 4
    assert min(samples) > 0


def test_says_what_the_file_is_what_runs_it_and_what_it_takes(brightness):
    with Child(brightness.path) as child:
        child.time(1)
        described = child.describe()
        assert child.kernels().counts == {"Conv": 1, "Softmax": 1}
        assert child.load_ms > 0
        memory = child.memory_bytes()
    assert described.reading(brightness.input.mean, brightness.input.std) == replace(
        brightness, output=replace(brightness.output, activation=None)
    )
    assert memory is None or 0 <= memory < 200_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux states the peak of a process")
def test_memory_counts_what_the_file_needs(brightness, tmp_path):
    """A weight of 64 MB more takes at least 64 MB more."""
    model = onnx.load(brightness.path)
    weight = np.zeros((16_000_000,), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "ballast"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.node.insert(0, onnx.helper.make_node("Gather", ["ballast", "index"], ["none"]))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["zero"], ["index"], to=onnx.TensorProto.INT64))
    model.graph.node.append(onnx.helper.make_node("Add", ["probabilities", "none"], ["sum"]))
    model.graph.output[0].name = "sum"
    heavy = tmp_path / "heavy.onnx"
    onnx.save(model, heavy)
    grown = []
    for path in (brightness.path, heavy):
        with Child(path) as child:
            child.time(2)
            grown.append(child.memory_bytes())
    assert grown[1] - grown[0] > 0.9 * 64e6


@pytest.mark.parametrize(
    ("name", "content"), [("gone.onnx", None), ("broken.onnx", b"no model"), ("broken.tflite", b"")]
)
def test_file_that_is_no_model_is_a_measure_error_of_one_line(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MeasureError) as error:
        Child(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_crash_of_native_code_is_a_measure_error(brightness):
    with Child(brightness.path) as child:
        os.kill(child._process.pid, signal.SIGSEGV)
        child._process.wait()
        with pytest.raises(MeasureError, match=r"brightness\.onnx: the runtime died on it \(SIGSEGV\)"):
            child.time(1)


def test_crash_while_it_computes_is_a_measure_error(brightness):
    with Child(brightness.path) as child:
        threading.Timer(0.3, os.kill, (child._process.pid, signal.SIGABRT)).start()
        with pytest.raises(MeasureError, match="SIGABRT"):
            child.time(10**12)


def endless(path):
    """An image of 8x8 pixels that is copied until the end of time."""
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [name], [f"{name}_"]) for name in ("go_on", "map")],
        "body",
        [
            onnx.helper.make_tensor_value_info("round", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
        [
            onnx.helper.make_tensor_value_info("go_on_", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("map_", onnx.TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
    )
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("image", "out")]
    loop = onnx.helper.make_node("Loop", ["", "yes", "image"], ["out"], body=body)
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    graph = onnx.helper.make_graph([loop], "endless", ends[:1], ends[1:], [yes])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_graph_that_never_ends_is_given_up(tmp_path):
    path = endless(tmp_path / "endless.onnx")
    with pytest.raises(MeasureError, match=r"endless\.onnx: gave no answer in 2 s"), Child(path, seconds=2) as child:
        child.time(1)


def test_the_time_limit_is_for_one_inference_however_many_are_asked_for(monkeypatch):
    limits = []
    monkeypatch.setattr(deadline, "start", limits.append)
    served = local._Served(Path("file.onnx"), SimpleNamespace(infer=lambda array: None), np.zeros(1), 60, None)
    assert len(served.answer({"time": 3}, [])[0]["samples_ms"]) == 3
    assert limits == [60, 60, 60]


def test_a_large_file_has_more_time(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(400_000_000)
    assert deadline.limit_seconds(path) == deadline.SECONDS + 100
    assert deadline.limit_seconds(tmp_path / "none.onnx") == deadline.SECONDS


def test_all_outputs_come_by_name_as_the_file_gives_them(brightness):
    model = onnx.load(brightness.path)
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 2, 8, 8])
    model.graph.output.append(logits)
    for name, value in (("input_mean", "0 0 0"), ("input_std", "255 255 255")):
        model.metadata_props.add(key=name, value=value)
    onnx.save(model, brightness.path)
    with Child(brightness.path) as child:
        found = child.outputs(np.zeros((8, 8, 3), np.uint8))
    assert list(found) == ["probabilities", "logits"]
    np.testing.assert_array_equal(found["logits"][0, :, 0, 0], [0, -10])


def test_child_ends_with_its_use(brightness):
    with Child(brightness.path) as child:
        assert is_running(child._process.pid)
    assert not is_running(child._process.pid)


SCRIPT = """
import sys
from pathlib import Path
from compress.runtime.local import Child, _send
try:
    with Child(Path(sys.argv[1])) as child:
        _send(child._requests, {"time": 10**12})
        print(child._process.pid, flush=True)
        child._answer()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_parent_and_child_while_it_computes(brightness, heeds_ctrl_c):
    """A terminal sends it to the whole process group of the parent. What the child computes would take years."""
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(brightness.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    child = int(parent.stdout.readline())
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate() == ("interrupted\n", "")
    assert not is_running(child)


def test_child_of_a_parent_that_was_killed_ends_by_itself(brightness):
    """Its stdin closes then."""
    command = [sys.executable, "-m", "compress.runtime.local", str(brightness.path), "1", "60"]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    assert (child.returncode, child.stderr) == (0, b"")
