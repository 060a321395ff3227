"""The front, what of it was shown, and what keeps figures from being compared."""

from dataclasses import replace

import pytest
from pretend import record

from compress.report.record import Data, Machine
from compress.sweep.front import cautions, differences, front, smallest
from compress.sweep.page import write_page
from compress.sweep.trials import Trial


def trial(name: str, size: int, ms: float, *ious: float, limits=("4MB",), **more) -> Trial:
    values = ious if len(ious) > 1 else ious * 20
    return Trial(name, {"--budget": "4MB"}, "done", "", record(size, ms, values, limits, **more))


def test_on_the_front_are_those_that_no_other_beats():
    trials = [
        trial("small", 1_000_000, 10.0, 0.8),
        trial("good", 3_000_000, 20.0, 0.9),
        trial("beaten", 3_000_000, 21.0, 0.89),
        trial("fast", 2_000_000, 5.0, 0.7),
        Trial("failed", {}, "failed", "why"),
    ]
    assert [one.name for one in front(trials)] == ["small", "fast", "good"]


def test_equal_trials_are_both_on_the_front():
    assert len(front([trial("a", 10, 1.0, 0.5), trial("b", 10, 1.0, 0.5)])) == 2


def test_differences_are_paired_by_image_where_the_images_are_the_same():
    spread = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.55, 0.65, 0.75, 0.85, 0.7, 0.6]
    steady = [trial("a", 1, 3.0, *spread), trial("b", 2, 2.0, *(iou + 0.03 for iou in spread))]
    (found,) = differences(steady)
    # every image gains 0.03, so there is no doubt, although the intervals of both overlap
    assert found.paired
    assert (found.larger, found.smaller, found.words) == ("b", "a", "better")
    assert found.gain.mean == pytest.approx(0.03)
    other = replace(steady[1].record, data=Data(val_sha256="others", reference="labels"))
    (found,) = differences([steady[0], replace(steady[1], record=other)])
    assert not found.paired
    # 0.03 with 0.01 on either side of both
    assert (found.gain.low, found.gain.high) == (pytest.approx(0.01), pytest.approx(0.05))


def test_a_difference_that_images_contradict_is_none():
    a = trial("a", 1, 2.0, *[0.5, 0.9] * 10)
    b = trial("b", 2, 1.0, *[0.9, 0.52] * 10)
    (found,) = differences([a, b])
    assert found.words == "none was shown: more images would tell"
    (found,) = differences([a, trial("c", 2, 1.0, *[0.501, 0.901] * 10)])
    assert found.words == "no difference that a user could notice"


def test_the_smallest_is_of_those_that_meet_all_limits():
    limits = ("4MB", "iou>=0.8")
    trials = [
        trial("too bad", 1_000_000, 1.0, 0.7, limits=limits),
        trial("taken", 2_000_000, 1.0, 0.85, limits=limits),
        trial("larger", 3_000_000, 1.0, 0.95, limits=limits),
    ]
    assert smallest(trials).name == "taken"
    assert smallest(trials[:1]) is None


def test_latencies_of_other_machines_or_of_busy_ones_are_said_not_to_compare():
    quiet = trial("a", 1, 1.0, 0.5)
    assert cautions([quiet]) == []
    (said,) = cautions([quiet, trial("b", 1, 1.0, 0.5, machine=Machine("another", 8, 0.2))])
    assert "2 different machines" in said
    (said,) = cautions([quiet, trial("b", 1, 1.0, 0.5, machine=Machine("a processor", 4, 7.5))])
    assert "busy" in said
    assert ": b;" in said


def test_the_page_names_every_trial_and_lets_no_text_be_markup(tmp_path):
    bad = Trial("2mb", {"--budget": "2MB"}, "failed", "<script>alert(1)</script>")
    trials = [trial("1mb", 900_000, 9.0, 0.8), trial("3mb", 2_900_000, 5.0, 0.9), bad, Trial("4mb", {}, "running")]
    write_page(trials, {"MODEL": "<b>.pt"}, 4, tmp_path)
    page = (tmp_path / "sweep.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "<b>.pt" not in page
    assert "1mb is the smallest that meets all limits" in page
    assert "compress publish DIR/trials/1mb --to REGISTRY" in page
    assert "4mb: running" in page
    assert "http" not in page.replace("http-equiv", "")
