"""`curriculum`: which source of items next? Learning progress against uniform, easiest first and a hand-made order.

Locks of one rule table: some that open whatever is answered, some that can be learned, some that never open. What is
measured is a harder lock of the same table that nothing is ever trained on.
"""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import urlencode

from foretaste.config import CurriculumConfig, HeldOutConfig, Order, TrainConfig
from foretaste.envs.lock import Lock
from foretaste.lab.cells import FRESH_TABLES
from foretaste.lab.jobs import Context, train_arm
from foretaste.lab.methods import NEW, base, method
from foretaste.lab.results import Results, means
from foretaste.lab.study import Arm, Expectation, Plan, Study
from foretaste.ledger import Ledger


class Jammed(Lock):
    """A lock that never opens: every item is hopeless, and looks like one that is not."""

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Take an answer as `Lock` does; the outcome is a failure."""
        observation, _, over, info = super().act(action)
        return observation, 0.0, over, {**info, "success": 0.0} if over else info


ORDERS: dict[str, Order] = {
    "learning progress": "learning_progress",
    "uniform": "uniform",
    "easiest first": "easiest_first",
    "hand-made": "listed",
}
LEARNABLE = (1, 2, 4, 6)
"""Fatal cues of an episode: starting success 1/2, 1/4, 1/16 and 1/64."""
HELD_OUT = 8
IDLE_HORIZONS = (8, 10, 12)
HORIZON = 10
BUDGET = 30_000


def sources(table: int) -> tuple[str, ...]:
    """Return the sources as a person would list them: what is finished, easy to hard, what never opens."""
    return (
        *(_lock("lock", horizon, 0, table) for horizon in IDLE_HORIZONS),
        *(_lock("lock", HORIZON, critical, table) for critical in LEARNABLE),
        *(_lock(f"{__name__}:Jammed", horizon, LEARNABLE[1], table) for horizon in IDLE_HORIZONS),
    )


def idle(source: str) -> bool:
    """Return whether nothing can be learned from a source: it is finished, or never opens."""
    return "Jammed" in source or "critical=0" in source


def config(order: Order, table: int) -> TrainConfig:
    """Return a run over the locks of a table; only the order differs between arms."""
    made = method("value", base("lock", instructions=False))
    held_out = (_lock("lock", HORIZON, HELD_OUT, table),)
    return dataclasses.replace(
        made,
        # Successes are not replayed: those of the finished sources would be most of them.
        replay=dataclasses.replace(made.replay, critic_episodes=2 * NEW, actor_episodes=0, success_episodes=0),
        curriculum=CurriculumConfig(sources(table), order=order, window=16, held_out=held_out),
        held_out=HeldOutConfig(items=64, every=4, curve_items=48, enough=0.9),
    )


def work(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Train an arm; add the share of its episodes that went to sources from which nothing can be learned."""
    result = train_arm(arguments, context)
    with Ledger.open(context.folder) as ledger:
        drawn = [record.payload for record in ledger.records(result["run"], "curriculum")]
    counts = [(idle(name), n) for step in drawn for name, n in zip(step["sources"], step["episodes"], strict=True)]
    wasted, total = sum(n for is_idle, n in counts if is_idle), sum(n for _, n in counts)
    return result | {"idle_share": wasted / total if total else None}


def _lock(name: str, horizon: int, critical: int, table: int) -> str:
    arguments = {"horizon": horizon, "choices": 2, "critical": critical, "cues": 6, "table": table}
    visibility = "silent" if name.endswith("Jammed") else "at once"
    return f"{name}?{urlencode({**arguments, 'visibility': visibility, 'terse': True})}"


def _arm(order: Order) -> Arm:
    def made(seed: int) -> TrainConfig:
        return config(order, FRESH_TABLES + seed)

    return Arm(made, work=f"{__name__}:work")


def _plan(seeds: tuple[int, ...], minutes: float) -> Plan:
    return Plan({name: _arm(order) for name, order in ORDERS.items()}, seeds, BUDGET, minutes)


def rows(results: Results) -> list[dict[str, Any]]:
    """Return the usual row of each order, with the share of its episodes that could teach nothing."""
    idle_shares = {row["arm"]: row.get("idle_share") for row in means(results)}
    return [{**row, "idle_share": idle_shares[row["arm"]]} for row in results.rows()]


STUDY = Study(
    name="curriculum",
    claim=(
        "Among sources most of which are finished or hopeless, sampling by learning progress spends less than a third "
        "of the episodes on those, and raises mean success on a harder source never trained on by at least 0.05 over "
        "uniform sampling"
    ),
    source=(
        "which environments, and what mix, should a model be trained on? bandits over learning progress: Graves et al. "
        "1704.03003, self-evolving curriculum 2505.14970"
    ),
    expectations=(
        Expectation("area", "learning progress", "uniform", size=0.05),
        Expectation("idle_share", "learning progress", None, size=1 / 3, direction="at_most"),
        Expectation("area", "learning progress", "easiest first", size=-0.05, required=False),
        Expectation("area", "learning progress", "hand-made", size=-0.05, required=False),
    ),
    quick=_plan((1, 2), 4),
    full=_plan((1, 2, 3, 4, 5, 6), 12),
    rows=rows,
    notes=(
        "Six of the ten sources can teach nothing: three open whatever is answered, three never open.",
        "Every seed has another warm start and another rule table.",
        "The hand-made order knows which sources are easy, hard and hopeless, and goes on when one is mastered.",
    ),
)
