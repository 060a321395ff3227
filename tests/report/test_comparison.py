"""Several runs on one page."""

from dataclasses import replace

import pytest
from test_report import Page, full_record

from compress.cli import main
from compress.measure.values import Interval
from compress.report.comparison import names_of
from compress.report.record import Data
from compress.report.write import write_report


@pytest.fixture
def runs(tmp_path):
    """Folders of two runs on the same images: the second is a quarter smaller, and 0.1 IoU worse."""
    first = replace(full_record(), data=Data(reference="labels", val_sha256="ab"))
    worse = replace(
        first.measurements["tflite"], size_bytes=2_934_258, iou=Interval(0.7, 0.68, 0.72), per_image_iou=(0.7,) * 100
    )
    second = replace(
        first,
        seed=7,
        recipe={"name": "u2net", "train": {"minutes": 60.0}},
        measurements={**first.measurements, "tflite": worse},
    )
    for name, record in {"short": first, "long": second}.items():
        (tmp_path / name).mkdir()
        write_report(record, [], tmp_path / name)
    return tmp_path / "short", tmp_path / "long"


def compared(folders, page, capsys) -> tuple[Page, str]:
    assert main(["report", *map(str, folders), "--out", str(page)]) == 0
    return Page(page.read_text()), capsys.readouterr().out


def test_runs_are_compared_paired_by_image_with_contradictions_first(runs, tmp_path, capsys):
    page, printed = compared(runs, tmp_path / "both.html", capsys)
    sentence = "long: TFLite against TFLite of short: 25 % smaller, but worse on average (mean IoU -0.100"
    assert sentence in printed
    assert printed.endswith(f"report: {tmp_path / 'both.html'}\n")
    assert page.words.index("25 % smaller, but worse") < page.words.index("Measured on the files themselves")
    assert "2.93 MB -25.0 %" in page.words
    assert "-0.100 [-0.100, -0.100]" in page.words
    assert "train.minutes 6.0 60.0" in page.words
    assert "seed 0 7" in page.words
    titles = [values["title"] for tag, values in page.tags if tag == "i" and "title" in values]
    assert "long, TFLite: 2.93 MB, IoU 0.700 [0.680, 0.720]" in titles


def test_other_images_and_another_teacher_are_named_and_not_compared(runs, tmp_path, capsys):
    other = replace(
        full_record(), data=Data(reference="labels"), source=replace(full_record().source, sha256="ef" * 32)
    )
    (tmp_path / "other").mkdir()
    write_report(other, [], tmp_path / "other")
    page, printed = compared([runs[0], tmp_path / "other"], tmp_path / "both.html", capsys)
    assert "Made from another teacher than short: other." in page.words
    assert "Not known to be measured on the same validation images as short: other." in page.words
    assert printed == f"report: {tmp_path / 'both.html'}\n"


def test_a_missing_report_is_one_line_and_leaves_no_page(runs, tmp_path, capsys):
    assert main(["report", str(runs[0]), str(tmp_path), "--out", str(tmp_path / "both.html")]) == 2
    assert f"{tmp_path / 'report.json'}: no such report" in capsys.readouterr().err
    assert not (tmp_path / "both.html").exists()


def test_runs_are_called_by_as_much_of_their_folders_as_tells_them_apart(tmp_path):
    assert names_of([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert names_of([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert [name.rpartition(" ")[2] for name in names_of([tmp_path, tmp_path])] == ["(1)", "(2)"]
