"""Anytime validity by simulation of 10,000 exams, with naive repeated looking failing beside it."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from foretaste.exams.sequential import (
    Outcome,
    SequentialExam,
    compare_means,
    compare_paired,
    confidence_sequence,
    log_e_value,
    paired_log_e_value,
)

EXAMS, ITEMS, ALPHA = 10_000, 200, 0.05
_COUNTS, _SIZES = np.meshgrid(np.arange(ITEMS + 1), np.arange(ITEMS + 1))
"""s and n of every cell of an n x s table; cells with s > n are never reached."""


def running_counts(rate: float, seed: int) -> np.ndarray:
    """Successes after 1 .. ITEMS items of EXAMS exams."""
    return np.cumsum(np.random.default_rng(seed).random((EXAMS, ITEMS)) < rate, axis=1)


def ever(table: np.ndarray, counts: np.ndarray, first: int = 1) -> float:
    """Share of exams whose path of (n, s) ever meets a True cell of the table."""
    return float(table[np.arange(first, ITEMS + 1), counts[:, first - 1 :]].any(axis=1).mean())


@pytest.mark.parametrize("rate", [0.03, 0.5, 0.8])
def test_the_sequence_covers_at_all_sizes_at_once_and_repeated_looks_at_an_interval_do_not(rate: float) -> None:
    counts = running_counts(rate, seed=int(rate * 100))
    s, n = np.minimum(_COUNTS, _SIZES), _SIZES
    low, high = confidence_sequence(s, n, ALPHA)
    assert ever((low > rate) | (high < rate), counts) <= ALPHA
    exact_low = np.where(s > 0, beta.ppf(ALPHA / 2, np.maximum(s, 1), n - s + 1), 0.0)
    exact_high = np.where(s < n, beta.ppf(1 - ALPHA / 2, s + 1, np.maximum(n - s, 1)), 1.0)
    missed = (exact_low > rate) | (exact_high < rate)
    assert missed[ITEMS, counts[:, -1]].mean() <= ALPHA  # one look at the end: the interval keeps its word
    assert ever(missed, counts, first=10) > 2 * ALPHA  # a look after every item: it does not


def test_paired_comparison_of_equals_is_rarely_decided_and_naive_looking_often() -> None:
    counts = running_counts(0.5, seed=7)
    s, n = np.minimum(_COUNTS, _SIZES), _SIZES
    evidence = np.vectorize(paired_log_e_value)(s, n - s)
    assert ever(evidence >= -math.log(ALPHA), counts) <= ALPHA
    z = np.abs(2 * s - n) / np.sqrt(np.maximum(n, 1))
    assert ever(z > 1.96, counts, first=10) > 5 * ALPHA


def test_fractional_scores_are_covered_too() -> None:
    rng = np.random.default_rng(11)
    scores = rng.integers(0, 4, (4000, 200)) / 3 * 0.9
    total = np.cumsum(scores, axis=1)
    assert (log_e_value(total, np.arange(1, 201), 0.45) >= -math.log(ALPHA)).any(axis=1).mean() <= ALPHA


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 9))
def test_e_value_equals_its_definition_in_exact_fractions(s: int, f: int, tenths: int) -> None:
    p = Fraction(tenths, 10)
    mixture = Fraction(math.factorial(s) * math.factorial(f), math.factorial(s + f + 1))
    assert float(log_e_value(s, s + f, float(p))) == pytest.approx(math.log(mixture / (p**s * (1 - p) ** f)), abs=1e-9)
    assert paired_log_e_value(s, f) == pytest.approx(math.log(mixture * 2 ** (s + f)), abs=1e-9)


def test_e_value_has_mean_one_by_enumeration_of_all_paths() -> None:
    n, p = 9, 0.3
    mean = sum(math.comb(n, s) * p**s * (1 - p) ** (n - s) * math.exp(log_e_value(s, n, p)) for s in range(n + 1))
    assert mean == pytest.approx(1.0)


@given(st.integers(0, 40), st.integers(0, 40))
def test_interval_ends_are_where_the_e_value_meets_its_limit(s: int, f: int) -> None:
    low, high = confidence_sequence(s, s + f, ALPHA)
    assert 0 <= low <= high <= 1
    for end, reached in ((low, s > 0), (high, f > 0)):
        if reached:
            assert float(log_e_value(s, s + f, end)) == pytest.approx(math.log(20), abs=1e-5)


def test_verdicts_stop_early_and_error_rarely() -> None:
    rng = np.random.default_rng(3)
    passed = [SequentialExam(0.5).after_all((rng.random(400) < 0.8).astype(float)) for _ in range(20)]
    assert all(exam.outcome is Outcome.PASS for exam in passed)
    assert np.mean([exam.n for exam in passed]) < 60
    failed = SequentialExam(0.5).after_all([0.0] * 100)
    assert failed.outcome is Outcome.FAIL
    assert failed.n < 12
    assert (failed.outcome.exit_code, Outcome.PASS.exit_code, Outcome.INCONCLUSIVE.exit_code) == (1, 0, 2)


def test_more_needed_is_when_the_verdict_comes_if_the_mean_stays() -> None:
    exam = SequentialExam(0.5).after_all([1.0, 0.0, 1.0, 1.0, 0.0] * 6)  # mean .6
    assert exam.outcome is Outcome.INCONCLUSIVE
    more = exam.more_needed
    assert more is not None
    total = 30 + more
    assert confidence_sequence(0.6 * total, total).low > 0.5
    assert confidence_sequence(0.6 * (total - 1), total - 1).low <= 0.5
    assert SequentialExam(0.5).after_all([1.0, 0.0] * 10).more_needed is None
    assert SequentialExam(0.5).more_needed is None
    assert SequentialExam(0.5).after_all([1.0] * 50).more_needed == 0


def test_a_running_bound_never_loosens() -> None:
    exam = SequentialExam(0.9)
    for score in [1.0] * 8 + [0.0] * 8:
        following = exam.after(score)
        assert following.low >= exam.low
        assert following.high <= exam.high
        exam = following


def test_paired_verdict() -> None:
    found = compare_paired([(True, True), *[(True, False)] * 30])
    assert (found.better, found.b_only, found.more_needed) == ("A", 0, 0)
    assert found.a_only < 12
    assert compare_paired([(False, True)] * 30).better == "B"
    undecided = compare_paired([(True, False)] * 3 + [(False, True)] + [(True, True)] * 4)
    assert undecided.better is None
    assert undecided.more_needed is not None
    assert undecided.more_needed > 10
    assert compare_paired([(True, True)] * 5).more_needed is None
    assert compare_paired([]).e_value == 1.0


def test_means_of_whole_wins_are_compared_as_discordant_pairs_are() -> None:
    for rows in ([-1, *[1] * 12], [0, *[-1] * 9], [1, 1, 1, -1, 0, 0, 0, 0], [0] * 5, []):
        signs = compare_paired([(d < 0, d > 0) for d in rows])
        means = compare_means(rows)
        assert means.better == signs.better
        assert means.e_value == pytest.approx(signs.e_value, rel=1e-3)
        assert means.more_needed == (None if signs.more_needed is None else pytest.approx(signs.more_needed, abs=1))
    with pytest.raises(ValueError, match="lies in"):
        compare_means([1.5])


def test_many_small_gains_and_few_large_losses_of_the_same_mean_are_rarely_decided() -> None:
    """The sign test would decide nearly always: ten small gains come on one loss."""
    rng = np.random.default_rng(4)
    alpha, exams = 0.1, 300
    decided = 0
    for _ in range(exams):
        differences = np.where(rng.random(120) < 10 / 11, 0.1, -1.0)
        decided += compare_means(differences, alpha).better is not None
    assert decided / exams <= alpha + 2.6 * (alpha * (1 - alpha) / exams) ** 0.5


def test_impossible_input_is_refused() -> None:
    with pytest.raises(ValueError, match="successes"):
        confidence_sequence(3, 2)
    with pytest.raises(ValueError, match="lies in"):
        SequentialExam(0.5).after(1.5)
    with pytest.raises(ValueError, match="threshold"):
        SequentialExam(1.5)
    assert confidence_sequence(0, 0) == (0.0, 1.0)
