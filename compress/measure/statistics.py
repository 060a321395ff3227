"""Intervals: 95 % by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13), of few values by Student's t and
the jackknife (chapter 11), and of ratios of latencies by ranks."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from compress.measure.values import Change, Interval, Latency

Range = tuple[float, float]
"""The least and the most that a statistic can be."""
SHARE: Range = (0.0, 1.0)
DIFFERENCE: Range = (-1.0, 1.0)
"""Of two shares."""
ANY: Range = (-math.inf, math.inf)
FEW = 10
"""Of fewer values the bootstrap promises 95 % and keeps about 50 (of two) to 89 (of eight)."""
_AT_ONCE = 1_000_000
"""Numbers of images that are drawn at once."""
ROUGH = 20
"""Intervals of fewer images are said to be rough."""


def few_images(count: int) -> list[str]:
    """What is to be said where so few images are measured on, for every command."""
    return [f"only {count} images to measure on: intervals of so few are rough; add images"] if count < ROUGH else []


def bootstrap_mean(values: Sequence[float], seed: int = 0, resamples: int = 10_000, within: Range = ANY) -> Interval:
    """Mean of at least one value."""
    return bootstrap(lambda drawn: float(drawn.mean()), np.asarray(values, float), seed, resamples, within)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """Mean of a - b, where both hold one share for each of the same images."""
    return bootstrap_mean(np.subtract(a, b).tolist(), seed, resamples, DIFFERENCE)


def worst_decile(values: np.ndarray) -> float:
    """Mean of the lowest tenth of the values, of at least one: the tail that a mean hides."""
    count = -(-len(values) // 10)
    return float(np.partition(values, count - 1)[:count].mean())


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    rows: ArrayLike,
    seed: int = 0,
    resamples: int = 10_000,
    within: Range = ANY,
) -> Interval:
    """Of any statistic of `rows` ([N, ...], one for each image), which are drawn whole. What two files gave for an
    image stands in one row, so that a difference of statistics is paired. `within`: what it can be, for few rows."""
    array = np.asarray(rows)
    count = len(array)
    if count < FEW:
        return _of_few(statistic, array, within)
    rng = np.random.default_rng(seed)
    found = [statistic(array[rng.integers(0, count, count)]) for _ in range(resamples)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(float(statistic(array)), float(low), float(high))


def bootstrap_sums(
    statistic: Callable[[np.ndarray], np.ndarray],
    rows: ArrayLike,
    within: Range = ANY,
    seed: int = 0,
    resamples: int = 10_000,
) -> Interval:
    """What `bootstrap` gives, to the same bits, of a statistic of sums over the images, as of pixels: `rows` are whole
    numbers, [N, ...], and `statistic` makes figures, [B], of sums of them, [B, ...]. It is a hundred times as fast: how
    often each image is drawn is counted, and many draws are summed at once."""
    array = np.asarray(rows)
    count = len(array)
    if count < FEW:
        return _of_few(lambda some: float(statistic(some.sum(0)[None])[0]), array, within)
    flat, rng = array.reshape(count, -1).astype(float), np.random.default_rng(seed)
    found = []
    for size in _parts(resamples, max(1, _AT_ONCE // count)):
        draws = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(draws.ravel(), minlength=size * count).reshape(size, count)
        found.append(statistic((times @ flat).reshape(size, *array.shape[1:])))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return Interval(float(statistic(array.sum(0)[None])[0]), float(low), float(high))


def _parts(whole: int, largest: int) -> list[int]:
    return [min(largest, whole - start) for start in range(0, whole, largest)]


def ratio(sums: np.ndarray) -> np.ndarray:
    """Of a part and the whole, [..., 2], which is more than nothing."""
    return sums[..., 0] / sums[..., 1]


def mean_over_classes(sums: np.ndarray) -> np.ndarray:
    """Of intersections and unions of classes, [..., classes, 2]: the mean IoU of those that occur, in the masks or in
    what is predicted; 0 where none does."""
    occurs = sums[..., 1] > 0
    found = np.divide(sums[..., 0], sums[..., 1], out=np.zeros(occurs.shape), where=occurs)
    return found.sum(-1) / np.maximum(occurs.sum(-1), 1)


def mean_over_classes_lost(sums: np.ndarray) -> np.ndarray:
    """How much lower that of the second file is than that of the first, [..., 2, classes, 2]."""
    return mean_over_classes(sums[..., 0, :, :]) - mean_over_classes(sums[..., 1, :, :])


def _of_few(statistic: Callable[[np.ndarray], float], rows: np.ndarray, within: Range) -> Interval:
    """One row tells nothing of others. Rows that agree leave a share of others that could have gone unseen, up to
    1 - 0.025^(1/n), and those may be anything (Clopper and Pearson 1934)."""
    estimate, count = float(statistic(rows)), len(rows)
    lowest, highest = within
    if count == 1:
        return Interval(estimate, lowest, highest)
    without = np.array([statistic(np.delete(rows, i, axis=0)) for i in range(count)])
    error = np.sqrt((count - 1) * without.var())
    if error < 1e-9:
        unseen = 1 - 0.025 ** (1 / count)
        return Interval(estimate, estimate - unseen * (estimate - lowest), estimate + unseen * (highest - estimate))
    reach = float(special.stdtrit(count - 1, 0.975) * error)
    return Interval(estimate, max(lowest, estimate - reach), min(highest, estimate + reach))


def tail_difference(a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """`worst_decile` of a minus that of b, each over its own worst, where both hold one value for each of the same
    images, which are drawn in pairs."""
    rows = np.column_stack([a, b])
    return bootstrap(
        lambda drawn: worst_decile(drawn[:, 0]) - worst_decile(drawn[:, 1]), rows, seed, resamples, DIFFERENCE
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


def speedup(base: Latency, other: Latency) -> Interval:
    """How many times faster `other` is, both from one `take_turns`: what its turns say, each the ratio of the two
    medians in that turn.

    Inferences of one turn share the state that the machine was in, so turns are what is counted, in pairs. Estimate
    and interval are those of Hodges and Lehmann (1963) for the logarithm of the ratio, exact by Wilcoxon's signed
    ranks: the bootstrap of ten turns promises 95 % and keeps 90 (benchmarks/aa_test.py), and one turn in which the
    machine was busy elsewhere moves the middle little. Under 6 turns the interval is all that the turns said, which is
    less than 95 %.
    """
    if base.turns != other.turns:
        raise ValueError("latencies of different runs cannot be paired")
    found = _typical(np.log(turn_medians_ms(base) / turn_medians_ms(other)))
    return Interval(*(float(np.exp(log)) for log in (found.mean, found.low, found.high)))


def median_interval(latency: Latency) -> Interval:
    """The median latency, with what the medians of its turns say of it, as `speedup` has it of their ratios."""
    found = _typical(turn_medians_ms(latency))
    return Interval(latency.p50_ms, min(found.low, latency.p50_ms), max(found.high, latency.p50_ms))


def _typical(values: np.ndarray) -> Interval:
    pairs = np.sort((values[:, None] + values)[np.triu_indices(len(values))] / 2)
    beyond = _signed_rank_limit(len(values))
    return Interval(float(np.median(pairs)), float(pairs[beyond]), float(pairs[-1 - beyond]))


def turn_medians_ms(latency: Latency) -> np.ndarray:
    """float64 [turns]"""
    return np.median(np.reshape(latency.samples_ms, (latency.turns, -1)), axis=1)


def _signed_rank_limit(n: int, alpha: float = 0.05) -> int:
    """How many pairs lie outside the interval at either end: the largest c with P(T <= c) <= alpha / 2, or 0.

    T is the sum of those ranks 1..n that have a plus: `ways` counts the subsets of them with each sum.
    """
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] += ways[:-rank].copy()
    return max(0, int(np.searchsorted(np.cumsum(ways) / 2.0**n, alpha / 2, side="right")) - 1)
