"""The demo's images: the rules, the composites, the split. No apt, no network."""

import io
import struct
from dataclasses import replace
from pathlib import Path

import debian
import demo_data
import numpy as np
import pytest
from PIL import Image, ImageDraw

from compress.errors import DataError


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def stamp(width: int = 200, height: int = 160, alpha: int = 255, seed: int = 0) -> Image.Image:
    """A photograph-like RGBA ellipse that fills its box."""
    image = noise(width, height, seed)
    shape = Image.new("L", image.size)
    ImageDraw.Draw(shape).ellipse((0, 0, width - 1, height - 1), fill=alpha)
    image.putalpha(shape)
    return image


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_keeps_a_photograph_of_a_solid_object() -> None:
    assert demo_data.is_solid_photo(stamp())


@pytest.mark.parametrize(("size", "kept"), [((120, 60), True), ((119, 60), False), ((120, 59), False)])
def test_leaves_out_small_stamps(size: tuple[int, int], kept: bool) -> None:
    assert demo_data.is_solid_photo(stamp(*size)) is kept


def test_leaves_out_see_through_stamps() -> None:
    assert not demo_data.is_solid_photo(stamp(alpha=200))


def test_leaves_out_thin_stamps() -> None:
    image = noise(256, 256)
    lines = Image.new("L", image.size)
    for offset in range(0, 256, 32):
        ImageDraw.Draw(lines).line((offset, 0, offset, 255), fill=255, width=10)  # 5 of 128: eroded by 4, none is left
    image.putalpha(lines)
    assert not demo_data.is_solid_photo(image)


def test_leaves_out_flat_drawings() -> None:
    image = Image.new("RGB", (200, 160), "orange")
    image.putalpha(255)
    assert not demo_data.is_solid_photo(image)


def test_counts_equal_neighbours_only_where_both_pixels_are_opaque() -> None:
    pixels = np.array([[[1, 1, 1], [1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]], np.uint8)
    everywhere, start = np.ones((1, 5), bool), np.array([[True, True, True, False, False]])
    assert demo_data._same_neighbours(pixels, everywhere) == 3 / 4
    assert demo_data._same_neighbours(pixels, start) == 1 / 2


def test_photographs_are_opaque_large_and_have_many_colours() -> None:
    photo = noise(240, 180)
    assert demo_data.is_photo(photo)
    assert not demo_data.is_photo(noise(199, 180))
    assert not demo_data.is_photo(noise(240, 119))
    assert not demo_data.is_photo(stamp(240, 180))
    assert not demo_data.is_photo(photo.quantize(30).convert("RGB"))


def test_finds_the_images_in_a_resource_file_by_the_length_before_each() -> None:
    images = {kind: noise(24, 20 + index, index) for index, kind in enumerate(["JPEG", "PNG", "WEBP"])}
    payloads = [encoded(image, kind) for kind, image in images.items()]
    blob = b"qres" + bytes(20) + b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads)
    found = list(demo_data.images_in(blob + b"names"))
    assert [image.format for image in found] == ["JPEG", "PNG", "WEBP"]
    assert [image.size for image in found] == [(24, 20), (24, 21), (24, 22)]
    assert np.array_equal(np.asarray(found[1]), np.asarray(images["PNG"]))


def test_passes_over_broken_images_in_a_resource_file() -> None:
    good = encoded(noise(24, 20), "PNG")
    cut_short = encoded(noise(24, 20), "JPEG")[:50]
    too_long = struct.pack(">I", 10**6) + good
    blob = struct.pack(">I", len(cut_short)) + cut_short + too_long + struct.pack(">I", len(good)) + good
    assert [image.format for image in demo_data.images_in(blob)] == ["PNG"]
    assert list(demo_data.images_in(good[:8])) == []


def test_takes_no_preview_from_inside_another_image() -> None:
    preview = encoded(noise(8, 6), "PNG")
    photo = encoded(noise(24, 20), "PNG") + struct.pack(">I", len(preview)) + preview
    blob = struct.pack(">I", len(photo)) + photo
    assert [image.size for image in demo_data.images_in(blob)] == [(24, 20)]


def test_the_mask_is_where_at_least_half_of_a_pixel_is_covered() -> None:
    cutout = Image.fromarray(
        np.array([[[200, 100, 0, 255], [200, 100, 0, 128], [200, 100, 0, 127], [200, 100, 0, 0]]], np.uint8)
    )
    picture, mask = demo_data.place(cutout, Image.new("RGB", (6, 3), (0, 100, 200)), left=1, top=2)
    expected = np.zeros((3, 6), np.uint8)
    expected[2, 1:3] = 255
    assert np.array_equal(np.asarray(mask), expected)
    pixels = np.asarray(picture).astype(int)
    assert pixels[2, 1].tolist() == [200, 100, 0]
    assert abs(pixels[2, 2] - [100, 100, 100]).max() <= 1
    assert (pixels[:2] == [0, 100, 200]).all()
    assert pixels[2, 4].tolist() == [0, 100, 200]


def test_a_composite_shows_the_cutout_where_the_mask_is_and_the_background_elsewhere() -> None:
    red = Image.new("RGB", (200, 160), "red")
    red.putalpha(stamp().getchannel("A"))
    for seed in range(10):
        picture, mask = demo_data.composite(red, Image.new("RGB", (600, 480), "blue"), np.random.default_rng(seed))
        pixels, inside = np.asarray(picture).astype(int), np.asarray(mask) == 255
        assert picture.size == mask.size == (320, 320)
        assert set(np.unique(mask)) == {0, 255}
        assert (inside == (pixels[..., 0] > pixels[..., 2])).mean() > 0.99
        height, width = np.ptp(np.nonzero(inside), axis=1) + 1
        assert 0.4 * 320 - 4 <= width <= 0.85 * 320 + 1
        assert height / width == pytest.approx(160 / 200, abs=0.05)


def test_a_small_cutout_is_not_blown_up() -> None:
    for seed in range(10):
        _, mask = demo_data.composite(stamp(100, 100), noise(600, 480), np.random.default_rng(seed))
        assert np.ptp(np.nonzero(np.asarray(mask)), axis=1).max() < 160


@pytest.mark.parametrize(
    ("name", "word"), [("grave-a", "grave"), ("4_mars", "mars"), ("Flower10", "flower"), ("pig_golden2", "pig")]
)
def test_a_family_is_the_first_word(name: str, word: str) -> None:
    assert demo_data.family(name) == word


def test_the_split_keeps_families_together_and_a_quarter_for_validation() -> None:
    names = [f"{letter * 3}-{part}" for letter in "abcdefghijklmnopqrst" for part in "xyz"]
    parts = demo_data.split(names, np.random.default_rng(0))
    train, val = ({demo_data.family(name) for name in parts[part]} for part in ("train", "val"))
    assert not train & val
    assert len(val) == 5
    assert sorted(parts["train"] + parts["val"]) == names
    assert parts == demo_data.split(names, np.random.default_rng(0))
    assert parts != demo_data.split(names, np.random.default_rng(1))


def test_stamps_in_folders_of_drawings_and_mirrored_twins_are_left_out(tmp_path) -> None:
    for name in ("animals/cow.png", "animals/cow_mirror.png", "symbols/sign.png", "town/cartoon/house.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        stamp(400, 300).save(tmp_path / name)
    kept = demo_data.cutouts(tmp_path)
    assert list(kept) == ["cow"]
    assert kept["cow"].size == (320, 240)


def test_one_file_of_each_wallpaper_is_used_and_flat_or_listed_ones_are_not(tmp_path) -> None:
    sizes = tmp_path / "Shore" / "contents" / "images"
    sizes.mkdir(parents=True)
    noise(900, 500, 1).save(sizes / "900x500.png")
    noise(800, 480, 2).save(sizes / "800x480.png")
    noise(480, 1000, 3).save(sizes / "480x1000.png")
    noise(600, 480).save(tmp_path / "Kite.png")
    noise(600, 480).save(tmp_path / "Meadow_600x480.png")
    (tmp_path / "Linked.png").symlink_to(tmp_path / "Meadow_600x480.png")
    Image.new("RGB", (600, 480), "grey").save(tmp_path / "Plain.png")
    stamp(600, 480).save(tmp_path / "Seethrough.png")
    kept = demo_data.backgrounds([tmp_path])
    assert sorted(kept) == ["Meadow", "Shore"]
    assert kept["Shore"].size == (864, 480)


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """Unpacked packages in miniature: 40 cut-outs, 20 backgrounds, 12 photographs."""
    monkeypatch.setattr(demo_data, "COUNTS", {"train": 12, "val": 6})
    monkeypatch.setattr(demo_data, "DEMO", replace(demo_data.DEMO, counts=demo_data.COUNTS))
    work = tmp_path / "work"
    letters = "abcdefghijklmnopqrst"
    for package in demo_data.MEGABYTES:
        doc = work / package / "usr/share/doc" / package
        doc.mkdir(parents=True)
        (doc / "copyright").write_text("Files: *\nLicense: CC-BY-4.0\n\nFiles: b\nLicense: GPL-2+\n text\n")
    for index, letter in enumerate(letters):
        for twin in range(2):
            stamp(130, 120, seed=index).save(work / demo_data.STAMPS / f"{letter * 3}{twin}.png")
        noise(96, 80, index).save(work / demo_data.WALLPAPERS[index % 3] / f"{letter * 4}.png")
    photos = [encoded(noise(210, 130, index), "JPEG") for index in range(12)]
    blob = b"qres" + b"".join(struct.pack(">I", len(photo)) + photo for photo in photos)
    (work / demo_data.PHOTOS / "erase.rcc").write_bytes(blob)
    (work / demo_data.PHOTOS / "paintings.rcc").write_bytes(blob)
    return work


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(packages, tmp_path) -> None:
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        assert debian.build(demo_data.DEMO, packages, tmp_path / name, seed) == {
            "train": 12,
            "val": 6,
            "unlabelled": 12,
        }
    first = contents(tmp_path / "first")
    assert first == contents(tmp_path / "second")
    assert first.keys() != contents(tmp_path / "other").keys()


def test_train_and_val_share_neither_cutout_nor_background(packages, tmp_path) -> None:
    debian.build(demo_data.DEMO, packages, tmp_path / "demo", 0)
    used = {}
    for part in ("train", "val"):
        images = sorted(path.stem for path in (tmp_path / "demo" / part / "images").glob("*.jpg"))
        assert images == sorted(path.stem for path in (tmp_path / "demo" / part / "masks").glob("*.png"))
        used[part] = {demo_data.family(word) for stem in images for word in stem.split("-", 1)[1].split("-on-")}
    assert used["train"]
    assert used["val"]
    assert not used["train"] & used["val"]


def test_the_sources_and_their_licences_stand_beside_the_images(packages, tmp_path) -> None:
    debian.build(demo_data.DEMO, packages, tmp_path / "demo", 0)
    readme = (tmp_path / "demo" / "README.txt").read_text()
    assert "gcompris-qt-data: CC-BY-4.0, GPL-2+\n" in readme
    assert len(list((tmp_path / "demo" / "licences").iterdir())) == 5
    assert not (tmp_path / "demo.partial").exists()


def test_a_complete_folder_is_left_alone(packages, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "demo"
    debian.build(demo_data.DEMO, packages, out, 0)
    monkeypatch.setattr(debian, "fetch", lambda *_: pytest.fail("fetched again"))
    assert debian.command(demo_data.DEMO, "", ["--out", str(out)]) == 0
    assert "is complete" in capsys.readouterr().out
    assert not debian.is_complete(demo_data.DEMO, out, 1)
    next((out / "val" / "masks").glob("*.png")).unlink()
    assert not debian.is_complete(demo_data.DEMO, out, 0)


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path, capsys) -> None:
    (tmp_path / "README.txt").write_text("holiday pictures\n")
    assert debian.command(demo_data.DEMO, "", ["--out", str(tmp_path)]) == 2
    assert "was not built by this script" in capsys.readouterr().err
    assert contents(tmp_path) == {"README.txt": b"holiday pictures\n"}


def test_too_few_pictures_are_refused_and_leave_nothing(packages, tmp_path) -> None:
    (packages / demo_data.PHOTOS / "erase.rcc").unlink()
    with pytest.raises(DataError, match=r"40 cut-outs, 20 backgrounds and 0 photographs"):
        debian.build(demo_data.DEMO, packages, tmp_path / "demo", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_without_apt_points_to_ones_own_photographs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.command(demo_data.DEMO, "", ["--out", str(tmp_path / "demo")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "apt-get is not on this system" in error
    assert "make demo IMAGES=~/Pictures" in error
    assert not (tmp_path / "demo").exists()


def test_without_package_lists_says_how_to_get_them(tmp_path, monkeypatch, capsys) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' $2 >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert debian.command(demo_data.DEMO, "", ["--out", str(tmp_path / "demo")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "(E: Unable to locate package tuxpaint-stamps-default)" in error
    assert "sudo apt-get update" in error
