"""A tiny network and a tiny task: grey noise with a red disc (class 1) or a blue square (class 2)."""

import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tiny import TinyBinary, TinyNet, picture
from torch.nn import functional as F

from compress.formats.artifact import IOSpec
from compress.runtime.session import artifact_of

SIZE = 64

RECIPE = """
name = "tiny"
[model]
architecture = "tiny.py:TinyNet"
classes = ["background", "disc", "square"]
input_size = [64, 64]
[preprocess]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[plan]
images = 8
size = [64, 64]
macs_share = 0.5
[repair]
images = 24
size = [64, 64]
[train]
steps = 40
size = [32, 32]
[measure]
seconds = 0.5
"""


def write_data(folder: Path, two_classes: bool) -> Path:
    rng = np.random.default_rng(0)
    for part, count in {"train": 24, "val": 8}.items():
        (folder / part / "images").mkdir(parents=True)
        (folder / part / "masks").mkdir()
        for i in range(count):
            image, mask = picture(rng, SIZE)
            mask = np.where(mask > 0, 255, 0).astype(np.uint8) if two_classes else mask
            Image.fromarray(image).save(folder / part / "images" / f"{i:02}.png")
            Image.fromarray(mask).save(folder / part / "masks" / f"{i:02}.png")
    (folder / "unlabelled").mkdir()
    for i in range(16):
        Image.fromarray(picture(rng, SIZE)[0]).save(folder / "unlabelled" / f"u{i:02}.png")
    return folder


def write_model(folder: Path, net: TinyNet, recipe: str, loss_of) -> Path:
    """A trained tiny.pt with its recipe and architecture beside it."""
    rng = np.random.default_rng(1)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for _ in range(120):
        images, masks = zip(*(picture(rng, SIZE) for _ in range(8)))
        x = ((torch.from_numpy(np.stack(images)).float() / 255 - mean) / std).permute(0, 3, 1, 2)
        loss = loss_of(net(x), torch.from_numpy(np.stack(masks)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(net.state_dict(), folder / "tiny.pt")
    (folder / "tiny.toml").write_text(recipe)
    (folder / "tiny.py").write_text((Path(__file__).parent / "tiny.py").read_text())
    return folder / "tiny.pt"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), two_classes=False)


@pytest.fixture(scope="session")
def two_class_data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), two_classes=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    torch.manual_seed(0)

    def loss_of(logits, masks):
        return F.cross_entropy(logits, masks.long())

    return write_model(tmp_path_factory.mktemp("model"), TinyNet(), RECIPE, loss_of)


@pytest.fixture(scope="session")
def two_class_model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    recipe = RECIPE.replace("TinyNet", "TinyBinary").replace('"disc", "square"', '"object"')

    def loss_of(maps, masks):
        return F.binary_cross_entropy(maps[0][:, 0], (masks > 0).float())

    return write_model(tmp_path_factory.mktemp("model"), TinyBinary(), recipe, loss_of)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test meets the user's cache."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def heeds_ctrl_c():
    """What a test starts heeds Ctrl-C as from a terminal, also where pytest itself was started to ignore it (nohup, or
    & in a script)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def brightness(tmp_path):
    """A float ONNX file of 8x8 pixels and two classes: class 1 has sigmoid(20 * (mean of RGB - 0.5)),
    where pixels of 0..255 are 0..1 in the input."""
    weight = np.stack([np.zeros((3, 1, 1)), np.full((3, 1, 1), 20 / 3)]).astype(np.float32)
    bias = np.array([0, -10], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 2, 8, 8])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    path = tmp_path / "brightness.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    colours = {"mean": (0.0,) * 3, "std": (255.0,) * 3}
    return artifact_of(
        path,
        IOSpec("image", (1, 3, 8, 8), "float32", "NCHW", **colours),
        IOSpec("probabilities", (1, 2, 8, 8), "float32", "NCHW", activation="softmax"),
        macs=8 * 8 * 2 * 3,
    )
