"""The first screen: how much smaller and faster, IoU beside the teacher's, what to do next."""

from dataclasses import replace

import numpy as np
import pytest
from test_report import Page, full_record, picture

from compress.budget import Budget, Check, Verdict, judge
from compress.measure.values import Interval, Latency, Measurement
from compress.report.html import render
from compress.report.record import Data, RunRecord
from compress.report.result import Figure, figures, lead, next_steps, remarks


def measured(size_bytes: int, ms: float, speedup: Interval | None, drop: Interval) -> Measurement:
    return Measurement(
        size_bytes,
        Latency(ms, ms, (ms,), 2, "LiteRT"),
        Interval(0.896, 0.876, 0.914),
        speedup=speedup,
        iou_drop=drop,
    )


def record_of(student: Measurement, **teacher) -> RunRecord:
    heavy = Measurement(176_000_000, Latency(277.0, 277.0, (277.0,), 2, "onnxruntime"), Interval(0.902, 0.881, 0.92))
    return replace(full_record(), measurements={"teacher": replace(heavy, **teacher), "tflite": student})


def test_a_result_is_three_figures_with_their_intervals():
    student = measured(3_900_000, 32.7, Interval(8.53, 8.25, 8.69), Interval(0.006, -0.005, 0.017))
    assert figures(record_of(student)) == [
        Figure("45×", "smaller", detail="176 MB → 3.9 MB"),
        Figure("8.5×", "faster", "[8.2, 8.7]", "277 ms → 32.7 ms"),
        Figure("0.896", "IoU beside 0.902", "0.006 less [-0.005, 0.017]", "which can be chance"),
    ]


def test_what_is_larger_slower_and_better_is_called_so():
    student = measured(352_000_000, 554.0, Interval(0.5, 0.4, 0.8), Interval(-0.02, -0.03, -0.01))
    assert [figure.line for figure in figures(record_of(student))] == [
        "2.0× larger",
        "2.0× slower [1.25, 2.5]",
        "0.896 IoU beside 0.902, 0.020 more [0.010, 0.030]",
    ]


def test_a_speed_whose_interval_holds_one_is_neither_faster_nor_slower():
    student = measured(3_900_000, 270.0, Interval(1.02, 0.9, 1.1), Interval(0, 0, 0))
    assert figures(record_of(student))[1] == Figure("1.02×", "the speed", "[0.90, 1.10]", "which can be chance")


def test_what_was_not_measured_is_said():
    assert {figure.value for figure in figures(record_of(Measurement()))} == {"not measured"}
    assert lead({"teacher": Measurement()}) is None
    assert lead({"teacher": Measurement(), "onnx": Measurement(), "ort": Measurement()}) == "onnx"


def test_without_labels_the_figure_is_agreement_and_no_teacher_stands_beside_it():
    student = measured(3_900_000, 32.7, None, Interval(0, 0, 0))
    figure = figures(replace(record_of(student), data=Data(reference="teacher")))[2]
    assert figure.line == "0.896 agreement with the teacher, IoU [0.876, 0.914]"


def test_other_files_and_the_network_that_was_compressed_have_a_line_each():
    record = full_record()
    source = replace(record.measurements["teacher"], size_bytes=7_824_688, speedup=Interval(2, 2, 2))
    record = replace(record, measurements={**record.measurements, "source": source})
    assert remarks(record) == [
        ("ONNX", "43× smaller, 8.9× faster [8.7, 9.2], 0.815 IoU [0.790, 0.838]"),
        (
            "TFLite against the network that was compressed",
            "2.0× smaller, 8.9× faster [8.4, 9.5], 0.814 IoU beside 0.902, 0.100 less [0.100, 0.100]",
        ),
    ]


def check(metric, figure, limit, **more) -> Check:
    return Check("tflite", metric, figure, limit, False, **more)


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (check("size", 4_400_000, 4_000_000), "The TFLite file is 400 kB too large: run again for a smaller one:"),
        (check("latency", 40.0, 20.0), "The TFLite file must do with 50 % of its time"),
        (check("macs", 2e9, 1.5e9), "The TFLite file has 500.00 M multiply-accumulates too many: run again"),
        (check("iou", 0.84, 0.86), "0.020 IoU is missing: train for longer"),
        (check("iou_drop", 0.03, 0.01), "0.020 IoU is missing: train for longer"),
        (check("iou", None, 0.86), "Have the IoU measured:"),
        (check("iou", 0.86, 0.86, low=0.84, high=0.88, undecided=True), "Measure on more labelled images"),
        (check("latency", 20.0, 20.0, low=19.0, high=21.0, undecided=True), "Measure the latency for longer"),
    ],
)
def test_a_missed_limit_says_by_how_much_and_what_would_help(failed, words):
    (step,) = next_steps(replace(full_record(), verdict=Verdict((failed,))))
    assert words in step.words


def test_a_result_within_budget_is_shipped_and_held_to_the_same_limits():
    passing = judge({"tflite": Measurement(3_900_000)}, Budget.parse(["4MB"]))
    record = replace(full_record(), verdict=passing, recipe={"budget": ["4MB", "iou>=0.8"]})
    ship, hold = next_steps(record)
    assert ship.words.startswith("Put model.tflite into the app")
    assert hold.command == "compress gate DIR --budget 4MB --budget 'iou>=0.8'"
    assert next_steps(replace(record, verdict=Verdict(())))[0].command == "compress gate DIR --budget 4MB"


def first_screen(page: Page) -> str:
    return page.words[page.words.index("1.0.0 ✗") : page.words.index("All figures")]


def test_the_first_screen_has_figures_pictures_marks_and_steps_in_this_order():
    page = Page(render(full_record(), [picture("a.jpg", 0.5)]))
    order = [
        "✗ Over budget",
        "45× smaller",
        "18× faster [16.8, 19.0]",
        "0.814 IoU beside 0.902",
        "teacher student a.jpg",
    ]
    order += [
        "✗ onnx size 4,100,000",
        "✓ tflite size 3,912,344",
        "What to do next",
        "100 kB too large",
        "ONNX: 43× smaller",
    ]
    places = [first_screen(page).index(words) for words in order]
    assert places == sorted(places)


def test_every_section_has_a_place_in_the_table_of_contents_and_headings_go_down_one_by_one():
    slow = replace(full_record().measurements["onnx"], speedup=Interval(0.8, 0.7, 0.9))
    record = replace(full_record(), measurements={**full_record().measurements, "onnx": slow})
    for shown in (record, full_record()):
        tags = Page(render(shown, [picture("a.jpg", 0.5)])).tags
        links = [values["href"] for tag, values in tags if tag == "a"]
        assert links == [f"#{values['id']}" for tag, values in tags if tag == "section" and "id" in values][1:]
        levels = [int(tag[1]) for tag, _ in tags if tag in ("h1", "h2", "h3")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert max(np.diff(levels)) <= 1


def test_every_drawing_says_what_it_shows_or_is_hidden_from_readers_of_the_screen():
    tags = Page(render(full_record(), [picture("a.jpg", 0.5)])).tags
    drawings = [values for tag, values in tags if tag == "svg" and "viewbox" in values]
    assert len(drawings) >= 6  # two pairs, two panels, a curve
    assert all(each["role"] == "img" and each["aria-label"] for each in drawings)
    assert [values["aria-hidden"] for tag, values in tags if tag == "svg" and values.get("class") == "store"] == [
        "true"
    ]


def test_many_warnings_are_folded_after_six():
    record = replace(full_record(), warnings=tuple(f"image {number} was skipped" for number in range(40)))
    page = Page(render(record, []))
    assert "40 warnings" in page.words
    assert "image 5 was skipped 34 more image 6 was skipped" in page.words


def test_lists_of_layers_are_folded():
    tags = [tag for tag, _ in Page(render(full_record(), [])).tags]
    assert tags.count("details") == 2  # sizes by layer, and the recipe
