"""Text over photographs: the masks of characters, the drawing, the split. No apt, no network."""

import io
import math
import struct
from dataclasses import replace
from pathlib import Path

import debian
import numpy as np
import pytest
import text_data
from PIL import Image, ImageFont
from text_data import Sources, Style

from compress.errors import DataError

WHITE = (255, 255, 255)


def font(size: int = 40) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def font_file(tmp_path) -> Path:
    """The font that comes with Pillow."""
    path = tmp_path / "plain.ttf"
    path.write_bytes(font().path.getvalue())
    return path


def test_the_ellipse_has_the_middle_of_its_box_and_a_share_of_its_width_and_height() -> None:
    assert text_data.ellipse_in((10, 20, 30, 60), 0.5) == (15, 30, 25, 50)
    assert text_data.ellipse_in((10, 20, 30, 60), 1.0) == (10, 20, 30, 60)


def test_characters_stand_one_advance_and_the_spacing_apart_and_spaces_are_left_out() -> None:
    placed = text_data.characters("H H", font(), 100, 50, 5)
    step = font().getlength("H") + font().getlength(" ") + 2 * 5
    left, top, right, bottom = font().getbbox("H")
    assert [character for character, _, _ in placed] == ["H", "H"]
    assert [corner for _, corner, _ in placed] == [(100, 50), (100 + step, 50)]
    assert placed[0][2] == (100 + left, 50 + top, 100 + right, 50 + bottom)


def test_a_mask_has_one_ellipse_for_each_character_with_the_area_of_one() -> None:
    drawn = text_data.block(["HH"], font(100), Style(WHITE, spacing=60))
    mask = np.asarray(drawn.mask) > 0
    left, top, right, bottom = font(100).getbbox("H")
    area = math.pi / 4 * (right - left) * (bottom - top) * text_data.ELLIPSE**2
    assert mask.sum() == pytest.approx(2 * area, rel=0.05)
    columns = np.flatnonzero(np.diff(np.concatenate([[0], mask.any(axis=0).astype(int), [0]])))
    assert len(columns) == 4  # two runs of columns, each with a beginning and an end


def test_masks_lie_on_the_ink_of_every_line() -> None:
    drawn = text_data.block(["HI", "OX"], font(), Style(WHITE))
    assert drawn.layer.size == drawn.mask.size == text_data.extent(["HI", "OX"], font(), 0)
    ink = np.asarray(drawn.layer.getchannel("A")) > 0
    mask = np.asarray(drawn.mask) > 0
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    outside = mask.copy()
    outside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = False
    assert not outside.any()
    middle = drawn.mask.height // 2
    assert mask[:middle].any()
    assert mask[middle:].any()


def test_a_plate_fills_the_block_and_a_shadow_falls_to_the_lower_right() -> None:
    plate = text_data.block(["A"], font(), Style(WHITE, plate=(1, 2, 3)))
    assert plate.layer.getpixel((0, 0)) == (1, 2, 3, 255)
    plain = np.asarray(text_data.block(["A"], font(), Style(WHITE)).layer.getchannel("A"))
    shadow = text_data.block(["A"], font(), Style(WHITE, shadow=(9, 9, 9), depth=6))
    grown = np.asarray(shadow.layer.getchannel("A"))
    assert np.flatnonzero(grown.any(axis=0))[-1] == np.flatnonzero(plain.any(axis=0))[-1] + 6
    assert np.flatnonzero(grown.any(axis=1))[-1] == np.flatnonzero(plain.any(axis=1))[-1] + 6
    assert shadow.mask.tobytes() == text_data.block(["A"], font(), Style(WHITE)).mask.tobytes()


def test_the_homography_leads_each_corner_to_its_own() -> None:
    source = np.array([[0, 0], [10, 0], [10, 4], [0, 4]], float)
    target = np.array([[3, 2], [20, 5], [18, 15], [1, 11]], float)
    a, b, c, d, e, f, g, h = text_data.homography(target, source)
    for (x, y), expected in zip(target, source, strict=True):
        below = g * x + h * y + 1
        assert ((a * x + b * y + c) / below, (d * x + e * y + f) / below) == pytest.approx(tuple(expected), abs=1e-9)


def test_an_image_whose_corners_stay_does_not_change_and_one_that_is_moved_moves() -> None:
    image = noise(20, 10)
    corners = np.array([[0, 0], [20, 0], [20, 10], [0, 10]], float)
    assert text_data.warped(image, corners, (20, 10)).tobytes() == image.tobytes()
    moved = text_data.warped(image, corners + [5, 3], (30, 20))
    apart = np.asarray(moved.crop((5, 3, 25, 13)), int) - np.asarray(image, int)
    assert np.abs(apart).max() <= 1
    assert moved.getpixel((2, 10)) == (0, 0, 0)


@pytest.mark.parametrize("ground", [0.0, 128.0, 255.0])
def test_a_colour_stands_out_from_its_ground(ground: float) -> None:
    rng = np.random.default_rng(0)
    found = [text_data.brightness(text_data.against(ground, rng, 110.0)) for _ in range(50)]
    assert min(abs(each - ground) for each in found) >= 110


def test_a_picture_has_text_where_its_mask_says_and_the_same_seed_gives_the_same(font_file) -> None:
    sources = Sources([], [font_file], ["word", "text", "letters"])
    grey = Image.new("RGB", (400, 400), (128, 128, 128))
    first, second = (text_data.text_over(grey, sources, np.random.default_rng(4)) for _ in range(2))
    assert [part.tobytes() for part in first] == [part.tobytes() for part in second]
    picture, mask = first
    assert picture.size == mask.size == (384, 384)
    assert set(np.unique(np.asarray(mask))) == {0, 255}
    brightness, marked = np.asarray(picture.convert("L"), float), np.asarray(mask) > 0
    assert brightness[marked].std() > 1.5 * brightness[~marked].std()


def test_blocks_never_overlap(font_file) -> None:
    sources, rng = Sources([], [font_file], ["word"]), np.random.default_rng(1)
    picture = Image.new("RGB", (384, 384), (128, 128, 128))
    mask, taken = Image.new("L", picture.size), Image.new("L", picture.size)
    areas = []
    for _ in range(12):
        before = np.asarray(mask).copy()
        if text_data.with_block(picture, mask, taken, sources, rng):
            areas.append((np.asarray(mask) > before).sum())
    assert len(areas) > 2
    assert min(areas) > 0
    assert (np.asarray(mask) > 0).sum() == sum(areas)


def test_fonts_with_every_letter_are_kept_and_outlines_are_not(font_file) -> None:
    assert text_data.is_plain_font(font_file)
    assert not text_data.is_plain_font(font_file.rename(font_file.with_name("Big-Outline.ttf")))
    assert text_data.fonts([font_file.parent]) == []


@pytest.fixture
def packages(tmp_path, monkeypatch, font_file) -> Path:
    """Unpacked packages in miniature: 40 wallpapers, 12 photographs, a font in each package of fonts, 60 words."""
    counts = {"train": 3, "val": 2}
    monkeypatch.setattr(text_data, "COUNTS", counts)
    monkeypatch.setattr(text_data, "TEXT", replace(text_data.TEXT, counts=counts))
    work, letters = tmp_path / "work", "abcdefghijklmnopqrst"
    for package in text_data.PACKAGES:
        doc = work / package / "usr/share/doc" / package
        doc.mkdir(parents=True)
        (doc / "copyright").write_text("Files: *\nLicense: OFL-1.1\n")
        if package.startswith("fonts-"):
            (work / package / "plain.ttf").write_bytes(font_file.read_bytes())
    for index in range(40):
        name = letters[index // 20] + letters[index % 20] + "scene"
        noise(96, 80, index).save(work / text_data.WALLPAPERS[index % 3] / f"{name}.png")
    blob = b"qres"
    for index in range(12):
        file = io.BytesIO()
        noise(210, 130, index).save(file, "JPEG")
        blob += struct.pack(">I", len(file.getvalue())) + file.getvalue()
    (work / text_data.PHOTOS / "erase.rcc").write_bytes(blob)
    words = work / text_data.WORDS / "usr/share/dict/american-english"
    words.parent.mkdir(parents=True)
    words.write_text("\n".join(["Ann's", "a", "café", *(x + y + "w" for x in letters[:6] for y in letters[:10])]))
    return work


def test_train_and_val_share_neither_photograph_nor_font_nor_word(packages) -> None:
    train, val = text_data.sources(packages, 0).values()
    assert len(train.words) + len(val.words) == 60
    assert not set(train.words) & set(val.words)
    assert not set(train.fonts) & set(val.fonts)
    assert not set(text_data.FONTS["train"]) & set(text_data.FONTS["val"])
    assert not {photo.tobytes() for photo in train.photographs} & {photo.tobytes() for photo in val.photographs}


def test_the_set_is_written_with_its_sources_and_is_complete_then(packages, tmp_path) -> None:
    out = tmp_path / "text"
    assert debian.build(text_data.TEXT, packages, out, 0) == {"train": 3, "val": 2}
    assert debian.is_complete(text_data.TEXT, out, 0)
    assert not debian.is_complete(text_data.TEXT, out, 1)
    assert sorted(path.name for path in (out / "val/images").iterdir()) == ["000.jpg", "001.jpg"]
    assert sorted(path.name for path in (out / "val/masks").iterdir()) == ["000.png", "001.png"]
    assert "fonts-lato: OFL-1.1\n" in (out / "README.txt").read_text()


def test_too_few_words_are_named(packages, tmp_path) -> None:
    (packages / text_data.WORDS / "usr/share/dict/american-english").write_text("one\ntwo\n")
    with pytest.raises(DataError, match="too little for train in .*: .* words; unpack the packages"):
        debian.build(text_data.TEXT, packages, tmp_path / "text", 0)
    assert not (tmp_path / "text").exists()
