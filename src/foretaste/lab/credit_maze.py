"""`credit-maze`: what `credit` suggested of one of its tasks after the fact, put to the test on fresh seeds.

Seeds of training and the mazes of the examination are others than those on which `credit` suggested it.
"""

from __future__ import annotations

from foretaste.lab.credit import in_maze
from foretaste.lab.methods import method
from foretaste.lab.places import PLACES, place_base
from foretaste.lab.study import Arm, Expectation, Plan, Study

COMPARED = ("value", "success-replay", "grpo")


def _arm(name: str) -> Arm:
    return Arm(lambda seed: method(name, place_base("maze", seed)), tuned=name)


def _plan(seeds: tuple[int, ...], budget: int, minutes: float) -> Plan:
    arms = {name: _arm(name) for name in COMPARED}
    return Plan(arms, seeds, token_budget=budget, minutes=minutes)


STUDY = Study(
    name="credit-maze",
    claim=(
        "In a maze, where a step can be seen to lead nowhere, a replayed value function has more mean held-out success "
        "over the same sampled tokens than success replay"
    ),
    source="credit: value was ahead in five of five runs there, which was seen after the fact",
    expectations=(
        Expectation("area", "value", "success-replay", size=0.0),
        Expectation("success_after", "value", "success-replay", size=0.1, required=False),
        Expectation("area", "value", "grpo", size=0.1, required=False),
    ),
    quick=_plan((1, 2), PLACES["maze"].budget // 4, 4),
    full=_plan(tuple(range(401, 409)), PLACES["maze"].budget, 30),
    tuning=in_maze(COMPARED, 45),
    notes=(
        "Area is the mean held-out success over the token budget; update seconds are in the table.",
        "None of the seeds was run before the claim was registered. One environment of several: see credit.",
    ),
)
