"""A report on more than two classes: mIoU first, a table of all of them, what the worst are taken for, colours."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from test_report import Page, full_record, picture

from compress.errors import DataError
from compress.measure.values import ClassFigures, Interval
from compress.report.ending import ending
from compress.report.html import render
from compress.report.manifest import manifest
from compress.report.read import read_record
from compress.report.result import figures, remarks
from compress.report.summary import confused, percent, table
from compress.report.write import write_report

CLASSES = ("sky", "road", "pole <thin>")
PALETTE = ("#808080", "#804080", "#c0c080")


def near(mean: float) -> Interval:
    return Interval(mean, mean - 0.02, mean + 0.02)


def by_class(sky: float, road: float, pole: float | None) -> tuple[ClassFigures, ...]:
    return (
        ClassFigures("sky", near(sky), 0.6),
        ClassFigures("road", near(road), 0.397, (("sky", 0.004),)),
        ClassFigures("pole <thin>", near(pole) if pole else None, 0.003, (("sky", 0.54), ("road", 0.062))),
    )


def street():
    record = full_record()
    given = {"teacher": (0.95, 0.9, 0.4), "onnx": (0.94, 0.88, 0.2), "tflite": (0.94, 0.89, 0.21)}
    measurements = {
        name: replace(
            record.measurements[name],
            by_class=by_class(*values),
            miou=near(sum(values) / 3),
            miou_drop=None if name == "teacher" else near(0.75 - sum(values) / 3),
        )
        for name, values in given.items()
    }
    return replace(record, classes=CLASSES, palette=PALETTE, measurements=measurements)


def test_the_first_screen_and_the_terminal_tell_accuracy_by_mean_iou_over_classes(tmp_path):
    words = [figure.line for figure in figures(street())]
    assert words[2] == "0.680 mIoU beside 0.750, 0.070 less [0.050, 0.090]"
    assert "0.673 mIoU" in remarks(street())[0][1]
    head, teacher, *_ = table(street()).splitlines()
    assert head.endswith("IoU [95 % interval]   mIoU")
    assert teacher.endswith("0.902 [0.881, 0.921]  0.750 [0.730, 0.770]")
    assert "worst classes: pole <thin> 0.210 (taken for sky 54 %, road 6.2 %), road 0.890" in ending(street(), tmp_path)


def test_the_page_has_a_row_for_every_class_and_what_the_worst_are_taken_for():
    page = render(street(), [picture("a.jpg", 0.5)])
    words = Page(page).words
    table = words[words.index("Class by class", words.index("Measured on")) :]
    assert "pole <thin> 0.3 % 0.400 [0.380, 0.420] 0.200 [0.180, 0.220] 0.210 [0.190, 0.230]" in table
    worst = table[table.index("What the worst classes are taken for, TFLite") :]
    assert "pole <thin> 0.210 [0.190, 0.230] sky 54 %, road 6.2 %" in worst
    assert "road 0.890 [0.870, 0.910] nothing else" in worst
    assert "mIoU over classes 0.750" in words
    assert 'href="#classes"' in page


def test_a_class_that_does_not_occur_has_no_figure_and_is_none_of_the_worst():
    record = street()
    measurements = {
        name: replace(each, by_class=by_class(0.9, 0.8, None)) for name, each in record.measurements.items()
    }
    words = Page(render(replace(record, measurements=measurements), [])).words
    assert "pole <thin> 0.3 % not measured not measured not measured" in words
    assert confused(measurements["onnx"]) == "worst classes: road 0.800, sky 0.900"


def test_pictures_and_legend_have_the_colours_of_the_palette():
    labels = np.full((8, 12), 255, np.uint8)
    page = render(street(), [picture("a.jpg", 0.5, labels)])
    legend = page[page.index('<ul class="legend">', page.index('id="pictures"')) :]
    legend = legend[: legend.index("</ul>")]
    assert re.findall("background: (#[0-9a-f]{6})", legend) == [*PALETTE, "#808080"]
    assert "paler" not in legend


def test_two_classes_are_told_as_before():
    words = Page(render(full_record(), [picture("a.jpg", 0.5)])).words
    assert "mIoU" not in words + table(full_record())
    assert "Class by class" not in words
    assert confused(full_record().measurements["onnx"]) == ""


def test_the_manifest_has_the_palette_and_nothing_for_what_is_only_paler(tmp_path):
    assert manifest(street(), tmp_path)["palette"] == list(PALETTE)
    assert manifest(full_record(), tmp_path)["palette"] == [None, "#d01c8b"]


def test_every_class_comes_back_from_the_report_and_an_older_one_has_none(tmp_path):
    write_report(street(), [], tmp_path)
    record = read_record(tmp_path)
    assert record.measurements["tflite"].by_class == by_class(0.94, 0.89, 0.21)
    assert record.colours == PALETTE
    document = json.loads((tmp_path / "report.json").read_text())
    del document["palette"]
    for measured in document["measurements"].values():
        del measured["by_class"], measured["miou"], measured["miou_drop"]
    (tmp_path / "report.json").write_text(json.dumps(document))
    older = read_record(tmp_path)
    assert older.measurements["tflite"].by_class == ()
    assert older.colours == ("#d01c8b", "#0072b2", "#e69f00")


def test_colours_that_are_none_never_reach_a_page(tmp_path):
    write_report(street(), [], tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    document["palette"][1] = "red;background-image:url(x)"
    (tmp_path / "report.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"report\.json: palette: a colour such as"):
        read_record(tmp_path)


@pytest.mark.parametrize(("share", "text"), [(0.34, "34 %"), (0.099, "9.9 %"), (0.0021, "0.2 %"), (0.0004, "0.04 %")])
def test_shares_are_short(share, text):
    assert percent(share) == text
