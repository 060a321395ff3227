import base64
import io
import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.budget import Budget, judge
from compress.cli import main
from compress.errors import DataError, ExportError
from compress.formats.artifact import Artifact, IOSpec
from compress.measure.parity import EndParity, Parity
from compress.measure.values import Interval, Latency, Measurement
from compress.report.comparison import render_comparison
from compress.report.html import grouped, render
from compress.report.manifest import manifest
from compress.report.pictures import Picture, mask_uri, paint, photo_of, photo_uri, pick, read_pictures
from compress.report.read import earlier_runs, read_record
from compress.report.record import Data, Earlier, HistoryPoint, LayerSize, Machine, RunRecord, Source, Trial
from compress.report.summary import table, verdict_line
from compress.report.write import write_report
from compress.runtime.kernels import Kernels
from compress.runtime.layers import LayerTime

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
        source=Source("models/u2net.pt", "cd" * 32, 176_000_000, 43_981_000),
        tools={"python": "3.11.7", "onnx": "1.23.2"},
        machine=Machine("a CPU", 2, 0.4),
        data=Data(400, 100, 240, reference="labels"),
        predicted_bytes=4_000_000,
        layers=(LayerSize("first", 1_000_000, 10_000, 64, 16), LayerSize("last", 28, 15, 1, 1)),
        history=(
            HistoryPoint("cut", 0, 0.332),
            HistoryPoint("repair", 0, 0.741),
            HistoryPoint("distil", 3, 0.8, 0.1),
            HistoryPoint("qat", 6, 0.81),
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
        data=Data(),
        machine=Machine(),
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
    return Picture(name, photo_of(IMAGE), EMPTY, EMPTY, reference, iou)


def test_a_report_is_six_files_and_no_partial_one(tmp_path):
    write_report(full_record(), [picture("a.jpg", 0.5)], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "MODEL_CARD.md",
        "labels.txt",
        "manifest.json",
        "pictures.npz",
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
    write_report(replace(full_record(), history=(HistoryPoint("qat", 1, 0.5, float("nan")),)), [], tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert document["history"][0]["loss"] is None


def test_a_file_name_that_is_not_unicode_does_not_stop_the_report(tmp_path):
    write_report(replace(full_record(), warnings=("\udcff.jpg: skipped",)), [], tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["warnings"] == ["\udcff.jpg: skipped"]


def test_the_manifest_has_exactly_the_promised_keys_and_bare_file_names(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"abc")
    recipe = {"description": "finds it", "author": "A. Uthor", "licence": "CC0-1.0"}
    stated = json.loads(json.dumps(manifest(replace(full_record(), recipe=recipe), tmp_path)))
    assert list(stated) == [
        *("schema", "name", "version", "description", "author", "licence", "created", "replaces", "compatible_with"),
        *("classes", "palette", "multilabel", "source", "input", "output", "files", "beside", "verdict"),
        *("measurements", "tools"),
    ]
    assert (stated["description"], stated["author"], stated["licence"]) == ("finds it", "A. Uthor", "CC0-1.0")
    assert stated["beside"] == [
        {
            "role": "labels",
            "file": "labels.txt",
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "size_bytes": 3,
        }
    ]
    assert stated["schema"] == 2
    assert stated["input"] == {
        "height": 320,
        "width": 320,
        "channels": 3,
        "colours": "RGB",
        "resize": "bilinear, antialiased",
        "fit": "stretch",
        "orientation": "upright, as EXIF says",
        "range": None,
    }
    assert stated["output"] == {
        "height": 320,
        "width": 320,
        "channels": ["<b>sky & sea</b>", "object"],
        "values": "softmax",
        "decision": "argmax",
        "threshold": None,
        "resize": "bilinear, before the decision",
    }
    assert stated["verdict"] == {
        "passed": False,
        "checks": [
            "onnx size 4,100,000 of 4,000,000 bytes: over budget",
            "tflite size 3,912,344 of 4,000,000 bytes: within budget",
        ],
    }
    assert list(stated["measurements"]["of"]) == ["teacher", "onnx", "tflite"]
    assert stated["measurements"]["of"]["onnx"] == {
        "size_bytes": 4_100_000,
        "latency": {"p50_ms": 34.5, "p90_ms": 34.5 * 1.1, "threads": 2, "runtime": "onnxruntime"},
        "iou": {"mean": 0.815, "low": 0.79, "high": 0.838},
        "speedup": {"mean": 8.9, "low": 8.7, "high": 9.2},
    }
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
    with pytest.raises(ExportError, match=r"a-file.report\.json: cannot be written: .*choose another folder"):
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
    assert "<i>.jpg, agreement with the teacher, IoU 0.500" in page.words
    assert "cat<1>.jpg could not be read: skipped" in page.words
    assert not any(tag in ("link", "iframe") for tag, _ in page.tags)
    assert [values for tag, values in page.tags if tag == "script"] == [{}]  # the browser of images, our own


def tags_of(page: str) -> Counter[str]:
    return Counter(tag for tag, _ in Page(page).tags)


def hostile(value):
    """Every text of a report, keys that are names too, as someone may write it who wants to be run."""
    text = "\"'><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }}"
    if isinstance(value, dict):
        named = ("controls", "minutes", "tools", "kernels", "layer_times", "recipe")
        whole = ("format", "metric", "sha256", "reference", "val_sha256")
        return {
            key: {f"{name}{text}": hostile(each) for name, each in item.items()}
            if key in named and isinstance(item, dict)
            else item
            if key in whole
            else hostile(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f"{value}{text}" if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("equal", "unread", "words", "not_said"),
    [
        (
            ("model.onnx",),
            ("model.ort",),
            ["is the graph's: model.onnx.", "model.ort cannot be read back"],
            "equal in every file",
        ),
        ((), ("model.ort",), ["model.ort cannot be read back"], "the graph's"),
        ((), (), ["equal in every file"], "cannot be read back"),
    ],
)
def test_what_was_read_back_is_said_of_these_files_alone(equal, unread, words, not_said):
    end = EndParity("torch and onnx", 5, 0.1, 2, 0.999)
    page = Page(render(replace(full_record(), parity=Parity((), (), (end,), (), equal, unread)), [])).words
    assert all(each in page for each in words)
    assert not_said not in page


def test_no_text_of_a_report_becomes_markup(tmp_path):
    measured = full_record().measurements
    record = replace(
        full_record(),
        controls={"a control": measured["tflite"]},
        kernels={"onnx": Kernels({"Conv": 2}, ("up (Resize): a reason", "down (Resize): a reason"), 2, 0)},
        layer_times={"onnx": (LayerTime("stem", "Conv", 1.0), LayerTime("deep", "Conv", 3.0))},
        earlier=(Earlier("2026-11-20T10:00:00Z", Data(), {"tflite": measured["tflite"]}),),
        parity=Parity(("a weight differs",), (), (EndParity("torch and onnx", 5, 0.1, 2, 0.999),), ("not here",)),
    )
    pictures = [picture("a.jpg", 0.5)]
    document = json.loads(json.dumps(hostile(record.to_json())))
    document["verdict"] = record.to_json()["verdict"]
    (tmp_path / "report.json").write_text(json.dumps(document))
    read = read_record(tmp_path)
    page = render(read, [replace(pictures[0], name=hostile("a.jpg"))])
    assert tags_of(page).keys() == tags_of(render(record, pictures)).keys()
    assert (tags_of(page)["script"], tags_of(page)["img"]) == (1, 0)
    assert "49" not in Page(page).words.split()
    assert not any(name.startswith("on") for _, values in Page(page).tags for name in values)
    runs, both = {"a": record, "b": record}, {"a": pictures, "b": pictures}
    hostile_runs = {hostile(name): read for name in runs}
    compared = render_comparison(hostile_runs, dict(zip(hostile_runs, both.values(), strict=True)))
    assert tags_of(compared)["script"] == tags_of(compared)["img"] == 0


def test_the_least_that_a_run_can_measure_still_makes_a_page():
    one = Measurement(
        1, Latency(5e-324, 5e-324, (5e-324,), 1, ""), Interval(0, 0, 0), (0.0,), Interval(1e-9, 1e-9, 1e9)
    )
    record = replace(
        full_record(),
        classes=("",),
        layers=(LayerSize("", 0, 0, 0, 0),),
        history=(HistoryPoint("", 0, 1.0), HistoryPoint("cut", 5e-324, 0.0)),
        measurements={"teacher": one, "tflite": one},
        layer_times={"onnx": (LayerTime("", "", 0.0),)},
        predicted_bytes=0,
    )
    words = Page(render(record, [])).words
    assert "1× the size" in words
    assert Page(render_comparison({"a": record, "b": record}, {"a": [], "b": []})).words.count("Speed was not") == 0


def test_the_page_refers_to_nothing_outside_itself():
    page = render(full_record(), [picture("a.jpg", 0.5)])
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "url(" not in page
    tags = Page(page).tags
    assert not any("src" in values for _, values in tags)
    sources = [values["href"] for tag, values in tags if tag == "image"]
    assert len(sources) == 3  # the photograph and two masks, each once
    assert all(
        source and source.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) for source in sources
    )
    names = {values["id"] for _, values in tags if "id" in values}
    used = [values["href"] for tag, values in tags if tag in ("use", "a")]
    assert used
    assert all(href and href.removeprefix("#") in names for href in used)
    policy = next(values["content"] for _, values in Page(page).tags if "http-equiv" in values)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


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
    record = replace(full_record(), data=Data(reference=reference))
    said = "agreement with the teacher, not accuracy"
    assert (said in Page(render(record, [])).words) == (reference == "teacher")
    assert ("agreement with the teacher" in table(record)) == (reference == "teacher")


def test_the_curve_puts_minutes_across_and_iou_upwards():
    dots = [values["d"] for tag, values in Page(render(full_record(), [])).tags if "dot" in (values.get("class") or "")]
    # minutes 3 and 6 of 6; IoU 0.8, 0.81 and the teacher's 0.9025, with 0.08 * 0.1025 above and below
    assert dots == ["M50.0 93.1 h.001", "M100.0 84.69 h.001"]


def test_the_curve_is_scaled_to_where_training_moves_it_and_says_what_lies_below():
    page = Page(render(full_record(), []))
    assert "cut 0.332, repair 0.741" in page.words
    assert "↓ marks what lies below the scale" in page.words
    near = replace(full_record(), history=(HistoryPoint("cut", 0, 0.805), HistoryPoint("qat", 6, 0.81)))
    assert "below the scale" not in Page(render(near, [])).words


def test_every_stage_has_a_colour_in_the_legend_also_one_that_nobody_knows():
    stages = ("tune", "cut", "between", "repair", "distil", "ptq", "qat", "an odd <one>")
    record = replace(full_record(), history=tuple(HistoryPoint(stage, 1, 0.5) for stage in stages))
    page = render(record, [])
    looks = [*stages[:-1], "other"]
    classes = [values.get("class") for tag, values in Page(page).tags if tag == "i"]
    assert [each for each in classes if each in looks] == looks
    assert all(f".{each} {{ --stage: var(" in page for each in looks)


def test_a_history_of_one_point_or_of_perfect_ones_still_draws():
    for iou in (0.0, 0.5, 1.0):
        record = replace(bare_record(), history=(HistoryPoint("cut", 0, iou),))
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


def cards(page: Page) -> list[dict[str, str | None]]:
    return [values for tag, values in page.tags if tag == "button" and "data-name" in values]


def test_labels_are_shown_only_where_there_are_any():
    with_labels = Page(render(full_record(), [picture("a.jpg", 0.5, np.full((8, 12), 255, np.uint8))]))
    (card,) = cards(with_labels)
    assert card["data-sides"] == "teacher student labels"
    assert card["data-iou"] == "student IoU 0.500"
    stored = {values["id"] for tag, values in with_labels.tags if tag == "image"}
    assert stored == {"photo-0", "teacher-0", "student-0", "labels-0"}
    assert "ignored in the labels" in with_labels.words
    without = Page(render(full_record(), [picture("a.jpg", 0.5)]))
    assert cards(without)[0]["data-sides"] == "teacher student"
    assert "ignored in the labels" not in without.words
    assert "agreement with the teacher's mask" in without.words


def test_where_the_teacher_cannot_be_asked_labels_stand_in_its_place(tmp_path):
    alone = replace(picture("a.jpg", 0.5, EMPTY), teacher=None)
    write_report(full_record(), [alone], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert 'value="labels" checked' in page
    assert "Mask of the labels over a.jpg" in page
    assert "Mask of the teacher" not in page
    (again,) = read_pictures(tmp_path / "pictures.npz")
    assert again.teacher is None


def test_a_photograph_is_a_jpeg_of_at_most_480_px():
    uri = photo_uri(photo_of(np.zeros((600, 1200, 3), np.uint8)))
    photo = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert (photo.format, photo.size) == ("JPEG", (480, 240))


def test_paint_tints_classes_outlines_them_and_pales_the_rest():
    labels = np.zeros((5, 5), np.uint8)
    labels[1:4, 1:4] = 1
    layer = paint(labels, ("", "#d01c8b"))
    assert layer[0, 0].tolist() == [255, 255, 255, 115]  # white, 0.45 of 255
    assert layer[1, 1].tolist() == [208, 28, 139, 255]  # on the outline
    assert layer[2, 2].tolist() == [208, 28, 139, 153]  # 0.6 of 255
    mask = Image.open(io.BytesIO(base64.b64decode(mask_uri(labels, ("", "#d01c8b")).partition(",")[2])))
    assert np.array_equal(np.asarray(mask), layer)


def test_the_worst_images_are_picked_and_then_others_up_to_the_best():
    iou = [index / 100 for index in reversed(range(100))]  # image 99 is the worst, 0 the best
    picked = pick(iou, 12)
    assert picked[:8] == list(range(99, 91, -1))
    assert picked[8:] == [68, 45, 23, 0]  # places 22.75, 45.5, 68.25 and 91 of the 92 others, rounded
    assert pick([0.5, 0.1], 12) == [1, 0]


def test_pictures_come_back_as_they_were_stored(tmp_path):
    labels = np.full((8, 12), 255, np.uint8)
    given = [picture("\udcff.jpg", 0.25, labels), picture("b.jpg", 0.5)]
    write_report(full_record(), given, tmp_path)
    first, second = read_pictures(tmp_path / "pictures.npz")
    assert (first.name, first.photo, first.student_iou) == ("\udcff.jpg", given[0].photo, 0.25)
    assert np.array_equal(first.reference, labels)
    assert second.reference is None


@pytest.mark.parametrize("content", [b"", b"PK no archive"])
def test_a_file_that_holds_no_pictures_is_one_line(tmp_path, content):
    (tmp_path / "pictures.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"pictures\.npz: not the pictures of a report") as error:
        read_pictures(tmp_path / "pictures.npz")
    assert "\n" not in str(error.value)


def test_the_table_states_sizes_latency_iou_and_each_verdict():
    assert table(full_record(), Path("export/u2net/report.html")) == "\n".join(
        [
            "         size                           latency p50  speedup             IoU [95 % interval]",
            "teacher  176.00 MB (175,997,641 bytes)  308.0 ms                         0.902 [0.881, 0.921]",
            "onnx     4.10 MB (4,100,000 bytes)      34.5 ms      8.9x [8.7, 9.2]     0.815 [0.790, 0.838]",
            "tflite   3.91 MB (3,912,344 bytes)      17.2 ms      17.9x [16.8, 19.0]  0.814 [0.789, 0.837]",
            "",
            "onnx size 4,100,000 of 4,000,000 bytes: over budget",
            "tflite size 3,912,344 of 4,000,000 bytes: within budget",
            "verdict: over budget",
            "report: export/u2net/report.html",
        ]
    )


def test_multiply_accumulates_are_told_where_they_are_known():
    known = {"teacher": 58_599_168_000, "onnx": None, "tflite": 17_547_247_200}
    measurements = {name: replace(each, macs=known[name]) for name, each in full_record().measurements.items()}
    record = replace(full_record(), measurements=measurements)
    first, *rows = table(record).splitlines()[:4]
    place = first.index("MACs")
    assert [row[place:].split("  ")[0] for row in rows] == ["58.60 G", "not measured", "17.55 G"]
    words = Page(render(record, [])).words
    assert "Multiply-accumulates 58.60 G 58,599,168,000 not measured 17.55 G 17,547,247,200" in words
    assert "Multiply-accumulates" not in Page(render(full_record(), [])).words


def test_the_table_of_an_unmeasured_run_says_so():
    assert table(replace(bare_record(), verdict=judge({}, Budget()))) == "\n".join(
        [
            "         size          latency p50   speedup  IoU [95 % interval]",
            "teacher  not measured  not measured           not measured",
            "",
            "verdict: no budget given",
        ]
    )


def test_contradictions_stand_between_the_verdict_and_the_figures():
    slow = replace(full_record().measurements["onnx"], speedup=Interval(0.8, 0.7, 0.9))
    record = replace(full_record(), measurements={**full_record().measurements, "onnx": slow})
    words = Page(render(record, [])).words
    assert words.index("Over budget") < words.index("ONNX against the teacher: 42.9 times smaller, but slower")
    assert words.index("but slower") < words.index("Measured on the files themselves")
    assert "pull apart" not in Page(render(full_record(), [])).words


def test_the_trade_off_plot_has_teacher_student_controls_and_earlier_runs():
    measured = full_record().measurements
    record = replace(
        full_record(),
        controls={"no <repair>": replace(measured["tflite"], iou=Interval(0.5, 0.45, 0.55), latency=None)},
        earlier=(
            Earlier("2026-11-20T10:00:00Z", Data(), {"tflite": replace(measured["tflite"], size_bytes=5_000_000)}),
        ),
    )
    page = Page(render(record, []))
    titles = [values["title"] for tag, values in page.tags if tag == "i" and "title" in values]
    assert "Teacher: 176 MB, IoU 0.902 [0.881, 0.921]" in titles
    assert "TFLite: 3.91 MB, IoU 0.814 [0.789, 0.837]" in titles
    assert "no <repair>: 3.91 MB, IoU 0.500 [0.450, 0.550]" in titles
    assert "2026-11-20 10:00: 5 MB, IoU 0.814 [0.789, 0.837]" in titles
    assert "2026-11-20 10:00: 17.2 ms, IoU 0.814 [0.789, 0.837]" in titles  # 308 ms of the teacher / 17.9
    assert sum(title.startswith("no <repair>") for title in titles if title) == 1  # its latency was not measured
    assert "a: no <repair>" in page.words
    assert "b: 2026-11-20 10:00" in page.words


def test_layers_stand_slowest_first_with_their_share():
    times = (LayerTime("stem", "QLinearConv", 1.0), LayerTime("deep", "QLinearConv", 3.0))
    words = Page(render(replace(full_record(), layer_times={"onnx": times}), [])).words
    assert "Latency by layer, ONNX 4 ms in all; the slowest is deep with 75.0 %." in words
    assert "2 layers, the slowest first deep 3.000 ms 75.0 % QLinearConv stem 1.000 ms 25.0 % QLinearConv" in words


def test_what_stayed_float_is_listed_by_format():
    kernels = {
        "onnx": Kernels({"Conv": 2, "Resize": 1}, ("up (Resize)",), 2, 0),
        "tflite": Kernels({"CONV_2D": 3}, (), 3, 3),
    }
    words = Page(render(replace(full_record(), kernels=kernels), [])).words
    assert "ONNX 0 of 2 convolutions run on integers. Outside the integer kernels: 1 of 3 operators." in words
    assert "up (Resize)" in words
    assert "TFLite 3 of 3 convolutions run on integers. Nothing: every operator runs in integers." in words


def test_layers_that_stay_float_for_one_reason_are_one_line_with_their_names_folded():
    outside = (
        *(f"up{number} (Resize): it truncates: so it stays" for number in range(38)),
        "odd",
        "cat (Concat): no kernel",
    )
    groups = grouped(outside)
    assert [(group.words, len(group.names)) for group in groups] == [
        ("Resize: it truncates: so it stays", 38),
        ("", 1),
        ("Concat: no kernel", 1),
    ]
    page = Page(render(replace(full_record(), kernels={"onnx": Kernels({"Resize": 40}, outside)}), []))
    assert "38 × Resize: it truncates: so it stays their names up0, up1," in page.words
    assert "cat (Concat: no kernel)" in page.words


def test_a_rebuilt_report_is_the_same(tmp_path):
    write_report(full_record(), [picture("a.jpg", 0.5)], tmp_path)
    pages = {name: (tmp_path / name).read_bytes() for name in ("report.html", "MODEL_CARD.md")}
    for name in pages:
        (tmp_path / name).unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_bytes() for name in pages} == pages


def test_a_record_comes_back_from_json(tmp_path):
    record = replace(
        full_record(), artifacts=(), history=(*full_record().history, HistoryPoint("qat", 7, float("nan")))
    )
    write_report(record, [], tmp_path)
    assert read_record(tmp_path) == replace(record, history=full_record().history)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2}', "\xff"])
def test_a_report_that_is_none_is_one_line_and_exit_code_2(tmp_path, capsys, content):
    (tmp_path / "report.json").write_text(content, encoding="latin-1")
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"compress: {tmp_path / 'report.json'}: ")
    assert "\n" not in error
    assert not (tmp_path / "report.html").exists()


def test_earlier_runs_are_those_of_the_same_teacher_five_at_most(tmp_path):
    assert earlier_runs(tmp_path, "cd" * 32) == ()
    for _ in range(7):
        record = replace(full_record(), earlier=earlier_runs(tmp_path, "cd" * 32))
        write_report(record, [], tmp_path)
    earlier = earlier_runs(tmp_path, "cd" * 32)
    assert len(earlier) == 5
    assert earlier[-1].measurements["tflite"].latency == replace(latency(17.2, "LiteRT"), samples_ms=())
    assert earlier_runs(tmp_path, "ef" * 32) == ()


def test_further_figures_have_a_row_where_they_were_measured():
    assert "Boundary IoU" not in Page(render(full_record(), [])).words
    measured = full_record().measurements
    finer = replace(measured["tflite"], boundary_iou=Interval(0.61, 0.6, 0.62), jpeg_flips=Interval(0.02, 0.01, 0.03))
    words = Page(render(replace(full_record(), measurements={**measured, "tflite": finer}), [])).words
    assert "Boundary IoU not measured not measured 0.610 [0.600, 0.620]" in words
    assert "Pixels that flip as JPEG not measured not measured 0.020 [0.010, 0.030]" in words


def test_small_objects_are_counted_and_have_no_row_where_none_is_known_of():
    measured = full_record().measurements

    def words(recall: float, count: int | None) -> str:
        found = replace(measured["tflite"], small_object_recall=Interval(recall, 0, recall), small_objects=count)
        return Page(render(replace(full_record(), measurements={**measured, "tflite": found}), [])).words

    assert "Small objects found, of 7 not measured not measured 0.000 [0.000, 0.000]" in words(0, 7)
    assert "Small objects found not measured not measured 0.500" in words(0.5, None)
    assert "Small objects" not in words(0, None)


@pytest.mark.parametrize(
    ("name", "onnx", "tflite", "limit"),
    [
        ("u2net-1mb", 1_195_889, 1_163_000, 1_200_000),
        ("u2net-4mb", 3_965_410, 3_935_496, 4_000_000),
        ("craft-4mb", 3_984_748, 3_988_267, 4_000_000),
    ],
)
def test_the_checks_of_a_released_report_are_read_by_their_names(name, onnx, tflite, limit):
    record = read_record(Path(__file__).parent.parent.parent / "export" / name)
    found = [(check.format, check.metric, check.measured, check.limit) for check in record.verdict.checks]
    assert found == [("onnx", "size", onnx, limit), ("tflite", "size", tflite, limit)]
    assert verdict_line(record.verdict.checks[0]) == f"onnx size {onnx:,} of {limit:,} bytes: within budget"
    assert record.to_json()["verdict"]["checks"][1]["name"] == "tflite size"


EXPORT = Path(__file__).parent.parent.parent / "export"


@pytest.mark.parametrize("release", ["u2net-1mb", "u2net-4mb", "craft-4mb"])
def test_the_committed_reports_are_still_read_and_shown(release, tmp_path):
    document = json.loads((EXPORT / release / "report.json").read_text())
    record = read_record(EXPORT / release)
    assert record.source.sha256 == document["source"]["sha256"]
    assert record.data.uncertainty == document["data"]["doubt" if "doubt" in document["data"] else "uncertainty"]
    assert record.data.val_sha256 == document["data"]["val_sha256"]
    assert record.machine.cores == document["machine"]["cores"]
    assert len(record.parity.layers) == len(document["parity"]["layers"])
    assert record.parity.passed
    assert main(["report", str(EXPORT / release), "--out", str(tmp_path / "page.html")]) == 0
    words = Page((tmp_path / "page.html").read_text()).words
    assert f"uncertainty {record.data.uncertainty}" in words
    if not record.parity.equal:  # older records do not say which files were read back
        assert "Weights, biases, scales and zero points are equal in every file." in words
    else:
        assert "Read back, every operator, attribute, connection, integer, scale and zero point is the graph's" in words


def test_the_committed_reports_are_still_compared(tmp_path):
    both = [str(EXPORT / name) for name in ("u2net-4mb", "u2net-1mb")]
    assert main(["report", *both, "--out", str(tmp_path / "page.html")]) == 0
    assert "Made from another teacher than u2net-4mb: u2net-1mb." in Page((tmp_path / "page.html").read_text()).words


def test_what_an_older_report_called_doubt_is_its_uncertainty_in_earlier_runs_too(tmp_path):
    old = replace(full_record(), data=replace(full_record().data, uncertainty=0.25))
    write_report(old, [], tmp_path)
    write_report(replace(old, earlier=earlier_runs(tmp_path, "cd" * 32)), [], tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert text.count('"uncertainty": 0.25') == 2
    (tmp_path / "report.json").write_text(text.replace('"uncertainty"', '"doubt"'))
    record = read_record(tmp_path)
    assert record.data.uncertainty == record.earlier[0].data.uncertainty == 0.25


def test_the_keys_of_a_report_stay_what_readers_outside_know():
    document = full_record().to_json()
    assert {"source", "tools", "machine", "data", "parity", "measurements", "history"} <= document.keys()
    assert document["schema"] == 1
    assert set(document["source"]) == {"file", "sha256", "size_bytes", "parameters"}
    assert set(document["machine"]) == {"cpu", "cores", "load"}
    counts = {"train", "val", "unlabelled", "held_out", "left_out"}
    assert set(document["data"]) == counts | {"uncertainty", "reference", "val_sha256", "range"}
    assert set(document["history"][0]) == {"stage", "minutes", "iou", "loss"}


def test_a_page_tells_of_the_students_that_were_tried_and_a_report_reads_them_back(tmp_path):
    trials = (
        Trial("narrower copy, 320x320", 0.71, 1_900_000, 8_000_000_000, apart=Interval(-0.05, -0.08, -0.02)),
        Trial("light, 256x256", 0.76, 1_954_024, 868_884_480, taken=True),
    )
    record = replace(full_record(), trials=trials)
    words = Page(render(record, [])).words
    assert "One of 2 students was chosen" in words
    assert "light, 256x256, taken 0.760 1.95 MB 1,954,024 bytes 868.88 M 868,884,480" in words
    assert "narrower copy, 320x320 0.710 -0.050 [-0.080, -0.020]" in words
    write_report(record, [], tmp_path)
    assert read_record(tmp_path).trials == trials
