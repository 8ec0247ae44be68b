"""`idea-or-scale`: an idea at a tenth of the tokens, held against learning from outcomes alone at all of them.

The idea is a replayed value function; scale is ten times its tokens for methods without a critic. Both learn `lock`
where success is rare and mistakes can be seen, as where `credit_map.py` promises most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretaste.lab.cells import Cell, arm
from foretaste.lab.grids import on_lock
from foretaste.lab.places import mean_differences
from foretaste.lab.results import Results
from foretaste.lab.sequences import Bounds
from foretaste.lab.study import Arm, Expectation, Plan, Study

SCALE = 10
IDEA = "value, 1x"
SCALED = {f"{name}, {SCALE}x": name for name in ("grpo", "leave-one-out", "success-replay")}
CELLS = (Cell(5, "at once", 10), Cell(5, "late", 10))
WITHIN = 0.05
"""Success that the idea may stay behind and still count as having got as far."""


def _plan(cells: Sequence[Cell], seeds: tuple[int, ...], tokens: int, minutes: float) -> Plan:
    arms: dict[str, Any] = {}
    for cell in cells:
        arms[f"{IDEA} @ {cell.name}"] = Arm(arm("value", cell), token_budget=tokens, tuned="value")
        for scaled, name in SCALED.items():
            arms[f"{scaled} @ {cell.name}"] = Arm(arm(name, cell), token_budget=SCALE * tokens, tuned=name)
    return Plan(arms, seeds=seeds, token_budget=tokens, minutes=minutes, max_steps=4000)


def effects(results: Results, expectation: Expectation) -> dict[int, Bounds]:
    """Return each seed's difference in success at the end between the idea and a scaled method, mean over the cells."""
    cells = [cell.name for cell in CELLS if f"{IDEA} @ {cell.name}" in results.arms]
    pairs = [(f"{expectation.treatment} @ {cell}", f"{expectation.baseline} @ {cell}") for cell in cells]
    return mean_differences(results, "success_after", pairs)


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row an arm, with the tokens that it might sample beside what it did with them."""
    kept = ("arm", "seeds", "failed", "sampled_tokens", "success_before", "success_after", "train_seconds")
    found = []
    for row in results.rows():
        done = [result for seed in results.seeds if (result := results.result(row["arm"], seed))]
        steps = sum(result["steps"] for result in done) / len(done) if done else None
        reached = {name: value for name, value in row.items() if name.startswith("tokens_to_")}
        found.append({**{name: row.get(name) for name in kept}, "steps": steps, **reached})
    return found


STUDY = Study(
    name="idea-or-scale",
    claim=(
        "Where success is rare and mistakes can be seen, a value function gets as far (within .05) with a tenth of the "
        "tokens as GRPO, leave-one-out and success replay with all of them"
    ),
    source="scale bought progress for years; is more of it scaling, or a waste of compute where an idea is missing?",
    expectations=tuple(Expectation("success_after", IDEA, scaled, size=-WITHIN) for scaled in SCALED),
    quick=_plan(CELLS[:1], (1, 2), 4_000, 5),
    full=_plan(CELLS[:1], tuple(range(341, 347)), 10_000, 25),
    tuning=on_lock(("value", *SCALED.values()), 10_000, 8),
    effects=effects,
    rows=rows,
    notes=(
        "Success is that of 100 held-out items at the end; a method stops early once two points of its curve in a row "
        "have reached .9, so tokens that it did not need are not sampled.",
        "One of the two settings of the run before, and fewer tokens for all: chosen for the minutes before the run.",
        "All methods were tuned with the tokens of the idea, on a lock that no study scores; scale comes on top.",
        "Success replay has no critic either, but is itself an idea: it learns again from its own successes.",
        "Every seed has another warm start and another rule table, the same ones for all arms.",
    ),
)
