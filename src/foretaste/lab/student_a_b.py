"""`student-a-b`: long practice of one kind, or a quarter of it over many kinds: who does better on what neither saw?"""

from __future__ import annotations

from foretaste.lab.results import means
from foretaste.lab.study import Expectation, Plan, Study
from foretaste.lab.wordings import MANY, plan, student

LONG, SHORT = "A: long, one kind", "B: short, many kinds"


def _plan(seeds: int, demonstrations: int, items: int, minutes: float) -> Plan:
    students = {LONG: student(("plain",), 4 * demonstrations), SHORT: student(MANY, demonstrations)}
    return plan(students, seeds, items, minutes)


STUDY = Study(
    name="student-a-b",
    claim=(
        "A student who practised a quarter as long, but in many wordings, succeeds at least as often in families of "
        "wordings that both never saw"
    ),
    source="student A drilled one contest for ten thousand hours, student B a hundred hours and goes further",
    expectations=(
        Expectation("held_out", SHORT, LONG, size=0.0),
        Expectation("plain", SHORT, LONG, size=0.0, direction="at_most", required=False),
    ),
    quick=_plan(2, 256, 60, 3),
    full=_plan(6, 512, 150, 10),
    rows=means,
    notes=(
        "Kinds are families of wordings of one task; whether the same holds across tasks is not tested here.",
        "Learning is imitation alone, on fresh items; both students are the same tiny decoder.",
    ),
)
