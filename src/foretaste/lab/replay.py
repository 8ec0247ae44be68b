"""`replay`: how much does learning again from stored episodes give, with and without a critic and privileged text?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from foretaste.config import TrainConfig
from foretaste.lab.cells import Cell, arm, lock_base
from foretaste.lab.methods import FEW, method
from foretaste.lab.study import Expectation, Plan, Study

CELL = Cell(5, "late", 10)
RATIOS = {1: (FEW, 1), 8: (4 * FEW, 2), 32: (8 * FEW, 4)}
"""Replay ratio (episodes the critic reads for each new one) -> episodes, passes."""


def _critic(ratio: int, cell: Cell, *, privileged: bool = False) -> Callable[[int], TrainConfig]:
    def config(seed: int) -> TrainConfig:
        made = method("value", lock_base(cell, seed))
        episodes, passes = RATIOS[ratio]
        replay = replace(made.replay, critic_episodes=episodes, critic_passes=passes)
        return replace(made, replay=replay, model=replace(made.model, privileged_critic=privileged))

    return config


def _without(cell: Cell, **left_out: int) -> Callable[[int], TrainConfig]:
    def config(seed: int) -> TrainConfig:
        made = method("value", lock_base(cell, seed))
        return replace(made, replay=replace(made.replay, **left_out))

    return config


def _plan(cell: Cell, ratios: tuple[int, ...], seeds: tuple[int, ...], budget: int, minutes: float) -> Plan:
    arms = {f"critic, ratio {ratio}": _critic(ratio, cell) for ratio in ratios}
    arms["privileged, ratio 8"] = _critic(8, cell, privileged=True)
    arms["ratio 8, no gains"] = _without(cell, policy_passes=0)
    arms["ratio 8, no successes"] = _without(cell, success_episodes=0)
    arms["ratio 8, PPO alone"] = _without(cell, policy_passes=0, success_episodes=0)
    arms["no critic, no replay"] = arm("batch-mean", cell)
    arms["no critic, successes"] = arm("success-replay", cell)
    return Plan(arms, seeds=seeds, token_budget=budget, minutes=minutes, max_steps=2000)


STUDY = Study(
    name="replay",
    claim=(
        "A critic that reads 8 stored episodes for each new one raises mean held-out success by at least 0.05 over one "
        "that reads each episode once"
    ),
    source="throwing episodes away after one update wastes them; ArCHer 2402.19446, experience replay 2604.08706",
    expectations=(
        Expectation("area", "critic, ratio 8", "critic, ratio 1", size=0.05),
        Expectation("area", "critic, ratio 8", "no critic, successes", size=0.0, required=False),
        Expectation("area", "critic, ratio 8", "ratio 8, no gains", size=0.0, required=False),
        Expectation("area", "ratio 8, no successes", "no critic, successes", size=0.0, required=False),
        Expectation("area", "privileged, ratio 8", "critic, ratio 8", size=0.0, required=False),
    ),
    quick=_plan(CELL, (1, 8), (1, 2), 6_000, 5),
    full=_plan(CELL, tuple(RATIOS), (1, 2, 3, 4, 5), 20_000, 22),
    notes=("Area is the mean held-out success over the token budget; update seconds are in the table.",),
)
