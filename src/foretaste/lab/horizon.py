"""`horizon`: is what a taught value function saves lost, kept or gained where attempts are longer?

The locks of `taught` with as many cues that count, among more that do not: success starts at the same 3%. A critic is
taught on locks of the same length. In a longer attempt more is left to save once it is lost.
"""

from __future__ import annotations

from typing import Any

from foretaste.lab import taught
from foretaste.lab.cells import METRIC, Cell
from foretaste.lab.results import Results
from foretaste.lab.sequences import Bounds
from foretaste.lab.study import Expectation, Study

CELLS = (Cell(5, "at once", 20), Cell(5, "at once", 40))
OURS = ("gated",)


def effects(results: Results, expectation: Expectation) -> dict[int, Bounds]:
    """Return each seed's mean log ratio, over the horizons, of success replay's tokens to those of ours."""
    return taught.over(results, expectation.treatment, CELLS)


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row a horizon."""
    return taught.rows(results, CELLS)


STUDY = Study(
    name="horizon",
    claim=(
        "With 20 and 40 turns a value function taught on other tasks of the kind, with a gate, needs at least 5 times "
        "fewer tokens to half success than success replay, where success starts at 3% and mistakes show at once"
    ),
    source="a value function tells a thousand steps earlier: the longer the attempt, the more there is to save",
    expectations=(Expectation(METRIC, "gated", taught.REPLAY, size=5.0, effect="speedup", center="median"),),
    quick=taught.plan(CELLS[:1], (1, 2), 20_000, 40_000, 5, names=OURS),
    full=taught.plan(CELLS, tuple(range(361, 370)), 60_000, 200_000, 60, names=OURS),
    tuning=taught.tuning({CELLS[0]: 30_000}, OURS, 25),
    effects=effects,
    rows=rows,
    notes=(
        "gated: `auto` with a critic from another run, which played 128 other rule tables of as many turns at random, "
        "and a gate (at most .75 at one turn, unbiased). Lambda between turns is 0. success-replay: without a critic.",
        "Five of the turns count, whatever their number; a longer attempt takes more tokens.",
        "Every seed has a teaching, a warm start and rule tables of its own; none was seen before the settings stood.",
        "Tokens of the teaching are not in those of a method: they are spent once, and stand in a column of their own.",
    ),
)
