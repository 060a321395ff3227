"""Teacher's maps and features: computed once, and no stale entry is ever met."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TinyNet

from compress.data.images import RGB
from compress.data.packed import Packed
from compress.files import identity
from compress.graph.channels import find_groups
from compress.load.model import Segmenter
from compress.load.trace import fold_normalisation, trace
from compress.train.device import autocast, best_device, placed
from compress.train.members import traced_member
from compress.train.teacher import (
    ROUNDED,
    StoredTeacher,
    all_classes,
    feature_tensors,
    joined,
    joined_maps,
    pooled,
    teacher_features,
    teacher_maps,
)
from compress.train.views import WHOLE, View, shrink

ATOL = 1e-2
"""Of what may be computed in bfloat16, and is stored as float16."""


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return fold_normalisation(trace(TinyNet().eval(), (32, 32), 0, 3, (0.5,) * 3, (0.25,) * 3)[0])


@pytest.fixture(scope="module")
def images():
    return Packed(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8), "some images")


def said(net, images, name, cache, tta=()):
    """Maps and uncertainty of the network under this name."""
    model = traced_member(Segmenter(net, ("a", "b", "c"), False), Path("model.pt"), RGB)
    found = teacher_maps(replace(model, identity=name), images, (32, 32), cache, tta)
    return found[:, :-1], found[:, -1]


def test_maps_are_the_teachers_probabilities_without_the_first_class(net, images, tmp_path):
    maps, uncertainty = said(net, images, "model", tmp_path)
    with torch.no_grad(), autocast(best_device()):  # in the arithmetic that the device is fast in
        views = [placed(net)(net.real(torch.from_numpy(one[None]))) for one in images.array]
    probabilities = torch.cat(views).float().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)  # which rounding to bfloat16 leaves near 1
    assert maps.shape == (5, 2, 32, 32)
    np.testing.assert_allclose(maps / 255, probabilities[:, 1:], atol=0.5 / 255 + 1e-4)
    np.testing.assert_allclose(uncertainty / 255, 1.5 * (1 - probabilities.max(1)), atol=0.5 / 255 + 1e-4)


def test_two_teachers_average_their_logits_and_are_uncertain_where_they_disagree():
    sure = torch.tensor([0.1, 0.9]).reshape(1, 2, 1, 1)
    same = joined(torch.cat([sure, sure]))
    np.testing.assert_allclose(same.flatten(), [0.9, 0.2], atol=1e-5)
    apart = joined(torch.cat([sure, sure.flip(1)]))
    np.testing.assert_allclose(apart.flatten(), [0.5, 1.0], atol=1e-5)
    odds = np.sqrt(9 * 1)  # of 0.9 and 0.5: the geometric mean of 9 and 1
    mixed = joined(torch.cat([sure, torch.full((1, 2, 1, 1), 0.5)]))
    assert mixed[0].item() == pytest.approx(odds / (1 + odds), abs=1e-5)


def test_of_labels_every_one_is_averaged_and_the_least_certain_counts():
    sure, other = (torch.tensor(each).reshape(1, 2, 1, 1) for each in ([0.9, 0.9], [0.9, 0.5]))
    np.testing.assert_allclose(joined(torch.cat([sure, sure]), True).flatten(), [0.9, 0.9, 0.2], atol=1e-5)
    mean = 3 / (1 + 3)  # odds of 9 and 1
    apart = (0.9 - mean) + (mean - 0.5)
    assert 1 - (2 * mean - 1) > apart
    found = joined(torch.cat([sure, other]), True)
    np.testing.assert_allclose(found.flatten(), [0.9, mean, 1 - (2 * mean - 1)], atol=1e-5)
    np.testing.assert_allclose(all_classes(found[None], True)[0], found)


def test_views_of_an_image_come_back_to_its_own_frame(net, images, tmp_path):
    pixels = images.array.copy()
    pixels[:, :, 16:] = pixels[:, :, :16][:, :, ::-1]  # symmetric images
    maps, _ = said(net, Packed(pixels, "symmetric"), "model", tmp_path, ["flip"])
    np.testing.assert_allclose(maps, maps[..., ::-1], atol=1)
    plain, _ = said(net, images, "model", tmp_path)
    scaled, _ = said(net, images, "model", tmp_path, ["flip", "scale"])
    assert scaled.shape == plain.shape
    assert not np.array_equal(scaled, plain)


def test_an_interrupted_computation_goes_on_where_it_stopped(net, images, tmp_path, monkeypatch):
    forward, calls = type(net).forward, []

    def stops_at_the_fourth(self, image):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, image)

    monkeypatch.setattr(type(net), "forward", stops_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        said(net, images, "model", tmp_path)
    maps, _ = said(net, images, "model", tmp_path)
    assert len(calls) == 4 + 2  # three were kept, two were left
    monkeypatch.undo()
    fresh, _ = said(net, images, "model", tmp_path / ".." / tmp_path.name)
    assert np.array_equal(maps, fresh)


def test_an_image_that_was_seen_in_another_set_costs_nothing(net, images, tmp_path, monkeypatch):
    (tmp_path / "fresh").mkdir()
    fresh, _ = said(net, images, "model", tmp_path / "fresh")
    said(net, Packed(images.array[[3, 1]], "two of them"), "model", tmp_path)
    forward, calls = type(net).forward, []
    monkeypatch.setattr(type(net), "forward", lambda self, image: calls.append(1) or forward(self, image))
    maps, _ = said(net, images, "model", tmp_path)
    assert len(calls) == 3
    assert np.array_equal(maps, fresh)
    said(net, images, "another model", tmp_path)
    said(net, images, "model", tmp_path, ["flip"])
    assert len(calls) == 3 + 5 + 10


def test_another_model_or_other_images_never_meet_a_stale_map(net, images, tmp_path):
    said(net, images, "model", tmp_path)
    said(net, images, "another model", tmp_path)
    said(net, Packed(images.array, "other images"), "model", tmp_path)
    assert len(list(tmp_path.glob("maps-*.u8"))) == 3


def test_maps_of_one_network_keep_the_name_under_which_they_were_kept_before(net, images, tmp_path):
    said(net, images, "model", tmp_path, ["flip"])
    name = identity("maps", 4, teachers="model", tta=["flip"], shape=(3, 32, 32))
    assert [path.name for path in tmp_path.glob("*.u8")] == [f"maps-{name}-some images.u8"]


def test_several_teachers_are_joined_of_what_each_said(tmp_path):
    sure, other = np.full((1, 3, 1, 1), 0, np.uint8), np.full((1, 3, 1, 1), 85, np.uint8)
    sure[0, 0] = 255  # class 1 for certain; the other: no idea
    found = joined_maps([sure, other], ["a", "b"], "images", tmp_path, False)
    low = ROUNDED
    logits = np.log([low, 1 - low, low]) / 2  # and the mean of the other's, which are alike
    mean = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found[0, :2, 0, 0] / 255, mean[1:], atol=0.01)
    apart = sum(abs(each - mean).sum() for each in (np.array([0, 1, 0]), np.full(3, 1 / 3))) / 2
    assert found[0, 2, 0, 0] / 255 == pytest.approx(min(1, max(apart, 1.5 * (1 - mean.max()))), abs=0.01)
    assert joined_maps([sure], ["a"], "images", tmp_path, False) is sure


TESTS = str(Path(__file__).parent.parent)
MAPS = """
import logging, sys, numpy as np, torch
from pathlib import Path
from tiny import TinyNet
from compress.data.images import RGB
from compress.data.packed import Packed
from compress.load.model import Segmenter
from compress.load.trace import fold_normalisation, trace
from compress.train.members import traced_member
from compress.train.teacher import teacher_maps
logging.basicConfig(format="%(message)s", level=logging.INFO)
torch.manual_seed(0)
net = fold_normalisation(trace(TinyNet().eval(), (32, 32), 0, 3, (0.5,) * 3, (0.25,) * 3)[0])
pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
Path(sys.argv[1], sys.argv[2]).touch()
while not (Path(sys.argv[1], "0").exists() and Path(sys.argv[1], "1").exists()):
    pass
model = traced_member(Segmenter(net, ("a", "b", "c"), False), Path("model.pt"), RGB)
maps = teacher_maps(model, Packed(pixels, "many"), (32, 32), Path(sys.argv[1]))[:, :-1]
print(maps.tobytes()[:1000].hex())
"""


def test_two_runs_on_the_same_maps_both_get_them_and_compute_them_once(tmp_path):
    command = [sys.executable, "-c", MAPS, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}
    both = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, env=environment, text=True) for name in ("0", "1")
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] != ""
    assert len(list(tmp_path.glob("maps-*.u8"))) == 1
    assert not list(tmp_path.glob("*.partial"))


def test_features_are_the_teachers_values_at_kept_channels(net, images, tmp_path):
    channels = find_groups(net)
    kept = {g.name: tuple(range(0, g.width, 1 if g.frozen else 2)) for g in channels.groups.values()}
    part = View(slice(8, 32), slice(0, 24), True)
    features = teacher_features(net, channels, kept, images.array, [(3, WHOLE), (1, part)], (24, 24), tmp_path)
    assert features.images.tolist() == [3, 1]
    name = feature_tensors(net)[0]
    whole, mirrored = shrink(torch.from_numpy(images.array[[3]]), (24, 24)), images.array[[1], 8:32, 23::-1].copy()
    with torch.no_grad():
        value = net.run(net.real(torch.cat([whole, torch.from_numpy(mirrored)])), keep={name})[name]
    wanted = pooled(value)[:, ::2]
    found = torch.from_numpy(features.values[name].copy()).float() * features.scales[name]
    torch.testing.assert_close(found, wanted, atol=ATOL, rtol=ATOL)
    torch.testing.assert_close(
        features.std[name], wanted.std((0, 2, 3), correction=0, keepdim=True), atol=ATOL, rtol=ATOL
    )
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_features_beyond_the_range_of_float16_are_kept(net, images, tmp_path):
    large = net.rewritten({**net.weights(), "stem": (1e6 * net.weight("stem"), 1e6 * net.bias("stem"))})
    channels = find_groups(large)
    kept = {group.name: tuple(range(group.width)) for group in channels.groups.values()}
    features = teacher_features(large, channels, kept, images.array, [(0, WHOLE)], (32, 32), tmp_path)
    stored = StoredTeacher(np.zeros((5, 2, 32, 32), np.uint8), np.zeros((5, 32, 32), np.uint8), features)
    parts = stored.batch(torch.tensor([0]), [WHOLE], (32, 32), torch.tensor([0]), torch.device("cpu"))
    _, given = stored.targets(torch.zeros(0), *parts)
    with torch.no_grad():
        values = large.run(large.real(torch.from_numpy(images.array[:1].copy())), keep=given)
    assert max(float(values[name].abs().max()) for name in given) > 65504
    for name, value in given.items():
        torch.testing.assert_close(value, values[name], rtol=0, atol=2e-2 * float(values[name].abs().max()))


@pytest.mark.parametrize(("side", "cells"), [(96, 32), (80, 32), (48, 24)])
def test_large_features_are_averaged_over_cells(side, cells):
    value = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
    means, expected = pooled(value), torch.nn.functional.adaptive_avg_pool2d(value, (cells, cells))
    torch.testing.assert_close(means, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(each.square().sum(), value) for each in (means, expected))
    torch.testing.assert_close(gradient, wanted)
    assert pooled(value[:, :, :20, :30]).shape == (2, 3, 20, 30)
