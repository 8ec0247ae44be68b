"""The settings that studies choose from for each method: as many for a baseline as for ours, the knobs that it has.

The first of a grid are those that studies had before their arms were tuned alike (`methods.py`). A grid names the
whole of what it varies, so that it means the same on any base. How a winner is found: `tuning.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foretaste.lab.cells import Cell, arm
from foretaste.lab.study import Arm
from foretaste.lab.tuning import Grid, Round, Tuning

RATE, FIRST, PASSES = "algorithm.learning_rate", "replay.actor_start_successes", "algorithm.passes"
GAINS, SUCCESSES = "replay.policy_passes", "replay.success_passes"
GROUP, EPISODES = "algorithm.group_size", "episodes_per_step"


def _points(names: Sequence[str], *values: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    return tuple(dict(zip(names, one, strict=True)) for one in values)


_BATCH = _points(
    (PASSES, RATE, EPISODES),
    (2, 1e-3, 32),
    (8, 1e-3, 32),
    (16, 1e-3, 32),
    (8, 3e-4, 32),
    (8, 2e-3, 32),
    (8, 1e-3, 16),
)
_GROUPS = _points(
    (PASSES, RATE, GROUP, EPISODES),
    (2, 1e-3, 8, 32),
    (8, 1e-3, 8, 32),
    (16, 1e-3, 8, 32),
    (8, 3e-4, 8, 32),
    (8, 1e-3, 4, 32),
    (8, 1e-3, 8, 16),
)
POINTS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "value": _points(
        (RATE, GAINS, SUCCESSES, FIRST),
        (2e-3, 8, 0, 4),
        (1e-3, 8, 0, 4),
        (2e-3, 16, 0, 4),
        (2e-3, 4, 0, 4),
        (2e-3, 8, 8, 4),
        (2e-3, 8, 0, 2),
    ),
    "auto": _points(
        (RATE, GAINS, SUCCESSES, FIRST),
        (2e-3, 8, 8, 4),
        (1e-3, 8, 8, 4),
        (2e-3, 16, 16, 4),
        (2e-3, 4, 4, 4),
        (2e-3, 8, 8, 2),
        (1e-3, 8, 8, 2),
    ),
    "success-replay": _points(
        (RATE, SUCCESSES, FIRST),
        (2e-3, 8, 4),
        (1e-3, 8, 4),
        (2e-3, 16, 4),
        (2e-3, 4, 4),
        (2e-3, 8, 2),
        (1e-3, 8, 2),
    ),
    "grpo": _GROUPS,
    "dynamic-grpo": _GROUPS,
    "leave-one-out": _GROUPS,
    "batch-mean": _BATCH,
}
"""Updates for each episode, learning rate, group size or episodes of a step, and the successes waited for."""

ROUNDS = (Round(6, (9001,)), Round(2, (9002,)))
"""Six points on one seed, the best two on another: eight runs a place for every arm."""

ON_LOCK = (Cell(3, "at once", 10),)
"""Where the methods of the map are tuned: success starts at .125, between the places that the map scores, so that
groups tell something and a first success is still to be waited for."""


def lock_grid(name: str, cells: Sequence[Cell] = ON_LOCK) -> Grid:
    """Return the grid of a method of `methods.py` on locks, on the rule tables of tuning's own seeds."""
    return Grid({cell.name: Arm(arm(name, cell)) for cell in cells}, POINTS[name])


def on_lock(names: Sequence[str], tokens: int, minutes: float) -> Tuning:
    """Return the tuning of methods on locks. Studies that ask for the same share its runs in one folder."""
    return Tuning({name: lock_grid(name) for name in names}, ROUNDS, token_budget=tokens, minutes=minutes)


def method_grid(name: str, places: Mapping[str, Callable[[int], Any] | Arm]) -> Grid:
    """Return the grid of a method in places of a study's own."""
    return Grid({place: one if isinstance(one, Arm) else Arm(one) for place, one in places.items()}, POINTS[name])
