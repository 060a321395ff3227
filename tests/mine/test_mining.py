"""From models and a folder to a table and a contact sheet."""

import base64
import csv
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compress.cli import main
from compress.load.model import load
from compress.load.trace import fold_normalisation
from compress.mine import answers as answers_module
from compress.mine.answers import opened, sampled
from compress.mine.mining import Find, mine
from compress.mine.sheet import COLUMNS, overlay, why
from compress.mine.uncertainty import Score, Uncertainty
from compress.quantize.calibration import calibrate
from compress.quantize.convert import float_graph, quantized_graph
from compress.quantize.training import QuantizedNetwork
from compress.recipe import read_recipe
from compress.release.export import EXPORTERS


@pytest.fixture(scope="module")
def student(tiny_model, tiny_data, tmp_path_factory) -> Path:
    """The tiny network as an int8 TFLite file."""
    net = fold_normalisation(load(tiny_model, read_recipe(tiny_model.with_suffix(".toml"))).network)
    image = np.asarray(Image.open(tiny_data / "train/images/00.png"))
    ranges = calibrate(net, [net.real(torch.from_numpy(image.copy())[None])], 100.0)
    path = tmp_path_factory.mktemp("student") / "student.tflite"
    EXPORTERS["tflite"](quantized_graph(QuantizedNetwork(net, ranges), "student"), path)
    return path


@pytest.fixture(scope="module")
def other(tiny_model) -> Path:
    """The tiny network with other weights in its last layers, beside the first one."""
    state = torch.load(tiny_model, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name in ("deep.weight", "merge.weight", "head.weight"):
        state[name] += 0.05 * torch.randn(state[name].shape, generator=generator)
    path = tiny_model.with_name("other.pt")
    torch.save(state, path)
    path.with_suffix(".toml").write_text(tiny_model.with_suffix(".toml").read_text())
    return path


@pytest.fixture
def folder(tiny_data, tmp_path) -> Path:
    """Eight images, each with a larger copy in a folder below."""
    (tmp_path / "images/large").mkdir(parents=True)
    for number in range(8):
        image = Image.open(tiny_data / f"unlabelled/u{number:02}.png")
        image.save(tmp_path / f"images/{number}.png")
        image.resize((160, 160)).save(tmp_path / f"images/large/{number}.jpg", quality=90)
    return tmp_path / "images"


def arguments(teachers, student, folder, out, top=20):
    models = [part for teacher in teachers for part in ("--teacher", str(teacher))] + ["--student", str(student)]
    return ["mine", *models, "--unlabelled", str(folder), "--top", str(top), "--out", str(out)]


def test_a_trained_and_an_exported_model_give_a_table_and_a_sheet(tiny_model, other, student, folder, tmp_path, capsys):
    assert main(arguments([tiny_model, other], student, folder, tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert "8 of 20 images found" in printed  # sixteen files, eight pictures
    assert "8 of 16 images are worth a label" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine.csv", "mine.html"]

    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/mine.csv").read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 9)]
    assert len({Path(row["image"]).stem for row in rows}) == 8
    assert all((folder / row["image"]).is_file() for row in rows)
    for row in rows:
        assert float(row["uncertainty"]) == pytest.approx(float(row["unsure"]) + float(row["disagreement"]), abs=1e-3)
    assert rows[0]["uncertainty"] == max(row["uncertainty"] for row in rows)
    assert [row["apart"] == "" for row in rows] == [True] + 7 * [False]

    page = (tmp_path / "out/mine.html").read_text()
    assert page.count("data:image/jpeg;base64,") == page.count("data:image/png;base64,") == 8
    assert "http" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    assert "tiny.pt, other.pt and student.tflite" in page


def test_names_are_escaped_on_the_sheet(tiny_model, other, folder, tmp_path):
    (folder / "0.png").rename(folder / "<i>.png")
    assert main(arguments([tiny_model], other, folder, tmp_path / "out")) == 0
    page = (tmp_path / "out/mine.html").read_text()
    assert "<i>." not in page
    assert "&lt;i&gt;.png" in page or "large/0.jpg" in page


def test_an_interruption_loses_one_image_and_others_are_not_computed_again(
    tiny_model, other, folder, monkeypatch, tmp_path
):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    read, count = answers_module.read_image, []

    def stopping(path, size, reading):
        count.append(path)
        return read(path, size, reading)

    def answered():
        return len(list((tmp_path / "cache").rglob("*.npz")))

    seen = []
    keep = answers_module._keep

    def interrupted(path, maps):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(path)
        keep(path, maps)

    monkeypatch.setattr(answers_module, "_keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine([tiny_model], other, folder, 4)
    assert answered() == 5

    monkeypatch.setattr(answers_module, "_keep", keep)
    monkeypatch.setattr(answers_module, "read_image", stopping)
    first = mine([tiny_model], other, folder, 4)
    assert (answered(), len(count)) == (32, 32 - 5)  # sixteen images by two models

    (folder / "7.png").unlink()
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "new.png")
    mine([tiny_model], other, folder, 4)
    assert len(count) == 32 - 5 + 2

    assert first.images == 16
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_model_beside_itself_never_disagrees(tiny_model, folder):
    found = mine([tiny_model], tiny_model, folder, 3)
    assert all(find.score.disagreement == pytest.approx(0, abs=1e-4) for find in found.finds)


def test_answers_of_any_size_are_picked_pixel_by_pixel():
    one = np.kron(np.eye(2, dtype=np.float32), np.ones((2, 2), np.float32))[None]
    maps = sampled(one)
    assert (maps.shape, maps.dtype) == ((2, 160, 160), np.uint8)
    expected = np.kron(np.eye(2), np.ones((80, 80))) * 255
    np.testing.assert_array_equal(maps[1], expected)
    np.testing.assert_array_equal(maps[0], 255 - expected)


def test_the_overlay_is_clear_where_models_are_sure():
    image = overlay(Uncertainty(np.array([[0.0, 1.0, 0.0]]), np.array([[0.0, 0.0, 1.0]]), np.zeros((1, 3))))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))))
    assert pixels[0, 0, 3] == 0
    assert pixels[0, 1].tolist() == [230, 159, 0, 235]
    assert pixels[0, 2].tolist() == [208, 28, 139, 235]


def refused(capsys, words) -> str:
    assert main([str(word) for word in words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compress: ")]
    assert len(lines) == 1
    return lines[0]


def test_mistakes_are_one_line_each(tiny_model, two_class_model, other, folder, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tflite").write_text("no model")
    (tmp_path / "file").write_text("in the way")
    cases = {
        "--top 0": arguments([tiny_model], other, folder, out, top=0),
        "no such folder": arguments([tiny_model], other, tmp_path / "gone", out),
        "no images": arguments([tiny_model], other, tmp_path / "empty", out),
        "gone.tflite: no such file": arguments([tiny_model], tmp_path / "gone.tflite", folder, out),
        "gone.pt: no such file": arguments([tmp_path / "gone.pt"], other, folder, out),
        "not a model": arguments([tiny_model], tmp_path / "text.tflite", folder, out),
        "2 classes, but tiny.pt has 3": arguments([tiny_model], two_class_model, folder, out),
        "--out": arguments([tiny_model], other, folder, tmp_path / "file/out"),
    }
    for message, words in cases.items():
        assert message in refused(capsys, words)
        assert not out.exists()


def test_a_float_file_needs_its_recipe_for_mean_and_std(tiny_model, folder, tmp_path, capsys):
    net = load(tiny_model, read_recipe(tiny_model.with_suffix(".toml"))).network
    path = tmp_path / "float.onnx"
    EXPORTERS["onnx"](float_graph(net, "float"), path)
    assert "put its recipe, float.toml, beside it" in refused(
        capsys, arguments([tiny_model], path, folder, tmp_path / "out")
    )
    scale, zero_point = net.input.attrs.scale, net.input.attrs.zero_point
    recipe = tiny_model.with_suffix(".toml").read_text()
    mean, std = [zero_point / 255] * 3, [1 / scale / 255] * 3
    recipe = recipe.replace("mean = [0.485, 0.456, 0.406]", f"mean = {mean}")
    (tmp_path / "float.toml").write_text(recipe.replace("std = [0.229, 0.224, 0.225]", f"std = {std}"))
    found = mine([tiny_model], path, folder, 3)
    assert all(find.score.disagreement < 0.01 for find in found.finds)


@pytest.mark.parametrize("last", ["Sigmoid", "Softmax"])
def test_a_file_of_logits_answers_as_one_of_probabilities(last, tmp_path):
    channels = 1 if last == "Sigmoid" else 3
    weight = np.random.default_rng(0).normal(0, 3, (channels, 3, 1, 1)).astype(np.float32)
    answers = []
    for name, nodes in (("logits", []), ("map", [helper.make_node(last, ["logits"], ["map"], **AXIS[last])])):
        ends = [
            helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, count, 8, 8])
            for end, count in (("image", 3), (name, channels))
        ]
        nodes = [helper.make_node("Conv", ["image", "weight"], ["logits"]), *nodes]
        graph = helper.make_graph(nodes, name, ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {"input_mean": "127.5 127.5 127.5", "input_std": "127.5 127.5 127.5"})
        onnx.save(model, tmp_path / f"{name}.onnx")
        with opened(tmp_path / f"{name}.onnx") as file:
            answers.append(file.answer(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)))
    np.testing.assert_allclose(*answers, atol=1e-5)


AXIS = {"Sigmoid": {}, "Softmax": {"axis": 1}}


@pytest.mark.parametrize(("score", "words"), [(Score(0.72, 0.28), "disagree"), (Score(0.8, 0.2), "unsure")])
def test_two_models_that_give_opposite_answers_are_said_to_disagree(score, words):
    none = np.zeros((1, 1))
    assert words in why(Find(1, Path("a"), "a", score, None, Uncertainty(none, none, none)))
