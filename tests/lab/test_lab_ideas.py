"""Ideas held against scale, and against bugs: made-up results are judged as a person would, and the bug is planted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.config import TrainConfig, from_dict
from foretaste.lab import bug_or_idea, idea_or_scale
from foretaste.lab.bug_or_idea import BUG, CONTROL, IDEA, IDLE, late_credit
from foretaste.lab.idea_or_scale import CELLS, SCALE, SCALED
from foretaste.lab.jobs import Context
from foretaste.lab.results import Outcome, Results
from foretaste.lab.study import Study, load
from foretaste.lab.verdict import Decision, judge
from foretaste.rl import batch as batches
from foretaste.rl.doctor import diagnosis, examine


def decided(study: Study, results: Results) -> list[Decision]:
    effects = study.effects or (lambda found, expectation: found.effects(expectation))
    return [judge(one, effects(results, one), results.seeds).decision for one in study.expectations]


# Idea or scale ------------------------------------------------------------------------------------


def ended(success: dict[str, tuple[float, float]]) -> Results:
    """Success at the end of every arm in the two cells, a little different from seed to seed."""
    outcomes = []
    for name, values in success.items():
        for cell, value in zip(CELLS, values, strict=True):
            for seed in range(1, 7):
                result = {"success_before": 0.03, "success_after": value * (1 + 0.005 * (seed % 3 - 1)), "steps": 10}
                curve = {"curve": [[0, 0, 0.03, 64], [1000, 50, value, 64]], "sampled_tokens": 1000}
                outcomes.append(Outcome(f"{name} @ {cell.name}", seed, {**result, **curve}))
    return Results(outcomes)


def test_each_scaled_method_is_judged_alone_and_one_that_gets_further_refutes() -> None:
    grpo, groups, replay = SCALED
    results = ended({"value, 1x": (0.9, 0.7), grpo: (0.1, 0.2), groups: (0.9, 0.72), replay: (0.95, 0.95)})
    found = decided(idea_or_scale.STUDY, results)
    assert found == [Decision.HELD, Decision.HELD, Decision.REFUTED]  # ahead; within .05 on average; .15 behind
    effects = idea_or_scale.effects(results, idea_or_scale.STUDY.expectations[2])
    assert effects[1].low == pytest.approx(-0.15)
    rows = idea_or_scale.rows(results)
    assert [row["sampled_tokens"] for row in rows] == [1000] * 8


def test_a_seed_counts_where_both_methods_ended_in_every_cell() -> None:
    results = ended(dict.fromkeys(("value, 1x", *SCALED), (0.5, 0.5)))
    gone = [o for o in results.outcomes if not (o.arm == f"value, 1x @ {CELLS[1].name}" and o.seed == 2)]
    assert set(idea_or_scale.effects(Results(gone), idea_or_scale.STUDY.expectations[0])) == {1, 3, 4, 5, 6}


def test_scale_is_ten_times_the_tokens_of_the_idea_and_nothing_else() -> None:
    plan = load("idea-or-scale").full
    budgets = {job.arm: job.arguments["config"]["token_budget"] for job in plan.jobs()}
    assert {tokens for arm, tokens in budgets.items() if arm.startswith("value")} == {plan.token_budget}
    assert {tokens for arm, tokens in budgets.items() if not arm.startswith("value")} == {SCALE * plan.token_budget}
    configs = [from_dict(TrainConfig, job.arguments["config"]) for job in plan.jobs() if CELLS[0].name in job.arm]
    first = [config for config in configs if config.seed == plan.seeds[0]]
    assert len({(config.env, config.model, config.imitate, config.held_out.items) for config in first}) == 1
    assert len({config.held_out.every * config.episodes_per_step for config in first}) == 1


# Bug or idea --------------------------------------------------------------------------------------


def test_the_bug_is_there_while_planted_and_gone_after() -> None:
    real = batches.gae
    values = np.array([[0.2, 0.4, 0.6, 0.0]])
    given: tuple[Any, ...] = (np.array([[0.0, 0.0, 1.0, 0.0]]), values, np.zeros(1), np.array([3]), np.ones((1, 4)))
    right = real(*given)
    with late_credit():
        wrong = batches.gae(*given)
    np.testing.assert_allclose(wrong.advantages_BT[0], [0.0, *right.advantages_BT[0, :-1]])
    np.testing.assert_allclose(wrong.targets_BT, right.targets_BT)  # the critic learns what it should
    assert batches.gae is real

    def fails() -> None:
        with late_credit():
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert batches.gae is real  # a job that fails leaves nothing behind in its worker


def test_doctor_names_the_planted_bug_with_the_study_s_own_settings() -> None:
    job = next(job for job in bug_or_idea.STUDY.full.jobs() if job.arm == BUG)
    config = dataclasses.replace(from_dict(TrainConfig, job.arguments["config"]), seed=101)
    exact = (one for one in examine(config, own_env=False) if not one.probe.startswith("learns"))
    with late_credit():
        found = [next(exact) for _ in range(5)]  # the exact checks of the first probe; the others take longer
    text, sound = diagnosis(found)
    assert not sound
    assert "Bug here: credit" in text
    assert "advantages are shifted by one token" in text


def areas(bug: float, idle: float, *, named: float = 1.0, cleared: float = 1.0, seeds: int = 80) -> Results:
    found = {CONTROL: (0.5, 1.0, 0.0), IDEA: (0.7, 1.0, 0.0), BUG: (bug, 0.0, named), IDLE: (idle, cleared, 0.0)}
    outcomes = []
    for arm, (area, is_clear, is_named) in found.items():
        for seed in range(1, seeds + 1):
            wobble = 0.005 * (seed % (3 if arm in (CONTROL, IDEA) else 4))
            result = {"area": area + wobble, "sound": is_clear, "cleared": is_clear, "bug_named": is_named}
            text = "Machinery sound." if is_clear else "Bug here."
            outcomes.append(Outcome(arm, seed, {**result, "doctor": text}))
    return Results(outcomes)


def test_the_pair_holds_only_if_the_study_sees_no_gain_and_the_doctor_tells_them_apart() -> None:
    study = load("bug-or-idea")
    required = [one.required for one in study.expectations]

    def needed(results: Results) -> list[Decision]:
        return [decision for decision, needs in zip(decided(study, results), required, strict=True) if needs]

    assert needed(areas(0.5, 0.71)) == [Decision.HELD] * 4
    assert needed(areas(0.5, 0.71, seeds=6)) == [Decision.UNDECIDED] * 2 + [Decision.HELD] * 2  # few runs, no proof
    assert needed(areas(0.5, 0.71, named=0.0))[0] is Decision.REFUTED
    assert needed(areas(0.5, 0.71, cleared=0.0))[1] is Decision.REFUTED
    assert needed(areas(0.65, 0.71))[2] is Decision.REFUTED  # the bug did no harm that a study could see
    assert needed(areas(0.5, 0.85))[3] is Decision.REFUTED  # the idle idea helped after all
    rows = {row["arm"]: row for row in bug_or_idea.rows(areas(0.5, 0.71))}
    assert rows[BUG]["the study alone"] == rows[IDLE]["the study alone"] == "the idea does not help"
    assert rows[BUG]["doctor"] != rows[IDLE]["doctor"]
    assert rows[IDEA]["the study alone"] == "the idea helps"


def test_only_one_arm_has_the_bug_and_only_one_the_idle_idea(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job for job in load("bug-or-idea").full.jobs() if job.seed == 1]
    assert [job.arm for job in jobs if job.arguments["options"]["bug"]] == [BUG]
    seen = {}

    def trained(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
        seen["gae"] = batches.gae.__name__
        return {"area": 0.5}

    monkeypatch.setattr(bug_or_idea, "train_arm", trained)
    monkeypatch.setattr(
        "foretaste.rl.doctor.examine", lambda config, own_env: seen.update(at=batches.gae.__name__) or []
    )
    for job in jobs:
        found = bug_or_idea.train_and_examine(job.arguments, Context(Path(), lambda share, words: None))
        assert seen["gae"] == seen["at"] == ("late" if job.arm == BUG else "gae")
        assert (found["sound"], found["cleared"], found["bug_named"]) == (1.0, 1.0, 0.0)
    configs = {job.arm: job.arguments["config"]["algorithm"] for job in jobs}
    assert configs[BUG] == configs[IDEA]
    assert {name for name, value in configs[IDLE].items() if configs[IDEA][name] != value} == {"entropy_coefficient"}
