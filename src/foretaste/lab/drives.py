"""`drives`: do a few fixed feelings about an episode's course speed learning, in tasks they were not written for?

One setting for all environments, chosen before anything was run: every drive weighs the same.
"""

from __future__ import annotations

import dataclasses

from foretaste.config import DrivesConfig, TrainConfig
from foretaste.lab.places import PLACES, mean_differences, place_base, rows
from foretaste.lab.results import Results
from foretaste.lab.sequences import Bounds
from foretaste.lab.study import Arm, Expectation, Plan, Study

WEIGHT = 0.1
DRIVEN = DrivesConfig(**{drive.name: WEIGHT for drive in dataclasses.fields(DrivesConfig) if "half" not in drive.name})
"""The one setting: each drive can move V + Phi by a tenth of a success, half of that 20 steps later."""

WHERE = ("maze", "repair", "guess", "lock")

ABLATED = {
    "repetition": "maze",
    "novelty": "lock",
    "checks": "repair",
    "displeasure": "repair",
    "surprise": "lock",
}
"""Each drive, and the environment in which it has most to say: taken out alone, there. Permission has none: none of
them measures harm."""


def config(drives: DrivesConfig, place: str, seed: int) -> TrainConfig:
    """Return a run; arms of a place differ in their drives alone."""
    made = place_base(place, seed)
    algorithm = dataclasses.replace(made.algorithm, adapt_lambda=True, head_learning_rate=1e-2)
    return dataclasses.replace(made, algorithm=algorithm, drives=drives)


def _arm(drives: DrivesConfig, place: str, budget: int) -> Arm:
    def made(seed: int) -> TrainConfig:
        return config(drives, place, seed)

    return Arm(made, token_budget=budget)


def arm(what: str, place: str) -> str:
    """Return the name of an arm."""
    return f"{what} @ {place}"


def _plan(places: tuple[str, ...], seeds: tuple[int, ...], minutes: float, *, ablated: bool) -> Plan:
    arms = {}
    for place in places:
        budget = PLACES[place].budget
        arms[arm("no drives", place)] = _arm(DrivesConfig(), place, budget)
        arms[arm("drives", place)] = _arm(DRIVEN, place, budget)
    for drive, place in ABLATED.items() if ablated else ():
        without = dataclasses.replace(DRIVEN, **{drive: 0.0})
        arms[arm(f"without {drive}", place)] = _arm(without, place, PLACES[place].budget)
    return Plan(arms, seeds, token_budget=max(PLACES[place].budget for place in places), minutes=minutes)


def effects(results: Results, expectation: Expectation) -> dict[int, Bounds]:
    """Return each seed's difference in area: of all drives, the mean over the environments; of one, where it is."""
    if expectation.treatment in results.arms:
        return results.effects(expectation)
    pairs = [
        (arm(expectation.treatment, place), arm(str(expectation.baseline), place))
        for place in WHERE
        if arm(expectation.treatment, place) in results.arms
    ]
    return mean_differences(results, "area", pairs)


STUDY = Study(
    name="drives",
    claim=(
        "One fixed setting of six drives that know no task, as potential-based shaping, raises mean held-out success "
        "over the budget by at least 0.03 over four environments that it was not tuned on"
    ),
    source=(
        "emotion as a value function from birth, simple and of use everywhere; shaping that changes no return: Ng, "
        "Harada & Russell 1999"
    ),
    expectations=(
        Expectation("area", "drives", "no drives", size=0.03),
        *(
            Expectation("area", arm("drives", place), arm(f"without {drive}", place), size=0.0, required=False)
            for drive, place in ABLATED.items()
        ),
    ),
    quick=_plan(("guess", "lock"), (1, 2, 3), 4, ablated=False),
    full=_plan(WHERE, (1, 2, 3, 4, 5), 25, ablated=True),
    effects=effects,
    rows=rows,
    notes=(
        "The effect is the difference in mean held-out success over an environment's budget (area), mean over them.",
        "Weights, half-life and words were fixed before the first run and are the same everywhere.",
        "A drive is taken out alone in the one environment where it has most to say; permission has none here.",
        "Arms of an environment share a token budget; environments differ in theirs, shown as sampled tokens.",
    ),
)
