"""Findings: exact e-values, few false alarms however often one looks, and a change that is seen early."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from foretaste.deploy.analysis import BLOCK, Evidence, Verdict, analyse, log_e_above, log_e_change, served_error
from foretaste.deploy.stage_config import StageConfig

RATE, DELTA, RUNS, LENGTH = 0.1, 0.1, 800, 300


@pytest.mark.parametrize(("wrong", "n"), [(0, 0), (0, 30), (3, 30), (12, 40), (40, 40)])
def test_the_e_value_is_its_integral(wrong: int, n: int) -> None:
    def ratio(q: float) -> float:
        return (q / RATE) ** wrong * ((1 - q) / (1 - RATE)) ** (n - wrong)

    integral = quad(ratio, RATE, 1, limit=200)[0] / (1 - RATE)
    assert math.exp(float(log_e_above(wrong, n, RATE))) == pytest.approx(integral, rel=1e-6)


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.01, 0.5))
@settings(max_examples=60, deadline=None)
def test_the_mean_of_the_e_value_does_not_exceed_1_under_the_promise(wrong: int, right: int, rate: float) -> None:
    """One more answer, wrong with probability `rate`, does not raise E on average: a supermartingale."""
    n = wrong + right
    now, worse, better = (float(log_e_above(w, m, rate)) for w, m in ((wrong, n), (wrong + 1, n + 1), (wrong, n + 1)))
    assert rate * math.exp(worse - now) + (1 - rate) * math.exp(better - now) <= 1 + 1e-9


def test_looking_after_every_answer_gives_few_false_alarms() -> None:
    wrong = np.cumsum(np.random.default_rng(1).random((RUNS, LENGTH)) < RATE, axis=1)
    log_e = log_e_above(wrong, np.arange(1, LENGTH + 1), RATE)
    assert (log_e.max(axis=1) >= -math.log(DELTA)).mean() <= DELTA
    rises = np.cumsum(np.random.default_rng(2).random((200, LENGTH)) < 0.25, axis=1)
    assert (log_e_above(rises, np.arange(1, LENGTH + 1), RATE).max(axis=1) >= -math.log(DELTA)).mean() > 0.99


def test_a_change_is_seen_far_earlier_than_by_all_counts_together_and_false_alarms_stay_few() -> None:
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(100):
        correct = rng.random(200) >= RATE
        false += any(log_e_change(correct[:n].tolist(), RATE) >= -math.log(DELTA) for n in range(BLOCK, 201, 8))
    assert false <= 16  # 100 x DELTA and 2 standard errors
    before = (rng.random(1000) >= 0.01).tolist()
    after = [index % 3 > 0 for index in range(300)]  # a third is wrong
    limit = -math.log(0.05)

    def seen(test) -> int:
        return next(n for n in range(1, 301) if test([*before, *after[:n]]) >= limit)

    by_change = seen(lambda correct: log_e_change(correct, 0.05))
    by_counts = seen(lambda correct: float(log_e_above(correct.count(False), len(correct), 0.05)))
    assert by_change <= 60
    assert by_counts > 2 * by_change


def test_what_is_served_succeeds_fails_or_waits() -> None:
    def verdict(right: int, wrong: int, minimum: int = 20) -> Verdict:
        evidence = Evidence("c", served_judged=right + wrong, served_correct=right)
        return served_error(evidence, 0.05, 0.05, minimum).verdict

    assert verdict(0, 0) is Verdict.INCONCLUSIVE
    assert verdict(19, 0) is Verdict.INCONCLUSIVE
    assert verdict(20, 0) is Verdict.SUCCESS
    assert verdict(19, 2) is Verdict.INCONCLUSIVE  # above the promise, but not for certain
    assert verdict(10, 10, minimum=100) is Verdict.FAILURE  # a breach needs no minimum
    ordered = Evidence("c", served_judged=420, served_correct=400, served_outcomes=(True,) * 400 + (False,) * 20)
    assert served_error(ordered, 0.05, 0.05, 20).verdict is Verdict.FAILURE
    assert verdict(400, 20) is Verdict.SUCCESS  # the same counts without their order: within the promise


def test_a_shadow_that_never_ran_proves_nothing() -> None:
    config = StageConfig()
    found = {one.check: one for one in analyse(Evidence("c", requests=500, learner_answers=100), config, serving=False)}
    assert found["coverage"].verdict is Verdict.INCONCLUSIVE
    assert "100 of 500" in found["coverage"].reason
    assert found["takeover"].verdict is Verdict.INCONCLUSIVE
    assert found["old tasks"].verdict is Verdict.INCONCLUSIVE
    full = {one.check: one for one in analyse(Evidence("c", requests=500, learner_answers=400), config, serving=False)}
    assert full["coverage"].verdict is Verdict.SUCCESS
