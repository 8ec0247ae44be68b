"""`split-brain`: does learning from several families of wordings close the gap on wordings that nobody trained on?"""

from __future__ import annotations

from foretaste.lab.results import means
from foretaste.lab.study import Expectation, Plan, Study
from foretaste.lab.wordings import MANY, plan, student

ARMS = {"plain alone": ("plain",), "many families": MANY}


def _plan(seeds: int, demonstrations: int, items: int, minutes: float) -> Plan:
    students = {name: student(registers, demonstrations) for name, registers in ARMS.items()}
    return plan(students, seeds, items, minutes)


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
