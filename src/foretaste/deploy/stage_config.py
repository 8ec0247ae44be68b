"""The rules of promotion, without the mathematics behind them: whoever only changes the state need not load those.

`stages.py` decides by them.
"""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.errors import ConfigError

FIRST_LOOK = 150
"""Judged answers of a checkpoint before its first calibration (`takeover.look_due`)."""


@dataclass(frozen=True, slots=True)
class StageConfig:
    """What has to be shown before the learner is trusted with more."""

    alpha: float = 0.05
    """Largest share of wrong answers among those that the learner serves."""
    delta: float = 0.05
    """Chance that is accepted of a wrong calibration, and of a false alarm about served answers."""
    canary_shares: tuple[float, ...] = (0.05, 0.2, 0.5)
    """Share of the requests that the learner may answer in each step of the canary."""
    share_ceiling: float = 1.0
    """Largest share in any stage. Only a person raises it (`state.py`)."""
    shadow_requests: int = 200
    """Requests before the shadow is judged at all."""
    bake_requests: int = 100
    """Requests before a canary step is judged for promotion (a breach is acted on at once)."""
    minimum_judged: int = 20
    """Served answers that must have been judged before a canary step can succeed."""
    minimum_coverage: float = 0.5
    """Share of the shadow's requests that the learner must have answered."""
    failures_to_shadow: int = 2
    """Breaches in a row after which the learner goes back to shadow instead of to its last good checkpoint."""
    harm_budget: float = 0.0
    """Harm by served answers that a stage may do."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        shares = self.canary_shares
        if not shares or list(shares) != sorted(shares) or not all(0 < share <= 1 for share in shares):
            raise ConfigError(
                f"canary_shares = {shares} cannot be used; accepted: rising shares, each above 0, up to 1"
            )
        for name in ("alpha", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} cannot be used; accepted: between 0 and 1")
        for name in ("share_ceiling", "minimum_coverage"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} = {getattr(self, name)} cannot be used; accepted: 0 to 1")
        for name in ("shadow_requests", "bake_requests", "minimum_judged", "failures_to_shadow"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} cannot be used; accepted: 1 or more")
