"""The study of a critic that was taught elsewhere: how it teaches, shares a teaching, and reads what came out."""

import dataclasses
import math

import pytest

from foretaste.envs.registry import make
from foretaste.lab import horizon, jobs, taught, teaching
from foretaste.lab.cells import FRESH_TABLES, Cell
from foretaste.lab.jobs import Context
from foretaste.lab.results import Outcome, Results
from foretaste.lab.study import load
from foretaste.lab.verdict import Decision, judge
from foretaste.ledger import Ledger

STUDY = load("taught")
GATED, RARER, SEEN, MISLED = STUDY.expectations


def test_no_table_is_scored_that_a_critic_was_taught_on_and_no_seed_shares_one():
    seen: set[int] = set()
    for seed in STUDY.full.seeds:
        lock = make(teaching.teaching(taught.RARE, seed, 1000).env.id)
        tables = set(range(lock.table_seed, lock.table_seed + lock.tables))
        assert len(tables) == 128
        assert not tables & seen
        seen |= tables
    scored = {make(job.arguments["config"]["env"]["id"]).table_seed for job in STUDY.full.jobs()}
    assert scored == {FRESH_TABLES + seed for seed in STUDY.full.seeds}
    assert not scored & seen


def test_what_teaches_is_the_same_lock_with_a_policy_that_stands_still():
    config = teaching.teaching(Cell(5, "late", 10), 3, 1000)
    lock = make(config.env.id)
    assert (lock.chain.critical, lock.chain.visibility, lock.chain.horizon) == (5, "late", 10)
    assert config.algorithm.freeze_policy
    assert config.algorithm.name == "ppo"


def test_arms_of_a_seed_share_one_teaching_and_train_with_its_critic(tmp_path, monkeypatch):
    def small(cell, seed, budget):
        made = whole(cell, seed, budget)
        imitation = dataclasses.replace(made.imitate, episodes=4, passes=1)
        algorithm = dataclasses.replace(made.algorithm, value_pretraining_episodes=8)
        return dataclasses.replace(made, episodes_per_step=8, imitate=imitation, algorithm=algorithm)

    whole = teaching.teaching
    monkeypatch.setattr(teaching, "teaching", small)
    trained: list[dict] = []
    monkeypatch.setattr(teaching, "train_arm", lambda arguments, context: trained.append(arguments["config"]) or {})
    context = Context(tmp_path, lambda share, words: None)
    job = next(job for job in STUDY.full.jobs() if job.arm.startswith("taught"))
    options = {**job.arguments["options"], "budget": 200}
    for _ in range(2):
        found = teaching.teach_and_train({**job.arguments, "options": options, "seed": 7}, context)
        assert found["teaching_tokens"] == 200
    with Ledger.open(tmp_path) as ledger:
        (run,) = ledger.runs("train")  # one for both
        (checkpoint,) = ledger.records(run.id, "checkpoint")
    assert [config["model"]["critic_from"] for config in trained] == [checkpoint.payload["path"]] * 2
    monkeypatch.setattr(jobs, "code_version", lambda work: "other code")
    monkeypatch.setattr(teaching, "code_version", lambda work: "other code")
    teaching.teach_and_train({**job.arguments, "options": options, "seed": 7}, context)
    with Ledger.open(tmp_path) as ledger:
        assert len(ledger.runs("train")) == 2  # what earlier code taught is not what this code would teach


def result(reached):
    if reached is None:
        return {"curve": [[0, 0, 0.0, 64], [30_000, 500, 0.1, 64]], "area": 0.05, "teaching_tokens": 200_000.0}
    points = [[0, 0, 0.0, 64], [reached * 2, 100, 1.0, 64], [30_000, 500, 1.0, 64]]
    return {"curve": points, "area": 0.9, "teaching_tokens": 200_000.0}


def made_up(tokens, seeds=tuple(range(12))):
    named = {"rare": taught.RARE, "rarer": taught.RARER, "late": taught.LATE, "silent": taught.SILENT}
    return Results(
        Outcome(f"{name} @ {named[place].name}", seed, result(reached))
        for (name, place), reached in tokens.items()
        for seed in seeds
    )


FIGURES = {
    ("taught", "rare"): 1000,
    ("gated", "rare"): 500,
    ("success-replay", "rare"): 4000,
    ("taught", "rarer"): 2000,
    ("gated", "rarer"): 1000,
    ("success-replay", "rarer"): None,
    ("taught", "late"): 1000,
    ("gated", "late"): 900,
    ("success-replay", "late"): 9000,
    ("misled", "silent"): 5000,
    ("success-replay", "silent"): 4500,
}


def test_each_expectation_is_judged_over_its_own_cells():
    results = made_up(FIGURES)
    found = {one: judge(one, taught.effects(results, one), results.seeds) for one in STUDY.expectations}
    assert found[GATED].low == pytest.approx((8 * 30 * 10) ** (1 / 3), rel=0.01)
    assert found[SEEN].low == pytest.approx((4 * 15 * 9) ** (1 / 3), rel=0.01)
    assert found[RARER].low == pytest.approx(30_000 / 2000, rel=0.01)  # the budget's end at least
    assert found[MISLED].estimate == pytest.approx(0.9, rel=0.01)
    assert {one.decision for one in found.values()} == {Decision.HELD}
    slow = made_up({**FIGURES, ("taught", "rarer"): 8000, ("success-replay", "rarer"): 20_000})
    assert judge(RARER, taught.effects(slow, RARER), slow.seeds).decision is Decision.REFUTED


def test_the_table_says_when_a_teaching_has_paid():
    rows = {(row["mistakes"], row["start"]): row for row in taught.rows(made_up(FIGURES))}
    rare, rarer, silent = (rows[key] for key in (("at once", 1 / 32), ("at once", 1 / 256), ("silent", 1 / 32)))
    assert rare["times fewer"] == "8.00"
    assert rare["tasks until it has paid"] == "57"  # 200,000 / 3,500
    assert rare["taught, tokens"] == "1,000"
    assert rarer["times fewer"] == "only ours"
    assert rarer["tasks until it has paid"] == "not known"
    assert silent["critic taught where they show"] == "at once"
    assert silent["times fewer"] == "0.90"
    assert "tasks until it has paid" not in silent  # its teaching was for locks of another kind


def test_a_seed_without_one_of_its_cells_is_left_out():
    results = made_up(FIGURES)
    gone = [o for o in results.outcomes if not (o.arm == f"taught @ {taught.LATE.name}" and o.seed == 2)]
    assert set(taught.effects(Results(gone), SEEN)) == set(range(12)) - {2}
    assert set(taught.effects(Results(gone), GATED)) == set(range(12))
    assert set(taught.effects(Results(gone), RARER)) == set(range(12))


def test_horizons_are_judged_together_with_the_same_starting_success():
    study = load("horizon")
    assert {cell.start for cell in horizon.CELLS} == {taught.RARE.start}
    assert [cell.horizon for cell in horizon.CELLS] == [20, 40]
    tokens = {("gated", 0): 500, ("success-replay", 0): 4000, ("gated", 1): 1000, ("success-replay", 1): 9000}
    results = Results(
        Outcome(f"{name} @ {horizon.CELLS[place].name}", seed, result(reached))
        for (name, place), reached in tokens.items()
        for seed in range(9)
    )
    found = judge(study.expectations[0], horizon.effects(results, study.expectations[0]), results.seeds)
    assert found.estimate == pytest.approx(math.sqrt(8 * 9), rel=0.01)
    assert [row["turns"] for row in horizon.rows(results)] == [20, 40]
