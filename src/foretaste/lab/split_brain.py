"""`split-brain`: does learning from several families of wordings close the gap on wordings that nobody trained on?"""

from __future__ import annotations

from foretaste.lab.results import means
from foretaste.lab.study import Arm, Expectation, Plan, Study
from foretaste.lab.wordings import MANY, WORK, student

ARMS = {"plain alone": ("plain",), "many families": MANY}


def _plan(seeds: int, demonstrations: int, items: int, minutes: float) -> Plan:
    arms = {name: Arm(student(registers, demonstrations), WORK, {"items": items}) for name, registers in ARMS.items()}
    return Plan(arms, seeds=tuple(range(1, seeds + 1)), token_budget=1, minutes=minutes)


STUDY = Study(
    name="split-brain",
    claim=(
        "With as many demonstrations, but spread over several families of wordings, the gap between plain words and "
        "families of wordings that were held out is smaller by at least .10"
    ),
    source="a model that answers the casual wording worse than the formal one has learned two tasks",
    expectations=(
        Expectation("gap", "many families", "plain alone", size=-0.10, direction="at_most"),
        Expectation("lost", "many families", "plain alone", size=0.0, direction="at_most", required=False),
        Expectation("plain", "many families", "plain alone", size=-0.05, required=False),
    ),
    quick=_plan(2, 512, 60, 3),
    full=_plan(6, 1024, 150, 8),
    rows=means,
    notes=(
        "The gap is success in plain words minus the mean over the held-out families distractor, language and layout.",
        "Learning is imitation alone; the items are fresh, their vocabulary is that of the demonstrations.",
    ),
)
