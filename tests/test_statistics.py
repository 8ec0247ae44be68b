"""Statistics against published values, and against what must hold for any data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from foretaste.records import Interval
from foretaste.statistics import (
    auc,
    brier,
    calibration_floor,
    exact_interval,
    expected_calibration_error,
    explained_variance,
    newcombe_difference,
    paired_difference_interval,
    reliability_bins,
    wilson_interval,
)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)
predictions = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=80)


def rounded(interval: Interval, digits: int = 4) -> tuple[float, float]:
    return round(interval.low, digits), round(interval.high, digits)


def paired(both: int, lost: int, gained: int, neither: int, level: float = 0.95) -> Interval:
    before = [1] * both + [1] * lost + [0] * gained + [0] * neither
    after = [1] * both + [0] * lost + [1] * gained + [0] * neither
    return paired_difference_interval(before, after, level)


# Intervals: published values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "exact", "wilson"),  # Newcombe 1998, Statistics in Medicine 17:857, table I
    [
        (81, 263, (0.2527, 0.3676), (0.2553, 0.3662)),
        (15, 148, (0.0578, 0.1617), (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1684), (0.0000, 0.1611)),
        (1, 29, (0.0009, 0.1776), (0.0061, 0.1718)),
    ],
)
def test_single_proportions_agree_with_newcombe(successes: int, n: int, exact, wilson) -> None:
    assert rounded(exact_interval(successes, n)) == exact
    assert rounded(wilson_interval(successes, n)) == wilson


def test_independent_difference_agrees_with_newcombe() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II: 56/70 - 48/80, method 10
    assert rounded(newcombe_difference(48, 80, 56, 70)) == (0.0524, 0.3339)


def test_paired_difference_agrees_with_published_values() -> None:
    # Fagerland, Lydersen & Laake 2014: 21 patients, 1 both, 1 and 7 discordant, 12 neither
    assert rounded(paired(1, 7, 1, 12), 3) == (-0.517, -0.026)
    # R's PropCIs 0.3: scoreci.mp(25, 28, 618, .90)
    assert rounded(paired(300, 25, 28, 265, level=0.90)) == (-0.0148, 0.0247)


def test_a_paired_interval_with_no_changes_still_has_a_width() -> None:
    z2 = 1.959964**2  # Tango 1998: without discordant pairs the limits are +-z^2 / (n + z^2)
    assert rounded(paired(30, 0, 0, 10)) == (round(-z2 / (40 + z2), 4), round(z2 / (40 + z2), 4))


# Intervals: what must hold ------------------------------------------------------------------------


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_exact_interval_is_the_inverse_of_the_binomial_tails(count: tuple[int, int], level: float) -> None:
    successes, n = count
    interval = exact_interval(successes, n, level)
    tail = (1 - level) / 2
    assert interval.low <= interval.mean <= interval.high
    if successes > 0:
        assert binom.sf(successes - 1, n, interval.low) == pytest.approx(tail, rel=1e-6)
    if successes < n:
        assert binom.cdf(successes, n, interval.high) == pytest.approx(tail, rel=1e-6)


@given(counts)
def test_single_intervals_mirror_and_nest(count: tuple[int, int]) -> None:
    successes, n = count
    for method in (exact_interval, wilson_interval):
        interval, mirrored = method(successes, n), method(n - successes, n)
        assert interval.low == pytest.approx(1 - mirrored.high, abs=1e-9)
        assert 0 <= method(successes, n, 0.99).low <= interval.low <= interval.mean <= interval.high <= 1
    assert exact_interval(successes, n).low <= wilson_interval(successes, n).low + 0.01


def test_the_exact_interval_covers_at_least_its_level() -> None:
    n = 25
    intervals = [exact_interval(k, n) for k in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 99):
        covered = sum(binom.pmf(k, n, p) for k in range(n + 1) if intervals[k].low <= p <= intervals[k].high)
        assert covered >= 0.95


@settings(deadline=None)
@given(pairs)
def test_the_paired_interval_mirrors_and_holds_its_mean(outcomes: list[tuple[int, int]]) -> None:
    before, after = [b for b, _ in outcomes], [a for _, a in outcomes]
    interval, mirrored = paired_difference_interval(before, after), paired_difference_interval(after, before)
    assert -1 <= interval.low <= interval.mean <= interval.high <= 1
    assert interval.mean == pytest.approx(np.mean(after) - np.mean(before))
    assert interval.low == pytest.approx(-mirrored.high, abs=1e-6)
    wider = paired_difference_interval(before, after, 0.99)
    assert wider.low <= interval.low + 1e-9
    assert wider.high >= interval.high - 1e-9


def test_the_paired_interval_covers_about_its_level() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        before = generator.random(60) < 0.2
        after = np.where(generator.random(60) < 0.5, generator.random(60) < 0.6, before)
        interval = paired_difference_interval(before.astype(int), after.astype(int))
        covered += interval.low <= 0.5 * (0.6 - 0.2) <= interval.high
    assert 0.91 <= covered / 400 <= 0.985


def test_nothing_is_known_without_items() -> None:
    for method in (exact_interval, wilson_interval):
        interval = method(0, 0)
        assert (interval.low, interval.high, interval.n) == (0.0, 1.0, 0)
        assert math.isnan(interval.mean)


@pytest.mark.parametrize(("successes", "n", "level"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0), (1, 5, 0.0)])
def test_impossible_counts_are_refused(successes: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"expected 0 <= successes|level must be"):
        exact_interval(successes, n, level)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [([1], [1, 0], "must be paired"), ([], [], "at least one"), ([0.5], [1], "must be 0 or 1")],
)
def test_outcomes_that_cannot_be_paired_are_refused(before, after, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference_interval(before, after)


# Value functions ----------------------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    values, outcomes = [0.05, 0.15, 0.15, 0.95], [0, 0, 1, 1]
    bins = reliability_bins(values, outcomes)
    assert [part.n for part in bins] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert bins[1].mean_outcome == 0.5
    assert bins[2].mean_value is None
    # |.05 - 0| * 1/4 + |.15 - .5| * 2/4 + |.95 - 1| * 1/4
    assert expected_calibration_error(values, outcomes) == pytest.approx(0.2)
    assert brier(values, outcomes) == pytest.approx((0.05**2 + 0.15**2 + 0.85**2 + 0.05**2) / 4)


def test_a_value_of_one_belongs_to_the_last_bin() -> None:
    assert reliability_bins([1.0, 1.2, -0.1], [1, 1, 0])[-1].n == 2
    assert reliability_bins([1.0, 1.2, -0.1], [1, 1, 0])[0].n == 1


@given(predictions)
def test_auc_counts_the_pairs_in_the_right_order(rows: list[tuple[float, int]]) -> None:
    wins = [value for value, outcome in rows if outcome]
    losses = [value for value, outcome in rows if not outcome]
    found = auc(*zip(*rows, strict=True))
    if not wins or not losses:
        assert found is None
    else:
        right = sum((win > loss) + 0.5 * (win == loss) for win in wins for loss in losses)
        assert found == pytest.approx(right / (len(wins) * len(losses)))


@given(predictions)
def test_calibration_error_is_bounded_and_zero_for_known_outcomes(rows: list[tuple[float, int]]) -> None:
    values, outcomes = zip(*rows, strict=True)
    error = expected_calibration_error(values, outcomes)
    assert error is not None
    assert 0 <= error <= 1
    assert expected_calibration_error(outcomes, outcomes) == 0
    assert brier(outcomes, outcomes) == 0
    assert sum(part.n for part in reliability_bins(values, outcomes)) == len(rows)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=50), st.floats(-3, 3))
def test_explained_variance_of_perfect_and_constant_values(returns: list[float], shift: float) -> None:
    perfect = explained_variance(np.array(returns) + shift, returns)
    if perfect is not None:
        assert perfect == pytest.approx(1.0, abs=1e-6)
        assert explained_variance([shift] * len(returns), returns) == pytest.approx(0.0, abs=1e-6)
        assert explained_variance(-np.array(returns), returns) == pytest.approx(-3.0, abs=1e-5)


def test_what_cannot_be_measured_is_none() -> None:
    assert expected_calibration_error([], []) is None
    assert brier([], []) is None
    assert auc([0.1, 0.2], [1, 1]) is None
    assert explained_variance([0.1, 0.9], [1, 1]) is None
    assert explained_variance([], []) is None
    with pytest.raises(ValueError, match="equally long"):
        auc([0.1], [1, 0])


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_the_floor_of_the_calibration_error_is_what_a_perfect_v_shows(n: int) -> None:
    rng = np.random.default_rng(0)
    found, floors = [], []
    for _ in range(40):
        values = rng.random(n)
        found.append(expected_calibration_error(values, (rng.random(n) < values).astype(float)))
        floors.append(calibration_floor(values, range(n), draws=100))
    assert np.mean(found) == pytest.approx(np.mean(floors), rel=0.06)


def test_values_of_one_episode_share_an_outcome_in_the_floor() -> None:
    """Ten readings of an episode are no ten outcomes: the floor stays that of one."""
    values = np.random.default_rng(1).random(60)
    once, tenfold = (
        calibration_floor(values, range(60)),
        calibration_floor(np.repeat(values, 10), np.repeat(range(60), 10).tolist()),
    )
    assert once == pytest.approx(tenfold, rel=0.02)
    apart = calibration_floor(np.repeat(values, 10), range(600))
    assert apart is not None
    assert once is not None
    assert apart < 0.5 * once
    assert calibration_floor([], []) is None
    assert calibration_floor([0.0, 1.0], [0, 1]) == 0.0  # a V that is certain and right has nothing to scatter
    with pytest.raises(ValueError, match="one cluster per value"):
        calibration_floor([0.5], [])
