"""Channels that go together, worked out by hand."""

import pytest
import torch

from compress.graph.channels import ChannelGroup
from compress.prune.importance import _damage_of, _in_units, _pivoted
from compress.prune.units import in_units, next_width, step_of


def group(width: int, parts: int = 1, block: int = 1) -> ChannelGroup:
    return ChannelGroup("g", width, ("g",), "", parts, block)


def test_widths_step_down_in_multiples_of_8():
    assert [next_width(w) for w in (64, 60, 9, 8, 1)] == [56, 56, 8, 0, 0]


@pytest.mark.parametrize(
    ("width", "parts", "block", "step"),
    [(64, 1, 1, 8), (4, 1, 1, 8), (128, 1, 4, 8), (120, 1, 24, 24), (160, 5, 1, 40), (24, 3, 1, 3), (24, 1, 12, 12)],
)
def test_a_step_is_a_multiple_of_8_and_of_what_goes_together_if_two_widths_are_left(width, parts, block, step):
    assert step_of(group(width, parts, block)) == step


def test_single_channels_keep_their_order():
    assert in_units(group(4), (2, 0, 3, 1), (0.0, 9.0, 0.0, 0.0)) == (2, 0, 3, 1)


def test_blocks_are_ranked_by_the_sum_of_what_their_channels_are_worth():
    assert in_units(group(6, block=2), range(6), (1, 1, 0, 5, 2, 1)) == (2, 3, 4, 5, 0, 1)


def test_of_each_part_the_next_best_goes_along():
    assert in_units(group(6, parts=2), range(6), (1, 2, 3, 9, 7, 8)) == (2, 3, 1, 5, 0, 4)


def test_the_damage_of_the_order_that_pivots_find_is_theirs():
    torch.manual_seed(0)
    mixed = torch.randn(6, 40, dtype=torch.float64)
    covariances, fishers = [mixed @ mixed.T, torch.eye(6, dtype=torch.float64)], list(torch.rand(2, 6).double())
    pivoted = _pivoted(covariances, fishers)
    again = _damage_of(pivoted.order, torch.stack(covariances), torch.stack(fishers))
    assert again == pytest.approx(pivoted.damage)


def test_damage_never_rises_with_the_channels_that_are_kept_in_units():
    torch.manual_seed(0)
    mixed = torch.randn(12, 40, dtype=torch.float64)
    damage = _in_units(group(12, parts=2, block=2), [mixed @ mixed.T], [torch.rand(12).double()])
    assert sorted(damage.order) == list(range(12))
    assert list(damage.damage) == sorted(damage.damage, reverse=True)
    assert damage.damage[12] == 0
