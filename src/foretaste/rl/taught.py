"""A critic from an earlier run: believed from the first step on, held to its word, and in time this run's own.

    believed    the actor learns by it at once, without value pretraining and before its own first success
    held        V late in the episodes adds up to the successes it promises; where far fewer come, it is dropped
    own         after the first successes. Until then it learns from its own next judgement alone (lambda 0): outcomes
                that are all alike would teach it that nothing matters

A critic that saw other tasks of a kind knows what going wrong looks like there. It knows nothing of a task of another
kind, and says so by promising what does not come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy.stats import poisson

from foretaste.records import Episode
from foretaste.rl.diagnostics import PARTS, judged_values, value_at_part

DOUBT = 1e-3
"""Chance of so few successes, were every promise true, below which a critic is dropped."""


class TaughtCritic:
    """What is known of a critic from an earlier run: whether it is believed, and whether it is this run's own yet."""

    def __init__(self, start_successes: int) -> None:
        """`start_successes`: of this run, after which the critic is its own (`replay.critic_start_successes`)."""
        self.start_successes = start_successes
        self.promised, self.came = 0.0, 0

    @property
    def believed(self) -> bool:
        """Whether so few successes are no wonder, if what it promised were true."""
        return float(poisson.cdf(self.came, self.promised)) >= DOUBT

    @property
    def own(self) -> bool:
        """Whether it has seen enough successes of this run to be its own."""
        return self.came >= self.start_successes

    def update(self, episodes: Sequence[Episode], rows: Sequence[Sequence[float]]) -> dict[str, float]:
        """Fold in a step's episodes and their values (B x T, padding allowed), which the critic has not learned from.

        It is dropped where as few successes as came have a chance below `DOUBT`, were each episode to succeed with V at
        75% of its tokens: P(Poisson(sum V) <= successes), which bounds that of a sum of unequal coins from above in
        this tail (Hoeffding 1956; Anderson and Samuels 1967). It is asked after every step, so `DOUBT` holds for each
        look and not for all. Once it is this run's own it is no longer asked.
        """
        if not self.believed or self.own:
            return {}
        judged = judged_values(episodes, rows)
        self.promised += sum(value_at_part(one.values, PARTS["75"]) for one in judged)
        self.came += sum(one.success >= 1.0 for one in judged)
        told = {"value/promised_successes": self.promised, "value/came_successes": float(self.came)}
        return told if self.believed else told | {"value/dropped": 1.0}

    def state(self) -> dict[str, Any]:
        """Return what `load` restores."""
        return {"promised": self.promised, "came": self.came}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self.promised, self.came = state["promised"], state["came"]
