"""A file is the model that its name says, from its first byte to its last."""

import socket

import onnx
import pytest
from integer_reference import GraphBuilder
from onnx import TensorProto, helper, numpy_helper
from operator_cases import u_shape

from compress.errors import MeasureError
from compress.formats.metadata import Card
from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite
from compress.formats.whole import check_whole

WRITERS = {"onnx": to_onnx, "tflite": to_tflite}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small network of many operators, in both formats, with labels behind the TFLite file."""
    builder, folder = GraphBuilder((64, 64)), tmp_path_factory.mktemp("models")
    u_shape(builder)
    for kind, write in WRITERS.items():
        write(builder.graph(), folder / f"model.{kind}", card=Card("u", labels=("a", "b")))
    return folder


@pytest.mark.parametrize("kind", WRITERS)
def test_what_the_product_writes_is_whole(models, kind):
    assert check_whole(models / f"model.{kind}") == ()


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_lost_its_end_is_none(models, kind, tmp_path):
    content = (models / f"model.{kind}").read_bytes()
    path = tmp_path / f"cut.{kind}"
    for length in [*range(8, len(content), len(content) // 100), *range(len(content) - 300, len(content), 7)]:
        path.write_bytes(content[:length])
        with pytest.raises(MeasureError, match=rf"cut\.{kind}: not a model"):
            check_whole(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer: git lfs pull"),
        ("m.tflite", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer: git lfs pull"),
        ("m.onnx", b"/annex/objects/SHA256E-s9--0.onnx\n", "a git-annex pointer"),
        ("m.onnx", b"\n<!DOCTYPE HTML>\n<title>", "an HTML page"),
        ("m.onnx", b'{"error": "rate limit"}', "it is text"),
        ("m.onnx", b"PK\x03\x04more", "a zip archive"),
        ("m.onnx", b"\x1c\0\0\0TFL3\x14\0", "a TFLite file"),
        ("m.tflite", b"\x1c\0\0\0ORTM\x14\0", "an ORT file"),
        ("m.tflite", b"\x08\x07\x12\x08compress", "no tflite file"),
        ("m.ort", b"\x80\x04\x95", "a pickle"),
        ("m.onnx", b"", "zero bytes"),
        ("m.onnx", b"\x08\x07", "no graph"),
        ("m.onnx", b"\0" * 1000, "not a model"),
        ("m.tflite", b"\x1c\0\0\0TFL3" + b"\xff" * 100, "not a model"),
    ],
)
def test_what_is_something_else_is_called_what_it_is(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MeasureError) as caught:
        check_whole(tmp_path / name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_socket_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("m.onnx")
        with pytest.raises(MeasureError, match="is a socket, not a file"):
            check_whole(tmp_path / "m.onnx")


def test_weights_that_were_taken_out_are_missed(models, tmp_path):
    def changed(change):
        model = onnx.load(models / "model.onnx")
        change(model.graph.initializer)
        onnx.save(model, tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    for change, words in (
        (lambda tensors: tensors.pop(), "nothing makes"),
        (lambda tensors: tensors[0].ClearField("raw_data"), "has no values"),
        (lambda tensors: setattr(tensors[0], "raw_data", b"\0"), "has 1 bytes"),
    ):
        with pytest.raises(MeasureError, match=words):
            check_whole(changed(change))


def test_an_operator_that_only_its_owner_knows_is_no_reason(tmp_path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("image", "map")]
    nodes = [helper.make_node("Segment", ["image", "", "four"], ["map"], domain="elsewhere")]
    four = numpy_helper.from_array(numpy_helper.np.zeros(3, "int8"), "four")
    graph = helper.make_graph(nodes, "foreign", ends[:1], ends[1:], [four])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert check_whole(tmp_path / "m.onnx") == ()


@pytest.fixture
def split(models, tmp_path):
    """A model whose weights lie in weights.bin, and a change of where it says that they do."""
    folder = tmp_path / "split"
    folder.mkdir()
    model = onnx.load(models / "model.onnx")
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)

    def change(location):
        model = onnx.load(folder / "m.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            next(entry for entry in tensor.external_data if entry.key == "location").value = location
        onnx.save(model, folder / "m.onnx")

    return folder, change


def test_weights_outside_the_file_are_found(split):
    folder, _ = split
    assert check_whole(folder / "m.onnx") == ((folder / "weights.bin").resolve(),)
    content = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(content[:-1])
    with pytest.raises(MeasureError, match=r"weights\.bin: ends before"):
        check_whole(folder / "m.onnx")
    (folder / "weights.bin").unlink()
    with pytest.raises(MeasureError, match=r"weights\.bin: no such file"):
        check_whole(folder / "m.onnx")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link.bin", ""])
def test_weights_outside_the_folder_are_refused(split, location):
    folder, change = split
    (folder / "weights.bin").rename(folder.parent / "weights.bin")
    (folder / "link.bin").symlink_to(folder.parent / "weights.bin")
    change(location)
    with pytest.raises(MeasureError, match="outside its folder"):
        check_whole(folder / "m.onnx")
