"""The gate: gives hopeless episodes up early, with a known probability, so that sums over episodes can stay unbiased.

At each turn boundary the episode stops with probability p < 1 that depends on the past alone. Survivors
carry 1 / (1 - p) in their weights (`returns.gae`), which is exactly what the stopped ones would have
contributed on average. The cap on the weight bounds the variance. What holds and what does not, as clipping and
scales: docs/value-function.md. Next: `gate_audit.py`, what the gate costs.
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
from foretaste.rl.gate_audit import Losses, Prospect


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

    def stopping(self, episode: Episode) -> float:
        """Return the chance with which the gate would have stopped an episode that was played to its end."""
        past: list[float] = []
        for turn in episode.turns[1:]:
            past.append(self.probability(turn.action.values[0], past, episode.turns[0].action.values[0]))
        return 1.0 - math.prod(1.0 - p for p in past)

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
    W - 1 over the successes. Few successes make that sum noisy, so the gate is turned off only where a lower bound of
    the lost share, valid however often it is looked at, exceeds `max_lost_share`. While it is off, whole episodes show
    what it would have stopped; it comes back once they are evidence that it would lose less than that.
    """

    def __init__(self, config: GateConfig, memory_steps: int = 5) -> None:
        self.config = config
        self.memory_steps = memory_steps
        self.off = config.max_probability == 0.0
        self.recent: list[list[float]] = []
        """Of each step: episodes, weighted successes, stopped, expected lost successes."""
        self.losses = Losses()
        self.prospect = Prospect(config.max_lost_share)

    def gate(self, *, believed: bool = False) -> Gate | None:
        """Return the gate of the next step; None while it is off or nothing has succeeded yet.

        With a critic from an earlier run that is `believed`, what it promised at the beginning of each episode stands
        in for the success that has not come yet.
        """
        return None if self.off else self._gate(believed)

    def _gate(self, believed: bool) -> Gate | None:
        config = self.config
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
        if self.off:
            self._look_again(good)
        self.recent = [*self.recent, row][-self.memory_steps :]
        _, _, stopped, lost = np.sum(self.recent, axis=0)
        metrics = {"gate/stopped": row[2] / max(1.0, row[0])}
        if stopped:
            metrics["gate/lost_share"] = float(lost / stopped)
        self.losses.add(int(row[2]), [(weight - 1) * success for weight, success in successes])
        if self.losses.stopped:
            metrics["gate/lost_share_low"] = self.losses.low
            if self.losses.above(self.config.max_lost_share):
                self.off, self.losses, self.prospect = True, Losses(), Prospect(self.config.max_lost_share)
        metrics["gate/off"] = float(self.off)
        return metrics

    def _look_again(self, episodes: Sequence[Episode]) -> None:
        """Turn the gate on again once whole episodes show that it would lose little enough.

        The gate judged is that of the steps before, so that an episode has no say in what it is judged by.
        """
        gate = self._gate(believed=False)
        for episode in episodes:
            if gate is not None and episode.success is not None and all(turn.action.values for turn in episode.turns):
                self.prospect.add(gate.stopping(episode), episode.success)
        if self.prospect.good:
            self.off, self.losses = False, Losses()

    def state(self) -> dict[str, Any]:
        """Return what `load` restores."""
        return {
            "off": self.off,
            "recent": [list(row) for row in self.recent],
            "losses": self.losses.state(),
            "prospect": self.prospect.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self.off, self.recent = state["off"], [row[:4] for row in state["recent"]]  # rows once had five
        if "losses" in state:  # states of earlier versions have no audit of their own
            self.losses.load(state["losses"])
            self.prospect.load(state["prospect"])


def episode_weight(episode: Episode) -> float:
    """Return how many episodes one that survived its gates stands for: the product of 1 / (1 - p)."""
    return math.prod(1.0 / (1.0 - turn.gate_probability) for turn in episode.turns)
