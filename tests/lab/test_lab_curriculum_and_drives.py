"""The studies of curriculum and drives: what their arms share, what they measure, how they judge."""

import dataclasses

import pytest

from foretaste.checks import check
from foretaste.config import DrivesConfig, TrainConfig, from_dict, to_dict
from foretaste.envs.base import demonstrate
from foretaste.envs.registry import make
from foretaste.lab import curriculum, drives, places
from foretaste.lab.jobs import Context
from foretaste.lab.places import PLACES
from foretaste.lab.results import Outcome, Results
from foretaste.lab.study import load
from foretaste.lab.verdict import Decision, judge
from foretaste.ledger import Ledger
from foretaste.rl.pools import MixedPool
from foretaste.rl.sources import held_out_sources, training_sources


@pytest.mark.parametrize("name", ["curriculum", "drives"])
def test_arms_can_be_run_and_differ_in_nothing_but_what_is_studied(name):
    study = load(name)
    for mode, most in (("quick", 5), ("full", 30)):
        plan = study.plan(mode)
        assert plan.minutes <= most
        shared: dict[object, set[str]] = {}
        for job in plan.jobs():
            config = check(from_dict(TrainConfig, job.arguments["config"]))
            order = dataclasses.replace(config.curriculum, order="uniform")
            bare = dataclasses.replace(config, curriculum=order, drives=DrivesConfig())
            place = config.env.id if name == "drives" else ""
            shared.setdefault((job.seed, place), set()).add(str(to_dict(bare)) + str(job.arguments["options"]))
        assert all(len(kinds) == 1 for kinds in shared.values())
        assert len({job.key for job in plan.jobs()}) == len(plan.jobs())
    assert len(study.full.seeds) >= 5


def test_held_out_locks_share_the_table_and_are_never_trained_on():
    for table in (7, 8):
        config = curriculum.config("uniform", table)
        trained, held_out = training_sources(config), held_out_sources(config)
        assert not {source.name for source in trained} & {source.name for source in held_out}
        assert {make(source.env).table_seed for source in (*trained, *held_out)} == {table}
        assert sum(curriculum.idle(source.name) for source in trained) == 6
        MixedPool(config)


def test_a_jammed_lock_never_opens_and_a_finished_one_always_does():
    for name in curriculum.sources(7):
        env = make(name)
        opened = []
        for seed in range(20):
            env.reset(seed=seed)
            over, reward, info = False, 0.0, {}
            while not over:
                _, reward, over, _, info = env.step("red")
            assert env.turn == env.max_turns()
            assert float(reward) == info["success"]
            opened.append(info["success"])
        if "Jammed" in name:
            assert not any(opened)
            with pytest.raises(Exception, match="did not solve"):
                demonstrate(env, 1, level=1)
        elif curriculum.idle(name):
            assert all(opened)
        else:
            assert not all(opened)


def test_idle_episodes_are_counted_from_what_was_drawn(tmp_path, monkeypatch):
    names = list(curriculum.sources(7))

    def trained(arguments, context):
        with Ledger.open(tmp_path) as ledger:
            run = ledger.start_run("train", "made up", {})
            for step in (1, 2):
                drawn = {"sources": names, "episodes": [1, 0, 0, 5 * step, 0, 0, 0, 0, 0, 2]}
                ledger.append(run, "curriculum", drawn, step=step)
        return {"run": run, "area": 0.5}

    monkeypatch.setattr(curriculum, "train_arm", trained)
    found = curriculum.work({}, Context(tmp_path, lambda share, words: None))
    assert found["idle_share"] == pytest.approx(6 / 21)
    assert found["area"] == 0.5


def areas(values):
    """Outcomes of arm -> area, for five seeds that differ a little."""
    return Results(
        Outcome(name, seed, {"area": area + 0.001 * seed * (area != 0.3), "curve": []})
        for name, area in values.items()
        for seed in (1, 2, 3, 4, 5)
    )


ARMS = {f"{what} @ {place}": 0.3 for place in drives.WHERE for what in ("drives", "no drives")}
HEADLINE, *ABLATIONS = load("drives").expectations


def test_drives_are_judged_by_the_mean_over_the_environments():
    gained = {**ARMS, "drives @ maze": 0.6, "drives @ guess": 0.25}
    found = drives.effects(areas(gained), HEADLINE)
    assert found[2].low == pytest.approx((0.3 + 0.002 - 0.05 + 0.002) / 4)
    assert judge(HEADLINE, found, (1, 2, 3, 4, 5)).decision is Decision.HELD
    lost = drives.effects(areas({**ARMS, "drives @ maze": 0.2}), HEADLINE)
    assert judge(HEADLINE, lost, (1, 2, 3, 4, 5)).decision is Decision.REFUTED
    incomplete = {name: area for name, area in ARMS.items() if name != "no drives @ repair"}
    assert drives.effects(areas(incomplete), HEADLINE) == {}


def test_a_drive_is_judged_where_it_was_taken_out():
    by_text = {one.baseline: one for one in ABLATIONS}
    results = areas({**ARMS, "drives @ repair": 0.5, "without checks @ repair": 0.3})
    found = drives.effects(results, by_text["without checks @ repair"])
    assert found[1].low == pytest.approx(0.201)
    assert drives.effects(results, by_text["without novelty @ lock"]) == {}
    assert {one.baseline.split(" @ ")[0].removeprefix("without ") for one in ABLATIONS} == set(drives.ABLATED)


def test_an_ablation_takes_out_one_drive():
    full = drives.STUDY.full.jobs()
    for drive, place in drives.ABLATED.items():
        job = next(job for job in full if job.arm == f"without {drive} @ {place}")
        left = from_dict(TrainConfig, job.arguments["config"]).drives
        assert getattr(left, drive) == 0.0
        assert dataclasses.replace(left, **{drive: drives.WEIGHT}) == drives.DRIVEN
    assert {one["environment"] for one in places.rows(areas(ARMS))} == set(drives.WHERE)


def test_a_job_of_drives_has_the_budget_of_its_environment():
    for job in drives.STUDY.full.jobs():
        assert job.arguments["config"]["token_budget"] == PLACES[job.arm.split(" @ ")[1]].budget
