"""`ping-pong`: does training on `repair` lower the recurrence of bugs, or does the policy go on swapping two of them?

A check that was fixed and fails again is a recurrence. An agent that fixes nothing recurs nothing, so recurrences are
counted per check that was fixed; since a check that was fixed early has more turns in which to break, they are also
counted per turn at risk; and the share of episodes solved without any says what is left for whoever uses the agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretaste.config import ImitateConfig, TrainConfig, from_dict, to_dict
from foretaste.envs.seeds import seed_for
from foretaste.errors import RunError
from foretaste.exams.pingpong import PingPong, ping_pong, total
from foretaste.lab.jobs import Context, train_arm
from foretaste.lab.methods import NEW, base, method
from foretaste.lab.results import means
from foretaste.lab.study import Arm, Expectation, Plan, Study
from foretaste.records import Episode

WORK = "foretaste.lab.ping_pong:train_and_mend"
TRAINED, UNTRAINED = "trained", "untrained"
LEVEL = 2
"""The easiest level on which two bugs hide each other: three lines, four checks, six turns."""


class Mended(NamedTuple):
    """What an episode's checks did, the state before the first edit included."""

    measured: PingPong
    fixed: int
    """Checks that ever went from failing to passing."""
    at_risk: int
    """Pairs of a turn and a check that was fixed before it and passed until it."""
    rebroken: int
    """Those of them that failed after it."""
    solved: bool


def mended(episode: Episode, initial: Sequence[bool]) -> Mended:
    """Measure one episode of an environment with checks, from the checks before its first edit on.

    Raises: RunError for an episode without checks.
    """
    rows = [turn.checks for turn in episode.turns if turn.checks]
    if not rows:
        raise RunError(f"an episode of {episode.env} ended as {episode.end} without any check: {episode.error}")
    rows_TC = np.array([tuple(initial), *rows], dtype=bool)
    fixed, at_risk, rebroken = exposure(rows_TC)
    return Mended(ping_pong(rows, initial=initial), fixed, at_risk, rebroken, episode.solved)


def exposure(rows_TC: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the checks that were ever fixed, the (turn, check) pairs at risk, and those that broke.

    Shapes: T states x C checks, the first before any edit. At risk is a check that passes and has failed before.
    """
    failed_before_TC = np.maximum.accumulate(~rows_TC, axis=0)
    at_risk = rows_TC[:-1] & failed_before_TC[:-1]
    fixed = (rows_TC & failed_before_TC).any(axis=0)
    return int(fixed.sum()), int(at_risk.sum()), int((at_risk & ~rows_TC[1:]).sum())


def figures(played: Sequence[Mended]) -> dict[str, float | None]:
    """Return the figures of some episodes, pooled over their opportunities; None where there was no opportunity."""
    fixed, at_risk = sum(one.fixed for one in played), sum(one.at_risk for one in played)
    recurred = sum(one.measured.recurrence for one in played)
    totals = total([one.measured for one in played])
    return {
        "recurrence": recurred / fixed if fixed else None,
        "recurrence_a_turn": sum(one.rebroken for one in played) / at_risk if at_risk else None,
        "solved": float(np.mean([one.solved for one in played])),
        "solved_without": float(np.mean([one.solved and not one.measured.recurrence for one in played])),
        "checks_fixed": fixed / len(played),
        "swaps_a_turn": totals.mean_swap_rate,
        "cycling_share": totals.cycling_share,
    }


def train_and_mend(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Train, or leave the warm start as it is, then let it mend programs that nobody trained on; return the figures.

    Raises: RunError if no check was fixed, so that none could recur.
    """
    from foretaste.ledger import Ledger
    from foretaste.models.checkpoint import load
    from foretaste.models.sampler import Sampler
    from foretaste.rl.rollout import EnvPool, Oracle, rollout
    from foretaste.rl.tasks import Task, keyed_seed

    config, options = from_dict(TrainConfig, arguments["config"]), arguments["options"]
    if not options["trained"]:
        config = replace(config, steps=0)
    trained = train_arm({"config": to_dict(config)}, context)
    with Ledger.open(context.folder) as ledger:
        model = load(ledger.records(trained["run"], "checkpoint")[-1].payload["path"])
    pool = EnvPool(config.env)
    tasks = []
    for index in range(options["items"]):
        seed = seed_for("practice", index, secret=f"ping-pong {config.seed}")
        tasks.append(Task(config.env.id, seed, config.env.level, "plain", keyed_seed(config.seed, "mend", index)))
    context.report(0.9, "mending fresh programs")
    env = pool.instance()
    initial = [env.reset(seed=task.seed, options={"level": task.level})[1]["checks"] for task in tasks]

    def played(policy: Any) -> dict[str, float | None]:
        episodes = rollout(policy, tasks, pool).episodes
        return figures([mended(episode, checks) for episode, checks in zip(episodes, initial, strict=True)])

    found = played(Sampler(model, config.sampling))
    if found["recurrence"] is None or found["recurrence_a_turn"] is None:
        raise RunError(f"no check was fixed in {len(tasks)} episodes, so that none could fail again")
    return {**found, "oracle_recurrence": played(Oracle())["recurrence"], "sampled_tokens": trained["sampled_tokens"]}


def config(seed: int) -> TrainConfig:
    """Return the run of both arms: a decoder that copied some repairs, then learns from its own with a value function.

    Less is replayed than in `methods.py`, and the critic is one layer: programs are long to read.
    """
    warm = ImitateConfig(episodes=1024, passes=4, learning_rate=3e-3)
    made = method("value", base("repair", warm=warm, max_new_tokens=16, level=LEVEL, instructions=False))
    return replace(
        made,
        model=replace(made.model, critic_layers=1),
        replay=replace(made.replay, critic_episodes=2 * NEW, critic_passes=1, actor_episodes=0, success_episodes=NEW),
        held_out=replace(made.held_out, every=10, enough=0.0),
    )


def _plan(seeds: tuple[int, ...], tokens: int, items: int, minutes: float) -> Plan:
    arms = {name: Arm(config, WORK, {"trained": name == TRAINED, "items": items}) for name in (TRAINED, UNTRAINED)}
    return Plan(arms, seeds=seeds, token_budget=tokens, minutes=minutes)


STUDY = Study(
    name="ping-pong",
    claim=(
        "Of the checks that an agent fixes, fewer by at least .05 fail again once it has trained on repair with a "
        "value function, and a fixed check is less likely to break in its next turn"
    ),
    source="asked to mend one bug, the model brings in a second; asked to mend that, it brings back the first",
    expectations=(
        Expectation("recurrence", TRAINED, UNTRAINED, size=-0.05, direction="at_most"),
        Expectation("recurrence_a_turn", TRAINED, UNTRAINED, size=0.0, direction="at_most"),
        Expectation("solved_without", TRAINED, UNTRAINED, size=0.0, required=False),
        Expectation("checks_fixed", TRAINED, UNTRAINED, size=0.0, required=False),
    ),
    quick=_plan((1, 2), 12_000, 150, 4),
    full=_plan((1, 2, 3, 4, 5, 6), 60_000, 300, 15),
    rows=means,
    notes=(
        "Both arms begin with the same imitation of 1,024 repairs; the untrained one goes no further. The programs "
        "they are then given are fresh: no seed shares them, and nobody trained on them.",
        "recurrence: checks fixed, then broken again, over checks ever fixed. recurrence_a_turn: breaks over the pairs "
        "of a turn and a fixed check that passed until then. Both are pooled over the episodes of a seed.",
        "solved_without: episodes solved without any recurrence, over all. oracle_recurrence: what the environment's "
        "own solver does on the same programs, which it mends line by line from the top.",
        "No arm trains without a value function: what is claimed is that training removes the cycles, not what in it.",
    ),
)
