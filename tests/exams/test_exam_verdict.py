"""The verdict: certain only when it is, for every metric, and honest under early stopping in the exam's own order."""

import numpy as np
import pytest

from foretaste.exams.sequential import Outcome, SequentialExam, confidence_sequence
from foretaste.exams.verdict import Judge, Metric, Verdict


def judged(metric: Metric, rows: list[dict[str, float | None]], threshold: float = 0.5, alpha: float = 0.05) -> Verdict:
    judge = Judge(metric, threshold, alpha, len({name for row in rows for name in row}))
    for row in rows:
        judge.add(row)
    return judge.verdict()


def test_accuracy_is_the_sequential_exam_on_means_of_wordings() -> None:
    rows: list[dict[str, float | None]] = [{"plain": 1.0, "casual": float(i % 2)} for i in range(40)]
    verdict = judged("accuracy", rows)
    state = SequentialExam(0.5).after_all([(1.0 + i % 2) / 2 for i in range(40)])
    assert verdict.mean == 0.75
    assert verdict.outcome is state.outcome is Outcome.PASS


def test_each_metric_asks_something_else() -> None:
    # Every item is right in plain and wrong in casual.
    rows: list[dict[str, float | None]] = [{"plain": 1.0, "casual": 0.0}] * 60
    assert judged("accuracy", rows, threshold=0.3).outcome is Outcome.PASS
    assert judged("all_registers", rows, threshold=0.3).outcome is Outcome.FAIL
    worst = judged("worst_register", rows, threshold=0.3)
    assert (worst.outcome, worst.mean) == (Outcome.FAIL, 0.0)
    assert judged("worst_register", [{"plain": 1.0, "casual": 1.0}] * 60, threshold=0.3).outcome is Outcome.PASS


def test_errors_can_only_make_a_verdict_less_certain() -> None:
    sure: list[dict[str, float | None]] = [{"plain": 1.0}] * 30
    assert judged("accuracy", sure, threshold=0.8).outcome is Outcome.PASS
    doubtful: list[dict[str, float | None]] = [{"plain": None if i % 3 == 0 else 1.0} for i in range(30)]
    verdict = judged("accuracy", doubtful, threshold=0.8)
    assert (verdict.outcome, verdict.mean, verdict.errors) == (Outcome.INCONCLUSIVE, 1.0, 10)
    bad: list[dict[str, float | None]] = [{"plain": None if i % 3 == 0 else 0.0} for i in range(30)]
    assert judged("accuracy", bad, threshold=0.2).outcome is Outcome.INCONCLUSIVE
    assert judged("accuracy", bad, threshold=0.8).outcome is Outcome.FAIL


def test_nothing_judged_is_inconclusive_and_round_trips() -> None:
    empty = Judge("accuracy", 0.5, 0.05).verdict()
    assert (empty.outcome, empty.n, empty.mean) == (Outcome.INCONCLUSIVE, 0, None)
    assert "no item" in empty.sentence()
    some = judged("accuracy", [{"plain": 1.0}] * 3)
    assert Verdict.from_json(some.to_json()) == some
    assert f"needs {some.more_needed} more" in some.sentence()


def test_further_items_are_named_only_where_they_would_do() -> None:
    nothing = judged("accuracy", [{"plain": None}] * 40)
    assert (nothing.outcome, nothing.mean, nothing.more_needed) == (Outcome.INCONCLUSIVE, None, None)
    assert nothing.sentence() == "INCONCLUSIVE: no item could be judged: all 40 ended in an error"
    # With 40% errors counted as wrong the mean can never rise above .7, and never fall below it counted as right.
    for right in (1.0, 0.6):
        rows: list[dict[str, float | None]] = [{"plain": None if i % 5 < 2 else right} for i in range(40)]
        verdict = judged("accuracy", rows, threshold=0.7)
        assert (verdict.outcome, verdict.more_needed) == (Outcome.INCONCLUSIVE, None)
        assert "no number of further items would do while 16 of 40 end in an error" in verdict.sentence()
    for metric in ("accuracy", "worst_register", "all_registers"):
        some = judged(metric, [{"plain": None if i % 5 == 0 else 1.0} for i in range(20)], threshold=0.7, alpha=0.01)
        assert some.outcome is Outcome.INCONCLUSIVE
        assert some.more_needed
        whole = judged(
            metric, [{"plain": None if i % 5 == 0 else 1.0} for i in range(20 + some.more_needed)], 0.7, 0.01
        )
        assert whole.outcome is Outcome.PASS


def test_a_wording_that_always_fails_leaves_the_worst_wording_open() -> None:
    verdict = judged("worst_register", [{"plain": 1.0, "casual": None}] * 40)
    assert (verdict.outcome, verdict.more_needed) == (Outcome.INCONCLUSIVE, None)


@pytest.mark.parametrize("rates", [(0.5,), (0.05, 0.95), (0.2, 0.5, 0.8)])
def test_a_mixed_paper_in_random_order_rarely_gets_a_wrong_verdict(rates: tuple[float, ...]) -> None:
    """Families of different difficulty whose mean is exactly the threshold, shuffled as a plan is."""
    rng, exams, alpha = np.random.default_rng(3), 1000, 0.2
    difficulty = np.repeat(rates, 60 // len(rates))
    chances = rng.permuted(np.tile(difficulty, (exams, 1)), axis=1)
    successes = (rng.random(chances.shape) < chances).cumsum(axis=1)
    s, n = np.meshgrid(np.arange(61), np.arange(61))
    low = confidence_sequence(np.minimum(s, n), n, alpha).low[np.arange(1, 61), successes]
    wrong = (low.max(axis=1) > 0.5).mean()  # PASS at any time, although the paper's mean is at the threshold
    assert wrong <= alpha + 2.6 * (alpha * (1 - alpha) / exams) ** 0.5
