"""What the machine says of itself."""

import pytest

from compress.machine import busy


@pytest.mark.parametrize(("load", "cores"), [(1.5, 2), (10.7, 2), (3.0, 4)])
def test_three_quarters_of_the_cores_taken_is_a_busy_machine(load, cores):
    assert f"load {load} on {cores} cores; times are not to be trusted" in busy(load, cores)


@pytest.mark.parametrize(("load", "cores"), [(0.0, 1), (1.4, 2), (2.9, 4)])
def test_a_machine_with_room_says_nothing(load, cores):
    assert busy(load, cores) is None


def test_a_system_that_knows_no_load_is_not_called_busy(monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (_ for _ in ()).throw(OSError()))
    assert busy() is None
