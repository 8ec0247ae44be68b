"""The gate: gives hopeless episodes up early, with a known probability, so that the estimate stays unbiased.

At each turn boundary the episode stops with probability p < 1 that depends on the past alone. Survivors
carry 1 / (1 - p) in their weights (`returns.gae`), which is exactly what the stopped ones would have
contributed on average. The cap on the weight bounds the variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretaste.config import GateConfig
from foretaste.errors import ConfigError
from foretaste.records import Episode, EpisodeEnd


@dataclass(frozen=True, slots=True)
class Gate:
    """Stops an episode with probability rising from 0 at `hopeful_value` to `max_probability` at V = 0."""

    hopeful_value: float | None
    """V at or above which an episode is never stopped; None: `hopeful_share` of V of the episode's own first state."""
    max_probability: float = 0.75
    max_weight: float = 4.0
    """Largest product of 1 / (1 - p) that an episode may carry."""
    hopeful_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.max_probability < 1:
            raise ConfigError(f"gate max_probability = {self.max_probability}; accepted: 0 <= p < 1")
        if self.max_weight < 1:
            raise ConfigError(f"gate max_weight = {self.max_weight}; accepted: 1 or more")

    def probability(self, value: float, past: Sequence[float], first: float = 0.0) -> float:
        """Return p for a state of this value, given the episode's gates so far and V of its `first` state.

        p = min(p_max (1 - V / V_hopeful)^+, 1 - W / W_max), with W the weight carried so far.
        """
        hopeful = self.hopeful_share * first if self.hopeful_value is None else self.hopeful_value
        if hopeful <= 0 or value >= hopeful:
            return 0.0
        weight = math.prod(1.0 / (1.0 - p) for p in past)
        wanted = self.max_probability * min(1.0, 1.0 - value / hopeful)
        return max(0.0, min(wanted, 1.0 - weight / self.max_weight))

    def decide(
        self, value: float, past: Sequence[float], key: tuple[int, int], first: float = 0.0
    ) -> tuple[float, bool]:
        """Return (p, stop?) at this boundary; the coin is keyed, so a repeated run tosses the same one."""
        p = self.probability(value, past, first)
        return p, p > 0 and float(np.random.default_rng([*key, 0x6A7E]).random()) < p


class GateKeeper:
    """Sets the gate from recent success, and audits what it cost, step by step.

    Audit: an episode that survived its gates and succeeded stands for W episodes, one of which is
    itself; so the stopped episodes that would have succeeded number, in expectation, the sum of
    W - 1 over the successes.
    """

    def __init__(self, config: GateConfig, memory_steps: int = 5) -> None:
        self.config = config
        self.memory_steps = memory_steps
        self.off = config.max_probability == 0.0
        self.recent: list[list[float]] = []
        """Of each step: episodes, weighted successes, stopped, expected lost successes."""

    def gate(self, *, believed: bool = False) -> Gate | None:
        """Return the gate of the next step; None while it is off or nothing has succeeded yet.

        With a critic from an earlier run that is `believed`, what it promised at the beginning of each episode stands
        in for the success that has not come yet.
        """
        config = self.config
        if self.off:
            return None
        episodes, successes = np.sum(self.recent, axis=0)[:2] if self.recent else (0.0, 0.0)
        if successes <= 0:
            return Gate(None, config.max_probability, config.max_weight, config.hopeful_share) if believed else None
        hopeful = config.hopeful_share * successes / episodes
        return Gate(float(hopeful), config.max_probability, config.max_weight, config.hopeful_share)

    def update(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """Fold in a step's episodes; return the `gate/*` metrics, empty without a gate."""
        if self.config.max_probability == 0.0:
            return {}
        good = [episode for episode in episodes if episode.end is not EpisodeEnd.ERROR]
        successes = [(episode_weight(episode), episode.success) for episode in good if episode.success]
        row = [
            float(len(good)),
            float(sum(weight * success for weight, success in successes)),
            float(sum(episode.end is EpisodeEnd.STOPPED for episode in good)),
            float(sum((weight - 1) * success for weight, success in successes)),
        ]
        self.recent = [*self.recent, row][-self.memory_steps :]
        _, _, stopped, lost = np.sum(self.recent, axis=0)
        metrics = {"gate/stopped": row[2] / max(1.0, row[0])}
        if stopped:
            metrics["gate/lost_share"] = float(lost / stopped)
            if stopped >= 20 and lost / stopped > self.config.max_lost_share:
                self.off = True
        metrics["gate/off"] = float(self.off)
        return metrics

    def state(self) -> dict[str, Any]:
        """Return what `load` restores."""
        return {"off": self.off, "recent": [list(row) for row in self.recent]}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self.off, self.recent = state["off"], [row[:4] for row in state["recent"]]  # rows once had five


def episode_weight(episode: Episode) -> float:
    """Return how many episodes one that survived its gates stands for: the product of 1 / (1 - p)."""
    return math.prod(1.0 / (1.0 - turn.gate_probability) for turn in episode.turns)
