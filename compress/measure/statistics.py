"""Intervals: 95 % by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13)."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from compress.measure.values import Change, Interval, Latency


def bootstrap_mean(values: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """Mean of at least one value."""
    array = np.asarray(values, float)
    return _interval(array.mean(), lambda rng: array[rng.integers(0, len(array), len(array))].mean(), seed, resamples)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """Mean of a - b, where both hold one value for each of the same images."""
    return bootstrap_mean(np.subtract(a, b).tolist(), seed, resamples)


def worst_decile(values: np.ndarray) -> float:
    """Mean of the lowest tenth of the values, of at least one: the tail that a mean hides."""
    count = -(-len(values) // 10)
    return float(np.partition(values, count - 1)[:count].mean())


def bootstrap(
    statistic: Callable[[np.ndarray], float], rows: ArrayLike, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Of any statistic of `rows` ([N, ...], one for each image), which are drawn whole. What two files gave for an
    image stands in one row, so that a difference of statistics is paired."""
    array = np.asarray(rows)
    return _interval(
        statistic(array), lambda rng: statistic(array[rng.integers(0, len(array), len(array))]), seed, resamples
    )


def change(drop: Interval, margin: float) -> Change:
    """What a drop (reference minus file, so that more is worse) means where less than `margin` cannot be noticed.

    The whole interval speaks, not its middle: both files are the same to a user only where a noticeable difference
    either way is ruled out, as in a test of equivalence (Schuirmann 1987).
    """
    if -margin <= drop.low and drop.high <= margin:
        return Change.SAME
    if drop.low > 0:
        return Change.WORSE
    return Change.BETTER if drop.high < 0 else Change.UNDECIDED


def fold_means(values: Sequence[float], folds: int, seed: int = 0) -> tuple[float, ...]:
    """Mean of each of `folds` disjoint parts of the values, shuffled by `seed`, equal in size but for one."""
    shuffled = np.random.default_rng(seed).permutation(np.asarray(values, float))
    return tuple(float(part.mean()) for part in np.array_split(shuffled, folds))


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
