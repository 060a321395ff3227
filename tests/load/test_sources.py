"""The ways in which a trained model is stored: told by looking, and each the same network."""

import json
import zipfile

import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.load.draft import Told, draft
from compress.load.from_onnx import read_onnx
from compress.load.model import load
from compress.load.sources import kind_of
from compress.load.storages import check_storages

CODE = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.norm, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        f = torch.relu(self.norm(self.enc(x)))
        g = F.interpolate(F.max_pool2d(f, 2), size=f.shape[2:], mode="bilinear", align_corners=True)
        return self.head(f + g)
"""
SIZE = (17, 22)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with one module in every way, and what it gives for an image."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "net.py").write_text(CODE)
    names: dict = {}
    exec(CODE, names)
    torch.manual_seed(0)
    module = names["Net"]().eval()
    nn.init.uniform_(module.norm.running_mean, -0.5, 0.5)
    image = torch.rand(1, 3, *SIZE)
    state = module.state_dict()
    torch.save(state, folder / "weights.pt")
    torch.save(
        {"epoch": 3, "model": {f"module.{key}": value.half() for key, value in state.items()}}, folder / "wrapped.pt"
    )
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "weights.safetensors")
    torch.jit.trace(module, image).save(str(folder / "traced.pt"))
    torch.export.save(torch.export.export(module, (image,)), folder / "exported.pt2")
    onnx.save(as_onnx(state), folder / "model.onnx")
    with torch.no_grad():
        return folder, image, module(image).softmax(1)


def as_onnx(state) -> onnx.ModelProto:
    """The same module, written by hand in opset 11, its size free."""
    helper, names = onnx.helper, ("enc.weight", "enc.bias", "norm.weight", "norm.bias", "norm.running_mean",
                                  "norm.running_var", "head.weight", "head.bias")  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "enc.weight", "enc.bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *names[2:6]], ["b"]),
        helper.make_node("Relu", ["b"], ["f"]),
        helper.make_node("MaxPool", ["f"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["f"], ["s"]),
        helper.make_node(
            "Resize", ["p", "", "", "s"], ["g"], mode="linear", coordinate_transformation_mode="align_corners"
        ),
        helper.make_node("Add", ["f", "g"], ["j"]),
        helper.make_node("Conv", ["j", "head.weight", "head.bias"], ["out"]),
    ]
    ends = [
        helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, "h", "w"]),
        helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None),
    ]
    stored = [onnx.numpy_helper.from_array(state[name].numpy(), name) for name in names]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)


WAYS = {
    "weights.pt": "weights",
    "wrapped.pt": "weights",
    "weights.safetensors": "safetensors",
    "traced.pt": "TorchScript",
    "exported.pt2": "torch.export",
    "model.onnx": "ONNX",
}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_is_told_by_looking_and_is_the_same_network(stored, name):
    folder, image, wanted = stored
    assert kind_of(folder / name) == WAYS[name]
    needs_code = WAYS[name] in ("weights", "safetensors")
    told = Told(arch="net.py:Net" if needs_code else None, size=SIZE, mean=(0.0,) * 3, folder=folder)
    trained = load(folder / name, draft(folder / name, told))
    with torch.no_grad():
        torch.testing.assert_close(
            trained.network(image), wanted, atol=2e-3 if name == "wrapped.pt" else 1e-5, rtol=1e-3
        )
    assert trained.classes == ("background", "object")
    assert trained.parameters > 200


def test_layers_of_a_file_that_tells_their_names_keep_them(stored):
    folder, _, _ = stored
    for name in ("exported.pt2", "model.onnx"):
        net = load(folder / name, draft(folder / name, Told(size=SIZE, mean=(0.0,) * 3))).network
        assert {"enc", "head"} <= {node.name for node in net.nodes}


def test_the_size_of_images_is_the_graphs_where_it_has_one(stored):
    folder, _, _ = stored
    assert draft(folder / "exported.pt2", Told(mean=(0.0,) * 3)).model.input_size == SIZE
    assert draft(folder / "model.onnx", Told(mean=(0.0,) * 3)).model.input_size == (320, 320)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><title>Not found</title>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5.*Keras"),
        (b"\x1c\0\0\0TFL3" + bytes(60), "TFLite file, which compress writes"),
        (b"", "empty"),
        (b"\x08\x07\x12\x04junk", "no ONNX model|expected one image"),
        ((40).to_bytes(8, "little") + b'{"a": 1' + bytes(60), "safetensors"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as raised:
        load(path, draft(path, Told(arch="net.py:Net", mean=(0.0,) * 3)))
    assert "\n" not in str(raised.value)


def test_files_of_keras_and_paddle_are_named(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "")
    with pytest.raises(ModelError, match="is a Keras file; convert it to ONNX with tf2onnx"):
        kind_of(path)
    path = tmp_path / "model.pdparams"
    path.write_bytes(b"\x80\x02}q.")
    with pytest.raises(ModelError, match="is a Paddle file; convert it to ONNX with paddle2onnx"):
        kind_of(path)


@pytest.mark.parametrize(
    ("reads", "gives", "message"),
    [
        ("gone", "y", "first reads gone, which nothing before it gives"),
        ("x", "z", "its output y is given by no operator"),
    ],
)
def test_a_graph_with_a_loose_end_is_named(tmp_path, reads, gives, message):
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", reads], [gives], "first")],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 16, 16))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    path = tmp_path / "loose.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    with pytest.raises(ModelError, match=message):
        read_onnx(path)


def changed(stored, tmp_path, change):
    """The exported archive with other members."""
    folder, _, _ = stored
    path = tmp_path / "changed.pt2"
    with zipfile.ZipFile(folder / "exported.pt2") as old, zipfile.ZipFile(path, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        root = next(iter(members)).partition("/")[0]
        for name, data in (members | change(members, root)).items():
            new.writestr(name, data)
    return path


def with_pickled_weights(members, root):
    name = next(name for name in members if name.endswith("weights_config.json"))
    config = json.loads(members[name])
    for each in config["config"].values():
        each["use_pickle"] = True
    return {name: json.dumps(config)}


def with_pickled_inputs(members, root):
    name = next(name for name in members if "/data/sample_inputs/" in name)
    return {name: b"cos\nsystem\n(S'touch owned'\ntR."}


@pytest.mark.parametrize(
    "change",
    [
        with_pickled_weights,
        with_pickled_inputs,
        lambda members, root: {f"{root}/data/aotinductor/model/code.so": b"\x7fELF"},
        lambda members, root: {f"{root}/data/constants/custom_obj_0": b"\x80\x04."},
    ],
)
def test_an_exported_program_that_holds_code_is_refused(stored, tmp_path, change, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = changed(stored, tmp_path, change)
    with pytest.raises(ModelError, match=r"changed\.pt2: holds .*--trust-pickle"):
        draft(path, Told(mean=(0.0,) * 3))
    assert not (tmp_path / "owned").exists()


def external(folder, location):
    """An ONNX file whose weights are to lie in another one."""
    state = {f"{name}.{kind}": torch.ones(shape) for name, kind, shape in (
        ("enc", "weight", (8, 3, 3, 3)), ("enc", "bias", 8), ("norm", "weight", 8), ("norm", "bias", 8),
        ("norm", "running_mean", 8), ("norm", "running_var", 8), ("head", "weight", (2, 8, 1, 1)), ("head", "bias", 2),
    )}  # fmt: skip
    model = as_onnx(state)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("location", "message"), [("../secret", "outside the file's folder"), ("gone", "is not there")]
)
def test_weights_of_an_onnx_file_lie_in_its_folder(tmp_path, location, message):
    (tmp_path / "secret").write_bytes(bytes(10_000))
    (tmp_path / "in").mkdir()
    with pytest.raises(ModelError, match=message):
        draft(external(tmp_path / "in", location), Told(mean=(0.0,) * 3))


class OfChannels(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.last = nn.Conv2d(8, 2, 1)
        self.first = nn.Conv2d(channels, 8, 3, padding=1)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_the_channels_of_an_image_are_those_that_the_graph_reads(tmp_path, channels):
    path, image = tmp_path / "model.pt", torch.rand(1, channels, 20, 28)
    torch.jit.trace(OfChannels(channels), image).save(path)
    recipe = draft(path, Told(mean=(0.5,) * channels, size=(20, 28)))
    assert recipe.model.channels == channels
    assert recipe.preprocess.std == (1.0,) * channels
    assert load(path, recipe).network.shapes()["image"] == (1, channels, 20, 28)


def test_an_onnx_file_of_more_than_8_bits_is_refused_by_name(tmp_path):
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, [1, 3, 16, 16])
        for name, kind in (("image", onnx.TensorProto.UINT16), ("map", onnx.TensorProto.FLOAT))
    ]
    cast = onnx.helper.make_node("Cast", ["image"], ["map"], to=onnx.TensorProto.FLOAT)
    path = tmp_path / "deep.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([cast], "deep", ends[:1], ends[1:])), path)
    with pytest.raises(ModelError, match=r"deep\.onnx: its image is uint16; .* 8 bits of each channel"):
        draft(path, Told(mean=(0.0,) * 3))


def test_a_graph_that_reads_no_image_is_one_line(tmp_path):
    class Volume(nn.Module):
        def forward(self, x):
            return F.conv3d(x, torch.ones(2, 3, 1, 1, 1))

    path = tmp_path / "scan.pt2"
    torch.export.save(torch.export.export(Volume(), (torch.rand(1, 3, 4, 16, 16),)), path)
    with pytest.raises(ModelError, match="cannot be traced at 16x16"):
        draft(path, Told(mean=(0.0,) * 3))


@pytest.mark.parametrize("made", [torch.jit.script, lambda net: torch.jit.trace(net, torch.rand(1, 3, 16, 16))])
def test_torchscript_whose_weights_are_cut_short_is_refused(made, tmp_path):
    """torch itself reads past their end."""
    path = tmp_path / "net.pt"
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    made(net).save(path)
    check_storages(path)
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content[:-1] if "/data/0" in name else content)
    with pytest.raises(ModelError, match=r"data/0 has \d+ bytes and should have \d+"):
        check_storages(path)
