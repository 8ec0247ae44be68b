"""`gate`: what does giving up hopeless episodes save, and what does a biased stop cost?

A gate can only save what V foresees. A critic that starts with the run foresees little before success comes, and
then little is left to save; one that was taught on other tables (`taught.py`) foresees doom from the first step on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from foretaste.config import GateConfig, TrainConfig
from foretaste.lab.cells import Cell, lock_base
from foretaste.lab.methods import method
from foretaste.lab.study import Arm, Expectation, Plan, Study
from foretaste.lab.teaching import GATE, prepared, taught_arm

DOOM = Cell(5, "at once", 10)
"""A mistake shows at once, so V can know that an episode is lost."""
BLIND = Cell(5, "silent", 10)

GATES = {
    "none": GateConfig(),
    "unbiased": GATE,
    "biased": replace(GATE, unbiased=False),
}


def _config(name: str, cell: Cell, *, foreseen: bool = False) -> Callable[[int], TrainConfig]:
    def made(seed: int) -> TrainConfig:
        return prepared(method("value", lock_base(cell, seed)), GATES[name], at_once=foreseen, every=2)

    return made


def _plan(seeds: tuple[int, ...], budget: int, teaching_tokens: int, minutes: float) -> Plan:
    arms: dict[str, Arm] = {}
    for name in GATES:
        arms[f"{name} foreseen"] = taught_arm(_config(name, DOOM, foreseen=True), DOOM, teaching_tokens)
    for where, cell in (("unforeseen", DOOM), ("blind", BLIND)):
        arms |= {f"{name} {where}": Arm(_config(name, cell)) for name in ("none", "unbiased")}
    return Plan(arms, seeds=seeds, token_budget=budget, minutes=minutes, max_steps=2000)


STUDY = Study(
    name="gate",
    claim=(
        "Where V foresees doom from the start, stopping without bias reaches half success with at least 1.4 times "
        "fewer sampled tokens (30% saved); where mistakes are silent, nothing is lost"
    ),
    source="giving up a hopeless path early; derivation in docs/value-function.md",
    expectations=(
        Expectation(
            "tokens_to:0.5", "unbiased foreseen", "none foreseen", size=1 / 0.7, effect="speedup", center="median"
        ),
        Expectation("success_after", "unbiased blind", "none blind", size=-0.05),
        Expectation("success_after", "unbiased foreseen", "biased foreseen", size=0.0, required=False),
        Expectation(
            "tokens_to:0.5",
            "unbiased unforeseen",
            "none unforeseen",
            size=1 / 0.7,
            effect="speedup",
            center="median",
            required=False,
        ),
    ),
    quick=_plan((1, 2), 6_000, 40_000, 5),
    full=_plan(tuple(range(223, 235)), 15_000, 200_000, 30),
    notes=(
        "foreseen: the critic was taught on 128 other rule tables before the run (the study taught); unforeseen: it "
        "starts with the run, where mistakes show at once; blind: the same where they never show.",
        "The biased stop counts a stopped episode as a failure and carries no weights: published practice.",
        "The seeds are those of taught, whose critics it shares where both are run in one folder.",
        "Tokens of the teaching are in no arm. With a taught critic lambda between turns is 0, as in the study taught.",
    ),
)
