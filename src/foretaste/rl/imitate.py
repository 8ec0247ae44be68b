"""Supervised warm start on demonstrations: the environment's oracle plays, the policy copies.

Needed where the untrained policy never succeeds (a randomly initialised `nano`), optional elsewhere.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from foretaste.config import TrainConfig
from foretaste.envs.registry import max_turns_of
from foretaste.errors import ConfigError
from foretaste.models.actor_critic import TokenSequence
from foretaste.models.conversation import ChatTemplate
from foretaste.progress import Progress
from foretaste.records import Message
from foretaste.rl.rollout import Pool
from foretaste.rl.tasks import demonstration_tasks, keyed_seed
from foretaste.rl.update import Updater


def imitate(
    config: TrainConfig, pool: Pool, updater: Updater, template: ChatTemplate, progress: Progress
) -> list[float]:
    """Train on `config.imitate.episodes` demonstrations; return the loss of each optimiser step.

    Raises: ConfigError if the environment has no oracle.
    """
    settings = config.imitate
    progress.phase("imitate", settings.episodes * settings.passes)
    sequences = []
    for task in demonstration_tasks(config):
        place = pool.of(task)
        env = place.instance()
        if not callable(getattr(env.unwrapped, settings.teacher, None)):
            raise ConfigError(
                f"imitate.episodes = {settings.episodes}, but {task.env} has no {settings.teacher}() to imitate; "
                "add one, or set imitate.episodes = 0"
            )
        sequences.append(
            demonstration(env, place.prompt, template, task.seed, task.level, task.register, teacher=settings.teacher)
        )
    losses: list[float] = []
    for pass_index in range(settings.passes):
        order = np.random.default_rng(keyed_seed(config.seed, "imitate", pass_index)).permutation(len(sequences))
        for start in range(0, len(order), settings.batch_episodes):
            rows = order[start : start + settings.batch_episodes]
            losses.append(updater.imitate([sequences[row] for row in rows], learning_rate=settings.learning_rate))
            progress.advance(len(rows))
    return losses


def demonstration(
    env: gymnasium.Env[Any, Any],
    prompt: list[Message],
    template: ChatTemplate,
    seed: int,
    level: int,
    register: str,
    *,
    teacher: str = "oracle",
) -> TokenSequence:
    """Let a method of the environment play one item; return its tokens as a policy would sample them.

    The end of every action is included.
    """
    observation, _ = env.reset(seed=seed, options={"level": level, "register": register})
    tokens = template.start([*prompt, Message("user", observation)])
    mask = [False] * len(tokens)
    for _ in range(max_turns_of(env) or 1):
        action = template.action(getattr(env.unwrapped, teacher)())
        tokens += action
        mask += [True] * len(action)
        observation, _, terminated, truncated, _ = env.step(template.text(action))
        if terminated or truncated:
            break
        follow = template.follow(observation, ended=True)
        tokens += follow
        mask += [False] * len(follow)
    return TokenSequence(tokens, mask)
