"""The gate: gives hopeless episodes up early, with a known probability, so that the estimate stays unbiased.

At each turn boundary the episode stops with probability p < 1 that depends on the past alone. Survivors
carry 1 / (1 - p) in their weights (`returns.gae`), which is exactly what the stopped ones would have
contributed on average. The cap on the weight bounds the variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretaste.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Gate:
    """Stops an episode with probability rising from 0 at `hopeful_value` to `max_probability` at V = 0."""

    hopeful_value: float
    """V at or above which an episode is never stopped."""
    max_probability: float = 0.75
    max_weight: float = 4.0
    """Largest product of 1 / (1 - p) that an episode may carry."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_probability < 1:
            raise ConfigError(f"gate max_probability = {self.max_probability}; accepted: 0 <= p < 1")
        if self.max_weight < 1:
            raise ConfigError(f"gate max_weight = {self.max_weight}; accepted: 1 or more")

    def probability(self, value: float, past: Sequence[float]) -> float:
        """Return p for a state of this value, given the probabilities of the gates already passed.

        p = min(p_max (1 - V / V_hopeful)^+, 1 - W / W_max), with W the weight carried so far.
        """
        if self.hopeful_value <= 0 or value >= self.hopeful_value:
            return 0.0
        weight = math.prod(1.0 / (1.0 - p) for p in past)
        wanted = self.max_probability * min(1.0, 1.0 - value / self.hopeful_value)
        return max(0.0, min(wanted, 1.0 - weight / self.max_weight))

    def decide(self, value: float, past: Sequence[float], key: tuple[int, int]) -> tuple[float, bool]:
        """Return (p, stop?) at this boundary; the coin is keyed, so a repeated run tosses the same one."""
        p = self.probability(value, past)
        return p, p > 0 and float(np.random.default_rng([*key, 0x6A7E]).random()) < p
