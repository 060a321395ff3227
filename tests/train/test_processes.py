"""Two real processes over gloo, which torchrun starts, beside one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compress.train import processes

SCRIPT = Path(__file__).with_name("together.py")
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def started(folder: Path, *what: str, count: int = 1) -> None:
    launcher = [*TOGETHER, str(count)] if count > 1 else []
    paths = os.pathsep.join([str(SCRIPT.parents[2]), str(SCRIPT.parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), *what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What came of `what` in the process `rank` of `count`."""
    folder = tmp_path_factory.mktemp("together")
    started(folder, "five", "live", "clocks", "broken", "maps", "half", count=2)
    started(folder, "five", "live", "maps", "whole", "anew")
    return lambda what, count, rank=0: torch.load(folder / f"{what}-{count}-{rank}.pt", weights_only=True)


def farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("what", ["five", "live"])
def test_two_processes_have_the_losses_of_one(made, what):
    """Of 20 steps. Five images are shared as two and three, and one at the larger size as none and one."""
    alone, together = made(what, 1), made(what, 2)
    assert len(alone["losses"]) == 20
    assert together["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert farthest(alone["weights"], together["weights"]) < 1e-4


@pytest.mark.parametrize("what", ["five", "live"])
def test_two_processes_have_the_same_weights_to_the_bit(made, what):
    assert made(what, 2, 0)["losses"] == made(what, 2, 1)["losses"]
    assert farthest(made(what, 2, 0)["weights"], made(what, 2, 1)["weights"]) == 0


def test_features_that_are_computed_in_shares_are_those_of_one_process_to_the_bit(made):
    for rank in range(2):
        assert farthest(made("five", 1)["features"], made("five", 2, rank)["features"]) == 0


def test_maps_are_computed_in_shares_and_kept_once(made):
    alone, shares = made("maps", 1), [made("maps", 2, rank) for rank in range(2)]
    for each in shares:
        assert torch.equal(each["maps"], alone["maps"])
        assert torch.equal(each["again"], alone["maps"])
    seen = [each["seen"] for each in shares]
    assert seen[0] == alone["seen"][::2]
    assert seen[1] == [*alone["seen"][1::2], alone["seen"][-1]]  # of the last one there is no other part


def test_the_clock_of_the_first_process_ends_all(made):
    first, second = made("clocks", 2, 0), made("clocks", 2, 1)
    assert first["checks"] == second["checks"]
    assert first["checks"][-1][0] >= 1.0
    assert 20 <= first["steps"] <= 30  # of a minute, at two seconds


def test_a_loss_that_is_not_finite_in_one_process_stops_both_with_the_line(made):
    for rank in range(2):
        assert "lower train.learning_rate" in made("broken", 2, rank)["error"]


def test_one_process_goes_on_with_what_two_began(made):
    """The first of the two alone wrote it."""
    assert made("half", 2)["steps"] == 10
    rest, anew = made("whole", 1), made("anew", 1)
    assert rest["steps"] == anew["steps"] == 20
    assert farthest(rest["weights"], anew["weights"]) < 1e-4
    assert [check[1] for check in rest["checks"]] == pytest.approx([check[1] for check in anew["checks"]], abs=0.02)


@pytest.mark.slow
def test_three_processes_go_on_with_what_one_began(made, tmp_path):
    started(tmp_path, "half")
    started(tmp_path, "whole", count=3)
    rest = torch.load(tmp_path / "whole-3-0.pt", weights_only=True)
    assert rest["steps"] == 20
    assert farthest(rest["weights"], made("anew", 1)["weights"]) < 1e-4


def test_one_process_alone_has_all_and_waits_for_nobody():
    assert processes.first()
    assert processes.part(7) == (slice(0, 7), 1.0)
    assert processes.from_first(lambda: 3) == 3
    tensor = torch.ones(2)
    assert processes.summed(tensor)[0] is tensor
    processes.leave()


def test_shares_differ_by_one_at_most_and_weigh_one_together(monkeypatch):
    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.dist, "get_world_size", lambda: 3)
    for count in range(1, 12):
        shares = []
        for rank in range(3):
            monkeypatch.setattr(processes.dist, "get_rank", lambda rank=rank: rank)
            shares.append(processes.part(count))
        assert sum(weight for _, weight in shares) == pytest.approx(1)
        mine = [list(range(count))[part] for part, weight in shares if weight]
        assert sum(mine, []) == list(range(count))
        assert max(map(len, mine)) - min(map(len, mine)) <= 1


def test_processes_that_cannot_find_one_another_end_in_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(processes.TrainError, match="start them with torchrun") as refused:
        processes.join()
    assert "\n" not in str(refused.value)
