"""What a recipe says of the values in masks, and masks of every kind that are read by it."""

import numpy as np
import pytest
from PIL import Image

from compress.data.coding import VOID, Coding
from compress.data.folders import open_dataset, open_labelled
from compress.data.images import read_mask
from compress.errors import DataError
from compress.recipe import MasksSection

CLASSES = ("road", "sky", "car")


def coding(classes=CLASSES, **section):
    return Coding.of(MasksSection(**section), classes)


def save(path, values, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, np.uint8))
    if palette:
        image = Image.fromarray(np.array(values, np.uint8), "P")
        image.putpalette([part for colour in palette for part in colour])
    image.save(path)
    return path


def test_a_recipe_that_says_nothing_leaves_it_to_the_masks():
    assert coding() is None


def test_ids_with_gaps_become_classes_in_order_and_255_is_void(tmp_path):
    by_id = coding(masks={"road": 7, "sky": [23, 10], "car": 26}, ignore=[0, 1])
    mask = save(tmp_path / "a.png", [[7, 23, 10, 26, 0, 1, 255]])
    assert read_mask(mask, by_id).tolist() == [[0, 1, 1, 2, VOID, VOID, VOID]]


def test_what_is_ignored_beside_the_classes_own_numbers_is_void(tmp_path):
    mask = save(tmp_path / "a.png", [[0, 1, 2, 3, 255]])
    assert read_mask(mask, coding(ignore=3)).tolist() == [[0, 1, 2, VOID, VOID]]


def test_255_may_be_a_class_by_name(tmp_path):
    mask = save(tmp_path / "a.png", [[0, 128, 255]])
    by_id = coding(("background", "object"), masks={"background": 0, "object": 255}, ignore=128)
    assert read_mask(mask, by_id).tolist() == [[0, VOID, 1]]


def test_ids_of_two_bytes_are_read_where_they_are_named(tmp_path):
    Image.fromarray(np.array([[300, 1000, 40000]], np.uint16)).save(tmp_path / "a.png")
    by_id = coding(masks={"road": 300, "sky": 1000, "car": 40000})
    assert read_mask(tmp_path / "a.png", by_id).tolist() == [[0, 1, 2]]


COLOURS = {"road": "#804080", "sky": ["#4682B4", "#000000"], "car": "#00008e"}
PIXELS = [[[128, 64, 128], [70, 130, 180], [0, 0, 0], [0, 0, 142], [1, 2, 3]]]


def test_colours_become_classes_in_rgb_rgba_and_palette_files_alike(tmp_path):
    by_colour = coding(masks=COLOURS, ignore="#010203")
    opaque = [[[*pixel, 255] for pixel in PIXELS[0]]]
    files = [
        save(tmp_path / "rgb.png", PIXELS),
        save(tmp_path / "rgba.png", opaque),
        save(tmp_path / "palette.png", [[3, 2, 1, 0, 4]], [PIXELS[0][i] for i in (3, 2, 1, 0, 4)]),
    ]
    for mask in files:
        assert read_mask(mask, by_colour).tolist() == [[0, 1, 1, 2, VOID]]


def test_a_palette_with_colours_holds_numbers_where_the_recipe_names_numbers(tmp_path):
    mask = save(tmp_path / "a.png", [[0, 1, 2]], [(0, 0, 0), (128, 0, 0), (0, 128, 0)])
    assert read_mask(mask, coding(masks={"road": 2, "sky": 0, "car": 1})).tolist() == [[1, 2, 0]]


def test_resized_colours_are_never_mixed(tmp_path):
    mask = save(tmp_path / "a.png", [PIXELS[0][:2], PIXELS[0][3:1:-1]])
    assert set(np.unique(read_mask(mask, coding(masks=COLOURS), (7, 5)))) == {0, 1, 2}


@pytest.mark.parametrize(
    ("section", "pixels", "message"),
    [
        (
            {"masks": {"road": 7, "sky": 10, "car": 26}},
            [[7, 8, 8], [8, 10, 9]],
            "3 pixels are 8 and 1 are 1 other values, which neither masks nor ignore under [data] names",
        ),
        ({"ignore": 3}, [[0, 1, 2, 3, 4]], "1 pixel is 4, which"),
        ({"masks": COLOURS}, [[[128, 64, 128], [9, 9, 9], [9, 9, 9]]], "2 pixels are #090909, which"),
    ],
)
def test_a_value_that_is_nowhere_named_is_one_line_with_the_mask_and_its_pixels(tmp_path, section, pixels, message):
    mask = save(tmp_path / "odd.png", pixels)
    with pytest.raises(DataError) as raised:
        read_mask(mask, coding(**section))
    assert str(raised.value).startswith(f"{mask}: {message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_formats_that_change_values_hold_none_that_are_named(tmp_path, suffix):
    mask = save(tmp_path / f"a.{suffix}", np.zeros((16, 16)))
    with pytest.raises(DataError, match="do not keep class ids"):
        read_mask(mask, coding(("background", "object"), ignore=3))


def test_see_through_and_numeric_masks_are_refused_where_colours_are_named(tmp_path):
    by_colour = coding(masks=COLOURS)
    with pytest.raises(DataError, match="lets nothing shine through"):
        read_mask(save(tmp_path / "a.png", [[[0, 0, 0, 0]]]), by_colour)
    Image.fromarray(np.array([[300]], np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="names colours"):
        read_mask(tmp_path / "b.png", by_colour)


def pair(part, stem, mask, folder="masks"):
    for name, values in (("images", np.full((*np.shape(mask)[:2], 3), 90)), (folder, mask)):
        save(part / name / f"{stem}.png", values)


def test_a_set_whose_masks_lie_in_labels_with_a_void_number_opens(tmp_path):
    for part in ("train", "val"):
        pair(tmp_path / part, part, [[0, 1, 2, 3]], "labels")
    dataset = open_dataset(tmp_path, CLASSES, coding=coding(ignore=3))
    (sample,) = dataset.val
    assert sample.mask == tmp_path / "val/labels/val.png"
    assert read_mask(sample.mask, dataset.coding).tolist() == [[0, 1, 2, VOID]]


def test_masks_are_taken_before_labels_which_are_said_to_be_left_out(tmp_path):
    pair(tmp_path, "a", [[0, 1, 2]])
    pair(tmp_path, "a", [[0, 0, 0]], "labels")
    dataset = open_labelled(tmp_path, CLASSES)
    assert dataset.val[0].mask == tmp_path / "masks/a.png"
    assert "left out: labels/" in dataset.warnings[0]


def test_a_coloured_set_opens_by_its_colours_and_says_which_class_is_missing(tmp_path):
    pair(tmp_path, "a", [[[128, 64, 128], [70, 130, 180]]])
    dataset = open_labelled(tmp_path, CLASSES, coding(masks=COLOURS))
    assert dataset.coding.colours
    assert dataset.warnings == (f"{tmp_path / 'masks'}: no pixel of car",)
