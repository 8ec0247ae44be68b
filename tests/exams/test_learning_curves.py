"""Learning curves and transfer, by hand and against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.exams.learning import Curve, area_under_log_curve, first_reached, samples_to_threshold, transfer


def test_first_reached_and_confirmations() -> None:
    curve = Curve([10, 20, 30, 40], [0.1, 0.6, 0.4, 0.7])
    assert first_reached(curve, 0.5) == 20
    assert first_reached(curve, 0.5, confirmations=2) is None
    assert first_reached(Curve([1, 2, 3], [0.6, 0.6, 0.1]), 0.5, confirmations=2) == 1
    with pytest.raises(ValueError, match="increase"):
        first_reached(Curve([2, 1], [0, 0]), 0.5)


def reaching(at: int | None, followed: int = 100) -> Curve:
    samples = list(range(1, followed + 1))
    return Curve(samples, [1.0 if at is not None and s >= at else 0.0 for s in samples])


def test_median_counts_censored_seeds_as_longer() -> None:
    found = samples_to_threshold([reaching(10), reaching(20), reaching(None)], 0.5)
    assert (found.median, found.reached, found.seeds, found.followed) == (20.0, 2, 3, 100.0)
    half = samples_to_threshold([reaching(10), reaching(None), reaching(None)], 0.5)
    assert half.median is None
    none = samples_to_threshold([reaching(None)] * 3, 0.5)
    assert (none.median, none.low, none.high, none.reached) == (None, None, None, 0)


def test_a_seed_followed_briefly_is_removed_from_the_risk_set() -> None:
    # Kaplan-Meier by hand: one of 4 at 10 (S=3/4); one censored at 15; one of 2 at 20 (S=3/8).
    curves = [reaching(10), reaching(None, followed=15), reaching(20), reaching(None)]
    assert samples_to_threshold(curves, 0.5).median == 20.0


def test_interval_of_the_median_covers() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        times = np.ceil(rng.exponential(40, 20)).astype(int)
        found = samples_to_threshold([reaching(int(t) if t <= 100 else None) for t in times], 0.5)
        true = math.ceil(40 * math.log(2))
        covered += (found.low is None or found.low <= true) and (found.high is None or true <= found.high)
    assert covered / 200 > 0.91


@given(st.floats(0, 1), st.floats(0, 1))
def test_area_of_a_curve_linear_in_log_samples_is_exact(start: float, end: float) -> None:
    samples = [1, 2, 5, 10, 100]
    success = [start + (end - start) * math.log(s) / math.log(100) for s in samples]
    assert area_under_log_curve(Curve(samples, success)) == pytest.approx((start + end) / 2, abs=1e-9)
    part = area_under_log_curve(Curve(samples, success), low=10, high=100)
    assert part == pytest.approx((success[3] + success[4]) / 2, abs=1e-9)


def test_area_leaves_out_zero_samples_and_refuses_what_was_not_measured() -> None:
    assert area_under_log_curve(Curve([0, 1, 10], [0.0, 1.0, 1.0])) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="covers 1 to 10"):
        area_under_log_curve(Curve([1, 10], [0, 1]), high=20)
    with pytest.raises(ValueError, match="two points"):
        area_under_log_curve(Curve([0, 1], [0, 1]))


def test_transfer_by_hand() -> None:
    found = transfer([[0.8, 0.3, 0.1], [0.9, 0.7, 0.4], [0.5, 0.6, 0.9]], untrained=[0.1, 0.1, 0.1])
    assert found.average == pytest.approx(2.0 / 3)
    assert found.backward == pytest.approx(((0.5 - 0.8) + (0.6 - 0.7)) / 2)
    assert found.forward == pytest.approx(((0.3 - 0.1) + (0.4 - 0.1)) / 2)
    assert found.max_forgetting == pytest.approx(0.9 - 0.5)


def test_transfer_says_none_for_what_was_not_measured() -> None:
    found = transfer([[0.8, math.nan], [0.5, 0.6]])
    assert found.backward == pytest.approx(-0.3)
    assert found.forward is None
    assert transfer([[math.nan, 0.1], [0.5, 0.6]]).max_forgetting is None
    assert transfer([[0.8]]).backward is None
    with pytest.raises(ValueError, match="T x T"):
        transfer([[1, 2]])
