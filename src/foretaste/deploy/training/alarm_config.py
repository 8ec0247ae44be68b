"""Limits of healthy learning on the job, as `[training.alarms]` of deploy.toml sets them.

Without the mathematics behind them (`alarms.py`), so that whoever only reads the settings need not load it.
"""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AlarmConfig:
    """When learning on the job raises an alarm, and how the alarm is answered."""

    max_kl: float = 4.0
    """Nats a token from the last accepted version; far above what learning a new task needs."""
    max_entropy_factor: float = 2.0
    """Entropy over that of the first steps."""
    min_entropy_share: float = 0.02
    """Entropy under this share of the first steps', while fewer than half of the answers are right."""
    entropy_floor: float = 0.5
    """Nats a token that never count as too many."""
    reward_chance: float = 1e-4
    """The score counts as fallen if so low a count has at most this chance under the best window so far ..."""
    reward_kl: float = 1.0
    """... and the policy has moved at least this far, in nats a token: then it is not the world that changed."""
    window: int = 8
    """Steps that are averaged."""
    flat_steps: int = 8
    """Steps in a row without a gradient, or in which every answer was stale."""
    flat_gradient: float = 1e-7
    fresh_steps: int = 2
    """Newest steps whose answers tell how well the weights of now do."""
    evidence: int = 20
    """Answers, weighed by how likely the weights of now are to give them, before they tell anything."""
    success: float = 0.5
    """Share of them that must be right for an alarm about KL or entropy to be a notice alone."""
    soft_responses: int = 3
    """Alarms that learning answers by itself, from the best kept weights; the next one stops it. 0: the first one."""
    soften: float = 0.5
    """What such an answer multiplies the learning rates by, and divides the KL coefficient by."""
    cooldown_steps: int = 4
    """Steps after such an answer whose judgements are not learned from: they are about the weights given up."""
    forgive_steps: int = 32
    """Steps without an alarm after which one such answer is taken back."""
    worse_chance: float = 1e-3
    """A published checkpoint counts as worse than the best kept one if its losses on held-back checks have at most
    this chance between equals."""

    def __post_init__(self) -> None:
        """Refuse limits that cannot be meant."""
        for name in ("window", "flat_steps", "fresh_steps", "evidence", "forgive_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.alarms.{name} = {getattr(self, name)} cannot be used; accepted: 1 or more")
        for name in ("soft_responses", "cooldown_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training.alarms.{name} = {getattr(self, name)} cannot be used; accepted: 0 or more")
        for name in ("max_kl", "max_entropy_factor", "min_entropy_share", "entropy_floor", "reward_kl"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"training.alarms.{name} = {getattr(self, name)} cannot be used; accepted: 0 or more")
        for name in ("reward_chance", "success", "worse_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"training.alarms.{name} = {getattr(self, name)} cannot be used; accepted: 0 to 1")
        if not 0 < self.soften <= 1:
            raise ConfigError(f"training.alarms.soften = {self.soften} cannot be used; accepted: above 0, up to 1")
