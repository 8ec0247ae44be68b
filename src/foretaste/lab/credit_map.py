"""`credit-map`: where does a value function save tokens, by how much, and where does it not?

A grid on `lock`: starting success x visibility of mistakes x horizon, with a fresh rule table for every seed. Every
method has the same token budget; a cell's ratio is the tokens to half success of the best baseline over ours.
"""

from __future__ import annotations

from typing import Any

from foretaste.lab.cells import BEST, METRIC, Cell, cells_in, mean_ratios, plan, rows_of
from foretaste.lab.grids import on_lock
from foretaste.lab.results import Results
from foretaste.lab.sequences import Bounds
from foretaste.lab.study import Expectation, Study
from foretaste.lab.verdict import Worst

QUICK = (Cell(5, "at once", 10), Cell(5, "silent", 10))
FULL = (Cell(2, "at once", 10), Cell(5, "at once", 10))
"""Chosen for their minutes, before the run: where groups tell something, and where the claim promises most. Earlier
runs had silent and late mistakes and a start of .0039 as well, with baselines that were not tuned."""
CELLS = (*QUICK, *FULL)

COMPARED = ("value", "auto", "grpo", "success-replay")
"""Leave-one-out, batch means and GRPO with dynamic sampling stand nearest to `grpo` and are left out for their minutes;
an earlier run of this study had them (docs/decisions/0010-updates-for-each-episode.md)."""


def promised(cell: Cell) -> bool:
    """Return whether the claim promises a large gain there: rare success, mistakes that can be seen in time."""
    return cell.start <= 0.032 and cell.visibility != "silent"


def effects(results: Results, expectation: Expectation) -> dict[int, Bounds] | Worst:
    """Return each seed's effect: of "value" the mean log ratio over the promised cells, of "auto" that in every cell.

    The claim about "auto" is one about the worst cell, and which that is nobody knows beforehand (`verdict.Worst`).
    """
    name, cells = expectation.treatment, cells_in(results, CELLS)
    if name == "auto":
        return Worst(tuple(mean_ratios(results, name, [cell]) for cell in cells))
    return mean_ratios(results, name, [cell for cell in cells if promised(cell)])


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row a cell."""
    return rows_of(results, cells_in(results, CELLS))


STUDY = Study(
    name="credit-map",
    claim=(
        "Where success starts at 3% or less and mistakes can be seen, a replayed value function needs at least 5 times "
        "fewer tokens to half success than the best baseline; and auto is never worse than 0.9 times anywhere"
    ),
    source="the project's central claim: a value function tells early where an attempt is going",
    expectations=(
        Expectation(METRIC, "value", BEST, size=5.0, effect="speedup", center="median"),
        Expectation(METRIC, "auto", BEST, size=0.9, effect="speedup", center="median"),
    ),
    quick=plan(QUICK, COMPARED, (1, 2), 12_000, 5),
    full=plan(FULL, COMPARED, tuple(range(301, 308)), 20_000, 16),
    tuning=on_lock(COMPARED, 10_000, 8),
    effects=effects,
    rows=rows,
    notes=(
        "Every seed has another warm start and another rule table; none of them was seen before the settings stood.",
        "Each method has one setting in all cells: that which won its grid, on rule tables that nothing scores.",
        "The best baseline is chosen in each cell after the fact, which favours it.",
        "Tokens are sampled tokens; the seconds of the updates stand beside them, since replay spends more there.",
        "Quick mode has two seeds, too few for an interval of a median: it shows figures and stays undecided.",
    ),
)
