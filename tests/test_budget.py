import pytest

from compress.budget import Budget, Limit, check, fields_of_name, judge, parse_limit, parse_size
from compress.errors import BudgetError
from compress.measure.values import Interval, Latency, Measurement


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("4MB", 4_000_000), ("4MiB", 4_194_304), ("900KB", 900_000), ("1.5 mb", 1_500_000), ("12B", 12), ("1kib", 1024)],
)
def test_sizes(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["4", "4XB", "-1MB", "0", "0MB", "", "MB", "4 M B", "1e6B", "nanMB"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(BudgetError, match="not a size") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "metric", "value", "reference", "unit"),
    [
        ("4MB", "size", 4_000_000, None, "bytes"),
        ("size <= 4MiB", "size", 4_194_304, None, "bytes"),
        ("20ms", "latency", 20, None, "ms"),
        (" 7.5 MS ", "latency", 7.5, None, "ms"),
        ("latency<=20ms", "latency", 20, None, "ms"),
        ("latency<=0.12x teacher.onnx", "latency", 0.12, "teacher.onnx", "x"),
        ("latency <= 2x ../main/my model.tflite", "latency", 2, "../main/my model.tflite", "x"),
        ("macs<=1.5G", "macs", 1_500_000_000, None, "macs"),
        ("MACs <= 2.3 g", "macs", 2_300_000_000, None, "macs"),
        ("macs<=800M", "macs", 800_000_000, None, "macs"),
        ("macs<=12.5k", "macs", 12_500, None, "macs"),
        ("macs<=384", "macs", 384, None, "macs"),
        ("iou>=0.86", "iou", 0.86, None, ""),
        ("IoU >= 1", "iou", 1, None, ""),
        ("iou_drop<=0.01", "iou_drop", 0.01, None, ""),
        ("iou_drop<=0 teacher.onnx", "iou_drop", 0, "teacher.onnx", ""),
        ("miou>=0.6", "miou", 0.6, None, ""),
        ("mIoU_drop <= 0.015 teacher.onnx", "miou_drop", 0.015, "teacher.onnx", ""),
    ],
)
def test_limits(text, metric, value, reference, unit):
    limit = parse_limit(text)
    assert limit == Limit(metric, value, text, reference)
    assert limit.unit == unit


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("20s", "20ms"),
        ("0ms", "20ms"),
        ("four", "4MB"),
        ("size<=20ms", "size<=4MB"),
        ("size>=4MB", "size<=4MB"),
        ("latency<=4MB", "latency<=20ms"),
        ("latency>=20ms", "latency<=20ms"),
        ("latency<=0.12x", "0.12x teacher.onnx"),
        ("latency<=0x teacher.onnx", "0.12x teacher.onnx"),
        ("macs>=1G", "macs<=1.5G"),
        ("macs<=0", "macs<=1.5G"),
        ("macs<=0.4", "macs<=1.5G"),
        ("macs<=1.5GB", "macs<=1.5G"),
        ("macs<=1T", "macs<=1.5G"),
        ("macs<=-1M", "macs<=1.5G"),
        ("macs<=1e9", "macs<=1.5G"),
        ("macs<=0.1x teacher.onnx", "macs<=1.5G"),
        ("macs<1G", "macs<=1G"),
        ("iou<=0.86", "iou>=0.86"),
        ("iou>=86", "iou>=0.86"),
        ("iou>=86%", "iou>=0.86"),
        ("iou>=0", "iou>=0.86"),
        ("iou>=nan", "iou>=0.86"),
        ("iou_drop>=0.01", "iou_drop<=0.01"),
        ("iou_drop<=1", "iou_drop<=0.01"),
        ("miou<=0.6", "miou>=0.6"),
        ("miou_drop>=0.6", "miou_drop<=0.01"),
        ("memory<=20MB", "size, latency, macs, iou, iou_drop"),
    ],
)
def test_what_makes_no_sense_is_named_with_what_to_write(text, advice):
    with pytest.raises(BudgetError) as caught:
        Budget.parse(["4MB", text])
    assert repr(text) in str(caught.value)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_each_kind_the_tightest_counts():
    budget = Budget.parse(
        ["4MB", "30ms", "1MiB", "iou>=0.8", "3MB", "latency<=20ms", "iou>=0.85", "latency<=0.5x a.onnx"]
        + ["macs<=2G", "macs<=900M", "macs<=1G"]
    )
    assert budget.size_bytes == 1_048_576
    assert budget.latency_ms == 20
    assert budget.macs == 900_000_000
    assert [limit.value for limit in budget.limits] == [1_048_576, 20, 0.85, 0.5, 900_000_000]


def test_no_limit_leaves_nothing_to_plan_by():
    assert (Budget.parse(["iou>=0.8"]).size_bytes, Budget.parse(["latency<=1x a.onnx"]).latency_ms) == (None, None)
    assert Budget.parse(["4MB"]).macs is None


def test_a_reference_that_there_will_not_be_is_refused_at_once():
    assert Budget.parse(["latency<=0.1x teacher.onnx"], ["teacher.onnx"]).limits[0].reference == "teacher.onnx"
    with pytest.raises(BudgetError, match=r"no other\.onnx to compare with; name teacher\.onnx"):
        Budget.parse(["latency<=0.1x other.onnx"], ["teacher.onnx"])


def sizes(**size_bytes: int | None) -> dict[str, Measurement]:
    return {name: Measurement(size) for name, size in size_bytes.items()}


def test_verdict_is_at_the_limit_within_and_one_byte_more_over():
    budget = Budget.parse(["100B"])
    assert judge(sizes(onnx=100), budget).passed
    verdict = judge(sizes(onnx=100, tflite=101), budget)
    assert [check.passed for check in verdict.checks] == [True, False]
    assert not verdict.passed


def test_multiply_accumulates_are_limited_in_every_file():
    found = {"tflite": Measurement(macs=1_000_000), "onnx": Measurement(macs=1_000_001), "ort": Measurement()}
    checks = judge(found, Budget.parse(["macs<=1M"])).checks
    assert [(one.name, one.measured, one.passed) for one in checks] == [
        ("tflite MACs", 1_000_000, True),
        ("onnx MACs", 1_000_001, False),
        ("ort MACs", None, False),
    ]
    assert fields_of_name(checks[0].name) == {"format": "tflite", "metric": "macs", "reference": None}


@pytest.mark.parametrize(
    "text", ["100B", "20ms", "latency<=0.1x teacher.onnx", "macs<=1G", "iou>=0.8", "iou_drop<=0.01"]
)
def test_a_missing_measurement_never_passes(text):
    (one,) = judge({"tflite": Measurement()}, Budget.parse([text])).checks
    assert (one.measured, one.passed, one.undecided) == (None, False, False)


def run_of(iou: Interval | None = None) -> Measurement:
    latency = Latency(18, 20, (18.0,), 2, "LiteRT")
    return Measurement(
        100, latency, iou or Interval(0.86, 0.84, 0.88), (), Interval(10, 8, 12.5), Interval(0.02, 0.01, 0.03)
    )


@pytest.mark.parametrize(
    ("text", "measured", "low", "high", "passed", "undecided"),
    [
        ("18ms", 18, None, None, True, False),
        ("17.9ms", 18, None, None, False, False),
        ("latency<=0.125x teacher.onnx", 0.1, 0.08, 0.125, True, False),  # 8 times faster is 0.125 of the time
        ("latency<=0.1x teacher.onnx", 0.1, 0.08, 0.125, False, True),
        ("latency<=0.07x teacher.onnx", 0.1, 0.08, 0.125, False, False),
        ("iou>=0.84", 0.86, 0.84, 0.88, True, False),
        ("iou>=0.85", 0.86, 0.84, 0.88, False, True),
        ("iou>=0.89", 0.86, 0.84, 0.88, False, False),
        ("iou_drop<=0.03", 0.02, 0.01, 0.03, True, False),
        ("iou_drop<=0.02", 0.02, 0.01, 0.03, False, True),
        ("iou_drop<=0.005", 0.02, 0.01, 0.03, False, False),
    ],
)
def test_a_limit_is_met_when_the_whole_interval_meets_it(text, measured, low, high, passed, undecided):
    (one,) = judge({"tflite": run_of()}, Budget.parse([text])).checks
    assert (one.measured, one.low, one.high) == (measured, low, high)
    assert (one.passed, one.undecided) == (passed, undecided)


def test_lenient_lets_an_undecided_limit_pass_and_no_other():
    inside, outside = parse_limit("iou>=0.85"), parse_limit("iou>=0.89")
    interval = Interval(0.86, 0.84, 0.88)
    assert check("tflite", inside, interval, lenient=True).passed
    assert not check("tflite", outside, interval, lenient=True).passed
    assert not check("tflite", inside, None, lenient=True).passed


def test_a_figure_that_is_no_number_never_passes():
    nan = float("nan")
    assert not judge({"tflite": run_of(iou=Interval(nan, nan, nan))}, Budget.parse(["iou>=0.1"])).passed


def test_a_latency_is_that_of_the_tflite_file_where_there_is_one():
    budget = Budget.parse(["20ms", "iou>=0.8"])
    both = judge({"onnx": run_of(), "tflite": run_of()}, budget)
    assert [one.name for one in both.checks] == ["tflite latency", "onnx IoU", "tflite IoU"]
    assert [one.name for one in judge({"onnx": run_of()}, budget).checks] == ["onnx latency", "onnx IoU"]


def test_checks_of_several_references_differ_in_name():
    budget = Budget.parse(["latency<=0.1x teacher.onnx", "latency<=1x main/model.tflite"])
    assert [limit.kind for limit in budget.limits] == [
        "latency against teacher.onnx",
        "latency against main/model.tflite",
    ]


@pytest.mark.parametrize(
    "text", ["4MB", "20ms", "latency<=0.1x ../against x.onnx", "iou>=0.8", "iou_drop<=0.01", "iou_drop<=0 teacher.onnx"]
)
def test_a_check_knows_what_it_limits_and_so_does_its_name(text):
    limit = parse_limit(text)
    one = check("tflite", limit, None)
    assert one.subject == ("tflite", limit.metric, limit.reference)
    assert (one.kind, one.unit, one.at_least) == (limit.kind, limit.unit, limit.at_least)
    assert one.name == f"tflite {limit.kind}"
    assert fields_of_name(one.name) == {
        "format": one.format,
        "metric": one.metric,
        "reference": one.reference,
    }


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("iou>0.86", "iou>=0.86"),
        ("IoU => 0.86", "iou>=0.86"),
        ("iou<0.86", "iou>=0.86"),
        ("latency<20ms", "latency<=20ms"),
        ("latency=0.12x teacher.onnx", "latency<=0.12x teacher.onnx"),
        ("size=4MB", "size<=4MB"),
        ("iou_drop<0.01", "iou_drop<=0.01"),
    ],
)
def test_another_sign_is_answered_with_the_one_that_is_meant(text, meant):
    with pytest.raises(BudgetError, match=f"write {meant}$"):
        parse_limit(text)
    assert parse_limit(meant).value > 0


def test_mean_iou_over_classes_is_judged_apart_from_iou():
    measured = Measurement(
        iou=Interval(0.9, 0.88, 0.92), miou=Interval(0.6, 0.58, 0.62), miou_drop=Interval(0.01, 0, 0.02)
    )
    budget = Budget.parse(["iou>=0.8", "miou>=0.59", "miou>=0.63", "miou_drop<=0.02"])
    iou, miou, drop = judge({"onnx": measured}, budget).checks
    assert (iou.passed, iou.measured) == (True, 0.9)
    assert (miou.name, miou.limit, miou.measured, miou.passed, miou.undecided) == ("onnx mIoU", 0.63, 0.6, False, False)
    assert (drop.name, drop.measured, drop.passed) == ("onnx mIoU drop", 0.01, True)
    assert fields_of_name(drop.name) == {"format": "onnx", "metric": "miou_drop", "reference": None}
