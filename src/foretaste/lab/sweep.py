"""Try settings of a recipe, each with the same token budget, and confirm the best on seeds that chose nothing.

The best of many tries looks better than it is: it was picked for its luck too. So the winner is compared again
with the unchanged recipe on fresh seeds, with an expectation that enters the ledger first, and is called a winner only
if the interval of that comparison lies above zero.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foretaste.checks import value_at
from foretaste.config import TrainConfig, to_dict
from foretaste.errors import ConfigError, RunError
from foretaste.lab.charts import Series, line_chart
from foretaste.lab.register import contents
from foretaste.lab.results import Results
from foretaste.lab.runner import collect, run_jobs
from foretaste.lab.spans import Span, with_settings
from foretaste.lab.study import Expectation, Plan, Study
from foretaste.lab.verdict import Decision, Judged, judge
from foretaste.lab.workers import Watcher
from foretaste.ledger import Ledger

SET_BY_PLAN = {
    "seed": "--seeds and --fresh-seeds",
    "token_budget": "--token-budget",
    "steps": "--token-budget: a run ends when it is used up",
}
"""Settings that every try gets from the sweep, and the option that sets them."""

BASE = "base"
"""The arm of the unchanged recipe: always tried, and what a winner must beat."""


@dataclass(frozen=True)
class Sweep:
    """What is tried."""

    name: str
    base: TrainConfig
    space: tuple[Span, ...]
    token_budget: int
    method: Literal["grid", "random", "optuna"] = "grid"
    trials: int = 16
    """Settings to try with `random` and `optuna`; a grid tries all."""
    seeds: tuple[int, ...] = (1, 2)
    """Seeds of every try; its score is their mean."""
    fresh_seeds: tuple[int, ...] = (101, 102, 103, 104, 105)
    """Seeds of the confirmation; none of them may be in `seeds`."""
    metric: str = "area"
    """Figure of a job to make large; `area` is mean held-out success over the budget."""
    max_steps: int = 2000
    draw_seed: int = 0
    """Seed of random and Optuna's choices."""

    @property
    def jobs_expected(self) -> int:
        """Training runs of the whole sweep, confirmation included."""
        tries = math.prod(len(span.values) for span in self.space) if self.method == "grid" else self.trials
        return (tries + 1) * len(self.seeds) + 2 * len(self.fresh_seeds)


@dataclass(frozen=True)
class Found:
    """What a sweep found."""

    rows: tuple[dict[str, Any], ...]
    """One a try, best first: its settings, mean score, scores by seed, failures."""
    best: str
    confirmed: Judged | None
    """The comparison with the unchanged recipe on fresh seeds; None if the recipe itself came out best."""
    text: str
    """The result in one sentence."""
    svg: str
    recipe: dict[str, Any]
    """The settings of the best try that differ from the recipe."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the plot left out."""
        values = dataclasses.asdict(self)
        values.pop("svg")
        return values


def run_sweep(sweep: Sweep, folder: Path, *, workers: int | None = None, watcher: Watcher | None = None) -> Found:
    """Try the settings, confirm the best, and append what was found to the ledger.

    Raises: ConfigError for a sweep that cannot be made; RunError if every try failed.
    """
    _check(sweep)
    with Ledger.open(folder) as ledger:
        values = {"space": [dataclasses.asdict(span) for span in sweep.space], "base": to_dict(sweep.base)}
        run = ledger.start_run(
            "sweep", sweep.name, {**values, "method": sweep.method, "token_budget": sweep.token_budget}
        )
        tries: dict[str, dict[str, Any]] = {BASE: {}}
        made: set[str] = set()

        def results(arms: Mapping[str, Mapping[str, Any]], seeds: tuple[int, ...]) -> Results:
            plan = _plan(sweep, arms, seeds)
            run_jobs(ledger, run, plan.jobs(), folder, workers=workers, watcher=watcher, made=made)
            return collect(ledger, plan.jobs(), made=made)

        if sweep.method == "optuna":
            _with_optuna(sweep, tries, results)
        else:
            chosen = _grid(sweep) if sweep.method == "grid" else _random(sweep)
            tries |= {_label(settings): settings for settings in chosen}
        tried = results(tries, sweep.seeds)
        rows = _rows(sweep, tries, tried)
        if rows[0]["score"] is None:
            error = tried.failures[0].error if tried.failures else "no result"
            raise RunError(f"Every try of the sweep failed; the first with: {error}")
        best = str(rows[0]["arm"])
        confirmed = None
        if best != BASE:
            confirmed = _confirm(sweep, {BASE: {}, best: tries[best]}, results, ledger, run)
        found = Found(tuple(rows), best, confirmed, _sentence(sweep, best, confirmed), _plot(sweep, rows), tries[best])
        ledger.append(run, "summary", found.to_json())
        ledger.append(run, "status", {"status": "finished"})
        return found


def _confirm(sweep: Sweep, arms: dict[str, dict[str, Any]], results: Any, ledger: Ledger, run: str) -> Judged:
    """Compare the best with the unchanged recipe on fresh seeds; the expectation is written down first."""
    best = next(arm for arm in arms if arm != BASE)
    expectation = Expectation(sweep.metric, best, BASE, size=0.0)
    plan = _plan(sweep, arms, sweep.fresh_seeds)
    study = Study(sweep.name, f"{best} is better than the unchanged recipe", "a sweep", (expectation,), plan, plan)
    ledger.append(run, "expectation", contents(study, "full"))
    judged = judge(expectation, results(arms, sweep.fresh_seeds).effects(expectation), sweep.fresh_seeds)
    if judged.decision is Decision.HELD and not (judged.low or 0.0) > 0:  # "at least 0" holds for no gain, too
        judged = dataclasses.replace(judged, decision=Decision.UNDECIDED)
    return judged


def _plan(sweep: Sweep, arms: Mapping[str, Mapping[str, Any]], seeds: tuple[int, ...]) -> Plan:
    configs = {name: with_settings(sweep.base, settings) for name, settings in arms.items()}
    return Plan(configs, seeds, sweep.token_budget, minutes=0.0, max_steps=sweep.max_steps)


def _grid(sweep: Sweep) -> list[dict[str, Any]]:
    return [
        dict(zip([span.path for span in sweep.space], values, strict=True))
        for values in itertools.product(*(span.values for span in sweep.space))
    ]


def _random(sweep: Sweep) -> list[dict[str, Any]]:
    generator = np.random.default_rng(sweep.draw_seed)
    return [{span.path: span.draw(generator) for span in sweep.space} for _ in range(sweep.trials)]


def _with_optuna(sweep: Sweep, tries: dict[str, dict[str, Any]], results: Any) -> None:
    """Let Optuna's TPE choose, a batch at a time, from the scores so far."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("--method optuna needs Optuna: pip install 'foretaste[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=sweep.draw_seed))
    batch = 4
    for first in range(0, sweep.trials, batch):
        asked = []
        for _ in range(min(batch, sweep.trials - first)):
            trial = study.ask()
            settings = {span.path: _suggest(trial, span) for span in sweep.space}
            tries[_label(settings)] = settings
            asked.append((trial, _label(settings)))
        scores = results({label: tries[label] for _, label in asked}, sweep.seeds)
        for trial, label in asked:
            score = _score(sweep, scores, label)
            if score is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, score)


def _suggest(trial: Any, span: Span) -> Any:
    if span.values:
        return trial.suggest_categorical(span.path, list(span.values))
    if span.whole:
        return trial.suggest_int(span.path, round(span.low or 0), round(span.high or 0), log=span.logarithmic)
    return float(f"{trial.suggest_float(span.path, span.low, span.high, log=span.logarithmic):.3g}")


def _score(sweep: Sweep, results: Results, arm: str) -> float | None:
    values = [v.low for seed in sweep.seeds if (v := results.value(sweep.metric, arm, seed)) is not None]
    return sum(values) / len(values) if len(values) == len(sweep.seeds) else None


def _rows(sweep: Sweep, tries: Mapping[str, Mapping[str, Any]], results: Results) -> list[dict[str, Any]]:
    rows = []
    for arm, settings in tries.items():
        values = [results.value(sweep.metric, arm, seed) for seed in sweep.seeds]
        shown = {span.path: settings.get(span.path, value_at(sweep.base, span.path)) for span in sweep.space}
        rows.append(
            {
                "arm": arm,
                **shown,
                "score": _score(sweep, results, arm),
                "by_seed": [None if value is None else round(value.low, 4) for value in values],
                "failed": sum(1 for value in values if value is None),
            }
        )
    return sorted(rows, key=lambda row: (row["score"] is None, -(row["score"] or 0.0)))


def _sentence(sweep: Sweep, best: str, confirmed: Judged | None) -> str:
    if confirmed is None:
        return "The unchanged recipe came out best: nothing to confirm."
    low = "-inf" if confirmed.low is None else f"{confirmed.low:+.3g}"
    high = "inf" if confirmed.high is None else f"{confirmed.high:+.3g}"
    gain = "not known" if confirmed.estimate is None else f"{confirmed.estimate:+.3g}"
    figures = f"{sweep.metric} {gain} [{low}, {high}] against the unchanged recipe on {confirmed.seeds} fresh seeds"
    if confirmed.decision is Decision.HELD:
        return f"Winner: {best}: {figures}."
    if confirmed.decision is Decision.REFUTED:
        return f"No winner: {best} looked best by luck; it is worse: {figures}."
    return f"No winner: {best} looked best, but fresh seeds do not confirm it: {figures}."


def _plot(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return score against each numeric setting, or against rank where none is a number."""
    span = next((s for s in sweep.space if all(isinstance(row[s.path], int | float) for row in rows)), None)
    scored = [row for row in rows if row["score"] is not None]
    if span is None:
        points = [(float(i + 1), float(row["score"])) for i, row in enumerate(scored)]
        name, log_x = "rank", False
    else:
        points = [(float(row[span.path]), float(row["score"])) for row in scored]
        positive = [x for x, _ in points if x > 0]
        name, log_x = span.path, len(positive) == len(points) and max(positive) / min(positive) >= 10
    series = [Series("tries", [points], dots=True)]
    return line_chart(series, title=f"{sweep.name}: one dot a try", x=name, y=sweep.metric, log_x=log_x)


def _check(sweep: Sweep) -> None:
    if not sweep.space:
        raise ConfigError("Nothing to try: give settings, e.g. algorithm.learning_rate=1e-5,3e-5")
    if sweep.method == "grid" and any(not span.values for span in sweep.space):
        raise ConfigError("A grid needs listed values, e.g. 1e-5,3e-5; a range low..high goes with --method random")
    if sweep.trials < 1 and sweep.method != "grid":
        raise ConfigError(f"trials = {sweep.trials} cannot be used; accepted: 1 or more")
    if set(sweep.seeds) & set(sweep.fresh_seeds):
        raise ConfigError("Fresh seeds must be fresh: none of them may be among the seeds that choose")
    for span in sweep.space:
        if span.path in SET_BY_PLAN:
            raise ConfigError(
                f"{span.path} cannot be tried: every try has the sweep's own. Set it with {SET_BY_PLAN[span.path]}"
            )
    if not sweep.seeds or len(sweep.fresh_seeds) < 2:
        raise ConfigError("A sweep needs at least one seed, and two fresh ones to confirm its best try")


def _label(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]}={value}" for path, value in settings.items())
