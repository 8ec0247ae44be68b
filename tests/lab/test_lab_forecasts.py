"""The two forecasting studies: known laws come out, runs that break them are caught, jobs are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.config import EnvConfig, TrainConfig, from_dict, to_dict
from foretaste.lab import forecast_loss, forecast_success, scaling_loss
from foretaste.lab.curves import Measured
from foretaste.lab.forecast import forecast_runs
from foretaste.lab.forecast_loss import MADE, copy_once, schedule
from foretaste.lab.jobs import Context
from foretaste.lab.results import Outcome, Results
from foretaste.lab.scaling_curve import curve_law
from foretaste.lab.scaling_loss import loss_law
from foretaste.lab.study import Mode, load
from foretaste.lab.verdict import Decision, judge
from foretaste.ledger import Ledger
from foretaste.models import nano
from foretaste.models.nano import Shape

LAW = np.array([0.5, 60.0, 0.45, 300.0, 0.6])
CURVE = np.array([0.25, 0.95, 4_000.0, 1.4])


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits from few starts and with few refits; how well they fit is tested in test_lab_scaling.py."""
    starts = scaling_loss._loss_starts
    monkeypatch.setattr(scaling_loss, "_loss_starts", lambda data: starts(data)[::8])
    for study in (forecast_loss, forecast_success):
        monkeypatch.setattr(study, "REFITS", 6)


def decided(study: Any, results: Results) -> list[Decision]:
    return [judge(one, study.effects(results, one), results.seeds).decision for one in study.expectations]


# Loss ---------------------------------------------------------------------------------------------


def losses(made: float = 1.0, seeds: tuple[int, ...] = (1, 2), noise: float = 0.005) -> Results:
    """The study's own grid, obeying a known law but for the made run, whose loss is multiplied."""
    generator, outcomes = np.random.default_rng(0), []
    for seed in seeds:
        for arm, options in ((job.arm, job.arguments["options"]) for job in forecast_loss.STUDY.full.jobs()[:17]):
            N, D = 600.0 * options["shape"][0], 23.0 * options["demonstrations"]
            loss = float(loss_law(LAW, np.array([[N, D]]))[0] * np.exp(generator.normal(0, noise)))
            result = {"parameters": N, "tokens": D, "loss": loss * (made if arm == MADE else 1.0)}
            outcomes.append(Outcome(arm, seed, result))
    return Results(outcomes)


def test_a_law_that_holds_is_forecast_and_one_that_breaks_is_refuted() -> None:
    study = load("forecast")
    assert decided(study, losses())[:2] == [Decision.HELD, Decision.HELD]
    broken = losses(made=1.8)  # the larger run is far worse than the law says: growth has ended
    assert decided(study, broken)[0] is Decision.REFUTED
    inside = [one.inside for one in forecast_loss.forecasts(losses()).values()]
    assert any(inside)
    assert not any(one.inside for one in forecast_loss.forecasts(broken).values())


def test_a_seed_without_all_its_runs_is_left_out() -> None:
    results = losses()
    first = results.arms[0]
    missing = [one for one in results.outcomes if (one.arm, one.seed) != (first, 2)]
    assert set(forecast_loss.forecasts(Results(missing))) == {1}


def test_tables_and_picture_show_the_forecast_beside_the_made_run() -> None:
    results = losses(made=1.5)
    row = forecast_loss.rows(results)[0]
    assert row["made"] == pytest.approx(results.result(MADE, 1)["loss"])  # pyright: ignore[reportOptionalSubscript]
    assert row["error"] == pytest.approx(abs(row["forecast"] - row["made"]) / row["made"])
    assert row["inside"] == "no"
    picture = forecast_loss.picture(results)
    band = next(one.band for one in picture.series if one.band)
    made = next(one for one in picture.series if one.name == "made").lines[0]
    assert band[-1][0] == pytest.approx(made[0][0])  # the band reaches as far as the made run
    assert band[-1][2] < made[0][1]
    assert picture.draw().count("<polygon") == 1


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_the_made_run_has_ten_times_the_compute_of_any_fitted_one(mode: Mode) -> None:
    plan = load("forecast").plan(mode)
    counted = {}
    for job in (job for job in plan.jobs() if job.seed == plan.seeds[0]):
        options = job.arguments["options"]
        weights = sum(one.numel() for one in nano.decoder(0, Shape(*options["shape"])).parameters())
        counted[job.arm] = weights * options["demonstrations"]
    largest = max(value for arm, value in counted.items() if arm != MADE)
    assert counted[MADE] / largest == pytest.approx(10, rel=0.01)
    assert all(seed < 100 for seed in plan.seeds)


def test_a_job_measures_what_it_says_and_leaves_a_run_to_fit(tmp_path: Path) -> None:
    context = Context(tmp_path, lambda share, words: None)
    job = load("forecast").full.jobs()[0]
    config = to_dict(from_dict(TrainConfig, {**job.arguments["config"], "seed": 101}))

    def run(width: int, demonstrations: int) -> dict[str, Any]:
        options = {**job.arguments["options"], "shape": [width, 2 * width, 1, 2, 1]}
        return copy_once({"config": config, "options": {**options, "demonstrations": demonstrations}}, context)

    one, again = run(16, 16), run(16, 16)
    assert {**one, "run": ""} == {**again, "run": ""}  # it follows from the seed
    more = run(32, 128)
    assert more["loss"] < one["loss"] - 1.0
    assert more["tokens"] > 7 * one["tokens"]
    with Ledger.open(tmp_path) as ledger:
        info, record = ledger.run(more["run"]), ledger.records(more["run"], "supervised")[0]
    assert (info.kind, info.status) == ("supervised", "finished")
    assert record.payload == {name: more[name] for name in ("parameters", "tokens", "loss")}  # what `lab fit` reads


def test_runs_as_large_as_the_largest_are_not_in_the_fit_that_is_checked(tmp_path: Path) -> None:
    """Several seeds of one size: were one left in, the forecast would have seen what it forecasts."""
    sizes = [(N, D) for N in (1e4, 2e4, 4e4) for D in (1e4, 3e4, 9e4)] + [(1.2e5, 3e5), (1.2e5, 3e5)]
    with Ledger.open(tmp_path) as ledger:
        names = []
        for N, D in sizes:
            loss = float(loss_law(LAW, np.array([[N, D]]))[0]) * (1.5 if N > 1e5 else 1.0)
            names.append(ledger.start_run("supervised", "x", {}))
            ledger.append(names[-1], "supervised", {"parameters": N, "tokens": D, "loss": loss})
        held_out = forecast_runs(ledger, names, refits=2).held_out
    assert held_out is not None
    assert not held_out["inside"]
    assert held_out["forecast"].value == pytest.approx(held_out["measured"] / 1.5, rel=0.02)


def test_the_schedule_ends_low_whatever_its_length() -> None:
    for steps in (1, 7, 200):
        rates = [schedule(step, steps) for step in range(steps)]
        assert max(rates) <= 1.0
        assert steps == 1 or rates[-1] < 0.2 + 1 / steps
    assert schedule(0, 200) == pytest.approx(0.1)


# Success ------------------------------------------------------------------------------------------


def curve(law: np.ndarray, tokens: int = 60_000, seed: int = 0) -> list[list[float]]:
    generator = np.random.default_rng(seed)
    amounts = np.arange(500, tokens + 1, 500)
    values = np.clip(curve_law(law, amounts[:, None].astype(float)) + generator.normal(0, 0.02, len(amounts)), 0, 1)
    return [
        [0, 0, float(law[0]), 200],
        *[[int(a), int(a) // 10, float(v), 64] for a, v in zip(amounts, values, strict=True)],
    ]


def successes(law: np.ndarray = CURVE, *, end: float | None = None) -> Results:
    outcomes = []
    for seed in range(1, 9):
        points = curve(law, seed=seed)
        outcomes.append(
            Outcome("value", seed, {"curve": points, "success_after": points[-1][2] if end is None else end})
        )
    return Results(outcomes)


def test_a_curve_that_goes_on_as_it_began_is_forecast_and_one_that_collapses_is_not() -> None:
    study = load("forecast-success")
    held = forecast_success.forecasts(successes())
    assert np.mean([abs(one.value - one.end) for one in held.values()]) < 0.1
    assert decided(study, successes())[1] is Decision.HELD  # better than to say that it stays
    assert decided(study, successes(end=0.2))[0] is Decision.REFUTED
    assert all(one.seen == 12 for one in held.values())  # 6,000 of 60,000 tokens, a point every 500


def test_only_the_first_tenth_is_seen() -> None:
    full = [Measured(*point) for point in map(tuple, curve(CURVE))]  # pyright: ignore[reportArgumentType]
    other = [point if point.tokens <= 6_000 else point._replace(success=0.0) for point in full]
    one, two = (forecast_success.checked(points, 0.9) for points in (full, other))
    assert one == two


def test_where_nothing_has_grown_the_last_point_is_the_forecast() -> None:
    flat = [Measured(500 * i, 50 * i, 0.25, 64) for i in range(101)]
    found = forecast_success.checked(flat, 0.9)
    assert found is not None
    assert (found.forecast, found.value, found.inside) == (None, 0.25, False)
    assert forecast_success.checked([Measured(0, 0, 0.2, 64), Measured(5_000, 1, 0.5, 64)], 0.5) is None
    late = [*flat[:30], *(point._replace(success=0.9) for point in flat[30:])]  # learned at 15,000 of 50,000 tokens
    assert forecast_success.checked(late, 0.9) == found
    half = forecast_success.checked(late, 0.9, 0.5)
    assert half is not None
    assert half.value == pytest.approx(0.9, abs=0.1)
    row = forecast_success.rows(
        Results([Outcome("value", 1, {"curve": [list(p) for p in flat], "success_after": 0.9})])
    )
    assert row[0]["error"] == pytest.approx(0.65)


def test_a_law_that_was_fitted_in_no_run_is_not_better_than_to_say_that_it_stays() -> None:
    flat = [[500 * i, 50 * i, 0.25, 64] for i in range(101)]
    results = Results([Outcome("value", seed, {"curve": flat, "success_after": 0.9}) for seed in (1, 2)])
    assert decided(load("forecast-success"), results)[1] is Decision.UNDECIDED


def test_the_picture_reaches_the_end_of_the_runs() -> None:
    picture = forecast_success.picture(successes())
    band = next(one.band for one in picture.series if one.band)
    assert band[-1][0] == pytest.approx(60_000)
    assert len(picture.series[0].lines) == 8


def test_runs_of_the_study_go_on_to_the_end_and_are_measured_at_every_step() -> None:
    for job in load("forecast-success").full.jobs():
        config = from_dict(TrainConfig, job.arguments["config"])
        assert (config.held_out.every, config.held_out.enough) == (1, 0.0)
        assert config.env != EnvConfig()
