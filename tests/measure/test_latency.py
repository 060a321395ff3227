from pathlib import Path

import pytest

from compress.measure.latency import advice, take_turns
from compress.measure.statistics import speedup
from compress.measure.values import Latency


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
    latencies = turns_of_two(turns=4, seconds=1, threads=3)
    assert latencies["teacher"].samples_ms == (100.0,) * 8
    assert latencies["student"].samples_ms == (10.0,) * 100
    assert latencies["student"].runtime == "fake with 3 threads"
    assert speedup(latencies["teacher"], latencies["student"]).mean == pytest.approx(10)


def test_every_turn_has_an_inference_however_slow(log):
    assert len(turns_of_two(turns=5, seconds=0.001)["teacher"].samples_ms) == 5


def test_measures_a_real_file_in_a_real_child(brightness):
    latencies = take_turns({"a": brightness.path, "b": brightness.path}, turns=2, seconds=0.02, threads=1)
    for latency in latencies.values():
        assert 0 < latency.p50_ms <= latency.p90_ms <= max(latency.samples_ms)
        assert (latency.threads, latency.turns, len(latency.samples_ms) % 2) == (1, 2, 0)
        assert latency.runtime.startswith("onnxruntime ")


def latency(turns_ms):
    """One with these medians of its turns, of three inferences each."""
    return Latency(1.0, 1.0, tuple(ms for ms in turns_ms for _ in range(3)), 2, "fake", len(turns_ms))


def test_no_advice_where_the_machine_was_quiet():
    assert advice({"a": latency([10, 10.2, 9.9, 10]), "b": latency([5, 5, 5, 5])}, load=0.2, cores=2) == ()


@pytest.mark.parametrize(
    ("turns_ms", "load", "words"),
    [
        ([10, 10, 10, 10], 1.5, ("load 1.5 on 2 cores", "close other programs")),
        ([16, 10, 10, 10], 0.1, ("first turn of a stood out, 1.6 times", "--seconds")),
        ([10, 15, 10, 15], 0.1, ("noisy: turns of a differ by a factor of 1.5", "--seconds")),
    ],
)
def test_a_doubtful_measurement_says_so_and_what_to_do(turns_ms, load, words):
    (sentence,) = advice({"a": latency(turns_ms), "b": latency([5, 5, 5, 5])}, load, cores=2)
    assert all(word in sentence for word in words)
