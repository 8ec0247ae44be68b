"""What a step samples: episodes by the policy of now, and those among them that are learned from.

An environment that fails in most episodes ends the run, since nothing would be learned from what is left. With dynamic
sampling, items whose attempts all had the same return are replaced by others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from foretaste.config import TrainConfig
from foretaste.errors import RunError
from foretaste.models.turns import Engine
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl.batch import telling, without_values
from foretaste.rl.gate import Gate
from foretaste.rl.rollout import Pool, Rollout, rollout
from foretaste.rl.tasks import Task

MORE = 3
"""Times that dynamic sampling samples as much again, at most."""


class Collector:
    """Plays tasks as a run's config says."""

    def __init__(self, config: TrainConfig, sampler: Engine, pool: Pool) -> None:
        self.config, self.sampler, self.pool = config, sampler, pool

    def play(
        self,
        tasks: Sequence[Task],
        step: int,
        *,
        gate: Gate | None = None,
        on_episode: Callable[[Episode], None] | None = None,
    ) -> Rollout:
        """Play tasks with the policy of now.

        Raises: RunError when the environment fails in more than half of them.
        """
        played = rollout(self.sampler, tasks, self.pool, gate=gate, on_episode=on_episode)
        if self.config.model.privileged_critic:
            played = replace(played, episodes=[without_values(episode) for episode in played.episodes])
        errors = Counter((episode.env, episode.error) for episode in played.episodes if episode.end is EpisodeEnd.ERROR)
        if errors.total() * 2 > len(tasks):
            (env, reason), times = errors.most_common(1)[0]
            raise RunError(
                f"The environment failed in {errors.total()} of {len(tasks)} episodes of step {step}; most often "
                f"({times}): {reason}. Check it: foretaste envs check {env}"
            )
        return played


def until_telling(sample: Callable[[int], Rollout], wanted: int) -> tuple[Rollout, list[Episode]]:
    """Sample until `wanted` episodes belong to items whose attempts differ in return; return all of them, and those.

    `sample(first)` plays as many tasks as a step has, from number `first` on. After three more rounds what there is
    must do, and if no item tells anything, all episodes stand for themselves.

    Source: dynamic sampling, DAPO 2503.14476 section 3.2.
    """
    played = sample(0)
    kept = telling(played.episodes)
    for extra in range(1, MORE + 1):
        if len(kept) >= wanted:
            break
        more = sample(extra * wanted)
        kept += telling(more.episodes)
        played = Rollout(
            [*played.episodes, *more.episodes],
            played.sample_seconds + more.sample_seconds,
            played.env_seconds + more.env_seconds,
        )
    return played, kept[:wanted] or played.episodes
