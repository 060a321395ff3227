"""Lists and ranges as a user writes them."""

import pytest

from compress.errors import CompressError
from compress.sweep.space import Axis, arguments_of, budgets, name_of, space

ONE = Axis("--budget", ("1MB",))


def test_every_combination_is_there_once_and_has_a_name_that_tells_it():
    budget, limits = budgets(["1MB,1.5MB", "iou>=0.85", "20ms"])
    found = space(budget, "256,320x240", "0.1,0.25", 2, None)
    names = [name_of(setting) for setting in found.grid()]
    assert len(names) == len(set(names)) == found.trials == 16
    assert names[0] == "1mb-256-m0.1-s0"
    assert names[-1] == "1.5mb-320x240-m0.25-s1"
    assert [limit.text for limit in limits] == ["iou>=0.85", "20ms"]
    assert arguments_of(found.grid()[0])[:4] == ("--budget", "1MB", "--input-size", "256")


def test_a_range_says_how_many_trials():
    found = space(ONE, None, "0.05:0.4", None, 12)
    assert found.ranges
    assert found.trials == 12
    assert (found.axes[1].low, found.axes[1].high) == (0.05, 0.4)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "no size to plan for: give some, such as --budget 1MB,2MB,4MB"),
        (["iou>=0.9"], "no size to plan for"),
        (["1MB,,x"], "--budget 1MB,,x: there is no value between two commas"),
        (["1MB,x"], "budget 'x' is not a size"),
        (["1MB,1000KB"], "1000KB is 1MB again; name each value once"),
        (["1MB,1MB"], "1MB is 1MB again"),
        (["1MB", "1MB"], "1MB is 1MB again"),
    ],
)
def test_budgets_that_make_no_sense(given, says):
    with pytest.raises(CompressError, match=".*") as error:
        budgets(given)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("size", "share", "seeds", "trials", "says"),
    [
        ("", None, None, None, "--input-size : there is no value"),
        ("256,256x256", None, None, None, "256x256 is 256 again"),
        ("256,large", None, None, None, "--input-size: 'large' is no height and width"),
        (None, "0.4:0.05", None, 3, "the lowest share, then a higher one"),
        (None, "0.1:0.1", None, 3, "the lowest share, then a higher one"),
        (None, "0.1,2", None, None, "no share of the heavy model's operations"),
        (None, "nan", None, None, "no share of the heavy model's operations"),
        (None, "0.1:", None, 3, "no share of the heavy model's operations"),
        (None, "0.05:0.4", None, None, "say how many with --trials N"),
        (None, None, 0, None, "--seeds 0: from 1"),
        (None, None, None, 0, "--trials 0: from 1"),
    ],
)
def test_lists_and_ranges_that_make_no_sense(size, share, seeds, trials, says):
    with pytest.raises(CompressError) as error:
        space(ONE, size, share, seeds, trials)
    assert says in str(error.value)
