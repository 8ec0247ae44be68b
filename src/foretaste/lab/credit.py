"""`credit`: the methods of the map on tasks that were not built to separate them, one of them never tuned on."""

from __future__ import annotations

from collections.abc import Sequence

from foretaste.config import TrainConfig
from foretaste.lab.grids import ROUNDS, method_grid
from foretaste.lab.methods import BASELINES, method
from foretaste.lab.places import PLACES, mean_differences, place_base, rows
from foretaste.lab.results import Results, all_done, arms_of, mean_area
from foretaste.lab.sequences import Bounds
from foretaste.lab.study import Arm, Expectation, Plan, Study
from foretaste.lab.tuning import Tuning

TASKS = ("maze", "repair", "desk", "guess")
"""Nothing was ever tuned on `guess`."""
COMPARED = ("value", "auto", "grpo", "batch-mean", "success-replay")


def _arm(name: str, task: str) -> Arm:
    def config(seed: int) -> TrainConfig:
        return method(name, place_base(task, seed))

    return Arm(config, token_budget=PLACES[task].budget, tuned=name)


def in_maze(names: Sequence[str], minutes: float) -> Tuning:
    """Return the tuning of methods in `maze` alone, with training seeds and items that nothing scores."""
    grids = {name: method_grid(name, {"maze": _arm(name, "maze")}) for name in names}
    return Tuning(grids, ROUNDS, token_budget=PLACES["maze"].budget, minutes=minutes)


def _plan(tasks: tuple[str, ...], methods: tuple[str, ...], seeds: tuple[int, ...], minutes: float) -> Plan:
    arms = {f"{name} @ {task}": _arm(name, task) for task in tasks for name in methods}
    return Plan(arms, seeds, token_budget=max(PLACES[task].budget for task in tasks), minutes=minutes)


def effects(results: Results, expectation: Expectation) -> dict[int, Bounds]:
    """Return each seed's difference in area between the treatment and the best baseline, mean over the tasks.

    A seed counts where every baseline gave a result.
    """
    tasks = [task for task in TASKS if f"{expectation.treatment} @ {task}" in results.arms]
    pairs = [(f"{expectation.treatment} @ {task}", f"{best_baseline(results, task)} @ {task}") for task in tasks]
    candidates = [arm for task in tasks for arm in arms_of(results, BASELINES, task)]
    found = mean_differences(results, "area", pairs)
    return {seed: value for seed, value in found.items() if all_done(results, candidates, seed)}


def best_baseline(results: Results, task: str) -> str | None:
    """Return the baseline with the largest mean area on a task, over its results; None without any."""
    areas = {arm: mean_area(results, arm) for arm in arms_of(results, BASELINES, task)}
    known = {arm: area for arm, area in areas.items() if area is not None}
    best = max(known, key=lambda arm: known[arm], default=None)
    return best and best.partition(" @ ")[0]


STUDY = Study(
    name="credit",
    claim="On maze, repair, desk and an environment that nothing was tuned on, auto is no worse than the best baseline",
    source="the map's claim of never being worse, on tasks that were not made for it",
    expectations=(
        Expectation("area", "auto", "best baseline", size=-0.03),
        Expectation("area", "value", "best baseline", size=0.0, required=False),
    ),
    quick=_plan(("guess",), ("value", "auto", "grpo", "success-replay"), (1, 2, 3), 5),
    full=_plan(TASKS, COMPARED, tuple(range(381, 386)), 75),
    tuning=in_maze(COMPARED, 60),
    effects=effects,
    rows=rows,
    notes=(
        "The effect is the difference in mean held-out success over the budget (area), mean over the tasks.",
        "The best baseline of each task is chosen after the fact, which favours it.",
        "Quick mode runs the untuned environment alone. All methods are tuned in maze, on seeds that nothing scores.",
    ),
)
