import pytest

from compress.budget import Budget, judge, parse_size
from compress.errors import BudgetError


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


def test_the_tightest_budget_counts():
    assert Budget.parse(["4MB", "1MiB", "3MB"]).size_bytes == 1_048_576


def test_verdict_is_at_the_limit_within_and_one_byte_more_over():
    assert judge({"onnx": 100}, Budget(100)).passed
    verdict = judge({"onnx": 100, "tflite": 101}, Budget(100))
    assert [check.passed for check in verdict.checks] == [True, False]
    assert not verdict.passed


def test_a_missing_measurement_never_passes():
    assert not judge({"tflite": None}, Budget(100)).passed
