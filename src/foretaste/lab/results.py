"""What came out of a study's jobs, by arm and seed, and the effect of each seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from foretaste.errors import RunError
from foretaste.lab.curves import Measured, to_threshold
from foretaste.lab.sequences import Bounds, exactly, median_of
from foretaste.lab.study import Expectation

THRESHOLDS = (0.25, 0.4, 0.5, 0.8)
"""Held-out successes for which the table shows the tokens that they took."""


@dataclass(frozen=True)
class Outcome:
    """How one job ended."""

    arm: str
    seed: int
    result: dict[str, Any] | None
    """What it gave; None if it failed or has not been run."""
    error: str | None = None
    seconds: float = 0.0


class Results:
    """All outcomes of a study."""

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        self._outcomes = {(outcome.arm, outcome.seed): outcome for outcome in outcomes}

    @property
    def arms(self) -> list[str]:
        """The arms in the order of the plan."""
        return list(dict.fromkeys(arm for arm, _ in self._outcomes))

    @property
    def seeds(self) -> list[int]:
        """The seeds in the order of the plan."""
        return list(dict.fromkeys(seed for _, seed in self._outcomes))

    @property
    def failures(self) -> list[Outcome]:
        """The jobs that failed."""
        return [outcome for outcome in self._outcomes.values() if outcome.error is not None]

    @property
    def outcomes(self) -> list[Outcome]:
        """Every job that ended, in the order of the plan."""
        return list(self._outcomes.values())

    def result(self, arm: str, seed: int) -> dict[str, Any] | None:
        """Return what a job gave; None if it failed or has not been run."""
        outcome = self._outcomes.get((arm, seed))
        return outcome.result if outcome else None

    def curve(self, arm: str, seed: int) -> list[Measured]:
        """Return a job's learning curve; empty if it has none."""
        result = self.result(arm, seed) or {}
        return [Measured(int(t), int(e), float(s), int(n)) for t, e, s, n in result.get("curve", [])]

    def value(self, metric: str, arm: str, seed: int) -> Bounds | None:
        """Return a metric of one job, censored where a threshold was not reached; None if the job gave nothing.

        A metric that is there without a value, as where there was no occasion to measure it, is nothing too.

        Raises: RunError for a metric that the job's result does not have.
        """
        result = self.result(arm, seed)
        if result is None:
            return None
        name, _, threshold = metric.partition(":")
        if name in ("tokens_to", "episodes_to"):
            return to_threshold(self.curve(arm, seed), float(threshold), unit=name.removesuffix("_to"))
        given = {**result.get("metrics", {}), **result}
        if metric not in given:
            numbers = sorted(key for key, value in result.items() if isinstance(value, int | float))
            raise RunError(f"The jobs of arm {arm!r} give no {metric!r}; they give: {', '.join(numbers)}, tokens_to:X")
        return None if given[metric] is None else exactly(float(given[metric]))

    def effects(self, expectation: Expectation) -> dict[int, Bounds]:
        """Return each seed's effect where both arms gave a result; ratios as natural logarithms."""
        found = {}
        # A threshold that was reached before training took no tokens; counting one keeps the ratio finite.
        floor = 1.0 if expectation.metric.startswith(("tokens_to:", "episodes_to:")) else 0.0
        for seed in self.seeds:
            treated = self.value(expectation.metric, expectation.treatment, seed)
            if expectation.baseline is None:
                if treated is not None:
                    found[seed] = treated
                continue
            base = self.value(expectation.metric, expectation.baseline, seed)
            if treated is not None and base is not None:
                found[seed] = _compared(treated, base, expectation.effect, floor)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return one row an arm: means over seeds, and median tokens to each threshold that any arm reached."""
        rows = []
        for arm in self.arms:
            done = [seed for seed in self.seeds if self.result(arm, seed) is not None]
            failed = sum(1 for one in self.failures if one.arm == arm)
            row: dict[str, Any] = {"arm": arm, "seeds": len(done), "failed": failed}
            for name in ("success_before", "success_after", "area", "sampled_tokens", "train_seconds"):
                values = [(self.result(arm, seed) or {}).get(name) for seed in done]
                row[name] = _mean([value for value in values if value is not None])
            for threshold in THRESHOLDS:
                row[f"tokens_to_{threshold:g}"] = self._median_tokens(arm, done, threshold)
            rows.append(row)
        shown = {name for row in rows for name, value in row.items() if value is not None}
        return [{name: value for name, value in row.items() if name in shown} for row in rows]

    def _median_tokens(self, arm: str, seeds: Sequence[int], threshold: float) -> str | None:
        """Return the median tokens to a threshold as text; ">N" where too few seeds reached it."""
        curves = [curve for seed in seeds if (curve := self.curve(arm, seed))]
        if not curves:
            return None
        values = [to_threshold(curve, threshold) for curve in curves]
        middle = median_of(values)
        reached = sum(1 for value in values if value.known)
        return f"{'' if middle.known else '>'}{middle.low:,.0f} ({reached}/{len(values)})"


def arms_of(results: Results, names: Iterable[str], place: str) -> list[str]:
    """Return the arms of those methods that were to run in a place: "method @ place"."""
    return [arm for name in names if (arm := f"{name} @ {place}") in results.arms]


def all_done(results: Results, arms: Iterable[str], seed: int) -> bool:
    """Return whether every one of these arms gave a result: of candidates, one that failed might have been the best."""
    return all(results.result(arm, seed) is not None for arm in arms)


def mean_area(results: Results, arm: str) -> float | None:
    """Return the mean area over the seeds of an arm that gave a result; None without any."""
    return _mean([result["area"] for seed in results.seeds if (result := results.result(arm, seed))])


def _compared(treated: Bounds, base: Bounds, effect: str, floor: float) -> Bounds:
    """Return difference or log ratio of two values, as wide as their censoring makes it."""
    if effect == "difference":
        return Bounds(treated.low - base.high, treated.high - base.low)
    t, b = (Bounds(_log(max(x.low, floor)), _log(max(x.high, floor))) for x in (treated, base))
    low, high = (t.low - b.high, t.high - b.low) if effect == "ratio" else (b.low - t.high, b.high - t.low)
    return Bounds(-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def means(results: Results) -> list[dict[str, Any]]:
    """Return one row an arm: the mean over seeds of every figure that its jobs gave, where they gave any."""
    found = []
    for arm in results.arms:
        done = [result for seed in results.seeds if (result := results.result(arm, seed))]
        row: dict[str, Any] = {"arm": arm, "seeds": len(done)}
        for name in done[0] if done else ():
            known = [float(one[name]) for one in done if isinstance(one[name], int | float)]
            row[name] = sum(known) / len(known) if known else None
        found.append(row)
    return found
