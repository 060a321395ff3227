"""Intervals: 95 % by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13)."""

from collections.abc import Callable, Sequence

import numpy as np

from compress.measure.values import Interval, Latency


def bootstrap_mean(values: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """Mean of at least one value."""
    array = np.asarray(values, float)
    return _interval(array.mean(), lambda rng: array[rng.integers(0, len(array), len(array))].mean(), seed, resamples)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """Mean of a - b, where both hold one value for each of the same images."""
    return bootstrap_mean(np.subtract(a, b).tolist(), seed, resamples)


def speedup(base: Latency, other: Latency, seed: int = 0, resamples: int = 10_000) -> Interval:
    """How many times faster `other` is: ratio of the median latencies, both from one `take_turns`.

    Turns are resampled in pairs and inferences within them, because inferences of one turn share the
    state that the machine was in.
    """
    if base.turns != other.turns:
        raise ValueError("latencies of different runs cannot be paired")

    def resampled_ratio(rng: np.random.Generator) -> float:
        turns = rng.integers(0, base.turns, base.turns)
        return _resampled_median(base, turns, rng) / _resampled_median(other, turns, rng)

    return _interval(base.p50_ms / other.p50_ms, resampled_ratio, seed, resamples)


def _resampled_median(latency: Latency, turns: np.ndarray, rng: np.random.Generator) -> float:
    samples = np.reshape(latency.samples_ms, (latency.turns, -1))
    picked = rng.integers(0, samples.shape[1], samples.shape)
    return float(np.median(samples[turns[:, None], picked]))


def _interval(
    estimate: float, resampled: Callable[[np.random.Generator], float], seed: int, resamples: int
) -> Interval:
    rng = np.random.default_rng(seed)
    low, high = np.percentile([resampled(rng) for _ in range(resamples)], [2.5, 97.5])
    return Interval(float(estimate), float(low), float(high))
