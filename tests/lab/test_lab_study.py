"""Studies end to end with work that takes no time: registration, running, resuming, failing, judging, pages."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from foretaste.config import TrainConfig, from_dict, to_dict
from foretaste.errors import ConfigError, LedgerError, RunError
from foretaste.lab import claims, pages, versions, workers
from foretaste.lab.charts import Picture, Series
from foretaste.lab.curves import Measured, area, curve_of, to_threshold
from foretaste.lab.jobs import code_version, content_hash
from foretaste.lab.register import contents, register
from foretaste.lab.results import Outcome, Results, means
from foretaste.lab.runner import run_study
from foretaste.lab.sequences import Bounds, exactly
from foretaste.lab.study import Arm, Expectation, Plan, Study, check_study, load
from foretaste.lab.verdict import Decision, combined, from_json, judge
from foretaste.ledger import Ledger
from foretaste.rl.tasks import held_out_tasks

WORK = '''
import os, pathlib

def figures(arguments, context):
    """Success rises by the arm's gain and a little by seed; every call leaves a mark in the folder."""
    seed, options = arguments["seed"], arguments["options"]
    marks = pathlib.Path(context.folder) / "marks"
    marks.mkdir(exist_ok=True)
    with open(marks / f"{options['name']}-{seed}", "a") as file:
        file.write("x")
    context.report(0.5, "half")
    if options.get("fail") == seed:
        raise ValueError("this seed fails")
    if options.get("die") == seed:
        os._exit(3)
    after = options["gain"] * (1 + 0.01 * (seed % 3 - 1))
    curve = [[0, 0, 0.0, 50], [50, 5, after / 2, 50], [100, 10, after, 50]]
    used = 1.3 if options["name"] == "new" else 0.5
    return {"success_before": 0.0, "success_after": after, "curve": curve, "used_budget": used}
'''


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a quick job, which worker processes can import."""
    (tmp_path / "quick_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "quick_work:figures"


@pytest.fixture
def worker_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are threads, for tests of what is made of results: a process takes seconds to start."""

    def start(folder: Path, study_run: str) -> workers._Worker:
        ours, theirs = multiprocessing.Pipe()
        thread = threading.Thread(target=workers._work, args=(theirs, folder, study_run), daemon=True)
        thread.start()
        return workers._Worker(thread, ours)

    monkeypatch.setattr(workers, "_start", start)


def study(work: str, *, size: float = 0.1, seeds: tuple[int, ...] = (1, 2, 3), **options: Any) -> Study:
    arms = {
        name: Arm(TrainConfig(), work, {"name": name, "gain": gain, **options})
        for name, gain in (("new", 0.6), ("old", 0.3))
    }
    plan = Plan(arms, seeds, token_budget=100, minutes=0.1)
    expectation = Expectation("success_after", "new", "old", size=size, stopping="fixed")
    return Study("gain", "New gains more than old", "nobody", (expectation,), plan, plan)


def test_arms_of_a_seed_share_held_out_items_and_seeds_do_not(work: str) -> None:
    jobs = study(work, seeds=(1, 2)).full.jobs()
    configs = [from_dict(TrainConfig, job.arguments["config"]) for job in jobs]
    items = [tuple(task.seed for task in held_out_tasks(config, "after", 20)) for config in configs]
    assert [(job.arm, job.seed) for job in jobs] == [("new", 1), ("old", 1), ("new", 2), ("old", 2)]
    assert items[0] == items[1]
    assert items[2] == items[3]
    assert not set(items[0]) & set(items[2])


def calls(folder: Path) -> dict[str, int]:
    return {file.name: len(file.read_text()) for file in sorted((folder / "marks").iterdir())}


def test_a_study_runs_every_arm_and_seed_once_and_reuses_them(work: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    first = run_study(study(work), "quick", folder, workers=2)
    assert first.decision is Decision.HELD
    assert first.headline.estimate == pytest.approx(0.3)
    assert [row["arm"] for row in first.rows] == ["new", "old"]
    again = run_study(study(work), "quick", folder, workers=2)
    assert calls(folder) == {f"{arm}-{seed}": 1 for arm in ("new", "old") for seed in (1, 2, 3)}
    assert again.decision is Decision.HELD
    with Ledger.open(folder) as ledger:
        expectation = ledger.records(ledger.runs("study")[0].id, "expectation")[0]
        jobs = ledger.records(ledger.runs("study")[0].id, "job")
    assert expectation.seq < min(job.seq for job in jobs)


@pytest.mark.usefixtures("worker_threads")
def test_a_study_with_no_time_left_judges_what_there_is_and_goes_on_later(work: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with pytest.raises(RunError, match="none has been run"):
        run_study(study(work), "quick", folder, workers=1, minutes=0)
    run_study(study(work, seeds=(1, 2)), "quick", folder, workers=1)
    some = run_study(study(work), "quick", folder, workers=1, minutes=0)
    assert (some.unfinished, some.would_be) == (2, Decision.UNDECIDED)  # a registered seed is missing
    assert run_study(study(work), "quick", folder, workers=1, minutes=5).unfinished == 0


@pytest.mark.usefixtures("worker_threads")
def test_an_expectation_changed_after_the_results_is_exploratory(work: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    assert run_study(study(work, size=0.5), "quick", folder, workers=1).decision is Decision.REFUTED
    fitted = run_study(study(work, size=0.2), "quick", folder, workers=1)
    assert fitted.decision is Decision.EXPLORATORY
    assert fitted.would_be is Decision.HELD
    assert any("existed before the expectation" in note for note in fitted.notes)
    assert run_study(study(work, size=0.5), "quick", folder, workers=1).decision is Decision.REFUTED


@pytest.mark.usefixtures("worker_threads")
def test_an_expectation_edited_in_the_ledger_is_found(work: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    one = study(work, seeds=(1, 2))
    with Ledger.open(folder) as ledger:
        place = register(ledger, one, "quick")
        assert register(ledger, one, "quick")[:4] == place[:4]
        ledger.append(place.run, "expectation", {"key": "other"})
    assert any("written again" in note for note in run_study(one, "quick", folder, workers=1).notes)
    connection = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
    connection.execute("DROP TRIGGER foretaste_no_update")
    connection.execute(
        "UPDATE foretaste_records SET payload = replace(payload, '\"size\":0.1', '\"size\":0.2') WHERE seq = ?",
        (place.seq,),
    )
    connection.close()
    with pytest.raises(LedgerError, match="was changed"):
        run_study(one, "quick", folder, workers=1)


def edit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a file of the package read as if it had been edited."""
    real = versions._code
    monkeypatch.setattr(versions, "_code", lambda file: real(file) + (b"edited" if file.name == name else b""))
    code_version.cache_clear()


@pytest.mark.parametrize(
    ("name", "changed"),
    [("curves.py", {"think", "wordings", "jobs"}), ("gaps.py", {"wordings"}), ("sequences.py", set())],
)
def test_a_job_s_key_covers_what_its_work_imports(
    name: str, changed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = ("think", "wordings", "jobs")
    before = {work: code_version(f"foretaste.lab.{work}:any") for work in works}
    edit(monkeypatch, name)
    assert {work for work in works if code_version(f"foretaste.lab.{work}:any") != before[work]} == changed
    code_version.cache_clear()


def test_a_registration_covers_the_code_that_judges_and_not_what_the_page_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("credit-map", "forecast", "gate")
    before = {name: versions.judging_version(load(name)) for name in names}
    for file, changed in (
        ("verdict.py", set(names)),
        ("credit_map.py", {"credit-map"}),
        ("cells.py", {"credit-map"}),
        ("scaling_loss.py", {"forecast"}),
        ("pages.py", set()),
    ):
        with monkeypatch.context() as context:
            edit(context, file)
            assert {name for name in names if versions.judging_version(load(name)) != before[name]} == changed
    code_version.cache_clear()
    text = 'def effects(results, expectation):\n    return {}\n\n\nSTUDY = Study(name="x", notes=("one",))\n'
    for file, given in (("a.py", text), ("b.py", text.replace("one", "two")), ("c.py", text.replace("{}", "None"))):
        (tmp_path / file).write_text(given)
    one, two, three = (versions._code(tmp_path / file) for file in ("a.py", "b.py", "c.py"))
    assert one == two != three


@pytest.mark.usefixtures("worker_threads")
def test_results_judged_by_code_that_was_edited_since_are_exploratory(
    work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs"
    assert run_study(study(work, seeds=(1, 2)), "quick", folder, workers=1).decision is Decision.HELD
    edit(monkeypatch, "verdict.py")
    edited = run_study(study(work, seeds=(1, 2)), "quick", folder, workers=1)
    assert (edited.decision, edited.would_be) == (Decision.EXPLORATORY, Decision.HELD)
    code_version.cache_clear()


@pytest.mark.usefixtures("worker_threads")
def test_a_registration_without_the_code_that_judges_counts_and_the_page_says_so(work: str, tmp_path: Path) -> None:
    folder, one = tmp_path / "runs", study(work, seeds=(1, 2))
    wanted = {name: value for name, value in contents(one, "quick").items() if name != "judged_by"}
    with Ledger.open(folder) as ledger:
        run = ledger.start_run("study", one.name, {"mode": "quick", "registration": content_hash(wanted)})
        ledger.append(run, "expectation", {"key": content_hash(wanted), **wanted})
    verdict = run_study(one, "quick", folder, workers=1)
    assert (verdict.decision, verdict.registration) == (Decision.HELD, content_hash(wanted))
    assert any("without the code that judges" in note for note in verdict.notes)


def test_failures_are_recorded_and_the_rest_goes_on(work: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    verdict = run_study(study(work, fail=2), "quick", folder, workers=1)
    assert (verdict.failed, verdict.decision) == (2, Decision.UNDECIDED)
    assert sum("this seed fails" in note for note in verdict.notes) == 2
    assert calls(folder)["new-3"] == 1
    dead = run_study(study(work, die=1), "quick", folder, workers=1)
    assert dead.failed == 2
    assert any("exit code 3" in note for note in dead.notes)
    assert dead.headline.seeds == 2


@pytest.mark.usefixtures("worker_threads")
def test_arms_may_have_budgets_of_their_own_and_the_page_says_so(work: str, tmp_path: Path) -> None:
    one = study(work, seeds=(1, 2))
    arms: dict[str, Any] = dict(one.quick.arms)
    arms["old"] = dataclasses.replace(arms["old"], token_budget=1000)
    own = dataclasses.replace(one, quick=dataclasses.replace(one.quick, arms=arms))
    jobs, plain = own.plan("quick").jobs(), {job.key for job in one.plan("quick").jobs()}
    assert {job.arm: job.arguments["config"]["token_budget"] for job in jobs} == {"new": 100, "old": 1000}
    assert {job.arm for job in jobs if job.key in plain} == {"new"}  # another budget is another job
    verdict = run_study(own, "quick", tmp_path / "runs", workers=1)
    text = pages.page(verdict)
    assert "100 sampled tokens for a seed of every other arm; 1,000 for old" in text
    assert "every other arm" not in pages.page(run_study(one, "quick", tmp_path / "runs", workers=1))


@pytest.mark.usefixtures("worker_threads")
def test_a_study_may_draw_a_picture_of_its_own(work: str, tmp_path: Path) -> None:
    def picture(results: Results) -> Picture:
        points = [
            (float(seed), found["success_after"]) for seed in results.seeds if (found := results.result("new", seed))
        ]
        band = [(1.0, 0.4, 0.9), (2.0, 0.5, 0.8)]
        return Picture("gains by seed", "seed", "success", (Series("new", [points], band=band),))

    drawing = dataclasses.replace(study(work, seeds=(1, 2)), picture=picture)
    verdict = run_study(drawing, "full", tmp_path / "runs", workers=1)
    page = claims.write_verdict(verdict, tmp_path / "results")
    assert "![gains by seed](gain.svg)" in page.read_text()
    svg = (tmp_path / "results" / "gain.svg").read_text()
    assert svg.count("<polyline") == svg.count("<polygon") == 1
    again = from_json(json.loads((tmp_path / "results" / "gain.json").read_text()))
    assert pages.chart(again) == svg  # the record alone is enough to draw it


@pytest.mark.usefixtures("worker_threads")
def test_pages_are_written_and_read_back(work: str, tmp_path: Path) -> None:
    verdict = run_study(study(work, seeds=(1, 2)), "full", tmp_path / "runs", workers=1)
    page = claims.write_verdict(verdict, tmp_path / "results")
    assert page.name == "gain.md"
    assert "held" in page.read_text()
    assert any("over the token budget in: new" in note for note in verdict.notes)
    assert any("old (seed 1: 50%)" in note for note in verdict.notes)
    stored = json.loads((tmp_path / "results" / "gain.json").read_text())
    assert from_json(stored) == from_json(json.loads(json.dumps(verdict.to_json())))
    assert (tmp_path / "results" / "gain.svg").read_text().count("<polyline") == 4
    table = claims.claims_page([(study(work), verdict)], "../results")
    assert "[gain](../results/gain.md)" in table
    assert "New gains more than old" in table
    assert "not run" in claims.claims_page([(study(work), None)], "../results")


# Figures ------------------------------------------------------------------------------------------


CURVE = [Measured(0, 0, 0.1, 50), Measured(100, 10, 0.3, 50), Measured(200, 20, 0.7, 50), Measured(300, 30, 0.8, 50)]


def test_tokens_to_a_threshold_by_hand() -> None:
    assert to_threshold(CURVE, 0.5) == exactly(150.0)
    assert to_threshold(CURVE, 0.5, unit="episodes") == exactly(15.0)
    assert to_threshold(CURVE, 0.05) == exactly(0.0)
    assert to_threshold(CURVE, 0.9) == Bounds(300.0, math.inf)
    lucky = [*CURVE[:1], CURVE[1]._replace(success=0.6), CURVE[2]._replace(success=0.2), CURVE[3]]
    assert to_threshold(lucky, 0.5) == exactly(250.0)
    assert to_threshold(lucky, 0.5, patience=1) == exactly(80.0)


def test_area_by_hand() -> None:
    assert area(CURVE) == pytest.approx((0.2 + 0.5 + 0.75) / 3)
    assert area(CURVE[:1]) == 0.1
    width = CURVE[-1].tokens - CURVE[0].tokens
    assert area(CURVE, until=CURVE[-1].tokens + width) == pytest.approx((area(CURVE) + CURVE[-1].success) / 2)
    assert area(CURVE, until=1) == area(CURVE)


def test_a_curve_is_read_from_the_ledger_with_the_tokens_before_each_measurement(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        run = ledger.start_run("train", "x", to_dict(TrainConfig()))
        ledger.append(run, "held_out", {"label": "before", "success": [0, 1, None, 0]}, step=0)
        ledger.append(run, "value_pretraining", {"train/sampled_tokens": 50.0}, step=0)
        ledger.append(run, "held_out", {"label": "curve", "success": [1, 1]}, step=1)
        ledger.append(run, "metrics", {"train/sampled_tokens": 100.0, "train/episodes": 8.0}, step=1)
        ledger.append(run, "metrics", {"train/sampled_tokens": 70.0, "train/episodes": 8.0}, step=2)
        ledger.append(run, "held_out", {"label": "after", "success": [1, 0.5]}, step=2)
        curve = curve_of(ledger, run)
    assert [(point.tokens, point.n) for point in curve] == [(0, 3), (150, 2), (220, 2)]
    assert [point.success for point in curve] == pytest.approx([1 / 3, 1.0, 0.5])


def outcome(arm: str, seed: int, times: list[int | None]) -> Outcome:
    """A job that crosses 0.5 at the given tokens, or never within 1,000."""
    t = times[seed]
    curve = [[0, 0, 0.0, 9], [1000, 9, 0.2, 9]] if t is None else [[0, 0, 0.0, 9], [2 * t, 9, 1.0, 9]]
    return Outcome(arm, seed, {"curve": curve})


def test_a_censored_baseline_makes_the_speed_up_a_lower_bound() -> None:
    new: list[int | None] = [100, 100, 100, 100, 100, 100]
    old: list[int | None] = [300, 400, 500, 600, None, None]
    results = Results([outcome(a, s, t) for s in range(6) for a, t in (("new", new), ("old", old))])
    expectation = Expectation("tokens_to:0.5", "new", "old", size=2.5, effect="speedup", center="median")
    judged = judge(expectation, results.effects(expectation), range(6))
    assert (judged.decision, judged.censored, judged.high) == (Decision.HELD, 2, None)
    assert judged.low == pytest.approx(3.0)
    assert judged.estimate == pytest.approx(math.sqrt(5 * 6))
    strict = dataclasses.replace(expectation, size=3.5)
    assert judge(strict, results.effects(strict), range(6)).decision is Decision.UNDECIDED


def test_the_claim_holds_only_if_the_whole_interval_does() -> None:
    effects = {seed: exactly(value) for seed, value in enumerate([0.28, 0.30, 0.32, 0.29, 0.31])}
    for size, at_least, at_most in (
        (0.2, Decision.HELD, Decision.REFUTED),
        (0.3, Decision.UNDECIDED, Decision.UNDECIDED),
        (0.4, Decision.REFUTED, Decision.HELD),
    ):
        expectation = Expectation("gain", "a", "b", size=size)
        assert judge(expectation, effects, range(5)).decision is at_least
        assert judge(dataclasses.replace(expectation, direction="at_most"), effects, range(5)).decision is at_most
    missing = judge(Expectation("gain", "a", "b", size=0.2), effects, range(6))
    assert missing.decision is Decision.UNDECIDED
    assert "1 of the 6" in missing.note
    anytime = Expectation("gain", "a", "b", size=0.2, stopping="anytime")
    assert judge(anytime, effects, range(6)).decision is Decision.HELD


def test_equal_effects_are_no_evidence_of_a_mean_whatever_their_size() -> None:
    for value in (0.0, 0.3):
        for stopping in ("fixed", "anytime"):
            expectation = Expectation("gain", "a", "b", size=-0.1, stopping=stopping)  # type: ignore[arg-type]
            judged = judge(expectation, {seed: exactly(value) for seed in range(12)}, range(12))
            assert (judged.decision, judged.low, judged.high) == (Decision.UNDECIDED, None, None)
            assert judged.estimate == pytest.approx(value)
            assert "all 12 seeds are equal" in judged.note
    shares = Expectation("named", "a", None, size=0.5, center="bounded", bounds=(0.0, 1.0))
    assert judge(shares, {seed: exactly(1.0) for seed in range(4)}, range(4)).decision is Decision.UNDECIDED
    assert judge(shares, {seed: exactly(1.0) for seed in range(12)}, range(12)).decision is Decision.HELD


@pytest.mark.usefixtures("worker_threads")
@pytest.mark.usefixtures("worker_threads")
def test_the_headline_is_an_expectation_that_decided(work: str, tmp_path: Path) -> None:
    one = study(work, seeds=(1, 2))
    held = one.expectations[0]
    both = dataclasses.replace(one, expectations=(held, dataclasses.replace(held, size=0.9)))
    verdict = run_study(both, "quick", tmp_path / "runs", workers=1)
    assert (verdict.decision, verdict.headline.size) == (Decision.REFUTED, 0.9)
    assert "at least 0.9" in claims.claims_page([(both, verdict)], "../results")
    assert run_study(one, "quick", tmp_path / "other", workers=1).headline.size == 0.1


def test_the_page_says_what_its_intervals_leave_out_and_how_likely_a_false_refutation_is(
    work: str, tmp_path: Path
) -> None:
    one = study(work, seeds=(1, 2))
    own = run_study(one, "quick", tmp_path / "runs", workers=1)
    shared = dataclasses.replace(own, own_items=False)  # as of a study that ran before seeds had items of their own
    assert own.own_items
    for make in (pages.page, pages.html_page):
        assert "over training and not over items" in make(shared)
        assert "over items" not in make(own)
        assert "true claim is refuted" not in make(shared)
    judged = shared.headline
    three = (judged, judged, dataclasses.replace(judged, required=False))
    text = pages.page(dataclasses.replace(shared, judged=three))
    assert "needs all 2 expectations" in text
    assert "at most 0.05," in text


def test_one_refuted_part_refutes_and_secondary_parts_do_not() -> None:
    effects = {seed: exactly(0.3 + 0.01 * seed) for seed in range(4)}
    held, refuted = (judge(Expectation("gain", "a", "b", size=size), effects, range(4)) for size in (0.1, 0.9))
    assert combined([held, held]) is Decision.HELD
    assert combined([held, refuted]) is Decision.REFUTED
    assert combined([held, dataclasses.replace(refuted, required=False)]) is Decision.HELD


# Study files --------------------------------------------------------------------------------------


def test_unknown_studies_and_arms_are_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        load("smok")
    one = study("quick_work:figures")
    wrong = dataclasses.replace(one, expectations=(Expectation("gain", "nwe", "old", size=0),))
    with pytest.raises(ConfigError, match="Did you mean 'new'"):
        check_study(wrong)


def test_every_study_gives_arms_the_plans_budget_or_one_that_it_names_and_can_be_registered(tmp_path: Path) -> None:
    from foretaste.checks import check
    from foretaste.config import from_dict
    from foretaste.lab.study import STUDIES

    with Ledger.open(tmp_path) as ledger:
        for name in STUDIES:
            loaded = load(name)
            for mode in ("quick", "full"):
                plan = loaded.plan(mode)
                configs = {job.arm: from_dict(TrainConfig, job.arguments["config"]) for job in plan.jobs()}
                budgets = {arm: check(config).token_budget for arm, config in configs.items()}
                assert budgets == dict.fromkeys(plan.arms, plan.token_budget) | plan.own_budgets
                assert register(ledger, loaded, mode).new


def test_means_are_over_the_seeds_that_gave_a_figure() -> None:
    results = Results([Outcome("A", 1, {"plain": 0.5, "lost": None}), Outcome("A", 2, {"plain": 1.0, "lost": None})])
    assert means(results) == [{"arm": "A", "seeds": 2, "plain": 0.75, "lost": None}]


def test_a_figure_without_a_value_leaves_its_seed_out() -> None:
    lost = {1: 0.2, 2: None, 3: 0.1}
    results = Results([Outcome(arm, seed, {"lost": lost[seed], "plain": 0.5}) for seed in lost for arm in ("a", "b")])
    assert results.value("lost", "a", 2) is None
    assert set(results.effects(Expectation("lost", "a", "b", size=0.0))) == {1, 3}
    assert set(results.effects(Expectation("lost", "a", None, size=0.0))) == {1, 3}
    with pytest.raises(RunError, match="give no 'lots'"):
        results.value("lots", "a", 2)


def test_jobs_that_were_not_run_did_not_fail() -> None:
    outcomes = [Outcome("a", 1, {"area": 0.5}), Outcome("a", 2, None, "no memory"), Outcome("a", 3, None)]
    assert [(row["seeds"], row["failed"]) for row in Results(outcomes).rows()] == [(1, 1)]


def test_too_few_seeds_for_an_interval_are_said_for_ratios_too() -> None:
    expectation = Expectation("tokens_to:0.5", "new", "old", size=2.0, effect="speedup", center="median")
    found = judge(expectation, {seed: exactly(1.0) for seed in range(5)}, range(5))
    assert found.decision is Decision.UNDECIDED
    assert found.note == "5 seeds cannot give an interval of this kind at level 0.95"
    assert judge(expectation, {seed: exactly(1.0) for seed in range(6)}, range(6)).decision is Decision.HELD
