"""A report as a reader meets it: in headless Chromium, offline, by day and night, on a phone."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from test_report import full_record

from compress.report.pictures import Picture, photo_of
from compress.report.write import write_comparison, write_report
from compress.runtime.layers import LayerTime

HERE = Path(__file__).parent
WEB = HERE.parent.parent / "export" / "clients" / "web"


def browse(page: Path) -> dict:
    """What a reader finds on the page; SCREENSHOTS names a folder for pictures of it."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not (WEB / "node_modules" / "playwright-core").exists():
        pytest.skip("playwright-core is not installed: run `make clients`, which says why where it cannot be")
    if not chromium:
        pytest.skip("no Chromium: install Debian's package chromium, or name a browser in CHROMIUM")
    done = subprocess.run(
        [
            "node",
            str(HERE / "browse.mjs"),
            str(WEB / "package.json"),
            str(page),
            *filter(None, [os.environ.get("SCREENSHOTS")]),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "CHROMIUM": chromium},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A report with photographs, long names, many controls and layers."""
    cat, cup = data.chelsea(), data.coffee()
    small, large = np.zeros((80, 80), np.uint8), np.zeros((80, 80), np.uint8)
    small[20:50, 20:50], large[20:60, 20:60] = 1, 1
    pictures = [
        Picture("rocket.jpg", photo_of(data.rocket()), large, small, None, 0.125),
        Picture("chelsea.jpg", photo_of(cat), large, small, large, 0.5625),
        Picture("coffee.jpg", photo_of(cup), large, large, None, 1.0),
    ]
    measured = full_record().measurements["tflite"]
    record = replace(
        full_record(),
        controls={f"a control with quite a long name, number {n}": measured for n in range(4)},
        layer_times={
            "onnx": tuple(LayerTime(f"stage1.rebnconv{n}.conv_s1.weights", "QLinearConv", n) for n in range(60))
        },
    )
    folder = tmp_path_factory.mktemp("report")
    write_report(record, pictures, folder)
    return folder


@pytest.fixture(scope="module")
def found(folder) -> dict:
    return browse(folder / "report.html")


def test_a_report_reads_offline_by_day_and_night_and_on_a_phone(found):
    assert found["complaints"] == []
    assert found["requests"] == []
    assert (found["wide"], found["phone"]) == (1200, 360)  # nothing to scroll sideways
    assert found["light"] == "rgb(245, 246, 248)"
    assert found["dark"] == "rgb(17, 22, 28)"


def test_result_and_pictures_are_on_the_first_screen_of_a_phone(found):
    assert found["first_screen"] < 740


def test_without_scripts_every_pair_of_masks_is_there(found):
    assert found["without_scripts"] == [True] * 9  # the pair of the first screen, and of each picture two or three


def test_the_line_between_the_masks_follows_keys_and_drags(found):
    assert found["images"] == [451, 80, 80]  # the photograph, the teacher's mask, the student's
    assert found["middle"] == pytest.approx(0.5, abs=0.01)
    assert found["keys"] == pytest.approx(0.7, abs=0.01)
    assert found["dragged"] == pytest.approx(0.2, abs=0.02)
    assert found["pressed"] == "chelsea.jpg"  # the median one
    assert found["first"] == "chelsea.jpg, student IoU 0.562: number 2 of 3 from the worst"
    assert found["second"] == "coffee.jpg, agreement with the teacher, IoU 1.000: number 3 of 3 from the worst"
    assert found["lefts"] == ["teacher", "teacher", "photo"]  # the second image has no labels


def test_a_comparison_reads_on_a_phone_too(folder, tmp_path):
    again = tmp_path / "a-run-whose-folder-has-a-long-name-without-a-break"
    again.mkdir()
    write_report(replace(full_record(), seed=1), [], again)
    write_comparison([folder, again], tmp_path / "both.html")
    found = browse(tmp_path / "both.html")
    assert (found["complaints"], found["requests"]) == ([], [])
    assert (found["wide"], found["phone"]) == (1200, 360)
    assert len(found["labels"]) >= 4
    for a, b in combinations(found["labels"], 2):
        assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]
    assert all(left >= 0 and right <= 360 for left, right, _, _ in found["labels"])
