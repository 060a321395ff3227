"""What teaches: networks, modules that cannot be traced, exported files. Each answers as it is."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.data.images import RGB
from compress.errors import MeasureError, ModelError, RecipeError
from compress.train.members import in_classes, member, traced_member

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels=3, end="logits"):
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, channels, 3, padding=1), end

    def forward(self, x):
        y = self.conv(x) + 0 * torch.cumsum(x[:, :1], 3)  # which we do not know
        if y.sum() > 1e9:  # and which cannot be traced
            y = -y
        ends = {"logits": lambda: y, "softmax": lambda: y.softmax(1), "sigmoid": y.sigmoid, "ids": lambda: y.argmax(1)}
        return {"small": y[:, :, ::2, ::2], "map": ends[self.end]()}
"""
RECIPE = """
name = "net"
[model]
architecture = 'net.py:Net({arguments})'
classes = [{classes}]
input_size = [16, 24]
output = "{output}"
[preprocess]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


def write(folder, arguments="", output="map", classes=("a", "b", "c")):
    scope = {}
    exec(CODE, scope)
    torch.manual_seed(0)
    net = eval(f"Net({arguments})", scope)
    (folder / "net.py").write_text(CODE)
    torch.save(net.state_dict(), folder / "net.pt")
    named = ", ".join(f'"{name}"' for name in classes)
    (folder / "net.toml").write_text(RECIPE.format(arguments=arguments, output=output, classes=named))
    return folder / "net.pt", net


@pytest.fixture
def pixels():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3)).astype(np.uint8))


def normalised(pixels):
    return ((pixels.float() / 255 - 0.5) / 0.25).permute(0, 3, 1, 2)


def answer(one, pixels, tta=()):
    with one.looking(tta) as look:
        return look(pixels)


@pytest.mark.parametrize("end", ["logits", "softmax"])
def test_a_module_that_cannot_be_traced_gives_its_own_probabilities(end, pixels, tmp_path, caplog):
    path, net = write(tmp_path, f'end="{end}"')
    with caplog.at_level(logging.INFO):
        one = member(path)
    assert "net.pt: is run as it is, since it cannot be traced" in caplog.text
    assert (one.traced, one.file, one.names, one.multilabel) == (None, None, ("a", "b", "c"), False)
    wanted = net.conv(normalised(pixels)).softmax(1)
    torch.testing.assert_close(answer(one, pixels), wanted.detach(), atol=1e-5, rtol=1e-5)
    assert one.identity == member(path).identity
    (tmp_path / "net.py").write_text(CODE.replace("-y", "2 * y"))
    assert one.identity != member(path).identity


def test_one_channel_becomes_two_and_a_smaller_map_is_enlarged(pixels, tmp_path):
    path, net = write(tmp_path, "channels=1", "small", ("a", "b"))
    found = answer(member(path), pixels)
    logits = net.conv(normalised(pixels))[:, :, ::2, ::2]
    second = nn.functional.interpolate(logits, (16, 24), mode="bilinear").sigmoid().detach()
    torch.testing.assert_close(found, torch.cat([1 - second, second], 1), atol=1e-5, rtol=1e-5)


def test_sigmoids_of_several_channels_are_labels(tmp_path):
    path, _ = write(tmp_path, 'end="sigmoid"')
    assert member(path).multilabel


def test_a_mirrored_view_comes_back_to_the_images_frame_and_no_other_is_for_it(pixels, tmp_path):
    path, _ = write(tmp_path)
    one = member(path)
    plain, mirrored = answer(one, pixels, ["flip"])
    torch.testing.assert_close(mirrored, answer(one, pixels.flip(2))[0].flip(2))
    torch.testing.assert_close(plain, answer(one, pixels)[0])
    with pytest.raises(RecipeError, match="--tta scale is not for it"):
        answer(one, pixels, ["scale"])


@pytest.mark.parametrize(
    ("arguments", "output", "classes", "said"),
    [
        ('end="ids"', "map", "abc", "output map is no map: its shape is 1x16x24"),
        ("", "mask", "abc", "output mask does not exist: the model gives small"),
        ("", "map", "ab", "output map has 3 channels, but the recipe names 2 classes"),
    ],
)
def test_what_a_module_gives_must_be_the_map_of_its_classes(arguments, output, classes, said, tmp_path):
    path, _ = write(tmp_path, arguments, output, tuple(classes))
    with pytest.raises(ModelError, match=said):
        member(path)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.conv(x)
        if bool((x.mean() > 0).item()):
            y = y.flip(1)
        return y


def test_torchscript_takes_the_branch_of_each_image(tmp_path):
    torch.manual_seed(0)
    net = Branch()
    torch.jit.script(net).save(tmp_path / "net.pt")
    recipe = RECIPE.format(arguments="", output="0", classes='"a", "b", "c"')
    (tmp_path / "net.toml").write_text(recipe.replace("architecture = 'net.py:Net()'\n", ""))
    one = member(tmp_path / "net.pt")
    for grey in (0, 255):
        pixels = torch.full((1, 16, 24, 3), grey, dtype=torch.uint8)
        wanted = net(normalised(pixels)).softmax(1).detach()
        torch.testing.assert_close(answer(one, pixels), wanted, atol=1e-5, rtol=1e-5)


def write_onnx(path, shape=(1, 3, 16, 24), inputs=1, metadata=True):
    """Class 1 where the image is bright: logits of two classes, by an operator that we do not know."""
    channels_last = shape[-1] == 3
    weight = np.stack([np.zeros((3, 1, 1)), np.full((3, 1, 1), 8.0)]).astype(np.float32)
    names = [f"image{i}" for i in range(inputs)]
    turn = [helper.make_node("Transpose", ["sum"], ["turned"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes = [
        helper.make_node("Sum", names, ["sum"]),
        *turn,
        helper.make_node("Erf", ["turned" if turn else "sum"], ["odd"]),
        helper.make_node("Conv", ["odd", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["map"], axis=1),
    ]
    sides = (shape[0], 2, *(shape[1:3] if channels_last else shape[2:]))
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, sides)],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if metadata:
        helper.set_model_props(model, {"input_mean": "127.5 127.5 127.5", "input_std": "127.5 127.5 127.5"})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("shape", [(1, 3, 16, 24), (1, 16, 24, 3)])
def test_an_onnx_file_of_either_layout_answers_in_its_own_process(shape, pixels, tmp_path):
    one = member(write_onnx(tmp_path / "bright.onnx", shape))
    assert (one.size, one.classes, one.names) == ((16, 24), 2, None)
    odd = torch.erf((pixels.float() - 127.5) / 127.5).sum(3)
    wanted = torch.stack([torch.zeros_like(odd), 8 * odd], 1).softmax(1)
    torch.testing.assert_close(answer(one, pixels), wanted, atol=1e-5, rtol=1e-4)


def test_an_onnx_file_of_any_size_reads_that_of_its_recipe(tmp_path, pixels):
    path = write_onnx(tmp_path / "bright.onnx", (1, 3, "H", "W"))
    (tmp_path / "bright.toml").write_text(RECIPE.replace("architecture = 'net.py:Net({arguments})'\n", "").format(
        output="map", classes='"a", "b"'))  # fmt: skip
    one = member(path)
    assert one.size == (16, 24)
    assert answer(one, pixels).shape == (1, 2, 16, 24)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"metadata": False}, "bright.onnx: reads float32; put its recipe, bright.toml, beside it"),
        ({"inputs": 2}, r"2 inputs \(image0, image1\)"),
        ({"shape": (4, 3, 16, 24)}, "a batch of 4"),
    ],
)
def test_a_file_that_reads_no_one_image_is_refused_in_a_line(how, said, tmp_path):
    with pytest.raises(MeasureError, match=said):
        member(write_onnx(tmp_path / "bright.onnx", **how))


def test_classes_are_found_by_their_names_and_several_can_be_one(pixels, tmp_path):
    path, _ = write(tmp_path, classes=("b", "a", "mouse"))
    one = member(path)
    whole = answer(one, pixels)
    torch.testing.assert_close(
        answer(in_classes(one, ("a", "b", "c"), {"mouse": "c"}), pixels), whole[:, [1, 0, 2]], atol=1e-6, rtol=1e-6
    )
    joined = answer(in_classes(one, ("a", "b"), {"mouse": "a"}), pixels)
    torch.testing.assert_close(joined, torch.stack([whole[:, 1] + whole[:, 2], whole[:, 0]], 1), atol=1e-6, rtol=1e-6)
    with pytest.raises(ModelError, match=r"has mouse, which the model has not and lacks c; .*\"mouse\" = \"c\""):
        in_classes(one, ("a", "b", "c"), {})


def test_a_file_that_names_no_classes_must_have_as_many(tmp_path):
    one = member(write_onnx(tmp_path / "bright.onnx"))
    assert in_classes(one, ("a", "b"), {}).names == ("a", "b")
    with pytest.raises(ModelError, match="tells 2 classes apart, not 3; put its recipe, bright.toml, beside it"):
        in_classes(one, ("a", "b", "c"), {})


def test_a_traced_network_is_asked_as_it_always_was(tiny_model, tmp_path):
    from compress.load.model import load
    from compress.recipe import read_recipe

    model = load(tiny_model, read_recipe(tiny_model.with_suffix(".toml")))
    one = member(tiny_model)
    assert one.traced
    assert one.identity == model.identity == traced_member(model, Path(), RGB).identity
