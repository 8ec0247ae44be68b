"""How learning on the job answers an alarm: a notice, a soft answer with a way back, and at last a stop.

    noticed     said everywhere, nothing changes: what is answered is right, or nothing was learned that could be wrong
    softened    the best kept weights again, lower rates, a stronger KL term, and a cool-down; then learning continues
    stopped     after `soft_responses` such answers: a person resumes it (`foretaste deploy learn --resume`)

Healthy steps take soft answers back, one at a time. Next: `online.py`, which carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from foretaste.deploy.alarms import Alarm
from foretaste.deploy.training.alarm_config import AlarmConfig


class Response(StrEnum):
    """What learning did after a step."""

    NONE = "none"
    NOTICED = "noticed"
    SOFTENED = "softened"
    COOLING_DOWN = "cooling_down"
    STOPPED = "stopped"


@dataclass(slots=True)
class Ladder:
    """How far learning has been softened; one for a deployment, kept over restarts by `state` and `load`."""

    config: AlarmConfig
    level: int = 0
    """Soft answers that stand."""
    healthy: int = 0
    """Steps without an alarm since the last change of the level."""
    cooldown: int = 0
    """Steps that are still passed over."""

    @property
    def rate(self) -> float:
        """What learning rates are multiplied by, and the KL coefficient is divided by."""
        return self.config.soften ** min(self.level, self.config.soft_responses)

    def respond(self, alarms: Sequence[Alarm]) -> Response:
        """Return how alarms are answered, and remember it."""
        if all(alarm.noticed for alarm in alarms):
            return Response.NOTICED
        self.level, self.healthy = self.level + 1, 0
        if self.level > self.config.soft_responses:
            return Response.STOPPED
        self.cooldown = self.config.cooldown_steps
        return Response.SOFTENED

    def cool_down(self) -> bool:
        """Count one step of a cool-down; return whether there was one."""
        if self.cooldown == 0:
            return False
        self.cooldown -= 1
        return True

    def forgive(self) -> bool:
        """Count a healthy step; return whether a soft answer is taken back by it."""
        self.healthy += 1
        if self.level == 0 or self.healthy < self.config.forgive_steps:
            return False
        self.level, self.healthy = self.level - 1, 0
        return True

    def reset(self) -> None:
        """Begin without any soft answer: a person resumed learning."""
        self.level = self.healthy = self.cooldown = 0

    def state(self) -> dict[str, Any]:
        """Return what `load` takes up again."""
        return {"level": self.level, "healthy": self.healthy, "cooldown": self.cooldown}

    def load(self, state: dict[str, Any]) -> None:
        """Take up where another process stopped."""
        self.level, self.healthy, self.cooldown = (int(state.get(one, 0)) for one in ("level", "healthy", "cooldown"))
