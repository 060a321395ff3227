from pathlib import Path

import pytest

from compress.measure.latency import take_turns
from compress.measure.statistics import speedup


class FakeChild:
    """Inferences take `ms`, but for the first of each request, which takes ten times as long."""

    log: list[tuple[str, int]] = []

    def __init__(self, path, threads):
        self.name, self.runtime = path.name, f"fake with {threads} threads"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.log.append((self.name, 0))

    def time(self, runs):
        self.log.append((self.name, runs))
        ms = {"slow": 100.0, "fast": 10.0}[self.name]
        return [10 * ms] + [ms] * (runs - 1)


@pytest.fixture
def log():
    FakeChild.log = []
    return FakeChild.log


def turns_of_two(**options):
    files = {"teacher": Path("slow"), "student": Path("fast")}
    return take_turns(files, rest_seconds=0, open_child=FakeChild, **options)


def test_turns_alternate_and_last_about_the_same(log):
    """1 second in 4 turns: 250 ms each, 2 or 25 inferences, and one before them that does not count."""
    turns_of_two(turns=4, seconds=1)
    slow, fast = ("slow", 3), ("fast", 26)
    warm_up = [("slow", 3), ("fast", 3)]
    assert log == warm_up + [slow, fast, fast, slow, slow, fast, fast, slow] + [("fast", 0), ("slow", 0)]


def test_first_inference_of_a_turn_does_not_count(log):
    latencies = turns_of_two(turns=4, seconds=1)
    assert latencies["teacher"].samples_ms == (100.0,) * 8
    assert latencies["student"].samples_ms == (10.0,) * 100
    assert latencies["student"].runtime == "fake with 2 threads"
    assert speedup(latencies["teacher"], latencies["student"]).mean == 10


def test_every_turn_has_an_inference_however_slow(log):
    assert len(turns_of_two(turns=5, seconds=0.001)["teacher"].samples_ms) == 5


def test_measures_a_real_file_in_a_real_child(brightness):
    latencies = take_turns({"a": brightness.path, "b": brightness.path}, turns=2, seconds=0.02, threads=1)
    for latency in latencies.values():
        assert 0 < latency.p50_ms <= latency.p90_ms <= max(latency.samples_ms)
        assert (latency.threads, latency.turns, len(latency.samples_ms) % 2) == (1, 2, 0)
        assert latency.runtime.startswith("onnxruntime ")
