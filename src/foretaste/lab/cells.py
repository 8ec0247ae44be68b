"""Places on `lock` in which studies hold methods against each other, and how many times fewer tokens one needs.

A cell is a starting success, a visibility of mistakes and a horizon; every seed has a rule table of its own. A
method's figure in a cell is its tokens to half success; the baseline is the best of all in that cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from foretaste.config import TrainConfig
from foretaste.envs.lock import random_success
from foretaste.lab.methods import BASELINES, METHODS, base, method
from foretaste.lab.results import Results, all_done, arms_of, mean_area
from foretaste.lab.sequences import Bounds, median_of
from foretaste.lab.study import Arm, Plan

METRIC = "tokens_to:0.5"
BEST = "best baseline"
FRESH_TABLES = 1000
"""Every seed's rule table: this plus the seed, so those of `study.TUNING_SEEDS` are never scored. Pilots of earlier
decisions had tables below."""


class Cell(NamedTuple):
    """One place of the map."""

    critical: int
    """Cues of an episode that a blind choice gets right half the time: starting success 2^-critical."""
    visibility: str
    horizon: int

    @property
    def name(self) -> str:
        """Short, for arms and tables."""
        return f"p={self.start:.3g} {self.visibility} h={self.horizon}"

    @property
    def start(self) -> float:
        """Success of a policy that answers at random."""
        return random_success(2, self.critical)

    def env(self, seed: int) -> str:
        """The environment's id, with a rule table of its own for every seed."""
        return self.with_tables(table=FRESH_TABLES + seed)

    def with_tables(self, **tables: int) -> str:
        """The environment's id with these tables: `table`, and `tables` for several at once."""
        arguments = {
            "horizon": self.horizon,
            "choices": 2,
            "critical": self.critical,
            "visibility": self.visibility,
            **tables,
            "terse": True,
        }
        return f"lock?{urlencode(arguments)}"


def lock_base(cell: Cell, seed: int) -> TrainConfig:
    """Return what all arms on a lock share; a warm start teaches the form, so instructions are left out."""
    return base(cell.env(seed), instructions=False)


def arm(name: str, cell: Cell) -> Callable[[int], TrainConfig]:
    """Return seed -> the run of a method in a cell."""
    return lambda seed: method(name, lock_base(cell, seed))


def plan(
    cells: Sequence[Cell],
    methods: Sequence[str],
    seeds: tuple[int, ...],
    budget: int,
    minutes: float,
    *,
    only: Mapping[str, Sequence[Cell]] | None = None,
) -> Plan:
    """Return a plan with an arm for every method in every cell, or in the cells that `only` names for it.

    Each arm takes the winner of the grid that is called like its method.
    """
    arms = {
        f"{name} @ {cell.name}": Arm(arm(name, cell), tuned=name)
        for cell in cells
        for name in methods
        if cell in (only or {}).get(name, cells)
    }
    return Plan(arms, seeds=seeds, token_budget=budget, minutes=minutes, max_steps=2000)


def cells_in(results: Results, cells: Sequence[Cell]) -> list[Cell]:
    """Return those of `cells` that the results have, each once."""
    return [cell for cell in dict.fromkeys(cells) if f"value @ {cell.name}" in results.arms]


def median_tokens(results: Results, arm: str) -> float:
    """Median tokens over seeds; what was never reached counts as infinite."""
    found = [results.value(METRIC, arm, seed) for seed in results.seeds]
    known = [bounds for bounds in found if bounds is not None]
    return median_of(known).high if known else math.inf


def best_baseline(results: Results, cell: Cell) -> str | None:
    """Return the baseline with the fewest median tokens in a cell, then the largest area; None without any."""

    def rank(arm: str) -> tuple[float, float]:
        return median_tokens(results, arm), -(mean_area(results, arm) or 0.0)

    best = min(arms_of(results, BASELINES, cell.name), key=rank, default=None)
    return best and best.partition(" @ ")[0]


def ratio(results: Results, treatment: str, cell: Cell, seed: int) -> Bounds | None:
    """Return log(tokens of the best baseline / tokens of the treatment) in a cell; None if a job is missing.

    Where neither got there nothing can be said: the bounds are infinite. The baseline is chosen after the fact, with
    the seeds that are compared, which favours it.
    """
    baseline = best_baseline(results, cell)
    ours = results.value(METRIC, f"{treatment} @ {cell.name}", seed)
    theirs = baseline and results.value(METRIC, f"{baseline} @ {cell.name}", seed)
    if ours is None or not theirs or not all_done(results, arms_of(results, BASELINES, cell.name), seed):
        return None

    def log(value: float) -> float:
        return math.inf if math.isinf(value) else math.log(max(1.0, value))

    low = log(theirs.low) - log(ours.high) if math.isfinite(ours.high) else -math.inf
    high = log(theirs.high) - log(ours.low) if math.isfinite(theirs.high) else math.inf
    return Bounds(low, high)


def mean_ratios(results: Results, treatment: str, cells: Sequence[Cell]) -> dict[int, Bounds]:
    """Return each seed's mean of `ratio` over cells; a seed that lacks one of them is left out."""
    found = {}
    for seed in results.seeds:
        known = [bounds for cell in cells if (bounds := ratio(results, treatment, cell, seed)) is not None]
        if cells and len(known) == len(cells):
            low, high = (sum(ends) / len(known) for ends in zip(*known, strict=True))
            found[seed] = Bounds(low, high)
    return found


def rows_of(results: Results, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return one row a cell: tokens to half success of each method, and the ratio of the medians."""
    found = []
    for cell in cells:
        row: dict[str, Any] = {"start": cell.start, "mistakes": cell.visibility, "horizon": cell.horizon}
        medians = {
            name: median_tokens(results, f"{name} @ {cell.name}")
            for name in METHODS
            if f"{name} @ {cell.name}" in results.arms
        }
        for name, tokens in medians.items():
            row[name] = tokens_text(tokens)
        baseline = best_baseline(results, cell)
        for name in ("value", "auto"):
            row[f"{name}, times fewer"] = times_fewer(
                medians.get(baseline or "", math.inf), medians.get(name, math.inf)
            )
        row["best baseline"] = baseline
        row["update seconds, value"] = _seconds(results, f"value @ {cell.name}")
        row["update seconds, baseline"] = _seconds(results, f"{baseline} @ {cell.name}")
        found.append(row)
    return found


def tokens_text(tokens: float) -> str:
    """Return tokens to half success as a table shows them."""
    return "never" if math.isinf(tokens) else f"{tokens:,.0f}"


def times_fewer(theirs: float, ours: float) -> str:
    """Return how many times fewer tokens ours are, as a table shows it."""
    if math.isinf(ours):
        return "never reached" if math.isinf(theirs) else "only the baseline"
    return "only ours" if math.isinf(theirs) else f"{max(1.0, theirs) / max(1.0, ours):.2f}"


def _seconds(results: Results, arm: str) -> float | None:
    found = [(results.result(arm, seed) or {}).get("train_seconds") for seed in results.seeds]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None
