"""What is found out of a model that has no recipe."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compress.errors import ModelError, RecipeError
from compress.load.draft import Told, draft

SIZE = (32, 48)
NO_MEAN = (0.0, 0.0, 0.0)


class Bright(nn.Module):
    """The object is what is brighter than 0.5, where pixels come as `mean` and `std` say."""

    def __init__(self, mean=0.0, std=1.0, channels=2):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[-1] = 100.0 * std / 3
            self.conv.bias.zero_()
            self.conv.bias[-1] = 100.0 * (mean - 0.5)

    def forward(self, x):
        return {"score": x.mean((1, 2, 3)), "map": self.conv(x)}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Discs a little brighter than 0.5 on grounds a little darker."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    for kind in ("images", "masks"):
        (folder / "val" / kind).mkdir(parents=True)
    for index in range(12):
        disc = (rows - random.integers(8, 24)) ** 2 + (columns - random.integers(8, 40)) ** 2 < 49
        light = np.where(disc, random.uniform(0.51, 0.58), random.uniform(0.488, 0.497))
        Image.fromarray((np.repeat(light[:, :, None], 3, 2) * 255).astype(np.uint8)).save(
            folder / "val" / "images" / f"{index}.png"
        )
        Image.fromarray((disc * 255).astype(np.uint8)).save(folder / "val" / "masks" / f"{index}.png")
    return folder


def stored(module, folder, name="net.pt2"):
    path = folder / name
    torch.export.save(torch.export.export(module.eval(), (torch.rand(1, 3, *SIZE),)), path)
    return path


@pytest.mark.parametrize(
    ("mean", "std", "wanted"),
    [(0.0, 1.0, (0.0, 1.0)), (0.5, 0.5, (0.5, 0.5)), (0.0, 1 / 255, (0.0, 1 / 255)), (0.449, 0.226, (0.485, 0.229))],
)
def test_how_pixels_are_read_is_what_does_best_on_labelled_images(photographs, tmp_path, mean, std, wanted, caplog):
    caplog.set_level("INFO", "compress")
    recipe = draft(stored(Bright(mean, std), tmp_path), Told(data=photographs))
    assert (recipe.preprocess.mean[0], recipe.preprocess.std[0]) == pytest.approx(wanted)
    assert recipe.model.output == "map"
    assert recipe.model.classes == ["background", "object"]
    assert "does best on" in caplog.text


def test_where_no_way_is_clearly_best_it_must_be_told(photographs, tmp_path):
    class Blind(Bright):
        def forward(self, x):
            return self.conv(x * 0)

    with pytest.raises(RecipeError, match=r"cannot be told how it reads pixels.*--mean and --std"):
        draft(stored(Blind(), tmp_path), Told(data=photographs))
    with pytest.raises(RecipeError, match=r"nothing says how it reads pixels.*--mean"):
        draft(stored(Bright(), tmp_path), Told())


def test_what_is_told_is_not_guessed(photographs, tmp_path):
    path = stored(Bright(channels=3), tmp_path, "a b(2).pt2")
    told = Told(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5), classes=("sky", "road", "car"), output=1)
    recipe = draft(path, told)
    assert recipe.name == "a-b-2"
    assert recipe.model.classes == ["sky", "road", "car"]
    assert recipe.preprocess.mean == (0.1, 0.2, 0.3)
    assert draft(path, Told(mean=NO_MEAN)).model.classes == ["class 0", "class 1", "class 2"]


def test_an_output_that_is_no_map_is_refused(tmp_path):
    with pytest.raises(
        ModelError, match=r"output score is no map: its shape is 1; the model gives score \(1\), map \(1x2x32x48\)"
    ):
        draft(stored(Bright(), tmp_path), Told(output=0, mean=NO_MEAN))


def test_weights_alone_need_their_code(tmp_path):
    torch.save(Bright().state_dict(), tmp_path / "net.pt")
    with pytest.raises(RecipeError, match=r"holds weights alone, and there is no net\.toml beside it.*--arch"):
        draft(tmp_path / "net.pt", Told(mean=NO_MEAN))
