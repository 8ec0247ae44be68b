"""The studies of the value function can be run as stated, and judge made-up results as a person would."""

import dataclasses
import math
from pathlib import Path

import pytest

from foretaste.checks import check
from foretaste.config import TrainConfig, from_dict, load_recipe
from foretaste.envs.registry import make
from foretaste.lab import cells, credit, credit_map, methods, think
from foretaste.lab.cells import BEST, METRIC, Cell
from foretaste.lab.credit_map import QUICK
from foretaste.lab.results import Outcome, Results
from foretaste.lab.study import Expectation, load
from foretaste.lab.verdict import Decision, judge

NAMES = ("credit-map", "taught", "horizon", "credit", "credit-maze", "gate", "replay", "think")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["quick", "full"])
def test_every_arm_of_a_study_is_a_run_that_can_be_used(name, mode):
    study = load(name)
    jobs = study.plan(mode).jobs()
    assert len({job.key for job in jobs}) == len(jobs)
    for job in jobs[:: max(1, len(jobs) // 12)]:
        config = check(from_dict(TrainConfig, job.arguments["config"]))
        make(config.env.id)
    assert study.plan("quick").minutes <= 5
    assert len(study.plan("full").seeds) >= 5


def test_rule_tables_and_warm_starts_are_fresh_for_every_seed():
    plan = load("credit-map").plan("full")
    seeds = {job.arguments["config"]["seed"] for job in plan.jobs()}
    ids = {job.arguments["config"]["env"]["id"] for job in plan.jobs()}
    assert len(seeds) == 7
    assert {make(one).table_seed for one in ids} == {cells.FRESH_TABLES + seed for seed in seeds}


def test_the_recipe_is_the_value_arm():
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "replay-critic.toml")
    arm = methods.method("value", methods.base(recipe.env.id))
    assert (recipe.algorithm, recipe.replay, recipe.model) == (arm.algorithm, arm.replay, arm.model)
    assert recipe.episodes_per_step == arm.episodes_per_step
    assert recipe.imitate == arm.imitate


def test_all_methods_share_everything_but_what_is_named():
    base = methods.base("lock")
    for name in methods.METHODS:
        made = methods.method(name, base)
        shared = {name: getattr(base, name) for name in ("algorithm", "replay", "episodes_per_step", "held_out")}
        assert dataclasses.replace(made, **shared) == base
        assert made.held_out.items == base.held_out.items
        apart = made.held_out.every * made.episodes_per_step
        assert apart == base.held_out.every * base.episodes_per_step  # the same curve for all
        same = ("passes", "minibatches", "clip_low", "clip_high", "critic_learning_rate", "microbatch_tokens")
        assert all(getattr(made.algorithm, field) == getattr(base.algorithm, field) for field in same)
    rates = {name: methods.method(name, base).algorithm.learning_rate for name in methods.METHODS}
    assert rates["value"] == rates["auto"] == rates["success-replay"]  # the strongest control has what ours has
    assert max(rates.values()) == methods.IMITATING


def curve(reached):
    """A learning curve that reaches half success at a number of tokens; None: never."""
    if reached is None:
        return {"curve": [[0, 0, 0.0, 64], [10_000, 500, 0.1, 64]], "area": 0.05, "train_seconds": 1.0}
    points = [[0, 0, 0.0, 64], [reached * 2, 100, 1.0, 64], [10_000, 500, 1.0, 64]]
    return {"curve": points, "area": 1 - reached / 10_000, "train_seconds": 1.0}


def made_up(tokens, seeds=(1, 2, 3, 4, 5, 6)):
    outcomes = []
    for cell in QUICK:
        for name, by_cell in tokens.items():
            for seed in seeds:
                outcomes.append(Outcome(f"{name} @ {cell.name}", seed, curve(by_cell[QUICK.index(cell)])))
    return Results(outcomes)


VALUE, AUTO = load("credit-map").expectations


def decide(results, expectation):
    return judge(expectation, credit_map.effects(results, expectation), results.seeds)


def effects_of_value(outcomes):
    found = credit_map.effects(Results(outcomes), VALUE)
    assert isinstance(found, dict)
    return found


def test_the_map_takes_the_best_baseline_of_each_cell():
    results = made_up({"value": (100, 900), "auto": (100, 800), "grpo": (None, 850), "batch-mean": (600, None)})
    assert [cells.best_baseline(results, cell) for cell in QUICK] == ["batch-mean", "grpo"]
    found = decide(results, VALUE)  # the promised cell alone: 600 / 100
    assert found.estimate == pytest.approx(6.0, rel=0.01)
    assert found.decision is Decision.HELD
    worst = decide(results, AUTO)  # the silent cell: 850 / 800
    assert worst.estimate == pytest.approx(850 / 800, rel=0.01)
    assert worst.decision is Decision.HELD


def test_the_map_is_refuted_where_ours_is_slow_and_open_where_nobody_arrives():
    figures = {"value": (300, 900), "auto": (300, 2000), "grpo": (600, 850), "batch-mean": (600, 850)}
    slow = made_up(figures, seeds=range(1, 9))  # six seeds cannot refute a claim about the worst of two cells at 95%
    assert decide(slow, VALUE).decision is Decision.REFUTED
    assert decide(slow, AUTO).decision is Decision.REFUTED
    nobody = made_up({"value": (None, None), "auto": (None, None), "grpo": (None, None), "batch-mean": (None, None)})
    assert decide(nobody, VALUE).decision is Decision.UNDECIDED
    rows = credit_map.rows(nobody)
    assert rows[0]["value, times fewer"] == "never reached"


def test_ours_alone_reaching_half_counts_as_at_least_the_budget():
    results = made_up({"value": (100, 900), "auto": (100, 900), "grpo": (None, 900), "batch-mean": (None, 900)})
    bounds = cells.ratio(results, "value", QUICK[0], 1)
    assert bounds is not None
    assert math.exp(bounds.low) == pytest.approx(10_000 / 100, rel=0.01)
    assert bounds.high == math.inf
    assert credit_map.rows(results)[0]["value, times fewer"] == "only ours"


def test_a_missing_job_leaves_its_seed_out():
    results = made_up({"value": (100, 900), "auto": (100, 900), "grpo": (300, 900)}, seeds=(1, 2))
    gone = [o for o in results.outcomes if not (o.arm == f"value @ {QUICK[0].name}" and o.seed == 2)]
    assert set(effects_of_value(gone)) == {1}


def test_credit_compares_areas_over_all_tasks():
    outcomes = [
        Outcome(f"{name} @ {task}", 1, {"area": area})
        for task, areas in {"maze": (0.6, 0.5, 0.2), "guess": (0.4, 0.1, 0.3)}.items()
        for name, area in zip(("auto", "grpo", "batch-mean"), areas, strict=True)
    ]
    found = credit.effects(Results(outcomes), Expectation("area", "auto", "best baseline", size=0.0))
    assert found[1].low == pytest.approx(((0.6 - 0.5) + (0.4 - 0.3)) / 2)


def test_a_failed_baseline_is_no_weak_baseline():
    areas = {"auto": (0.6, 0.6, 0.6), "grpo": (0.5, 0.5, 0.5), "batch-mean": (0.7, 0.7, None)}
    results = Results(
        Outcome(f"{name} @ maze", seed, None if area is None else {"area": area})
        for name, by_seed in areas.items()
        for seed, area in enumerate(by_seed)
    )
    assert credit.best_baseline(results, "maze") == "batch-mean"  # its sum is smaller, its mean is larger
    found = credit.effects(results, Expectation("area", "auto", "best baseline", size=0.0))
    assert {seed: bounds.low for seed, bounds in found.items()} == pytest.approx({0: -0.1, 1: -0.1})
    failed = [Outcome(o.arm, o.seed, None) if o.arm == "batch-mean @ maze" else o for o in results.outcomes]
    assert credit.effects(Results(failed), Expectation("area", "auto", "best baseline", size=0.0)) == {}
    lock = made_up({"value": (100, 900), "auto": (100, 900), "grpo": (300, 900), "batch-mean": (400, 900)})
    gone = [
        o if (o.arm, o.seed) != (f"batch-mean @ {QUICK[0].name}", 2) else Outcome(o.arm, 2, None) for o in lock.outcomes
    ]
    assert set(effects_of_value(gone)) == {1, 3, 4, 5, 6}


def test_a_cell_in_which_nothing_was_measured_does_not_hold():
    results = made_up({"value": (100, 900), "auto": (100, 900), "grpo": (300, 900)})
    assert decide(results, AUTO).decision is Decision.HELD
    there = f"auto @ {QUICK[1].name}"
    failed = [Outcome(o.arm, o.seed, None, "failed") if o.arm == there else o for o in results.outcomes]
    assert decide(Results(failed), AUTO).decision is Decision.UNDECIDED


def test_cells_say_what_they_are():
    cell = Cell(5, "at once", 10)
    assert credit_map.promised(cell)
    assert not credit_map.promised(Cell(5, "silent", 10))
    assert not credit_map.promised(Cell(2, "at once", 10))
    env = make(cell.env(3))
    assert (env.chain.visibility, env.chain.horizon, env.table_seed) == ("at once", 10, 1003)
    assert (VALUE.metric, VALUE.baseline) == (METRIC, BEST)


def test_a_method_that_could_not_be_judged_is_not_compared():
    result = {"solved:best": 0.6, "solved:vote": 0.3, "solved:likelihood": 0.5}
    assert think.ahead(result, "best", "vote", "likelihood") == pytest.approx(0.1)
    for name in result:
        assert think.ahead({**result, name: None}, "best", "vote", "likelihood") is None


def test_thinking_is_tabled_by_method():
    result = {
        "solved:one": 0.4,
        "tokens:one": 20.0,
        "solved:best": 0.6,
        "tokens:best": 160.0,
        "best_over_baselines": 0.1,
    }
    rows = think.rows(Results([Outcome("n=8", 1, result), Outcome("n=8", 2, {**result, "solved:best": 0.8})]))
    assert [(row["method"], row["solved"]) for row in rows] == [("one", 0.4), ("best", pytest.approx(0.7))]
