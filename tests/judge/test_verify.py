"""Files that are one network pass; whatever makes them two is found and named."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from compress.cli import main
from compress.errors import ExportError
from compress.files import sha256_of
from compress.formats.npz import read_graph, write_graph
from compress.formats.stored import differences
from compress.judge.verify import GRAPH, compare, verify_folder
from compress.release.export import EXPORTERS
from compress.release.manifest import restate
from compress.runtime.local import Child


@pytest.fixture(autouse=True, scope="module")
def _runtimes_in_children_alone():
    """Neither `compress run` nor `compress verify` opens a file in the process that a crash would take with it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("onnxruntime", "ai_edge_litert.interpreter"):
            patch.setitem(sys.modules, name, None)  # importing it raises ImportError
        yield


@pytest.fixture(scope="module")
def finished(tiny_model, tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("verify") / "tiny"
    arguments = ["--budget", "12KB", "--data", str(tiny_data), "--minutes", "0", "--out", str(out)]
    assert main(["run", str(tiny_model), *arguments]) == 0
    return out


@pytest.fixture
def run(finished, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(finished, tmp_path / "tiny")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)


def test_the_files_of_a_run_are_one_network(run, tiny_data, capsys):
    assert main(["verify", str(run)]) == 0
    assert "the files are one network" in capsys.readouterr().out
    assert main(["verify", str(run), "--images", str(tiny_data / "val" / "images")]) == 0
    assert "8 images" in capsys.readouterr().out


def test_every_layer_of_both_runtimes_is_within_one_step(run, images):
    graph = read_graph(run / GRAPH)
    parity = compare(graph, {"onnx": run / "model.onnx", "tflite": run / "model.tflite"}, images)
    assert parity.stored == ()
    assert len(parity.layers) == 2 * len(graph.operators)
    assert min(layer.within_one for layer in parity.layers) >= 0.999
    assert {end.pair for end in parity.ends} == {"torch and onnx", "torch and tflite", "onnx and tflite"}


def test_ort_files_are_the_same_network_too(tiny_model, tiny_data, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--budget", "100KB", "--data", str(tiny_data), "--minutes", "0", "--formats", "ort,tflite"]
    assert main(["run", str(tiny_model), *arguments, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("model.tflite: every operator")
    assert said[1].startswith(("model.ort: cannot be read back", "model.ort: is not compared: it cannot be read back"))
    assert {path.suffix for path in out.glob("model.*")} == {".ort", ".tflite"}


def test_a_byte_that_changed_is_found_in_its_file(run, capsys):
    path = run / "model.tflite"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["verify", str(run)]) == 1
    out = capsys.readouterr().out
    assert "model.tflite" in out
    assert "sha256" in out
    assert "model.onnx" not in out


def test_a_missing_file_is_named(run, capsys):
    (run / "model.onnx").unlink()
    assert main(["verify", str(run)]) == 1
    assert "model.onnx: is missing" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_another_weight_bias_or_scale_is_named_with_its_layer(run, suffix, tmp_path):
    graph = read_graph(run / GRAPH)
    operators = list(graph.operators)
    index = next(i for i, operator in enumerate(operators) if operator.name == "merge")
    weight, bias = operators[index].weight.copy(), operators[index].bias.copy()
    weight[0, 0, 0, 0] ^= 1
    bias[1] += 1
    operators[index] = replace(operators[index], weight=weight, bias=bias)
    name = operators[index].output
    spec = graph.tensors[name]
    tensors = {**graph.tensors, name: replace(spec, scale=spec.scale * 1.001)}
    path = tmp_path / f"other.{suffix}"
    EXPORTERS[suffix](replace(graph, operators=tuple(operators), tensors=tensors), path)
    found = "\n".join(differences(graph, path))
    assert "merge: weight" in found
    assert "merge: bias" in found
    assert f"{name}: scale" in found
    assert "head: bias scale" in found  # which is that of its input times that of its weights
    assert len(found.splitlines()) == 4


def test_the_layer_where_they_part_is_named(run, images, monkeypatch):
    """As if both runtimes computed one layer otherwise."""
    from compress.judge import verify

    exact = verify.simulate_operator

    def wrong(graph, operator, inputs):
        value = exact(graph, operator, inputs)
        return np.roll(value, 1, axis=2) if operator.name == "merge" else value

    monkeypatch.setattr(verify, "simulate_operator", wrong)
    graph = read_graph(run / GRAPH)
    parity = compare(graph, {"onnx": run / "model.onnx", "tflite": run / "model.tflite"}, images[:1])
    assert not parity.passed
    assert parity.first_parting().layer == "merge"
    assert [layer.layer for layer in parity.layers if not layer.passed] == ["merge", "merge"]


def test_another_schema_is_a_clear_error(run):
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 7}))
    with pytest.raises(ExportError, match="schema 7"):
        verify_folder(run)


def test_a_manifest_cannot_name_a_file_outside_its_folder(run):
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][0]["file"] = "../../elsewhere/model.onnx"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="no file in its own folder"):
        verify_folder(run)


def test_a_graph_survives_its_file(run, tmp_path):
    graph = read_graph(run / GRAPH)
    write_graph(graph, tmp_path / "graph.npz")
    again = read_graph(tmp_path / "graph.npz")
    assert again.tensors == graph.tensors
    for ours, theirs in zip(graph.operators, again.operators):
        assert (ours.op, ours.inputs, ours.output, ours.attrs) == (
            theirs.op,
            theirs.inputs,
            theirs.output,
            theirs.attrs,
        )
        np.testing.assert_array_equal(ours.weight, theirs.weight)


def resummed(run):
    """As if whoever changed the files had written their sums anew."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    for entry in manifest["files"]:
        entry["sha256"] = sha256_of(run / entry["file"])
    path.write_text(json.dumps(manifest))


def test_a_file_with_other_scales_is_another_network_also_where_its_masks_agree(run, capsys):
    model = onnx.load(run / "model.onnx")
    node = next(each for each in model.graph.node if "head.bias" in each.input)
    scale = next(each for each in model.graph.initializer if each.name == node.input[1])
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(2), scale.name))
    onnx.save(model, run / "model.onnx")
    resummed(run)
    assert main(["verify", str(run)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "model.onnx: head: bias scale differs from the graph's"
    assert lines[1].startswith("model.tflite: every operator, attribute and connection, every integer, scale and zero")
    assert "model.onnx: is not run" in lines[2]
    assert lines[-1] == "verdict: the files differ"


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", bytes(4000)])
def test_a_file_that_is_no_model_is_one_line(run, suffix, content, capsys):
    (run / f"model.{suffix}").write_bytes(content)
    resummed(run)
    assert main(["verify", str(run)]) in (1, 2)
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if f"model.{suffix}: " in line]
    assert lines
    assert "Traceback" not in said.err


def test_a_damaged_golden_image_is_one_line(run, capsys):
    (run / "golden.npz").write_bytes(b"PK\x03\x04broken")
    assert main(["verify", str(run)]) == 1
    assert "golden.npz: is not the file that was exported" in capsys.readouterr().out
    restate(run / "golden.npz")
    assert main(["verify", str(run)]) == 2
    assert "golden.npz: is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04broken"])
def test_a_damaged_graph_is_one_line(run, content):
    (run / GRAPH).write_bytes(content)
    with pytest.raises(ExportError, match="graph.npz"):
        verify_folder(run)


def test_the_golden_output_is_what_the_files_give(run):
    with np.load(run / "golden.npz") as golden:
        for suffix in ("onnx", "tflite"):
            with Child(run / f"model.{suffix}") as child:
                assert np.array_equal(child.outputs(golden["pixels"])[child.output.name], golden[suffix])
