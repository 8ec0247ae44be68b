"""`gate`: what does giving up hopeless episodes save, and what does a biased stop cost?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from foretaste.config import GateConfig, TrainConfig
from foretaste.lab.cells import Cell, lock_base
from foretaste.lab.methods import method
from foretaste.lab.study import Expectation, Plan, Study

DOOM = Cell(5, "at once", 10)
"""A mistake shows at once, so V can know that an episode is lost."""
BLIND = Cell(5, "silent", 10)

GATES = {
    "none": GateConfig(),
    "unbiased": GateConfig(max_probability=0.75),
    "biased": GateConfig(max_probability=0.75, unbiased=False),
}


def _arm(name: str, cell: Cell) -> Callable[[int], TrainConfig]:
    return lambda seed: replace(method("value", lock_base(cell, seed)), gate=GATES[name])


def _plan(cells: dict[str, Cell], seeds: tuple[int, ...], budget: int, minutes: float) -> Plan:
    arms = {f"{name} {where}": _arm(name, cell) for where, cell in cells.items() for name in GATES}
    return Plan(arms, seeds=seeds, token_budget=budget, minutes=minutes, max_steps=2000)


STUDY = Study(
    name="gate",
    claim=(
        "Where V detects doom, stopping without bias reaches half success with at least 1.4 times fewer sampled tokens "
        "(30% saved); where it does not, nothing is lost"
    ),
    source="giving up a hopeless path early; derivation in docs/value-function.md",
    expectations=(
        Expectation("tokens_to:0.5", "unbiased doom", "none doom", size=1 / 0.7, effect="speedup", center="median"),
        Expectation("success_after", "unbiased blind", "none blind", size=-0.05),
        Expectation("success_after", "unbiased doom", "biased doom", size=0.0, required=False),
    ),
    quick=_plan({"doom": DOOM, "blind": BLIND}, (1, 2), 8_000, 5),
    full=_plan({"doom": DOOM, "blind": BLIND}, (1, 2, 3, 4, 5, 6), 20_000, 20),
    notes=("The biased stop counts a stopped episode as a failure and carries no weights: published practice.",),
)
