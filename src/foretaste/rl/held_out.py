"""Measure a policy on fresh held-out items, and write down enough to recompute every figure.

The same practice items are played before, during and after training, each once, so differences are
paired. Nothing here is ever trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from foretaste.config import TrainConfig
from foretaste.envs.base import TextEnv
from foretaste.envs.guarded import Fault, guarded
from foretaste.envs.registry import identity_of
from foretaste.ledger import Ledger
from foretaste.models.turns import Engine
from foretaste.records import Episode, to_json
from foretaste.rl.batch import without_values
from foretaste.rl.diagnostics import calibration
from foretaste.rl.identity import digest
from foretaste.rl.rollout import Pool, rollout
from foretaste.rl.sources import held_out_sources
from foretaste.rl.tasks import Task, practice_tasks
from foretaste.statistics import exact_interval

SHOWN_EPISODES = 12
"""Episodes of each full measurement kept in the ledger with text pieces, for the report's viewer."""

DRAWS = 16
"""Draws for each item that is wanted of a list: after so many, what has not come up is not there."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Outcomes on held-out items, in item order; None where the environment failed."""

    label: str
    success: list[float | None]
    sampled_tokens: int
    seconds: float
    calibration: dict[str, Any] | None
    items: list[str | None] = field(default_factory=list)
    """Digest of each item as the policy first saw it (`identity.digest`)."""

    @property
    def judged(self) -> list[float]:
        """Outcomes of the items that could be judged."""
        return [success for success in self.success if success is not None]

    @property
    def solved(self) -> float | None:
        """Share of judged items solved in full, as in every interval; None if none could be judged."""
        return _solved(self.judged) / len(self.judged) if self.judged else None


def measure(
    config: TrainConfig,
    sampler: Engine,
    pool: Pool,
    ledger: Ledger,
    run: str,
    *,
    label: str,
    items: int,
    step: int,
    on_episode: Callable[[Episode], None] | None = None,
) -> HeldOut:
    """Play `items` practice items, append the outcome to the ledger, and return it.

    `label` is "before", "curve" or "after"; the first and last also keep calibration and episodes.
    """
    tasks = different_tasks(config, pool, label, items)
    played = rollout(sampler, tasks, pool, on_episode=on_episode)
    episodes = played.episodes
    success = [episode.success for episode in episodes]
    full = label != "curve"
    if config.model.privileged_critic:
        episodes = [without_values(episode) for episode in episodes]
    has_critic = config.algorithm.name in ("ppo", "auto")
    record = calibration(episodes, label=label) if full and has_critic else None
    outcome = HeldOut(
        label,
        success,
        sum(episode.action_tokens for episode in episodes),
        played.sample_seconds + played.env_seconds,
        record,
        [digest(episode) for episode in episodes],
    )
    solved = _solved(outcome.judged)
    ledger.append(
        run,
        "held_out",
        {
            "label": label,
            "success": success,
            "seeds": [task.seed for task in tasks],
            "interval": to_json(exact_interval(solved, len(outcome.judged))) if outcome.judged else None,
            "sampled_tokens": outcome.sampled_tokens,
            "errors": sorted({episode.error for episode in episodes if episode.error})[:5],
            **_by_source(config, tasks, success),
        },
        step=step,
    )
    if record:
        ledger.append(run, "calibration", record, step=step)
    if full:
        record_episodes(ledger, run, sampler, shown(episodes), label=label, step=step)
    return outcome


def different_tasks(config: TrainConfig, pool: Pool, label: str, items: int) -> list[Task]:
    """Return attempts at `items` held-out items, at fewer where a list of items has no more: none is asked twice.

    An interval over repeated questions would be too narrow. Environments that make up their items (`TextEnv.listed`)
    have so many that theirs are taken as they come.
    """
    tasks, seen = [], set()
    for task in itertools.islice(practice_tasks(config, label), DRAWS * items):
        env = pool.of(task).instance().unwrapped
        if isinstance(env, TextEnv) and env.listed:

            def item(env: TextEnv = env, task: Task = task) -> tuple[str, int, str]:
                shown, _ = env.reset(seed=task.seed, options={"level": task.level})
                return task.env, task.level, identity_of(env) or shown

            try:
                asked = guarded("reset", item)
            except Fault:  # playing the item reports it
                asked = task.env, task.level, f"failing item {task.seed}"
            if asked in seen:
                continue
            seen.add(asked)
        tasks.append(task)
        if len(tasks) == items:
            break
    return tasks


def _by_source(config: TrainConfig, tasks: Sequence[Task], success: Sequence[float | None]) -> dict[str, Any]:
    """Return the share solved of each source's judged items, and their number, where there are several sources.

    None: no item of a source was judged.
    """
    sources = held_out_sources(config)
    if len(sources) == 1:
        return {}
    found = {}
    for source in sources:
        mine = [
            value
            for task, value in zip(tasks, success, strict=True)
            if value is not None and source.covers(task.env, task.level, task.register)
        ]
        found[source.name] = {"success": _solved(mine) / len(mine) if mine else None, "n": len(mine)}
    return {"by_source": found}


def _solved(judged: Sequence[float]) -> int:
    """Return how many items were solved in full; a graded success below 1 is none."""
    return sum(value >= 1.0 for value in judged)


def shown(episodes: Sequence[Episode], count: int = SHOWN_EPISODES) -> list[Episode]:
    """Return episodes worth looking at: failures and successes in equal parts where there are both."""
    right = [episode for episode in episodes if episode.success]
    wrong = [episode for episode in episodes if not episode.success]
    few = min(len(right), len(wrong), count // 2)
    return [*right[: max(few, count - len(wrong))], *wrong[: max(few, count - len(right))]][:count]


def record_episodes(
    ledger: Ledger, run: str, sampler: Engine, episodes: Sequence[Episode], *, label: str, step: int
) -> None:
    """Append episodes to the ledger with the text of every action token."""
    ledger.append_many(
        run,
        [
            (
                "episode",
                {
                    "label": label,
                    "tokens_text": [
                        [sampler.actor_critic.template.piece(token) for token in turn.action.tokens]
                        for turn in episode.turns
                    ],
                    **to_json(episode),
                },
                step,
            )
            for episode in episodes
        ],
    )
