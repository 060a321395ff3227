"""What is tried: each combination once, whatever dies in between."""

import pytest

from compress.errors import RecipeError
from compress.sweep.space import Axis, Space, name_of
from compress.sweep.study import JOURNAL, Study

BUDGET, SEED = Axis("--budget", ("1MB", "2MB", "4MB")), Axis("--seed", ("0", "1"))
SHARE = Axis("--macs-share", (), 0.05, 0.4)
GRID = Space((BUDGET, SEED), 6)


def opened(folder, space=GRID, storage=None) -> Study:
    return Study(space, folder, "compress a", storage)


def all_asked(study: Study) -> list[str]:
    names = []
    while (asked := study.ask()) is not None:
        names.append(name_of(asked.setting))
        study.tell(asked.number, (1e6, 10.0, 0.9))
    return names


@pytest.mark.parametrize("storage", [None, "sqlite"])
def test_every_combination_is_asked_once_also_by_drivers_that_follow(tmp_path, storage):
    url = storage and f"sqlite:///{tmp_path / 'study.db'}"
    first = opened(tmp_path, storage=url)
    begun = [first.ask() for _ in range(3)]
    first.tell(begun[0].number, (1e6, 10.0, 0.9))
    first.tell(begun[1].number, None, "no student fits")
    second = opened(tmp_path, storage=url)
    assert [name_of(asked.setting) for asked in second.unfinished()] == [name_of(begun[2].setting)]
    assert len(names := all_asked(second)) == 3
    known = {name_of(told.setting): told.state for told in second.told()}
    assert sorted(known.values()) == ["done"] * 4 + ["failed", "running"]
    assert set(names).isdisjoint(name_of(asked.setting) for asked in begun)


def test_fewer_trials_than_combinations_are_different_ones_and_more_are_added_later(tmp_path):
    few = all_asked(opened(tmp_path, Space((BUDGET, SEED), 2)))
    more = all_asked(opened(tmp_path, Space((BUDGET, SEED), 5)))
    assert len(few) == 2
    assert len(set(few + more)) == len(few + more) == 5


def test_of_a_range_as_many_as_asked_for_are_drawn_none_twice_and_each_with_every_seed(tmp_path):
    space = Space((BUDGET, SHARE, SEED), 8)
    first = opened(tmp_path, space)
    names = []
    for _ in range(3):
        asked = first.ask()
        names.append(name_of(asked.setting))
        first.tell(asked.number, (1e6, 10.0, 0.9))
    names += all_asked(opened(tmp_path, space))
    assert len(set(names)) == len(names) == 8
    assert {name.removesuffix("-s0") for name in names if name.endswith("-s0")} == {
        name.removesuffix("-s1") for name in names if name.endswith("-s1")
    }


def test_what_failed_is_tried_again_where_nothing_has_succeeded_and_only_then(tmp_path):
    space = Space((BUDGET,), 3)
    first = opened(tmp_path, space)
    first.tell(first.ask().number, None, "no space left")
    second = opened(tmp_path, space)
    assert sorted(all_asked(second)) == ["1mb", "2mb", "4mb"]
    assert {told.state for told in second.told()} == {"done"}
    assert all_asked(opened(tmp_path, space)) == []


def test_a_journal_whose_last_line_was_being_written_goes_on(tmp_path):
    all_asked(opened(tmp_path, Space((BUDGET,), 2)))
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":4,"worker_id":"a')
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    assert len(all_asked(opened(tmp_path, Space((BUDGET,), 3)))) == 1


def test_a_data_base_that_does_not_answer_is_one_line(tmp_path):
    with pytest.raises(RecipeError, match="--storage: cannot be used") as error:
        opened(tmp_path, storage="nonsense://secret@host")
    assert "secret" not in str(error.value)
