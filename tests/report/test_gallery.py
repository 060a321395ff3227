"""Which pictures stand where: the median one first, the worst under their own heading."""

import numpy as np
from test_report import Page, full_record, picture

from compress.report.gallery import gallery, side_by_side
from compress.report.html import render

PALETTE = ("", "#d01c8b")
PALETTES = {"one": PALETTE, "two": PALETTE}


def test_the_median_of_all_images_comes_first_where_the_pictures_are_some_of_them():
    iou = [n / 100 for n in range(100)]  # median 0.495
    kept = [*iou[:8], 0.3, 0.49, 0.8, 0.99]
    found = gallery([picture(f"{value}.jpg", value) for value in reversed(kept)], iou, PALETTE)
    assert found.typical is not None
    assert found.typical.name == "0.49.jpg"
    assert found.basis == "nearest to the median of 100 images"
    assert [each.iou for each in found.worst] == [f"{value:.3f}" for value in iou[:8]]
    assert [each.iou for each in found.others] == ["0.300", "0.490", "0.800", "0.990"]


def test_other_photographs_have_a_middle_of_their_own():
    found = gallery(
        [picture(name, iou) for name, iou in zip("abcd", (0.9, 0.2, 0.5, 0.7), strict=True)], [0.1, 0.11], PALETTE
    )
    assert found.typical is not None
    assert (found.typical.name, found.basis) == ("c", "the middle one of 4 pictures")
    assert [each.name for each in found.worst] == ["b"]
    assert [each.name for each in found.others] == ["c", "d", "a"]


def test_one_picture_is_not_called_the_worst_and_none_is_none():
    found = gallery([picture("a", 0.5)], (), PALETTE)
    assert ([each.name for each in found.worst], [each.name for each in found.others]) == ([], ["a"])
    assert gallery([], [0.5], PALETTE).typical is None


def test_the_page_has_a_heading_for_the_worst_and_starts_the_browser_at_the_median():
    page = Page(
        render(full_record(), [picture(name, iou) for name, iou in (("good", 0.9), ("bad", 0.1), ("mid", 0.6))])
    )
    words = page.words[page.words.index("Pictures", page.words.index("What to do next") + 300) :]
    assert words.index("The worst") < words.index("0.100 bad") < words.index("From there") < words.index("0.600 mid")
    assert [values["data-first"] for _, values in page.tags if "data-first" in values] == ["1"]
    assert [values["data-rank"] for _, values in page.tags if "data-rank" in values] == ["0", "1", "2"]


def test_runs_are_compared_on_the_median_picture_and_on_those_where_they_part():
    ours = [picture(f"{n}", n / 10) for n in range(10)]
    theirs = [picture(f"{n}", n / 10 - (0.05 if n == 7 else 0.2 if n == 9 else 0)) for n in range(1, 10)]
    rows = side_by_side({"one": ours, "two": theirs}, PALETTES)
    assert [row["name"] for row in rows] == ["5", "9", "7", "1"]
    assert [(run, iou) for run, iou, _ in rows[1]["masks"]] == [("one", "0.900"), ("two", "0.700")]
    other = [picture("5", 0.5, np.ones((8, 12), np.uint8))]
    assert len(side_by_side({"one": ours, "two": other}, PALETTES)) == 1
    assert side_by_side({"one": ours, "two": []}, PALETTES) == []
