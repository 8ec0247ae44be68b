"""Recurrences are counted at equal opportunities: by hand on small matrices, then end to end on a tiny policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foretaste.config import HeldOutConfig, ImitateConfig, to_dict
from foretaste.errors import RunError
from foretaste.exams.pingpong import ping_pong
from foretaste.lab import ping_pong as study
from foretaste.lab.jobs import Context
from foretaste.lab.ping_pong import Mended, exposure, figures, mended, train_and_mend
from foretaste.ledger import Ledger
from foretaste.records import Action, Episode, EpisodeEnd, Turn


def rows(*texts: str) -> np.ndarray:
    return np.array([[letter == "1" for letter in text] for text in texts])


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("01", "01", "01"), (0, 0, 0)),  # nothing was fixed: the check that always passed is not at risk
        (("00", "10", "11"), (2, 1, 0)),  # the first is fixed and holds for one turn; the last state has no turn after
        (("00", "10", "00", "10"), (1, 1, 1)),  # fixed, broken again, fixed again
        (("00", "10", "01", "10"), (2, 2, 2)),  # two bugs swapped
        (("10", "00", "10", "10"), (1, 1, 0)),  # broken at first and mended: fixed, and at risk from then on
    ],
)
def test_what_was_fixed_is_at_risk_from_then_on(states: tuple[str, ...], expected: tuple[int, int, int]) -> None:
    assert exposure(rows(*states)) == expected


def an_episode(*texts: str, success: float = 0.0) -> Episode:
    turns = tuple(Turn("", Action(""), checks=tuple(map(bool, row))) for row in rows(*texts).tolist())
    return Episode("repair", 0, "practice", 2, "plain", turns, EpisodeEnd.TERMINATED, success=success)


def test_an_episode_is_measured_from_the_checks_before_its_first_edit() -> None:
    swapped = mended(an_episode("10", "01", "10"), (False, False))
    assert (swapped.fixed, swapped.at_risk, swapped.rebroken, swapped.measured.recurrence) == (2, 2, 2, 2)
    assert not swapped.solved
    with pytest.raises(RunError, match="without any check"):
        mended(an_episode(), (False,))


def test_figures_are_pooled_over_opportunities() -> None:
    clean = mended(an_episode("10", "11", success=1.0), (False, False))
    swapping = mended(an_episode("10", "01", "11", success=1.0), (False, False))
    idle = mended(an_episode("00", "00"), (False, False))
    found = figures([clean, swapping, idle])
    assert found["recurrence"] == pytest.approx(1 / 4)  # one of the four checks that were ever fixed
    assert found["recurrence_a_turn"] == pytest.approx(1 / 3)  # at risk: one check-turn there, two here
    assert (found["solved"], found["solved_without"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    nothing = figures([idle])
    assert nothing["recurrence"] is None  # an agent that fixes nothing is not free of recurrence
    assert nothing["recurrence_a_turn"] is None


def test_the_two_countings_agree_with_the_exam() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        states = generator.random((7, 4)) < 0.5
        measured = ping_pong(states[1:], initial=states[0].tolist())
        fixed, at_risk, rebroken = exposure(states)
        assert measured.recurrence <= min(fixed, rebroken) <= at_risk
        assert measured.recurrence_rate == (measured.recurrence / fixed if fixed else None)
        one = Mended(measured, fixed, at_risk, rebroken, False)
        assert figures([one])["recurrence"] == measured.recurrence_rate


def test_the_arms_share_warm_start_and_items() -> None:
    plan = study.STUDY.full
    jobs = [job for job in plan.jobs() if job.seed == plan.seeds[0]]
    assert len({str(job.arguments["config"]) for job in jobs}) == 1
    assert sorted(job.arguments["options"]["trained"] for job in jobs) == [False, True]


def test_an_untrained_arm_takes_no_step_and_says_what_it_did(tmp_path: Path) -> None:
    config = replace(
        study.config(101),
        imitate=ImitateConfig(episodes=16, passes=1, learning_rate=1e-3),
        held_out=HeldOutConfig(items=4),
        token_budget=10_000,
        seed=101,
    )
    config = replace(config, algorithm=replace(config.algorithm, value_pretraining_episodes=4))
    arguments = {"config": to_dict(config), "options": {"trained": False, "items": 4}}
    with pytest.raises(RunError, match="no check was fixed"):  # sixteen demonstrations teach nothing yet
        train_and_mend(arguments, Context(tmp_path, lambda share, words: None))
    with Ledger.open(tmp_path) as ledger:
        run = ledger.runs("train")[-1].id
        assert not ledger.records(run, "metrics")
        assert ledger.records(run, "checkpoint")
