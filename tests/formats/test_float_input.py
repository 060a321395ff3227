"""An int8 ONNX file that reads what the heavy model reads."""

import numpy as np
import onnx
import pytest
from integer_reference import GraphBuilder
from operator_cases import u_shape

from compress.judge.verify import compare
from compress.recipe import Recipe
from compress.release.export import FileSettings, export
from compress.runtime.kernels import onnx_kernels
from compress.runtime.local import Child
from compress.runtime.session import open_model

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def write(folder, onnx_input):
    """A graph, its pixels uint8 [H, W, 3], and what the recipe makes of it."""
    builder = GraphBuilder((16, 16), quantized=True)
    u_shape(builder)
    recipe = Recipe.model_validate(
        {
            "name": "float",
            "model": {"architecture": "net.py:Net", "classes": ["background", "object"], "input_size": [192, 192]},
            "preprocess": {"mean": MEAN.tolist(), "std": STD.tolist()},
            "onnx_input": onnx_input,
        }
    )
    folder.mkdir()
    return (
        builder.graph(),
        builder.image[0].transpose(1, 2, 0),
        export(builder.graph(), FileSettings.of(recipe), folder),
    )


def test_the_file_and_its_manifest_state_mean_and_std_of_0_to_255(tmp_path):
    _, _, (file, tflite) = write(tmp_path / "float32", "float32")
    assert (file.input.dtype, file.input.shape, file.input.layout) == ("float32", (1, 3, 16, 16), "NCHW")
    assert (file.input.mean, file.input.std) == (pytest.approx(255 * MEAN), pytest.approx(255 * STD))
    assert (tflite.input.dtype, tflite.input.mean) == ("uint8", None)
    facts = {prop.key: prop.value for prop in onnx.load(file.path).metadata_props}
    assert facts["preprocessing"].startswith("float32 (pixel - [123.675, ")
    with Child(file.path, threads=1) as child:
        assert child.describe().input == file.input


def test_it_computes_the_integers_that_the_file_for_pixels_computes(tmp_path):
    _, image, (plain, _) = write(tmp_path / "uint8", "uint8")
    graph, _, (file, tflite) = write(tmp_path / "float32", "float32")
    session, wanted = open_model(file.path), open_model(plain.path).run(image.transpose(2, 0, 1)[None])
    normalised = (image / 255 - MEAN) / STD  # as the heavy model was trained
    np.testing.assert_array_equal(session.run(normalised.transpose(2, 0, 1)[None].astype(np.float32)), wanted)
    np.testing.assert_array_equal(session.run(session.prepare(image)), wanted)
    parity = compare(graph, {"onnx": file.path, "tflite": tflite.path}, image[None])
    assert parity.stored == ()
    assert max(end.mean_lsb for end in parity.ends) < 1
    ours, theirs = (onnx_kernels(each.path, graph) for each in (file, plain))
    assert (ours.integer_convs, ours.outside) == (theirs.integer_convs, theirs.outside)
