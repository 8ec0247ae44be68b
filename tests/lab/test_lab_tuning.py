"""Arms are tuned alike: one budget for each, on seeds that nothing scores; grid and winner are registered and shown."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.checks import check
from foretaste.config import TrainConfig, from_dict
from foretaste.envs.registry import make
from foretaste.errors import ConfigError, RunError
from foretaste.lab import claims, pages, taught, teaching, workers
from foretaste.lab.grids import POINTS
from foretaste.lab.jobs import Job
from foretaste.lab.methods import METHODS, base, method
from foretaste.lab.register import contents
from foretaste.lab.results import Outcome, Results
from foretaste.lab.runner import run_study, sweep, tuned_study
from foretaste.lab.study import STUDIES, TUNING_SEEDS, Arm, Expectation, Plan, Study, check_study, load
from foretaste.lab.tuning import Grid, Round, Tuning, read_stored, resolve, store, tune, with_point
from foretaste.lab.verdict import from_json
from foretaste.ledger import Ledger
from foretaste.rl.tasks import held_out_tasks

TUNED = [name for name in STUDIES if load(name).tuning is not None]

WORK = '''
import math, pathlib

def figures(arguments, context):
    """The nearer the learning rate is to the best one of the arm, the higher the success."""
    seed, options, config = arguments["seed"], arguments["options"], arguments["config"]
    marks = pathlib.Path(context.folder) / "marks"
    marks.mkdir(parents=True, exist_ok=True)
    with open(marks / f"{options['name']}-{seed}", "a") as file:
        file.write("x")
    rate = config["algorithm"]["learning_rate"]
    if rate in options.get("fail", ()):
        raise ValueError("this rate fails")
    area = 1 / (1 + abs(math.log(rate / options["best"]))) + 0.001 * (seed % 3)
    return {"area": area, "rate": rate, "tokens": config["token_budget"], "train_seconds": 1.0}
'''
RATES = (1e-4, 1e-3, 1e-2)
RATE = "algorithm.learning_rate"


@pytest.fixture(autouse=True)
def threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes no time, in threads in place of processes."""

    def start(folder: Path, study_run: str) -> workers._Worker:
        ours, theirs = multiprocessing.Pipe()
        thread = threading.Thread(target=workers._work, args=(theirs, folder, study_run), daemon=True)
        thread.start()
        return workers._Worker(thread, ours)

    monkeypatch.setattr(workers, "_start", start)
    (tmp_path / "rated_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))


def grid(name: str, best: float, **options: Any) -> Grid:
    place = Arm(TrainConfig(), "rated_work:figures", {"name": name, "best": best, **options})
    return Grid({"there": place}, tuple({RATE: rate} for rate in RATES))


def study(**options: Any) -> Study:
    grids = {"ours": grid("ours", 1e-3), "theirs": grid("theirs", 1e-2, **options)}
    arms = {name: dataclasses.replace(one.places["there"], tuned=name) for name, one in grids.items()}
    plan = Plan(arms, (1, 2, 3), token_budget=100, minutes=0.1)
    tuning = Tuning(grids, (Round(3, (9001,)), Round(2, (9002, 9003))), token_budget=50, minutes=0.1)
    expectation = Expectation("area", "ours", "theirs", size=-0.1)
    return Study("rates", "Ours is as good", "nobody", (expectation,), plan, plan, tuning=tuning)


def runs_of(folder: Path) -> Counter[int]:
    return Counter(
        {int(file.name.partition("-")[2]): len(file.read_text()) for file in sorted((folder / "marks").iterdir())}
    )


# The same budget for each -------------------------------------------------------------------------


def pretend(figures: Callable[[str, int, int], float | None], seen: list[Job]) -> Callable[[list[Job]], Results]:
    """Do jobs by looking figures up by grid, point and seed; None: the run fails."""

    def do(jobs: list[Job]) -> Results:
        seen[:] = jobs
        outcomes = []
        for job in jobs:
            name, _, rest = job.arm.partition(", point ")
            figure = figures(name, int(rest.partition(" @ ")[0]) - 1, job.seed)
            failed = figure is None
            outcomes.append(Outcome(job.arm, job.seed, None if failed else {"area": figure}, "no" if failed else None))
        return Results(outcomes)

    return do


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_every_arm_has_the_same_runs_and_tokens_and_the_best_of_the_last_round_wins(data: st.DataObject) -> None:
    points = data.draw(st.integers(1, 6))
    widths = [points, *sorted(data.draw(st.lists(st.integers(1, points), max_size=2)), reverse=True)]
    rounds = tuple(Round(width, (9000 + 2 * i, 9001 + 2 * i)) for i, width in enumerate(widths))
    budgets = data.draw(st.lists(st.sampled_from([None, 70]), min_size=1, max_size=2))
    places = {f"place {i}": Arm(TrainConfig(), token_budget=tokens) for i, tokens in enumerate(budgets)}
    grids = {name: Grid(places, tuple({RATE: 1e-4 * (i + 1)} for i in range(points))) for name in ("a", "b", "c")}
    tuning = Tuning(grids, rounds, token_budget=50, minutes=1)
    values = data.draw(
        st.lists(st.floats(0, 1), min_size=18 * points, max_size=18 * points, unique=True)
    )  # of each grid, point and seed

    def figure(name: str, point: int, seed: int) -> float:
        return values[("abc".index(name) * points + point) * 6 + seed - 9000]

    seen: list[Job] = []
    found = tune(tuning, pretend(figure, seen))
    spent = {
        name: (len(jobs), sum(job.arguments["config"]["token_budget"] for job in jobs))
        for name in grids
        if (jobs := [job for job in seen if job.arm.startswith(f"{name},")])
    }
    assert set(spent) == set(grids)
    assert len(set(spent.values())) == 1
    assert spent == found.spent
    assert {job.seed for job in seen} <= set(TUNING_SEEDS)
    for name, of_grid in found.grids.items():
        last = [point for point in of_grid if point.runs == max(one.runs for one in of_grid)]
        assert len(last) == widths[-1] or len(set(widths)) < len(widths) or points == widths[-1]
        best = max(last, key=lambda point: point.figure or 0.0)
        assert [point.winner for point in of_grid] == [point is best for point in of_grid]
        i = of_grid.index(best)
        seeds = [seed for one in rounds for seed in one.seeds]
        assert best.figure == pytest.approx(sum(figure(name, i, seed) for seed in seeds) / len(seeds))


def test_a_setting_that_failed_does_not_win_and_one_of_many_suffices() -> None:
    tuning = Tuning({"a": grid("a", 1e-3)}, (Round(3, (9001,)), Round(2, (9002,))), token_budget=50, minutes=1)
    found = tune(tuning, pretend(lambda name, point, seed: None if point == 0 else -0.1 * point, []))
    assert found.winner("a") == {RATE: RATES[1]}
    assert found.grids["a"][0].figure is None
    with pytest.raises(RunError, match="No setting of 'a' could be tuned"):
        tune(tuning, pretend(lambda name, point, seed: None, []))


@pytest.mark.parametrize("name", TUNED)
def test_the_studies_tune_every_arm_at_one_budget_with_settings_that_can_be_used(name: str) -> None:
    one = load(name)
    assert one.tuning is not None
    assert len({one.tuning.spent(grid) for grid in one.tuning.grids}) == 1
    for arm, grid in one.tuning.grids.items():
        assert len({json.dumps(point, sort_keys=True) for point in grid.points}) == len(grid.points)
        assert {tuple(sorted(point)) for point in grid.points} == {tuple(sorted(grid.points[0]))}
        for point in range(len(grid.points)):
            for job in one.tuning.jobs(arm, point, (9001,)):
                check(from_dict(TrainConfig, job.arguments["config"]))
    for mode in ("quick", "full"):
        for job in resolve(one, None).plan(mode).jobs()[:: max(1, len(one.full.jobs()) // 10)]:
            check(from_dict(TrainConfig, job.arguments["config"]))


def test_each_method_has_a_grid_that_begins_with_what_it_had_before_arms_were_tuned() -> None:
    assert set(POINTS) == set(METHODS)
    for name, points in POINTS.items():
        made = method(name, base("lock"))
        assert with_point(made, points[0]) == made
        assert {len(one) for one in POINTS.values()} == {len(points)}
        assert len({point["algorithm.learning_rate"] for point in points}) > 1  # the rate is among what is tuned
        updates = [key for key in points[0] if key.endswith("passes")]
        assert any(len({point[key] for point in points}) > 1 for key in updates)  # and the updates for each episode


def test_points_of_the_curve_stay_as_many_episodes_apart() -> None:
    made = method("grpo", base("lock"))
    fewer = with_point(made, {"episodes_per_step": made.episodes_per_step // 2})
    assert fewer.held_out.every * fewer.episodes_per_step == made.held_out.every * made.episodes_per_step


# Where nothing is scored --------------------------------------------------------------------------


def places_of(jobs: list[Job]) -> tuple[set[Any], set[int]]:
    """Return the rule tables (those a critic is taught on among them) or item seeds of jobs, and their own seeds."""
    found: set[Any] = set()
    for job in jobs:
        config = from_dict(TrainConfig, job.arguments["config"])
        if config.env.id.startswith("lock"):
            lock = make(config.env.id)
            found |= {("table", number) for number in range(lock.table_seed, lock.table_seed + lock.tables)}
        cell = job.arguments["options"].get("cell")
        if cell:
            lock = make(teaching.teaching(taught.Cell(*cell), job.seed, 1000).env.id)
            found |= {("table", number) for number in range(lock.table_seed, lock.table_seed + lock.tables)}
        for label in ("before", "curve", "after"):
            found |= {("item", label, task.seed) for task in held_out_tasks(config, label, 8)}
    return found, {job.seed for job in jobs}


@pytest.mark.parametrize("name", TUNED)
def test_tuning_meets_no_table_item_or_seed_that_is_scored(name: str) -> None:
    one = load(name)
    assert one.tuning is not None
    seeds = [seed for round_ in one.tuning.rounds for seed in round_.seeds]
    tuned = places_of([job for grid in one.tuning.grids for job in one.tuning.jobs(grid, 0, seeds)])
    scored = places_of([*one.quick.jobs(), *one.full.jobs()])
    assert tuned[0]
    assert not tuned[0] & scored[0]
    assert not tuned[1] & scored[1]


def test_no_study_scores_a_seed_of_tuning_and_none_is_tuned_more_than_another() -> None:
    one = study()
    check_study(one)
    tuning = one.tuning
    assert tuning is not None

    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            check_study(dataclasses.replace(one, **changes))

    def other(**changes: Any) -> dict[str, Any]:
        return {"tuning": dataclasses.replace(tuning, **changes)}

    def grids(changed: Grid) -> dict[str, Any]:
        return other(grids={**tuning.grids, "theirs": changed})

    ours = tuning.grids["ours"]
    refused("must not lie in 9000 to 9999", full=dataclasses.replace(one.full, seeds=(1, 9001)))
    refused("within 9000 to 9999", **other(rounds=(Round(3, (1,)),)))
    refused("all different", **other(rounds=(Round(3, (9001,)), Round(1, (9001,)))))
    refused("never grow", **other(rounds=(Round(2, (9001,)), Round(3, (9002,)))))
    refused("begin with all", **other(rounds=(Round(2, (9001,)),)))
    refused("as many points", **grids(Grid(ours.places, ours.points[:2])))
    refused("as many points", **grids(Grid({**ours.places, "more": ours.places["there"]}, ours.points)))
    richer = dataclasses.replace(ours.places["there"], token_budget=500)
    refused("as many points", **grids(Grid({"there": richer}, ours.points)))
    fixed = dataclasses.replace(one.full, arms={**one.full.arms, "ours": TrainConfig()})
    refused("'ours' names no grid", full=fixed)
    wrong = {**one.full.arms, "ours": dataclasses.replace(one.full.arms["ours"], tuned="our")}  # type: ignore[type-var]
    refused("Did you mean 'ours'", full=dataclasses.replace(one.full, arms=wrong))


# Run, stored and shown ----------------------------------------------------------------------------


def test_a_full_run_tunes_first_and_scores_the_winners(tmp_path: Path) -> None:
    folder, winners = tmp_path / "runs", tmp_path / "tuned" / "rates.json"
    verdict = run_study(study(), "full", folder, workers=1, winners=winners)
    assert runs_of(folder) == Counter({9001: 3, 9002: 2, 9003: 2, 1: 1, 2: 1, 3: 1})
    assert [row["arm"] for row in verdict.rows] == ["ours", "theirs"]
    with Ledger.open(folder) as ledger:
        records = [record for info in ledger.runs("study") for record in ledger.records(info.id)]
    jobs = [record for record in records if record.kind == "job" and record.payload["status"] == "finished"]
    scored = [record for record in jobs if record.payload["seed"] < 100]
    tried = [record for record in jobs if record.payload["seed"] in TUNING_SEEDS]
    stated, expected = (next(record for record in records if record.kind == kind) for kind in ("tuning", "expectation"))
    assert stated.seq < min(record.seq for record in tried)
    assert max(record.seq for record in tried) < expected.seq < min(record.seq for record in scored)
    assert stated.payload["tuning"]["grids"]["ours"]["points"] == [{RATE: rate} for rate in RATES]
    assert stated.payload["expectations"] == expected.payload["expectations"]
    assert expected.payload["tuning"]["winners"] == {"ours": {RATE: 1e-3}, "theirs": {RATE: 1e-2}}
    rates = {record.payload["arm"]: record.payload["result"]["rate"] for record in scored}
    assert rates == {"ours": 1e-3, "theirs": 1e-2}
    assert {record.payload["result"]["tokens"] for record in tried} == {50}
    again = run_study(study(), "full", tmp_path / "other", workers=1, winners=winners)
    assert set(runs_of(tmp_path / "other")) == {1, 2, 3}  # stored winners: no sweep
    assert again.tuning == verdict.tuning


def test_quick_mode_takes_stored_winners_or_says_that_nothing_was_tuned(tmp_path: Path) -> None:
    winners = tmp_path / "rates.json"
    untuned = run_study(study(), "quick", tmp_path / "runs", workers=1, winners=winners)
    assert set(runs_of(tmp_path / "runs")) == {1, 2, 3}
    assert any("were not tuned" in note for note in untuned.notes)
    assert not winners.exists()
    assert pages.TUNED not in pages.page(untuned)
    store(winners, sweep(study(), tmp_path / "sweep", workers=1))
    tuned = run_study(study(), "quick", tmp_path / "runs", workers=1, winners=winners)
    assert not any("were not tuned" in note for note in tuned.notes)
    assert tuned.registration != untuned.registration  # another setting is another claim
    other = study()
    assert other.tuning is not None
    assert read_stored(winners, other.tuning) is not None
    assert read_stored(winners, dataclasses.replace(other.tuning, token_budget=60)) is None  # of another budget
    winners.write_text("{}")
    with pytest.raises(RunError, match="no stored winners"):
        run_study(study(), "quick", tmp_path / "runs", workers=1, winners=winners)


def test_a_sweep_that_was_cut_short_scores_nothing_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with pytest.raises(RunError, match="6 tuning runs were not done"):
        run_study(study(), "full", folder, workers=1, minutes=0)
    sweep(study(), folder, workers=1)
    before = runs_of(folder)
    assert tuned_study(study(), "full", folder, workers=1, minutes=0).resolved  # nothing was left to run
    assert runs_of(folder) == before


def test_what_is_scored_has_no_say_in_what_wins(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    run_study(study(), "quick", folder, workers=1)  # scored results are there before the sweep
    first = sweep(study(), folder, workers=1)
    alone = sweep(study(), tmp_path / "other", workers=1)
    assert first.grids == alone.grids
    assert contents(resolve(study(), first), "full")["tuning"]["winners"] == alone.winners


def test_a_failed_point_is_shown_as_not_measured_and_the_page_shows_grid_and_winner(tmp_path: Path) -> None:
    verdict = run_study(study(fail=[1e-4]), "full", tmp_path / "runs", workers=1)
    for text in (pages.page(verdict), pages.html_page(verdict)):
        assert pages.TUNED in text
        assert "7 runs and 350 sampled tokens" in text
        assert "seeds 9001, 9002, 9003, which no study scores" in text
        for rate in RATES:
            assert f"learning_rate {rate:g}" in text
    rows = {(row["arm"], row["settings"]): row for row in pages.tuning_rows(verdict.tuning or {})}
    assert len(rows) == 6
    assert [arm for (arm, _), row in rows.items() if row["chosen"]] == ["ours", "theirs"]
    assert rows["theirs", "learning_rate 0.01"]["chosen"]
    assert rows["theirs", "learning_rate 0.0001"]["mean area"] is None
    assert rows["ours", "learning_rate 0.001"]["mean area"] == pytest.approx(1.001, abs=0.002)
    assert "| theirs | learning_rate 0.0001 | not measured |" in pages.page(verdict)
    assert from_json(json.loads(json.dumps(verdict.to_json()))).tuning == json.loads(json.dumps(verdict.tuning))


def test_the_verdict_of_the_run_before_stays_beside_the_new_one(tmp_path: Path) -> None:
    one, results = study(), tmp_path / "results"
    fixed = dataclasses.replace(one, tuning=None)
    old = run_study(fixed, "full", tmp_path / "runs", workers=1)
    claims.write_verdict(claims.replaced(old, results), results)
    new = claims.replaced(run_study(one, "full", tmp_path / "runs", workers=1), results)
    claims.write_verdict(new, results)
    assert [before["registration"] for before in new.before] == [old.registration]
    text = (results / "rates.md").read_text()
    assert f"## The run before: {old.decision}" in text
    assert "not tuned at equal budgets" in text
    assert "not tuned at equal budgets" in (results / "rates.html").read_text()
    stored = json.loads((results / "rates.json").read_text())
    assert "curves" not in stored["before"][0]
    assert claims.standing(one, old) == f"{old.decision} (of arms that were not tuned alike)"
    assert claims.standing(one, new) == claims.standing(fixed, old) == str(new.decision)
    same = claims.replaced(run_study(one, "full", tmp_path / "runs", workers=1), results)
    assert [before["registration"] for before in same.before] == [old.registration]  # once, however often it is run
    assert from_json(stored).before[0]["registration"] == old.registration
