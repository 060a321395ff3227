"""The whole way with images that are no photographs: one channel, four, six; sizes that are no multiple of anything."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from compress.cli import main
from compress.runtime.session import open_model

HEIGHT, WIDTH = 44, 58
CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        y = self.last(torch.relu(self.second(torch.relu(self.first(x)))))
        return nn.functional.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)
"""
RECIPE = """
name = "bands"
[model]
architecture = "net.py:Net(channels={channels})"
classes = ["background", "object"]
input_size = [{height}, {width}]
channels = {channels}
{preprocess}
[plan]
images = 4
[repair]
images = 8
[train]
steps = 2
[measure]
seconds = 0.05
"""


def write_model(folder, channels, preprocess):
    """A network that finds what is bright in the last channel, with its recipe."""
    torch.manual_seed(0)
    (folder / "net.py").write_text(CODE)
    scope = {}
    exec(CODE, scope)
    net = scope["Net"](channels)
    with torch.no_grad():
        for layer in net.children():
            layer.weight *= 0.1
            nn.init.zeros_(layer.bias)
        net.first.weight[0] = net.second.weight[0] = net.last.weight[:] = 0
        net.first.weight[0, -1, 1, 1], net.first.bias[0] = 4, -2
        net.second.weight[0, 0, 1, 1] = 1
        net.last.weight[1, 0], net.last.bias[1] = 8, -5
    torch.save(net.state_dict(), folder / "bands.pt")
    recipe = RECIPE.format(channels=channels, height=HEIGHT, width=WIDTH, preprocess=preprocess)
    (folder / "bands.toml").write_text(recipe)
    return folder / "bands.pt"


def write_data(folder, channels, save):
    """Noise in every channel, and a rectangle that the last one alone shows; values of 0 to 1."""
    rng = np.random.default_rng(0)
    for part, count in {"train": 8, "val": 4}.items():
        (folder / part / "images").mkdir(parents=True)
        (folder / part / "masks").mkdir()
        for i in range(count):
            image, mask = rng.random((HEIGHT, WIDTH, channels)), np.zeros((HEIGHT, WIDTH), np.uint8)
            top, left = rng.integers(2, 20, 2)
            mask[top : top + 20, left : left + 30] = 1
            image[..., -1] = 0.05 + 0.9 * mask
            save(folder / part / "images" / f"{i}", image)
            Image.fromarray(mask).save(folder / part / "masks" / f"{i}.png")
    return folder


KINDS = {
    1: lambda path, image: tifffile.imwrite(f"{path}.tif", np.rint(image[..., 0] * 4000).astype(np.uint16)),
    4: lambda path, image: Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(f"{path}.png"),
    6: lambda path, image: np.save(path, image.astype(np.float32)),
}
PREPROCESS = {1: "[preprocess]\nrange = [0, 4000]", 4: "[preprocess]\nmean = [0.1, 0.1, 0.1, 0.0]", 6: ""}


@pytest.mark.parametrize("channels", KINDS)
def test_images_of_other_channels_go_the_whole_way(channels, tmp_path, capsys):
    model = write_model(tmp_path, channels, PREPROCESS[channels])
    data, out = write_data(tmp_path / "data", channels, KINDS[channels]), tmp_path / "out"
    assert main(["run", str(model), "--budget", "12KB", "--data", str(data), "--out", str(out)]) == 0
    for name in ("model.onnx", "model.tflite"):
        assert open_model(out / name).input.side("C") == channels
    assert main(["verify", str(out), "--images", str(data / "val" / "images")]) == 0
    capsys.readouterr()
    assert main(["gate", str(out), "--budget", "12KB", "--budget", "iou>=0.8", "--data", str(data)]) == 0

    given = json.loads((out / "manifest.json").read_text())["files"][0]["input"]
    assert given.get("range") == ([0, 4000] if channels == 1 else None)
    assert "16 bits" in given["pixels"]
    report = json.loads((out / "report.json").read_text())
    assert (report["measurements"]["tflite"]["jpeg_flips"] is None) == (channels > 1)
    assert "16 bits" in (out / "report.html").read_text()
    with np.load(out / "golden.npz") as golden:
        assert golden["pixels"].shape == (HEIGHT, WIDTH, channels)


def test_images_that_lack_a_channel_are_refused_in_one_line(tmp_path, capsys):
    model = write_model(tmp_path, 4, PREPROCESS[4])
    data = write_data(tmp_path / "data", 3, KINDS[4])
    assert main(["run", str(model), "--budget", "12KB", "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compress:")]
    assert "0.png: has 3 channels (RGB), and the network reads 4" in line
