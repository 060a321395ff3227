"""Several labels at once, from the masks of each to the files, their figures and what they say of themselves."""

import json

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from compress.errors import CompressError
from compress.judge.bench import Options, bench
from compress.judge.gate import Rules, gate
from compress.judge.verify import verify_folder
from compress.mine.mining import mine
from compress.pipeline import dry
from compress.pipeline.run import run
from compress.prune.importance import measure_damage
from compress.recipe import read_recipe
from compress.report.read import read_record
from compress.report.write import rebuild
from compress.runtime.local import Child

SIZE = 32
CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, sigmoid=True):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Conv2d(12, 2, 1)
        self.sigmoid = sigmoid

    def forward(self, x):
        z = self.head(torch.relu(self.two(torch.relu(self.one(x)))))
        return {"labels": torch.sigmoid(z) if self.sigmoid else z}
"""
RECIPE = """
name = "labels"
quantize = "ptq"
[model]
architecture = "net.py:Net"
classes = ["red", "blue"]
input_size = [32, 32]
[plan]
images = 4
size = [32, 32]
macs_share = 0.6
[repair]
images = 8
size = [32, 32]
[train]
steps = 4
size = [32, 32]
[measure]
seconds = 0.05
"""


def scene(random):
    """Grey noise, uint8 [H, W, 3], with a red and a blue square that may lie over each other; bool [2, H, W]."""
    pixels = random.integers(60, 120, (SIZE, SIZE, 3)).astype(np.uint8)
    regions = np.zeros((2, SIZE, SIZE), bool)
    for label, channel in enumerate((0, 2)):
        top, left = random.integers(2, 16, 2)
        regions[label, top : top + 14, left : left + 14] = True
        pixels[regions[label], channel] = 240
    return pixels, regions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data/ with masks by label, and net.pt with its recipe and its code, trained on such scenes."""
    folder, random = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    for part, count in {"train": 10, "val": 6}.items():
        for place in ("images", "masks/red", "masks/blue"):
            (folder / "data" / part / place).mkdir(parents=True)
        for index in range(count):
            pixels, regions = scene(random)
            Image.fromarray(pixels).save(folder / "data" / part / "images" / f"{index}.png")
            for name, region in zip(("red", "blue"), regions):
                if name == "red" or index:  # an image without a file for a label does not show it
                    Image.fromarray(region.astype(np.uint8) * 255).save(
                        folder / f"data/{part}/masks/{name}/{index}.png"
                    )
    (folder / "net.py").write_text(CODE)
    names: dict = {}
    exec(CODE, names)
    torch.manual_seed(0)
    net = names["Net"](False)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        scenes = [scene(random) for _ in range(4)]
        x = torch.from_numpy(np.stack([pixels for pixels, _ in scenes])).permute(0, 3, 1, 2).float() / 255
        wanted = torch.from_numpy(np.stack([regions for _, regions in scenes])).float()
        loss = nn.functional.binary_cross_entropy_with_logits(net(x)["labels"], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(net.state_dict(), folder / "net.pt")
    (folder / "net.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    recipe = read_recipe(folder / "net.toml").with_flags(data=folder / "data", budget=["8kB"])
    run(recipe, folder / "net.pt", folder / "out")
    return folder / "out"


def test_a_run_tells_every_label_by_itself(finished):
    record = read_record(finished)
    assert record.multilabel
    assert record.measurements["teacher"].iou.mean > 0.8
    assert all(record.measurements[name].iou.mean > 0.7 for name in ("onnx", "tflite"))
    assert record.agreement > 0.98
    assert record.parity.passed
    manifest = json.loads((finished / "manifest.json").read_text())
    assert (manifest["multilabel"], manifest["classes"]) == (True, ["red", "blue"])
    assert {entry["output"]["activation"] for entry in manifest["files"]} == {"sigmoid"}
    assert (finished / "labels.txt").read_text() == "red\nblue\n"
    properties = {each.key: each.value for each in onnx.load(finished / "model.onnx").metadata_props}
    assert properties["multilabel"] == "true"
    assert "no label (paler)" in rebuild(finished).read_text()


def test_a_dry_run_plans_with_each_label_by_itself(folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(dry, "measure_damage", lambda *given: asked.append(given[3:]) or measure_damage(*given))
    recipe = read_recipe(folder / "net.toml").with_flags(data=folder / "data", budget=["8kB"])
    assert "channels:" in dry.dry_run(recipe, folder / "net.pt", tmp_path / "out")
    assert asked == [(True,)]


def test_both_files_give_one_probability_for_each_label(finished, folder):
    pixels = np.asarray(Image.open(folder / "data/val/images/1.png"))
    both = np.stack([np.asarray(Image.open(folder / f"data/val/masks/{name}/1.png")) > 0 for name in ("red", "blue")])
    for name in ("model.onnx", "model.tflite"):
        with Child(finished / name) as child:
            answer = child.probabilities(pixels)
        assert answer.shape == (2, SIZE, SIZE)
        assert np.mean((answer > 0.5) == both) > 0.9
        assert answer.sum(0).max() > 1.2  # where both are, which no softmax says


def test_what_reads_the_files_reads_labels(finished, folder, tmp_path):
    assert verify_folder(finished)[1].passed
    measured = read_record(finished).measurements["onnx"].iou.mean
    figures = bench([finished / "model.onnx"], Options(data=folder / "data", seconds=0.1)).files["model.onnx"]
    assert figures.measurement.iou.mean == pytest.approx(measured)
    assert set(figures.class_iou) == {"red", "blue"}
    result = gate(finished, Rules(("iou>=0.6",)), data=folder / "data")
    assert result.verdict.passed
    found = mine([folder / "net.pt"], finished / "model.onnx", folder / "data/val/images", 2)
    assert len(found.finds) == 2


def test_masks_of_one_class_a_pixel_are_refused_for_labels(finished, folder, tmp_path):
    for place in ("images", "masks"):
        (tmp_path / "val" / place).mkdir(parents=True)
    (tmp_path / "val/images/1.png").write_bytes((folder / "data/val/images/1.png").read_bytes())
    (tmp_path / "val/masks/1.png").write_bytes((folder / "data/val/masks/red/1.png").read_bytes())
    with pytest.raises(
        CompressError, match=r"masks/1.png: is of one class a pixel, but the model tells several labels"
    ):
        gate(finished, Rules(("iou>=0.6",)), data=tmp_path)
