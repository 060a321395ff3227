"""Colours of classes."""

from itertools import combinations

import numpy as np
import pytest
from skimage import color

from compress.report.palette import is_palette, palette_of, rgb_of
from compress.report.pictures import paint


def test_the_background_is_pale_by_its_name_or_of_two_classes():
    assert palette_of(("background", "disc", "square"), {}) == ("", "#d01c8b", "#0072b2")
    assert palette_of(("road", "car"), {}) == ("", "#d01c8b")
    assert palette_of(("sky", "road", "car"), {}) == ("#d01c8b", "#0072b2", "#e69f00")
    assert palette_of(("background", "disc"), {"background": "#000000"}) == ("#000000", "#d01c8b")


def test_others_are_told_apart_from_those_that_are_named():
    assert palette_of(("sky", "road", "car"), {"road": "#d11d8c"}) == ("#0072b2", "#d11d8c", "#e69f00")


@pytest.mark.parametrize(("count", "least"), [(11, 20.0), (21, 10.0), (150, 3.0)])
def test_colours_of_many_classes_are_told_apart_from_each_other_white_and_grey(count, least):
    """By the distance in CIELAB of 2000, of which 2.3 can just be seen."""
    colours = [rgb_of(colour) for colour in palette_of([f"class {id}" for id in range(count)], {})]
    lab = color.rgb2lab(np.array([*colours, (255, 255, 255), (128, 128, 128)]) / 255)
    pairs = np.array(list(combinations(range(len(lab)), 2)))
    assert color.deltaE_ciede2000(lab[pairs[:, 0]], lab[pairs[:, 1]]).min() > least
    assert len(palette_of([str(id) for id in range(255)], {})) == 255


@pytest.mark.parametrize("palette", [("#000000",), ("#000000", "red"), ("#000000", "#00000g"), ("", "#000000;x")])
def test_what_is_no_palette_of_the_classes_is_seen(palette):
    assert not is_palette(palette, ("a", "b"))
    assert is_palette(("", "#0072b2"), ("a", "b"))


def test_class_0_is_painted_where_it_has_a_colour_and_what_is_no_class_is_grey():
    layer = paint(np.array([[0, 0, 0, 1, 1, 255]], np.uint8), ("#102030", "#405060"))
    assert layer[0, 0].tolist() == [16, 32, 48, 153]
    assert layer[0, 2].tolist() == [16, 32, 48, 255]
    assert layer[0, 3].tolist() == [64, 80, 96, 255]
    assert layer[0, 5].tolist() == [128, 128, 128, 255]
