"""The simulated researcher: what is told decides how much of it is luck."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foretaste.exams.scarce import Release
from foretaste.lab import reward_hacker
from foretaste.lab.jobs import Context
from foretaste.lab.results import Outcome, Results
from foretaste.lab.reward_hacker import LADDER, SEEN, START, STUDY, tune
from foretaste.lab.verdict import Decision, judge

OPTIONS = {"rounds": 200, "items": 200, "looks": 4}


def gaps(seen: str, seeds: int = 20) -> np.ndarray:
    context = Context(Path(), lambda share, words: None)
    found = [tune({"options": {**OPTIONS, "seen": seen}, "seed": seed}, context) for seed in range(seeds)]
    assert all(one["gap"] == pytest.approx(one["reported"] - one["true"]) for one in found)
    assert all(abs(one["true"] - START) < 0.1 for one in found)  # whatever is reported, little has got better
    return np.array([one["gap"] for one in found])


def test_what_is_tuned_to_flatters_and_fresh_items_do_not() -> None:
    public, ladder, sealed = (gaps(seen) for seen in SEEN)
    assert public.mean() > 0.15
    assert 0 < ladder.mean() < public.mean() - 0.05  # less, but not little
    assert abs(sealed.mean()) < 3 * sealed.std() / np.sqrt(len(sealed)) + 0.01


def test_every_way_of_seeing_is_an_arm() -> None:
    assert set(STUDY.full.arms) == set(SEEN)


@pytest.mark.parametrize(("told", "decision"), [(START, Decision.HELD), (0.384, Decision.REFUTED)])
def test_what_is_told_through_the_ladder_may_be_off_to_neither_side(
    monkeypatch: pytest.MonkeyPatch, told: float, decision: Decision
) -> None:
    class Always:
        def submit(self, scores: np.ndarray) -> tuple[Release, Always]:
            return Release(told, True), self

    monkeypatch.setattr(reward_hacker, "Ladder", Always)
    context, seeds = Context(Path(), lambda share, words: None), range(6)
    options = {**OPTIONS, "seen": LADDER}
    outcomes = [Outcome(LADDER, seed, tune({"options": options, "seed": seed}, context)) for seed in seeds]
    expectation = next(one for one in STUDY.expectations if one.treatment == LADDER)
    assert judge(expectation, Results(outcomes).effects(expectation), seeds).decision is decision
