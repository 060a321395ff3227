import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.budget import Budget, judge
from compress.errors import ExportError
from compress.formats.artifact import Artifact, IOSpec
from compress.measure.values import Interval, Latency, Measurement
from compress.report.html import render
from compress.report.pictures import Picture, colour_of, paint, thumbnail
from compress.report.record import LayerSize, Moment, RunRecord
from compress.report.summary import table
from compress.report.write import manifest, write_report

IMAGE = np.full((8, 12, 3), 200, np.uint8)
EMPTY = np.zeros((8, 12), np.uint8)


def artifact(form: str, size_bytes: int) -> Artifact:
    given = IOSpec("input", (1, 320, 320, 3), "uint8", "NHWC", scale=0.0187, zero_point=114)
    made = IOSpec("mask", (1, 320, 320, 2), "uint8", "NHWC", scale=1 / 256, zero_point=0, activation="softmax")
    return Artifact(Path("somewhere/else") / f"model.{form}", form, "ab" * 32, size_bytes, given, made)


def latency(p50_ms: float, runtime: str) -> Latency:
    return Latency(p50_ms, p50_ms * 1.1, (p50_ms,) * 50, 2, runtime)


def full_record() -> RunRecord:
    measurements = {
        "teacher": Measurement(175_997_641, latency(308, "onnxruntime"), Interval(0.9025, 0.881, 0.921), (0.9,) * 100),
        "onnx": Measurement(
            4_100_000, latency(34.5, "onnxruntime"), Interval(0.815, 0.79, 0.838), (0.8,) * 100, Interval(8.9, 8.7, 9.2)
        ),
        "tflite": Measurement(
            3_912_344, latency(17.2, "LiteRT"), Interval(0.8142, 0.789, 0.837), (0.8,) * 100, Interval(17.9, 16.8, 19)
        ),
    }
    return RunRecord(
        name="u2net",
        version="1.0.0",
        command="compress run models/u2net.pt --budget 4MB",
        created="2026-11-23T22:10:04Z",
        seed=0,
        recipe={"name": "u2net", "train": {"minutes": 6.0}},
        classes=("<b>sky & sea</b>", "object"),
        source={"file": "models/u2net.pt", "sha256": "cd" * 32, "size_bytes": 176_000_000, "parameters": 43_981_000},
        tools={"python": "3.11.7", "onnx": "1.23.2"},
        machine={"cpu": "a CPU", "cores": 2, "load_average": 0.4},
        data={"train": 400, "val": 100, "unlabelled": 240, "reference": "labels"},
        predicted_bytes=4_000_000,
        layers=(LayerSize("first", 1_000_000, 10_000, 64, 16), LayerSize("last", 28, 15, 1, 1)),
        history=(
            Moment("cut", 0, 0.332),
            Moment("repair", 0, 0.741),
            Moment("distil", 3, 0.8, 0.1),
            Moment("qat", 6, 0.81),
        ),
        artifacts=(artifact("onnx", 4_100_000), artifact("tflite", 3_912_344)),
        agreement=0.9961,
        parity=None,
        measurements=measurements,
        verdict=judge({name: measurements[name] for name in ("onnx", "tflite")}, Budget.parse(["4MB"])),
        minutes={"repair": 3.6},
        warnings=("cat<1>.jpg could not be read: skipped",),
    )


def bare_record() -> RunRecord:
    return replace(
        full_record(),
        layers=(),
        history=(),
        artifacts=(),
        agreement=None,
        parity=None,
        measurements={},
        verdict=judge({"onnx": Measurement()}, Budget.parse(["4MB"])),
        minutes={},
        warnings=(),
        data={},
        machine={},
        predicted_bytes=0,
    )


class Page(HTMLParser):
    """Text and attributes of a page; fails on a tag that is closed out of order or never."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def picture(name: str, iou: float, reference: np.ndarray | None = None) -> Picture:
    return Picture(name, IMAGE, EMPTY, EMPTY, reference, iou)


def test_a_report_is_four_files_and_no_partial_one(tmp_path):
    write_report(full_record(), [picture("a.jpg", 0.5)], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labels.txt",
        "manifest.json",
        "report.html",
        "report.json",
    ]
    assert (tmp_path / "labels.txt").read_text() == "<b>sky & sea</b>\nobject\n"


def test_report_json_holds_the_record_with_file_names_for_paths(tmp_path):
    write_report(full_record(), [], tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["schema"] == 1
    assert document["verdict"]["passed"] is False
    assert document["measurements"]["tflite"]["iou"] == {"mean": 0.8142, "low": 0.789, "high": 0.837}
    assert document["artifacts"][1]["path"] == "model.tflite"
    assert document["history"][1] == {"stage": "repair", "minutes": 0, "iou": 0.741, "loss": None}


def test_report_json_stays_valid_json_when_a_loss_was_not_finite(tmp_path):
    write_report(replace(full_record(), history=(Moment("qat", 1, 0.5, float("nan")),)), [], tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert document["history"][0]["loss"] is None


def test_a_file_name_that_is_not_unicode_does_not_stop_the_report(tmp_path):
    write_report(replace(full_record(), warnings=("\udcff.jpg: skipped",)), [], tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["warnings"] == ["\udcff.jpg: skipped"]


def test_the_manifest_has_exactly_the_promised_keys_and_bare_file_names():
    stated = json.loads(json.dumps(manifest(full_record())))
    assert list(stated) == ["schema", "name", "version", "classes", "source", "files", "tools"]
    assert stated["schema"] == 1
    assert stated["classes"] == ["<b>sky & sea</b>", "object"]
    assert stated["source"] == {"file": "u2net.pt", "sha256": "cd" * 32, "size_bytes": 176_000_000}
    assert [entry["file"] for entry in stated["files"]] == ["model.onnx", "model.tflite"]
    assert stated["files"][1] == {
        "format": "tflite",
        "file": "model.tflite",
        "sha256": "ab" * 32,
        "size_bytes": 3_912_344,
        "input": {
            "name": "input",
            "shape": [1, 320, 320, 3],
            "dtype": "uint8",
            "layout": "NHWC",
            "mean": None,
            "std": None,
            "scale": 0.0187,
            "zero_point": 114,
        },
        "output": {
            "name": "mask",
            "shape": [1, 320, 320, 2],
            "dtype": "uint8",
            "layout": "NHWC",
            "scale": 0.00390625,
            "zero_point": 0,
            "activation": "softmax",
        },
    }


def test_a_folder_that_cannot_be_written_is_one_line_and_no_file(tmp_path):
    place = tmp_path / "a-file"
    place.write_text("in the way")
    with pytest.raises(ExportError, match=r"a-file.report\.json: cannot be written: .*--out"):
        write_report(full_record(), [], place)
    assert place.read_text() == "in the way"


def test_a_file_that_cannot_be_replaced_leaves_no_partial_one(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(ExportError, match=r"report\.json: cannot be written"):
        write_report(full_record(), [], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_page_is_well_formed_and_escapes_what_people_named():
    page = Page(render(full_record(), [picture("<i>.jpg", 0.5)]))
    assert "<b>sky & sea</b>" in page.words
    assert "<i>.jpg student IoU" in page.words
    assert "cat<1>.jpg could not be read: skipped" in page.words
    assert not any(tag in ("script", "link", "iframe") for tag, _ in page.tags)


def test_the_page_refers_to_nothing_outside_itself():
    page = render(full_record(), [picture("a.jpg", 0.5)])
    assert "http" not in page
    assert "@import" not in page
    assert "url(" not in page
    sources = [values["src"] for _, values in Page(page).tags if "src" in values]
    assert sources
    assert all(source and source.startswith("data:image/jpeg;base64,") for source in sources)


def test_the_page_shows_the_figures_of_every_file_and_the_verdict_first():
    words = Page(render(full_record(), [])).words
    assert words.index("Over budget") < words.index("Measured on the files themselves")
    for figure in (
        "175,997,641 bytes",
        "3,912,344 bytes",
        "17.2 ms",
        "18.9 ms",
        "17.9× [16.8,",
        "0.814 [0.789,",
        "99.61 %",
    ):
        assert figure in words
    assert "+2.5% (ONNX), -2.2% (TFLite)" in words
    assert "✗ over 4,000,000 bytes" in words
    assert "✓ within 4,000,000 bytes" in words


def test_a_record_without_measurements_says_not_measured():
    words = Page(render(bare_record(), [])).words
    assert "Not shown to be within budget" in words
    assert "onnx size not measured, limit 4,000,000 bytes: not passed" in words
    assert "Latency, median not measured" in words
    assert words.count("Not measured.") == 2  # neither curve nor layers
    assert "No pictures were kept." in words


def test_an_artifact_that_was_not_measured_has_a_column_of_its_own():
    words = Page(render(replace(bare_record(), artifacts=(artifact("tflite", 5),)), [])).words
    assert "Teacher TFLite Size not measured not measured" in words


@pytest.mark.parametrize("reference", ["labels", "teacher"])
def test_agreement_with_the_teacher_is_called_so_only_where_there_are_no_labels(reference):
    record = replace(full_record(), data={"reference": reference})
    said = "agreement with the teacher, not accuracy"
    assert (said in Page(render(record, [])).words) == (reference == "teacher")
    assert ("agreement with the teacher" in table(record)) == (reference == "teacher")


def test_the_curve_puts_minutes_across_and_iou_upwards():
    dots = [values["d"] for tag, values in Page(render(full_record(), [])).tags if "dot" in (values.get("class") or "")]
    # minutes 0, 0, 3, 6 of 6; the axis runs from 0.2 to 1 (teacher at 0.9025)
    assert dots == ["M0.0 83.5 h.001", "M0.0 32.38 h.001", "M50.0 25.0 h.001", "M100.0 23.75 h.001"]


def test_a_history_of_one_moment_or_of_perfect_ones_still_draws():
    for iou in (0.0, 0.5, 1.0):
        record = replace(bare_record(), history=(Moment("cut", 0, iou),))
        dots = [values["d"] for _, values in Page(render(record, [])).tags if "dot" in (values.get("class") or "")]
        assert len(dots) == 1


def test_layers_stand_on_a_logarithmic_axis_largest_first_and_small_ones_are_summed():
    layers = tuple(LayerSize(f"layer{number}", 1000 + number, 100, 8, 8) for number in range(43))
    page = Page(render(replace(full_record(), layers=layers), []))
    assert page.words.index("layer42") < page.words.index("layer3 ")
    assert "layer2 " not in page.words
    assert "the 3 smaller layers together" in page.words
    assert "3 kB → 300 B" in page.words  # 1000 + 1001 + 1002, and 3 times 100
    afters = [
        values["style"] for _, values in page.tags if "after" in (values.get("class") or "") and "style" in values
    ]
    assert afters[0] == "left: 0.0%"  # 100 bytes is where the axis from 100 to 10,000 begins


def test_pictures_stand_worst_first():
    words = Page(render(full_record(), [picture("good.jpg", 0.9), picture("bad.jpg", 0.1)])).words
    assert words.index("bad.jpg") < words.index("good.jpg")


def test_labels_are_shown_only_where_there_are_any():
    with_labels = Page(render(full_record(), [picture("a.jpg", 0.5, np.full((8, 12), 255, np.uint8))]))
    assert sum(tag == "img" for tag, _ in with_labels.tags) == 4
    assert "ignored in the labels" in with_labels.words
    without = Page(render(full_record(), [picture("a.jpg", 0.5)]))
    assert sum(tag == "img" for tag, _ in without.tags) == 3
    assert "ignored in the labels" not in without.words


def test_a_thumbnail_is_a_jpeg_of_at_most_240_px():
    source = thumbnail(np.zeros((300, 600, 3), np.uint8), np.zeros((300, 600), np.uint8))
    assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size == (240, 120)


def test_paint_tints_classes_outlines_them_and_pales_the_rest():
    labels = np.zeros((5, 5), np.uint8)
    labels[1:4, 1:4] = 1
    painted = paint(np.full((5, 5, 3), 100, np.uint8), labels)
    red, green, blue = colour_of(1)
    assert painted[0, 0].tolist() == [170, 170, 170]  # 0.55 * 100 + 0.45 * 255
    assert painted[1, 1].tolist() == [red, green, blue]  # on the outline
    assert painted[2, 2].tolist() == [round(40 + 0.6 * value) for value in (red, green, blue)]


def test_colours_of_the_first_twenty_one_classes_differ():
    assert len({colour_of(label) for label in (*range(1, 22), 255)}) == 22


def test_the_table_states_sizes_latency_iou_and_each_verdict():
    assert table(full_record(), Path("export/u2net/report.html")) == "\n".join(
        [
            "         size                           latency p50  speedup  IoU [95 % interval]",
            "teacher  176.00 MB (175,997,641 bytes)  308.0 ms              0.902 [0.881, 0.921]",
            "onnx     4.10 MB (4,100,000 bytes)      34.5 ms      8.9x     0.815 [0.790, 0.838]",
            "tflite   3.91 MB (3,912,344 bytes)      17.2 ms      17.9x    0.814 [0.789, 0.837]",
            "",
            "onnx size 4,100,000 of 4,000,000 bytes: over budget",
            "tflite size 3,912,344 of 4,000,000 bytes: within budget",
            "verdict: over budget",
            "report: export/u2net/report.html",
        ]
    )


def test_the_table_of_an_unmeasured_run_says_so():
    assert table(replace(bare_record(), verdict=judge({}, Budget()))) == "\n".join(
        [
            "         size          latency p50   speedup  IoU [95 % interval]",
            "teacher  not measured  not measured           not measured",
            "",
            "verdict: no budget given",
        ]
    )
