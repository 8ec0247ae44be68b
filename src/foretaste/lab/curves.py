"""A training run's learning curve, read from the ledger, and the figures that studies compare."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from foretaste.errors import RunError
from foretaste.lab.sequences import Bounds, exactly
from foretaste.ledger import Ledger


class Measured(NamedTuple):
    """One held-out measurement."""

    tokens: int
    """Tokens sampled for learning before it, value pretraining included."""
    episodes: int
    success: float
    """Share of the judged items that were solved."""
    n: int
    """Items judged."""


def curve_of(ledger: Ledger, run: str) -> list[Measured]:
    """Return a run's held-out measurements in order, the one before training first.

    Raises: RunError if the run measured nothing.
    """
    records = ledger.records(run)
    config = ledger.run(run).config
    tokens = episodes = 0
    curve: list[Measured] = []
    waiting: list[tuple[int, dict[str, Any]]] = []  # a step's curve point is written before the step's own metrics

    def measured(payload: dict[str, Any]) -> None:
        judged = [value for value in payload["success"] if value is not None]
        if judged:
            solved = sum(1 for value in judged if value >= 1.0)
            curve.append(Measured(tokens, episodes, solved / len(judged), len(judged)))

    for record in records:
        if record.kind == "value_pretraining":
            tokens += int(record.payload.get("train/sampled_tokens", 0))
            episodes += int(config.get("algorithm", {}).get("value_pretraining_episodes", 0))
        elif record.kind == "metrics":
            tokens += int(record.payload.get("train/sampled_tokens", 0))
            episodes += int(record.payload.get("train/episodes", 0))
            for _, payload in waiting:
                measured(payload)
            waiting.clear()
        elif record.kind == "held_out":
            if record.payload["label"] == "curve":
                waiting.append((record.step or 0, record.payload))
            else:
                measured(record.payload)
    if not curve:
        raise RunError(f"Run {run} has no held-out measurement. Look at it: foretaste report {run}")
    return curve


def figures_of(ledger: Ledger, run: str) -> dict[str, Any]:
    """Return what a finished training job gives a study: its curve and the figures made of it."""
    curve = curve_of(ledger, run)
    metrics = [record.payload for record in ledger.records(run, "metrics")]
    config = ledger.run(run).config
    budget = config.get("token_budget")
    well = _ended_well(config, curve)
    names = {name for values in metrics for name in values}
    means = {name: _mean([values[name] for values in metrics if name in values]) for name in sorted(names)}
    return {
        "run": run,
        "curve": [list(point) for point in curve],
        "success_before": curve[0].success,
        "success_after": curve[-1].success,
        "gain": curve[-1].success - curve[0].success,
        "area": area(curve, until=budget if well else None),
        "sampled_tokens": curve[-1].tokens,
        "episodes": curve[-1].episodes,
        "steps": len(metrics),
        "used_budget": None if not budget or well else curve[-1].tokens / budget,
        "sample_seconds": sum(v.get("time/sample_seconds", 0.0) for v in metrics),
        "train_seconds": sum(v.get("time/train_seconds", 0.0) for v in metrics),
        "metrics": means,
    }


def _ended_well(config: dict[str, Any], curve: Sequence[Measured]) -> bool:
    """Return whether training ended early because it was good enough: the last point is the one after training."""
    enough = config.get("held_out", {}).get("enough", 0.0)
    return enough > 0 and len(curve) > 2 and all(point.success >= enough for point in curve[-3:-1])


def area(curve: Sequence[Measured], *, until: int | None = None) -> float:
    """Return the mean held-out success over the tokens sampled: the area under the curve, divided by its width.

    Linear between measurements; a curve that ends before `until` goes on at its last success, so that ending early
    because it was good enough costs nothing. With no tokens sampled, the last success.
    """
    if until is not None and curve[-1].tokens < until:
        curve = [*curve, curve[-1]._replace(tokens=until)]
    width = curve[-1].tokens - curve[0].tokens
    if width <= 0:
        return curve[-1].success
    total = sum((b.tokens - a.tokens) * (a.success + b.success) / 2 for a, b in itertools.pairwise(curve))
    return total / width


def to_threshold(curve: Sequence[Measured], threshold: float, *, unit: str = "tokens", patience: int = 2) -> Bounds:
    """Return the tokens (or episodes) to a held-out success, linear between measurements.

    Reached means: this measurement and the `patience` - 1 after it are all at the threshold or above (at the end
    of the curve, those that there are), so that one lucky measurement does not count. A curve that never reaches it
    is censored: more than all it sampled. A curve that starts above needs nothing: 0.
    """
    amounts = [float(getattr(point, unit)) for point in curve]
    for i, point in enumerate(curve):
        if all(later.success >= threshold for later in curve[i : i + patience]):
            if i == 0:
                return exactly(0.0)
            before = curve[i - 1]  # below the threshold, else it would have been reached there
            share = (threshold - before.success) / (point.success - before.success)
            return exactly(amounts[i - 1] + share * (amounts[i] - amounts[i - 1]))
    return Bounds(amounts[-1], math.inf)


def _mean(values: Sequence[float]) -> float | None:
    finite = [float(value) for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None
