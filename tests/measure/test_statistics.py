import numpy as np
import pytest
from scipy import stats

from compress.measure.statistics import (
    bootstrap,
    bootstrap_mean,
    bootstrap_sums,
    change,
    few_images,
    fold_means,
    mean_over_classes,
    mean_over_classes_lost,
    paired_difference,
    ratio,
    speedup,
    tail_difference,
    worst_decile,
)
from compress.measure.values import Change, Interval, Latency


def latency(turns_ms):
    """From [turns, inferences] milliseconds."""
    samples = np.asarray(turns_ms, float)
    return Latency(float(np.median(samples)), 0.0, tuple(samples.ravel()), 2, "fake", len(samples))


def test_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(1).beta(5, 1, 150)
    ours = bootstrap_mean(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=7).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1.5e-3)  # 3 % of the width


def test_interval_of_a_paired_difference_is_that_of_scipy():
    rng = np.random.default_rng(2)
    a = rng.beta(5, 1, 100)
    b = a - rng.normal(0.05, 0.02, 100)
    ours = paired_difference(a, b)
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y: np.mean(x - y),
        n_resamples=10_000,
        method="percentile",
        paired=True,
        vectorized=False,
        rng=7,
    ).confidence_interval
    assert ours.mean == pytest.approx(np.mean(a - b))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-4)


def test_values_that_do_not_vary_have_no_width():
    interval = bootstrap_mean([0.5] * 10)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[0.9, 0.8], [0.9, 0.7, 0.95], [0.1, 0.2, 0.15, 0.3, 0.25, 0.2, 0.1, 0.3, 0.2]])
def test_interval_of_a_mean_of_few_is_that_of_students_t(values):
    ours = bootstrap_mean(values)
    theirs = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert ours.mean == pytest.approx(np.mean(values))
    assert (ours.low, ours.high) == pytest.approx(theirs)
    within = bootstrap_mean(values, within=(0, 1))
    assert (within.low, within.high) == pytest.approx(np.clip(theirs, 0, 1))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_few_values_that_agree_leave_room_for_those_that_were_not_seen(count):
    """All of n images are alike with a chance of 2.5 % where a share of 1 - 0.025^(1/n) of all is not, as scipy's exact
    interval of a share has it."""
    seen = stats.binomtest(count, count).proportion_ci(0.95, method="exact").low
    perfect, middle = bootstrap_mean([1.0] * count, within=(0, 1)), bootstrap_mean([0.75] * count, within=(0, 1))
    assert (perfect.low, perfect.high) == pytest.approx((seen, 1))
    assert (middle.low, middle.high) == pytest.approx((0.75 * seen, 1 - 0.25 * seen))
    same = paired_difference([0.5] * count, [0.5] * count)
    assert (same.low, same.mean, same.high) == pytest.approx((seen - 1, 0, 1 - seen))


def test_one_image_tells_nothing_of_others():
    interval = bootstrap_mean([0.8], within=(0, 1))
    assert (interval.mean, interval.low, interval.high) == (0.8, 0, 1)
    tail = bootstrap(worst_decile, [0.8], within=(0, 1))
    assert (tail.low, tail.high) == (0, 1)


def test_a_tail_of_few_has_a_width():
    interval = bootstrap(worst_decile, [0.9, 0.5, 0.8], within=(0, 1))
    assert (interval.mean, interval.low) == (0.5, 0)
    assert interval.high > 0.8


def test_few_images_are_said_to_be_rough():
    assert few_images(20) == []
    assert few_images(19) == ["only 19 images to measure on: intervals of so few are rough; add images"]


def test_same_seed_same_interval():
    values = np.random.default_rng(0).random(30)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_worst_decile_is_the_mean_of_the_lowest_tenth_rounded_up():
    assert worst_decile(np.array([0.9, 0.1, 0.8])) == 0.1
    assert worst_decile(np.arange(20.0)[::-1]) == 0.5
    assert worst_decile(np.arange(21.0)) == 1.0


def test_interval_of_a_paired_difference_of_tails_is_that_of_scipy():
    rng = np.random.default_rng(4)
    a = rng.beta(5, 1, 120)
    b = a - rng.normal(0.05, 0.05, 120)
    ours = tail_difference(a, b)
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y: np.sort(x)[:12].mean() - np.sort(y)[:12].mean(),
        n_resamples=10_000,
        method="percentile",
        paired=True,
        vectorized=False,
        rng=7,
    ).confidence_interval
    assert ours.mean == pytest.approx(np.sort(a)[:12].mean() - np.sort(b)[:12].mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * (theirs.high - theirs.low))


@pytest.mark.parametrize(
    ("low", "high", "meaning"),
    [
        (-0.004, 0.009, Change.SAME),
        (0.001, 0.009, Change.SAME),  # surely lower, and surely not noticeably
        (0.002, 0.03, Change.WORSE),
        (-0.03, -0.002, Change.BETTER),
        (-0.004, 0.02, Change.UNDECIDED),
        (-0.02, 0.02, Change.UNDECIDED),
    ],
)
def test_a_drop_is_judged_by_its_whole_interval(low, high, meaning):
    assert change(Interval((low + high) / 2, low, high), margin=0.01) == meaning


def test_folds_are_disjoint_and_hold_every_value():
    values = np.random.default_rng(0).random(10)
    means = fold_means(values, 5)
    assert np.mean(means) == pytest.approx(values.mean())
    assert fold_means(values, 5) == means != fold_means(values, 5, seed=1)
    assert sorted(fold_means(values, 10)) == sorted(values)
    assert len(fold_means(values, 3)) == 3


def walsh_interval(logs):
    """Hodges and Lehmann by inverting scipy's exact test: the shifts that it does not refuse at 5 %."""
    pairs = sorted((a + b) / 2 for i, a in enumerate(logs) for b in logs[i:])
    middles = [(a + b) / 2 for a, b in zip(pairs, pairs[1:])]
    kept = [middle for middle in middles if stats.wilcoxon(logs - middle, method="exact").pvalue > 0.05]
    low = max(pair for pair in pairs if pair < kept[0])
    return np.median(pairs), low, min(pair for pair in pairs if pair > kept[-1])


@pytest.mark.parametrize("turns", [6, 10, 15])
def test_interval_of_a_speedup_inverts_the_signed_rank_test_of_scipy(turns):
    rng = np.random.default_rng(turns)
    slow, fast = rng.gamma(50, 6, (turns, 5)), rng.gamma(50, 0.4, (turns, 9))
    ours = speedup(latency(slow), latency(fast))
    wanted = walsh_interval(np.log(np.median(slow, 1) / np.median(fast, 1)))
    assert np.log([ours.mean, ours.low, ours.high]) == pytest.approx(wanted)


def test_interval_of_a_file_against_itself_contains_1_as_often_as_it_says():
    """On a machine that halves its speed for whole turns and drifts by half in between."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        speed = rng.choice([1, 2], (10, 2, 1), p=[0.7, 0.3]) * np.linspace(1, 1.5, 20).reshape(10, 2, 1)
        samples = speed * rng.gamma(100, 0.1, (10, 2, 7))
        samples[1::2] = samples[1::2, ::-1]  # in every second turn the second file goes first
        ratio = speedup(latency(samples[:, 0]), latency(samples[:, 1]))
        held += ratio.low <= 1 <= ratio.high
    assert 940 <= held <= 985


def test_speedup_is_certain_where_a_slow_machine_slows_both_alike():
    """Each turn runs on a machine of another speed, ten times faster than the other file in every one."""
    speed = np.linspace(1, 3, 10)[:, None]
    interval = speedup(latency(100 * speed * np.ones((10, 3))), latency(10 * speed * np.ones((10, 30))))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((10, 10, 10))


def test_speedup_is_uncertain_where_turns_differ():
    """Many inferences in few turns that disagree do not make the ratio certain."""
    interval = speedup(latency(np.full((4, 100), 100.0)), latency(np.repeat([[5.0], [5.0], [20.0], [20.0]], 100, 1)))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((10.0, 5.0, 20.0))


def test_one_turn_with_a_busy_machine_moves_a_speedup_little():
    slow, fast = np.full((10, 4), 100.0), np.full((10, 4), 50.0)
    slow[3] *= 5
    interval = speedup(latency(slow), latency(fast))
    assert (interval.mean, interval.low) == pytest.approx((2, 2))


def test_latencies_of_different_runs_are_not_compared():
    with pytest.raises(ValueError, match="cannot be paired"):
        speedup(latency(np.ones((4, 2))), latency(np.ones((5, 2))))


@pytest.mark.parametrize("count", [1, 4, 9, 10, 57])
def test_a_bootstrap_of_sums_is_the_bootstrap_to_the_same_bits(count):
    rng = np.random.default_rng(3)
    wholes = rng.integers(50, 900, count)
    rows = np.column_stack([(wholes * rng.beta(8, 2, count)).astype(int), wholes])

    def slowly(drawn):
        part, whole = drawn.sum(0)
        return float(part / whole)

    assert bootstrap_sums(ratio, rows, (0.0, 1.0)) == bootstrap(slowly, rows, within=(0.0, 1.0))


def test_mean_over_classes_leaves_out_those_that_do_not_occur():
    """IoU 1/2 and 3/4; the third class is nowhere, the fourth is predicted and never there."""
    sums = np.array([[2, 4], [3, 4], [0, 0]])
    assert mean_over_classes(sums) == (1 / 2 + 3 / 4) / 2
    assert mean_over_classes(np.vstack([sums, [[0, 7]]])) == pytest.approx((1 / 2 + 3 / 4) / 3)
    assert mean_over_classes(np.zeros((3, 2))) == 0
    assert mean_over_classes_lost(np.array([[[4, 4], [3, 4]], [[2, 4], [2, 4]]])) == 7 / 8 - 1 / 2


def test_interval_of_mean_iou_over_classes_is_that_of_scipy():
    rng = np.random.default_rng(4)
    unions = rng.integers(50, 100, (40, 3))
    unions[rng.random((40, 3)) < 0.3] = 0  # a class is not in every image
    rows = np.stack([(unions * rng.beta(6, 2, (40, 3))).astype(int), unions], -1)

    def slowly(index):
        both, either = rows[index].sum(0).T
        return float(np.mean(both / either))

    ours = bootstrap_sums(mean_over_classes, rows, (0.0, 1.0))
    theirs = stats.bootstrap(
        (np.arange(40),), slowly, n_resamples=5_000, method="percentile", vectorized=False, rng=7
    ).confidence_interval
    assert ours.mean == pytest.approx(slowly(np.arange(40)))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
