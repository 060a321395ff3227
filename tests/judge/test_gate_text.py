"""What a gate writes for CI, read back as CI reads it."""

from xml.etree import ElementTree

import pytest

from compress.budget import Check, Verdict
from compress.judge.gate_text import GateResult, annotations, change_since, gate_json, gate_table, junit, markdown

WITHIN = Check("tflite", "size", 3_912_344, 4_000_000, True)
OVER = Check("onnx", "size", 4_100_000, 4_000_000, False)
UNDECIDED = Check("tflite", "latency", 19.5, 20.0, False, 18.8, 20.3, undecided=True)
RATIO = Check("tflite", "latency", 0.0591, 0.12, True, 0.0572, 0.0611, "teacher.onnx")
SHORT = Check("tflite", "iou", 0.84, 0.86, False, 0.83, 0.85)
MISSING = Check("onnx", "iou", None, 0.86, False)
BASE = {
    ("tflite", "size", None): 3_600_000,
    ("tflite", "iou", None): 0.852,
    ("tflite", "latency", None): 15.6,
    ("onnx", "iou", None): 0.9,
}


def result(*checks: Check, **more) -> GateResult:
    return GateResult("export/u2net", Verdict(checks), **more)


def test_the_table_has_a_line_for_each_check_and_ends_with_the_outcome():
    shown = gate_table(result(WITHIN, OVER, UNDECIDED, RATIO, SHORT, MISSING, notes=("be careful",)))
    assert shown.splitlines() == [
        "                                     measured                 limit",
        "tflite size                          3,912,344                4,000,000 bytes  within budget",
        "onnx size                            4,100,000                4,000,000 bytes  over budget",
        "tflite latency                       19.50 [18.80, 20.30]     20 ms            undecided",
        "tflite latency against teacher.onnx  0.0591 [0.0572, 0.0611]  0.12x            within budget",
        "tflite IoU                           0.8400 [0.8300, 0.8500]  at least 0.86    short of budget",
        "onnx IoU                             not measured             at least 0.86    not measured",
        "",
        "be careful",
        "gate: export/u2net: over budget",
    ]


@pytest.mark.parametrize(
    ("checks", "headline"),
    [
        ((WITHIN, RATIO), "within budget"),
        ((WITHIN, UNDECIDED), "not shown to be within budget"),
        ((MISSING,), "not shown to be within budget"),
        ((UNDECIDED, OVER), "over budget"),
    ],
)
def test_the_outcome_tells_over_from_undecided(checks, headline):
    assert gate_table(result(*checks)).endswith(f"gate: export/u2net: {headline}")


def test_change_is_a_share_or_points_of_iou():
    assert change_since(WITHIN, BASE) == "+8.7 % (3,600,000)"  # 3_912_344 / 3_600_000 = 1.0868
    assert change_since(UNDECIDED, BASE) == "+25.0 % (15.60)"
    assert change_since(SHORT, BASE) == "-0.0120 (0.8520)"
    assert change_since(MISSING, BASE) == change_since(OVER, BASE) == "unknown"


def test_the_table_states_the_change_where_there_is_a_base():
    assert "since base" not in gate_table(result(WITHIN))
    lines = gate_table(result(WITHIN, base=BASE)).splitlines()
    assert "since base" in lines[0]
    assert "+8.7 % (3,600,000)" in lines[1]


def test_json_holds_every_check_and_no_number_that_json_has_not():
    nan = Check("tflite", "iou", float("nan"), 0.86, False)
    document = gate_json(result(UNDECIDED, nan, notes=("be careful",), base=BASE))
    assert (document["passed"], document["headline"]) == (False, "over budget")
    first, second = document["checks"]
    assert first["outcome"] == "undecided"
    assert (first["measured"], first["low"], first["high"], first["limit"], first["base"]) == (
        19.5,
        18.8,
        20.3,
        20,
        15.6,
    )
    assert second["measured"] is None
    assert document["notes"] == ["be careful"]
    assert (first["name"], first["unit"], second["unit"], second["at_least"]) == ("tflite latency", "ms", "", True)
    assert (first["format"], first["metric"], first["reference"]) == ("tflite", "latency", None)


def test_junit_has_a_case_for_each_check_and_a_failure_for_each_that_fails():
    root = ElementTree.fromstring(junit(result(WITHIN, OVER, UNDECIDED, MISSING, notes=("a note",))))
    (suite,) = root
    assert root.tag == "testsuites"
    assert suite.get("name") == "compress gate"
    assert float(suite.get("time")) >= 0
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == ("4", "3", "0")
    cases = suite.findall("testcase")
    assert [case.get("classname") for case in cases] == ["export/u2net"] * 4
    assert len({case.get("name") for case in cases}) == 4
    assert [failure.get("type") for failure in suite.iter("failure")] == ["over budget", "undecided", "not measured"]
    assert cases[1].find("failure").text == "onnx size 4,100,000 of 4,000,000 bytes: over budget"
    assert cases[0].find("failure") is None
    assert suite.find("system-out").text == "a note"


def test_junit_survives_names_that_xml_cannot_hold():
    target = 'a<b>&"c\x00\x1b'
    root = ElementTree.fromstring(junit(GateResult(target, Verdict((OVER,)), (target,))))
    assert next(root.iter("testcase")).get("classname") == 'a<b>&"c\ufffd\ufffd'


def test_annotations_are_one_line_each_and_escaped():
    lines = annotations(result(WITHIN, OVER, notes=("100 %\nand more",))).splitlines()
    assert lines == [
        "::error title=compress gate::export/u2net: onnx size 4,100,000 of 4,000,000 bytes: over budget",
        "::notice title=compress gate::100 %25%0Aand more",
    ]


def test_a_gate_that_passes_in_silence_has_no_annotations():
    assert annotations(result(WITHIN)) == ""


def test_markdown_is_a_table_with_the_change():
    lines = markdown(result(WITHIN, SHORT, notes=("be careful",), base=BASE)).splitlines()
    assert lines[0] == "### ❌ export/u2net: over budget"
    assert lines[2:6] == [
        "| check | measured | limit | since base | |",
        "|---|---|---|---|---|",
        "| tflite size | 3,912,344 | 4,000,000 bytes | +8.7 % (3,600,000) | ✓ within budget |",
        r"| tflite IoU | 0.8400 \[0.8300, 0.8500\] | at least 0.86 | -0.0120 (0.8520) | ✗ short of budget |",
    ]
    assert lines[-1] == "- be careful"


def test_markdown_keeps_a_name_from_breaking_the_table():
    shown = markdown(GateResult("a|b<img>`x`", Verdict((WITHIN,))))
    assert r"a\|b\<img\>\`x\`" in shown
