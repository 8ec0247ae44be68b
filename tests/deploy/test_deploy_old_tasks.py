"""The gate of old tasks: forgetting is found and named, keeping is certified, and each is rarely said wrongly."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.deploy.analysis import Verdict
from foretaste.deploy.old_tasks import OldTask, Pair, answers, log_e_not_worse, old_tasks_gate, pairs_of
from foretaste.records import Action, Message

MARGIN, DELTA, RUNS = 0.1, 0.1, 300


def said(lost_rate: float, won_rate: float, seed: int) -> dict[Verdict, float]:
    """Share of gates with each verdict, when items are lost and won at these rates."""
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(Verdict, 0)
    for draw in rng.random((RUNS, 200)):
        pairs = [Pair("old", u < lost_rate or u > 0.5, lost_rate <= u < lost_rate + won_rate or u > 0.5) for u in draw]
        counts[old_tasks_gate(pairs, margin=MARGIN, delta=DELTA).verdict] += 1
    return {verdict: count / RUNS for verdict, count in counts.items()}


def test_a_loss_of_the_margin_passes_no_more_often_than_delta() -> None:
    assert said(MARGIN, 0.0, 1)[Verdict.SUCCESS] <= DELTA
    assert said(0.3, 0.2, 2)[Verdict.SUCCESS] <= DELTA  # the same loss among many changes


def test_an_equal_candidate_fails_no_more_often_than_delta_and_one_that_keeps_all_passes() -> None:
    assert said(0.05, 0.05, 3)[Verdict.FAILURE] <= DELTA
    assert said(0.0, 0.0, 4)[Verdict.SUCCESS] == 1.0
    assert said(0.25, 0.0, 5)[Verdict.FAILURE] > 0.95


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.floats(0.01, 0.5))
@settings(max_examples=80, deadline=None)
def test_the_e_value_does_not_rise_on_average_when_the_candidate_is_worse_by_the_margin(w, lost, same, margin) -> None:
    now, worse, alike, better = log_e_not_worse(
        [w, w, w, w + 1], [lost, lost + 1, lost, lost], [same, same, same + 1, same], margin
    )
    assert worse < now < alike < better
    assert margin * math.exp(worse - now) + (1 - margin) * math.exp(alike - now) == pytest.approx(1)
    up, down = 0.3, 0.3 + margin  # more changes, the same difference
    mean = up * math.exp(better - now) + down * math.exp(worse - now) + (1 - up - down) * math.exp(alike - now)
    assert mean == pytest.approx(1)


def test_forgetting_is_named_and_the_first_verdict_ends_it() -> None:
    lost = [Pair("route casual", True, False)] * 12 + [Pair("sums", True, True)] * 3
    finding = old_tasks_gate(lost)
    assert finding.verdict is Verdict.FAILURE
    assert "forgetting" in finding.reason
    assert "route casual" in finding.reason
    assert "sums" not in finding.reason
    kept = [Pair("sums", True, True)] * 100
    assert old_tasks_gate([*kept, *lost]).verdict is Verdict.SUCCESS  # decided before the rest was looked at
    needed = [old_tasks_gate(kept[:n]).verdict is Verdict.SUCCESS for n in range(1, 101)]
    assert not needed[40]
    assert all(a <= b for a, b in pairwise(needed))


def test_without_an_accepted_version_nothing_can_be_forgotten_and_few_items_decide_nothing() -> None:
    assert old_tasks_gate([]).verdict is Verdict.SUCCESS
    assert old_tasks_gate([Pair("sums", True, True)] * 5).verdict is Verdict.INCONCLUSIVE


class Parrot:
    """Answers with the last word it was told."""

    name = "parrot"

    def act(self, conversations):
        return [Action(conversation.messages[-1].content.split()[-1]) for conversation in conversations]


def test_both_versions_answer_the_same_items() -> None:
    tasks = [OldTask("echo", (Message("user", f"say {word}"),), lambda text: text == "yes") for word in ("yes", "no")]
    right = answers(Parrot(), tasks)
    assert right == [True, False]
    assert pairs_of(tasks, [True, True], right) == [Pair("echo", True, True), Pair("echo", True, False)]
