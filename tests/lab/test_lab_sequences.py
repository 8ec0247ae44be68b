"""Intervals over seeds: known values, coverage at all times, and what censoring may and may not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from foretaste.lab.sequences import (
    Bounds,
    bounded_sequence,
    exactly,
    median_interval,
    median_of,
    median_sequence,
    t_interval,
    t_sequence,
    without_spread,
)


def known(values: object) -> list[Bounds]:
    return [exactly(float(value)) for value in np.asarray(values, dtype=float)]


def test_t_interval_is_students() -> None:
    x = np.array([0.1, 0.3, 0.2, 0.5, 0.4])
    expected = ttest_1samp(x, 0).confidence_interval(0.95)
    got = t_interval(known(x))
    assert got.estimate == pytest.approx(0.3)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_one_seed_says_nothing() -> None:
    for interval in (t_interval, t_sequence, median_interval, median_sequence):
        got = interval(known([0.4]))
        assert (got.low, got.high) == (-math.inf, math.inf)


def test_equal_values_show_no_spread_and_have_no_t_interval() -> None:
    for values in ([1.0] * 30, [0.0, 0.0], [0.3 - 0.1, 0.2]):  # the last two differ by rounding alone
        assert without_spread(known(values))
        for interval in (t_interval, t_sequence):
            got = interval(known(values))
            assert (got.low, got.high) == (-math.inf, math.inf)
            assert got.estimate == pytest.approx(values[0])
    assert not without_spread(known([0.2, 0.2001]))
    assert not without_spread(known([0.2]))


def test_median_interval_needs_six_seeds_and_is_then_smallest_and_largest() -> None:
    assert median_interval(known([1, 2, 3, 4, 5])).low == -math.inf
    got = median_interval(known([4, 1, 6, 2, 5, 3]))
    assert (got.estimate, got.low, got.high) == (3.5, 1.0, 6.0)
    assert median_interval(known([1, 2, 3, 4, 5]), level=0.9).high == 5.0


def test_the_median_of_an_even_number_is_the_mean_of_the_two_in_the_middle_as_far_as_it_is_known() -> None:
    assert median_of(known([4, 1, 6, 2])) == (3.0, 3.0)
    assert median_of(known([4, 1, 6])) == (4.0, 4.0)
    assert median_of([*known([1, 2]), Bounds(5.0, math.inf), Bounds(7.0, math.inf)]) == (3.5, math.inf)


def test_median_sequence_needs_eight_seeds_on_one_side() -> None:
    assert median_sequence(known(range(1, 8))).low == -math.inf
    got = median_sequence(known(range(1, 9)))
    assert (got.low, got.high) == (1.0, 8.0)


def test_a_censored_value_moves_only_the_end_it_concerns() -> None:
    values = [*known([2, 3, 4, 5, 6]), Bounds(7, math.inf)]
    got = median_interval(values)
    assert (got.estimate, got.low, got.high) == (4.5, 2.0, math.inf)
    by_mean = t_interval(values)
    assert by_mean.estimate is None
    assert by_mean.high == math.inf
    assert by_mean.low == pytest.approx(t_interval(known([2, 3, 4, 5, 6, 7])).low)


def misses(sequence, draw, truth: float, *, studies: int, n: int, seed: int = 0) -> float:
    """Share of studies in which the interval missed the truth after any of the seeds."""
    generator = np.random.default_rng(seed)
    missed = 0
    for _ in range(studies):
        x = known(draw(generator, n))
        missed += any(not (r := sequence(x[:k])).low <= truth <= r.high for k in range(2, n + 1))
    return missed / studies


def test_anytime_intervals_cover_at_all_times_and_students_does_not() -> None:
    def normal(generator, n):
        return generator.normal(0.3, 0.2, n)

    assert misses(t_sequence, normal, 0.3, studies=400, n=25) <= 0.05 + 0.02
    assert misses(t_interval, normal, 0.3, studies=400, n=25) > 0.1  # peeking breaks the fixed interval


def test_median_sequence_covers_for_a_skewed_distribution() -> None:
    def skewed(generator, n):
        return generator.lognormal(0.0, 1.5, n)

    assert misses(median_sequence, skewed, 1.0, studies=400, n=25) <= 0.05 + 0.02
    assert misses(median_interval, skewed, 1.0, studies=400, n=25) > 0.08


def test_bounded_sequence_covers_and_narrows() -> None:
    def coins(generator, n):
        return generator.choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.5, 0.4])

    assert misses(bounded_sequence, coins, 0.3, studies=60, n=15) <= 0.07
    generator = np.random.default_rng(1)
    few, many = bounded_sequence(known(coins(generator, 10))), bounded_sequence(known(coins(generator, 300)))
    assert many.high - many.low < 0.5 < few.high - few.low
    assert many.low > 0


def test_bounded_sequence_refuses_values_outside_its_bounds() -> None:
    with pytest.raises(ValueError, match="outside"):
        bounded_sequence(known([0.2, 1.4]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(0.1, 5), st.floats(-3, 3))
def test_intervals_follow_shifts_and_scales(values: list[float], scale: float, shift: float) -> None:
    assume(np.ptp(values) == 0 or np.ptp(values) > 1e-9)  # less than that is rounding, once it is shifted
    for interval in (t_interval, t_sequence, median_interval, median_sequence):
        base, moved = interval(known(values)), interval(known(np.array(values) * scale + shift))
        assert moved.low == pytest.approx(base.low * scale + shift, abs=1e-6)
        assert moved.high == pytest.approx(base.high * scale + shift, abs=1e-6)
