"""Several runs on one page."""

from dataclasses import replace

import numpy as np
import pytest
from test_report import Page, full_record, picture

from compress.cli import main
from compress.measure.values import Interval
from compress.report.comparison import conclusions_of, names_of
from compress.report.read import read_record
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
    end = "Which one to take depends on the limit that binds."
    assert printed.endswith(f"{end}\nreport: {tmp_path / 'both.html'}\n")
    assert page.words.index("In short long against short, TFLite: 25 % smaller") < page.words.index(end)
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
    sentence = (
        "other against short, TFLite: no difference was shown. Speed was not compared. IoU was not compared. "
        "Nothing was shown to be better: keep short."
    )
    assert printed == f"{sentence}\nreport: {tmp_path / 'both.html'}\n"


def against(first, other) -> str:
    (found,) = conclusions_of({"old": first, "new": other})
    return found.words


def test_a_comparison_ends_in_what_was_shown_and_what_follows():
    first = replace(full_record(), data=Data(reference="labels", val_sha256="ab"))
    base = first.measurements["tflite"]

    def run(**changes):
        return replace(first, measurements={**first.measurements, "tflite": replace(base, **changes)})

    assert against(first, first).endswith("no difference was shown. Nothing was shown to be better: keep old.")
    assert against(first, run(size_bytes=1_956_172)) == (
        "new against old, TFLite: 2 times smaller. Nothing was shown to be worse: take new."
    )
    assert against(first, run(size_bytes=7_824_688)).endswith("Nothing was shown to be better: keep old.")
    spread = tuple(np.linspace(0.5, 0.95, 100))
    noisy = run(size_bytes=1_956_172, per_image_iou=tuple(reversed(spread)))
    said = against(run(per_image_iou=spread), noisy)
    assert said.endswith("can be chance: more images would tell. Nothing was shown to be worse.")
    assert "Speed was not compared." in against(first, run(size_bytes=1_956_172, speedup=None))
    assert "nothing is compared" in against(first, replace(first, measurements={}))


def test_pictures_of_all_runs_stand_side_by_side(runs, tmp_path, capsys):
    for folder, iou in zip(runs, (0.9, 0.4), strict=True):
        write_report(read_record(folder), [picture("a.jpg", iou), picture(f"{iou}.jpg", iou)], folder)
    page, _ = compared(runs, tmp_path / "both.html", capsys)
    assert "Pictures a.jpg short, IoU 0.900 long, IoU 0.400 First the picture" in page.words
    labels = [values["aria-label"] for tag, values in page.tags if tag == "svg" and values.get("class") == "masked"]
    assert labels == ["Mask of short over a.jpg", "Mask of long over a.jpg"]


def test_every_run_has_a_colour_and_a_number_of_its_own_in_the_plot(runs, tmp_path, capsys):
    page, _ = compared(runs, tmp_path / "both.html", capsys)
    assert "1: short 2: long" in page.words
    dots = [values["class"] for tag, values in page.tags if tag == "i" and "title" in values]
    assert set(dots) == {"teacher", "run-1", "run-2"}


def test_a_missing_report_is_one_line_and_leaves_no_page(runs, tmp_path, capsys):
    assert main(["report", str(runs[0]), str(tmp_path), "--out", str(tmp_path / "both.html")]) == 2
    assert f"{tmp_path / 'report.json'}: no such report" in capsys.readouterr().err
    assert not (tmp_path / "both.html").exists()


def test_runs_are_called_by_as_much_of_their_folders_as_tells_them_apart(tmp_path):
    assert names_of([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert names_of([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert [name.rpartition(" ")[2] for name in names_of([tmp_path, tmp_path])] == ["(1)", "(2)"]
