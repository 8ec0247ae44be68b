"""What a simulated deployment is set up with, and what comes out of it: settings, rows, events, figures.

`simulate.py` runs it, `simulation_page.py` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from foretaste.config import ModelConfig
from foretaste.deploy.online import OnlineConfig
from foretaste.deploy.stage_config import StageConfig
from foretaste.deploy.traffic import Change, Part
from foretaste.records import Interval
from foretaste.statistics import exact_interval

PARTS = (Part("route", 1, "plain", 0.4), Part("route", 1, "casual", 0.35), Part("reasoning/chain_sum", 3, share=0.25))
"""What arrives: messages to route, which a small decoder learns, and sums, which it does not."""
PARTS_AFTER = (Part("route", 1, "email", 0.75), Part("reasoning/chain_sum", 3, share=0.25))
"""What arrives after a change of register."""


@dataclass(frozen=True)
class SimulationConfig:
    """One simulated deployment."""

    requests: int = 4000
    block: int = 32
    """Requests that arrive together; learning takes one step and the stage one decision a block."""
    change: Change = "none"
    """What happens midway: `policy` sends the messages of one queue to another, `register` rewords all of them."""
    incumbent_accuracy: float = 0.95
    judged_share: float = 0.5
    """Share of the requests whose answers, shown or not, are judged; drawn without regard to any value."""
    learner_cost: float = 0.02
    """Cost of a learner's answer in units of an incumbent's."""
    old_items: int = 500
    """Items of the gate of old tasks."""
    stage: StageConfig = field(
        default_factory=lambda: StageConfig(canary_shares=(0.2, 0.5), bake_requests=100, minimum_judged=20)
    )
    online: OnlineConfig = field(default_factory=lambda: OnlineConfig(temperature=0.4))
    model: ModelConfig = field(default_factory=lambda: ModelConfig("nano-xs", critic_layers=-1))
    max_new_tokens: int = 6
    seed: int = 0
    folder: str = "runs/simulated-deployment"
    """Where checkpoints and the page are written."""


class Row(NamedTuple):
    """One block of requests."""

    requests: int
    """Requests up to and including this block."""
    stage: str
    """Of the live slot if there is one, else of the one on trial."""
    served: int
    """Requests of the block whose user got the learner's answer."""
    wrong: int
    """Of these, wrong ones: all of them, judged or not, as only a simulation can know."""
    deferred: int
    """Requests of the block that the incumbent answered."""
    incumbent_calls: int
    """Answers asked of the incumbent, corrections included."""
    learner_answers: int
    learner_right: int
    """Answers of the slot on trial, shown or not, that were right."""
    incumbent_wrong: int
    """Requests that got a wrong answer of the incumbent."""


class Event(NamedTuple):
    """Something that was decided, or happened."""

    request: int
    kind: str
    text: str


class SimulationResult(NamedTuple):
    """What a simulated deployment did."""

    config: SimulationConfig
    rows: tuple[Row, ...]
    events: tuple[Event, ...]
    old_success: tuple[tuple[int, str, float], ...]
    """(request, checkpoint, success on the items of the old-tasks gate) of each checkpoint that stood before it."""
    seconds: float

    def window(self, first: int, last: int) -> Sequence[Row]:
        """Return the blocks that lie within requests first to last."""
        return [row for row in self.rows if first < row.requests <= last]


def served_error(rows: Sequence[Row]) -> Interval:
    """Return the share of wrong answers among served ones, with its exact 95% interval."""
    return exact_interval(sum(row.wrong for row in rows), sum(row.served for row in rows))


def cost_saved(rows: Sequence[Row], config: SimulationConfig) -> float:
    """Return 1 - cost / cost of asking the incumbent for everything; what the learner's answers cost is counted."""
    requests = len(rows) * config.block
    cost = sum(row.incumbent_calls + config.learner_cost * row.learner_answers for row in rows)
    return 1 - cost / requests if requests else 0.0
