"""A critic from an earlier run: believed from the first step on, held to its word, and in time this run's own.

    believed    the actor learns by it at once, without value pretraining and before its own first success
    held        V at a turn adds up to the successes of the episodes that reach it; where far fewer come, it is dropped
    own         after the first successes. Until then it learns from its own next judgement alone (lambda 0): outcomes
                that are all alike would teach it that nothing matters

A critic that saw other tasks of a kind knows what going wrong looks like there. It knows nothing of a task of another
kind, and says so by promising what does not come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy.stats import binom

from foretaste.records import Episode
from foretaste.rl.batch import usable
from foretaste.rl.diagnostics import turn_values

DOUBT = 1e-3
"""Chance of so few successes, were every promise true, below which a critic is dropped."""
LOOKS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Turns, counted from 0, at whose beginning V is held to its word. They stand before an episode is played: a place that
depends on how long it turned out to be, such as 75% of its tokens, knows something of its end, and even a perfect V
would seem to promise too much there."""


class Look(NamedTuple):
    """What V said at one turn of the episodes so far, and what became of them."""

    episodes: int = 0
    """Those that reached the turn."""
    promised: float = 0.0
    """Sum of V over them."""
    came: int = 0
    """Successes among them."""

    @property
    def chance(self) -> float:
        """Largest chance of so few successes, were each episode to succeed with its own V; 1 where it is not small.

        Source: Hoeffding 1956, theorem 4: of all unequal coins with this mean, equal ones have the heavier lower tail.
        """
        if self.came > self.promised - 1:
            return 1.0
        return float(binom.cdf(self.came, self.episodes, min(1.0, self.promised / self.episodes)))


class TaughtCritic:
    """What is known of a critic from an earlier run: whether it is believed, and whether it is this run's own yet."""

    def __init__(self, start_successes: int) -> None:
        """`start_successes`: of this run, after which the critic is its own (`replay.critic_start_successes`)."""
        self.start_successes = start_successes
        self.looks: dict[int, Look] = {}
        """By turn, those of `LOOKS` that an episode has reached."""
        self.came = 0
        """Successes so far."""

    @property
    def believed(self) -> bool:
        """Whether so few successes are no wonder at any turn, if what it promised there were true."""
        return self.worst.chance >= DOUBT / len(LOOKS)

    @property
    def worst(self) -> Look:
        """The look at the turn at which what came is least likely; of equals the earliest."""
        return min((self.looks[turn] for turn in sorted(self.looks)), key=lambda look: look.chance, default=Look())

    @property
    def own(self) -> bool:
        """Whether it has seen enough successes of this run to be its own."""
        return self.came >= self.start_successes

    def update(self, episodes: Sequence[Episode], rows: Sequence[Sequence[float]]) -> dict[str, float]:
        """Fold in a step's episodes and their values (B x T, padding allowed), which the critic has not learned from.

        V at the beginning of a turn is the chance of success of the episodes that reach it. The critic is dropped where
        as few of those as succeeded have a chance below `DOUBT` / 8 (`Look.chance`), at any of the eight turns. With a
        gate only episodes that it did not stop count; they have the higher V later on, so that a true promise comes
        more often and not less. It is asked after every step, so `DOUBT` holds for each step and not for all. Once it
        is this run's own it is no longer asked.
        """
        if not self.believed or self.own:
            return {}
        for episode, row in zip(episodes, rows, strict=True):
            if episode.success is None or not usable(episode):
                continue
            won = int(episode.solved)
            self.came += won
            for turn, value in enumerate(turn_values(episode, row)):
                if turn in LOOKS:
                    look = self.looks.get(turn, Look())
                    self.looks[turn] = Look(look.episodes + 1, look.promised + value, look.came + won)
        worst = self.worst
        told = {"value/promised_successes": worst.promised, "value/came_successes": float(worst.came)}
        return told if self.believed else told | {"value/dropped": 1.0}

    def state(self) -> dict[str, Any]:
        """Return what `load` restores."""
        return {"looks": [[turn, *look] for turn, look in self.looks.items()], "came": self.came}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`; one of an earlier version, which looked elsewhere, keeps its count."""
        self.looks = {int(turn): Look(*look) for turn, *look in state.get("looks", [])}
        self.came = state["came"]
