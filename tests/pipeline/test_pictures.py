"""Photographs in the place of validation images."""

import io

import numpy as np
import pytest
from PIL import Image

from compress.errors import DataError
from compress.pipeline.pictures import PICTURES, open_photographs


def test_photographs_are_sorted_by_name_and_keep_their_shape(tmp_path):
    for name, value in {"b.png": 200, "a.jpg": 50}.items():
        Image.fromarray(np.full((30, 60, 3), value, np.uint8)).save(tmp_path / name)
    (tmp_path / "LICENCE.txt").write_text("CC0")
    shown = open_photographs(tmp_path)
    pixels = shown.pixels((16, 16))
    assert [path.name for path in shown.paths] == ["a.jpg", "b.png"]
    assert pixels.shape == (2, 16, 16, 3)
    assert pixels[:, 0, 0, 0].tolist() == pytest.approx([50, 200], abs=2)
    assert Image.open(io.BytesIO(shown.photos[0])).size == (60, 30)


def test_photographs_end_after_as_many_as_a_report_shows(tmp_path):
    for number in range(PICTURES + 2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:03}.png")
    assert len(open_photographs(tmp_path).paths) == PICTURES


@pytest.mark.parametrize("broken", [None, b"", b"no image"])
def test_an_empty_folder_and_a_broken_photograph_are_named(tmp_path, broken):
    if broken is not None:
        (tmp_path / "broken.jpg").write_bytes(broken)
    with pytest.raises(DataError, match="no images" if broken is None else r"broken\.jpg"):
        open_photographs(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        open_photographs(tmp_path / "nowhere")
