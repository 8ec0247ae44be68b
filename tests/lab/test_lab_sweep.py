"""Sweeps and forecasts from the ledger: what is tried, what is confirmed, what is predicted and checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from foretaste.cli import main
from foretaste.config import TrainConfig, to_dict
from foretaste.errors import ConfigError, RunError
from foretaste.lab import sweep as sweep_module
from foretaste.lab.forecast import forecast_runs
from foretaste.lab.results import Outcome, Results
from foretaste.lab.scaling_curve import curve_law
from foretaste.lab.spans import parse_span, with_settings
from foretaste.lab.sweep import Sweep, run_sweep
from foretaste.lab.verdict import Decision
from foretaste.ledger import Ledger


def fake_jobs(monkeypatch: pytest.MonkeyPatch, score) -> list[tuple[str, int]]:
    """Replace the running of jobs by a formula of config and seed; return the list of those that were run."""
    done: list[tuple[str, int]] = []

    def collect(ledger, jobs, **_) -> Results:
        outcomes = []
        for job in jobs:
            rate = job.arguments["config"]["algorithm"]["learning_rate"]
            done.append((job.arm, job.seed))
            outcomes.append(Outcome(job.arm, job.seed, {"area": score(rate, job.seed)}))
        return Results(outcomes)

    monkeypatch.setattr(sweep_module, "run_jobs", lambda *_, **__: None)
    monkeypatch.setattr(sweep_module, "collect", collect)
    return done


def grid(method: str = "grid", text: str = "algorithm.learning_rate=1e-5,1e-4,1e-3") -> Sweep:
    base = TrainConfig()
    return Sweep("x", base, (parse_span(text, base),), 100, method=method, trials=6)  # type: ignore[arg-type]


def test_a_real_gain_is_confirmed_on_fresh_seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = fake_jobs(
        monkeypatch, lambda rate, seed: 0.5 + (0.2 if rate == 1e-4 else 0.0) + 0.01 * np.sin(seed * rate * 1e6)
    )
    found = run_sweep(grid(), tmp_path)
    assert found.best == "learning_rate=0.0001"
    assert found.recipe == {"algorithm.learning_rate": 1e-4}
    assert found.text.startswith("Winner")
    assert {seed for arm, seed in done if arm == "base"} == {1, 2, 101, 102, 103, 104, 105}
    assert [row["score"] for row in found.rows] == sorted((row["score"] for row in found.rows), reverse=True)


def test_luck_is_not_called_a_winner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One try is lucky on the seeds that choose and like the others on fresh ones."""
    noise = np.random.default_rng(0).normal(0, 0.05, 1000)
    fake_jobs(
        monkeypatch, lambda rate, seed: 0.5 + (0.3 if seed < 100 and rate == 1e-3 else noise[hash((rate, seed)) % 1000])
    )
    found = run_sweep(grid(), tmp_path)
    assert found.best == "learning_rate=0.001"
    assert found.text.startswith("No winner")


def test_what_is_as_good_as_the_recipe_on_fresh_seeds_is_no_winner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_jobs(monkeypatch, lambda rate, seed: 0.5 + (0.3 if seed < 100 and rate == 1e-3 else 0.0))
    found = run_sweep(grid(), tmp_path / "ties")
    assert found.text.startswith("No winner")
    real = sweep_module.judge
    monkeypatch.setattr(
        sweep_module, "judge", lambda *given: dataclasses.replace(real(*given), decision=Decision.HELD, low=0.0)
    )
    found = run_sweep(grid(), tmp_path / "touching")  # an interval that begins at no gain does not lie above it
    assert found.text.startswith("No winner")
    assert found.confirmed is not None
    assert found.confirmed.decision is Decision.UNDECIDED


def test_optuna_and_random_stay_within_the_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for method in ("random", "optuna"):
        fake_jobs(monkeypatch, lambda rate, seed: -abs(np.log10(rate) + 4) - 0.001 * seed)
        found = run_sweep(grid(method, "algorithm.learning_rate=1e-6..1e-2"), tmp_path / method)
        rates = [row["algorithm.learning_rate"] for row in found.rows]
        assert len(set(rates)) == 7  # six tries and the recipe
        assert all(1e-6 <= rate <= 1e-2 for rate in rates)


def test_what_cannot_be_tried_is_refused() -> None:
    base = TrainConfig()
    for text, message in (
        ("algorithm.learning_rat=1", "No setting"),
        ("algorithm=1", "No setting"),
        ("algorithm.passes=two", "algorithm.passes"),
        ("algorithm.learning_rate=1e-3..1e-5", "no range"),
        ("algorithm.learning_rate", "setting=value"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_span(text, base)
    assert parse_span("env.id=maze,guess", base).values == ("maze", "guess")
    assert with_settings(base, {"algorithm.passes": 5}).algorithm.passes == 5
    with pytest.raises(ConfigError, match="fresh"):
        sweep_module._check(Sweep("x", base, (parse_span("seed=1,2", base),), 9, seeds=(1,), fresh_seeds=(1, 2)))


@pytest.mark.parametrize("setting", ["seed=3,4", "steps=10,20", "token_budget=100,200"])
def test_what_the_sweep_itself_sets_is_refused(setting: str) -> None:
    base = TrainConfig()
    with pytest.raises(ConfigError, match=f"{setting.partition('=')[0]} cannot be tried"):
        sweep_module._check(Sweep("x", base, (parse_span(setting, base),), 100))


# Forecasts ----------------------------------------------------------------------------------------

CURVE = np.array([0.1, 0.8, 3e3, 1.5])
SIZES = [3000, 4000, 5000, 6000, 7000, 8000, 9000, 20000]


def write_runs(ledger: Ledger, totals: list[int], *, shift_last: float = 0.0) -> list[str]:
    """Training runs on one saturating curve, 400 held-out items a point; the last may leave the curve."""
    generator = np.random.default_rng(0)
    runs = []
    for index, total in enumerate(totals):
        run = ledger.start_run("train", f"r{index}", to_dict(TrainConfig()))
        ledger.append(run, "held_out", {"label": "before", "success": [1] * 40 + [0] * 360}, step=0)
        for step in range(1, 11):
            C = total * step / 10
            share = float(curve_law(CURVE, np.array([[C]]))[0]) + (shift_last if index == len(totals) - 1 else 0.0)
            success = (generator.random(400) < share).astype(int).tolist()
            ledger.append(run, "held_out", {"label": "curve" if step < 10 else "after", "success": success}, step=step)
            ledger.append(run, "metrics", {"train/sampled_tokens": total / 10, "train/episodes": 4.0}, step=step)
        runs.append(run)
    return runs


def test_a_forecast_is_right_where_the_law_holds_and_flagged_where_it_does_not(tmp_path: Path, capsys) -> None:
    with Ledger.open(tmp_path / "good") as ledger:
        report = forecast_runs(ledger, write_runs(ledger, SIZES), refits=40)
    assert report.held_out is not None
    assert report.held_out["inside"]
    assert report.largest[0] >= 18000
    now, double, tenfold = (report.forecasts[name].value for name in ("1x", "2x", "10x"))
    assert now < double < tenfold
    assert tenfold == pytest.approx(0.8, abs=0.06)
    with Ledger.open(tmp_path / "bad") as ledger:
        runs = write_runs(ledger, SIZES, shift_last=-0.35)
        report = forecast_runs(ledger, runs, refits=40)
    assert report.held_out is not None
    assert not report.held_out["inside"]
    assert main(["lab", "fit", *runs, "--refits", "40", "--runs-folder", str(tmp_path / "bad")]) == 0
    assert "OUTSIDE" in capsys.readouterr().out


def test_a_job_done_anew_by_other_code_is_one_run_to_fit(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        runs = write_runs(ledger, [*SIZES, 3000])
        study = ledger.start_run("study", "x", {})
        for index, run in enumerate(runs):
            about = {"key": run, "config_key": f"job {index % len(SIZES)}", "arm": "value", "status": "finished"}
            ledger.append(study, "job", {**about, "result": {"run": run}})
        report = forecast_runs(ledger, [study], refits=2)
    assert set(report.runs) == set(runs[1:])


def test_runs_of_different_settings_are_not_fitted_as_one(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        runs = write_runs(ledger, [3000])
        other = to_dict(with_settings(TrainConfig(), {"algorithm.learning_rate": 1e-3}))
        with pytest.raises(RunError, match="differ in algorithm"):
            forecast_runs(ledger, [*runs, ledger.start_run("train", "other", other)])


def test_too_little_to_fit_says_so(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        run = ledger.start_run("train", "short", to_dict(TrainConfig()))
        ledger.append(run, "held_out", {"label": "before", "success": [0, 1]}, step=0)
        with pytest.raises(RunError, match="after training began"):
            forecast_runs(ledger, [run])
        ledger.append(run, "metrics", {"train/sampled_tokens": 10.0}, step=1)
        ledger.append(run, "held_out", {"label": "after", "success": [0, 1]}, step=1)
        with pytest.raises(RunError, match="at least 5"):
            forecast_runs(ledger, [run])


def test_the_command_lists_registers_and_names_mistakes(tmp_path: Path, capsys) -> None:
    assert main(["lab"]) == 0
    assert main(["lab", "list", "--results", str(tmp_path)]) == 0
    assert "smoke" in capsys.readouterr().out
    assert main(["lab", "register", "smoke", "--runs-folder", str(tmp_path)]) == 0
    assert "Registered" in capsys.readouterr().out
    assert main(["lab", "runn"]) == 2
    assert "Did you mean 'run'" in capsys.readouterr().err
    assert main(["lab", "show", "smoke", "--results", str(tmp_path)]) == 2
    assert "foretaste lab run smoke" in capsys.readouterr().err.replace("\n", " ")
