"""A model that has played a few episodes of the guessing game, for tests of what is learned from them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from foretaste.config import AlgorithmConfig, EnvConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.rl.batch import Batch, make_batch
from foretaste.rl.rollout import EnvPool, rollout
from foretaste.rl.tasks import training_tasks
from foretaste.rl.update import Updater

MakeLearner = Callable[[ModelConfig, AlgorithmConfig, int], tuple[Updater, Batch]]


def learner_of(model: ModelConfig, algorithm: AlgorithmConfig, episodes: int) -> tuple[Updater, Batch]:
    """Return a learner with fresh weights, and a batch of episodes that it has sampled."""
    config = TrainConfig(
        env=EnvConfig("guess", examples=0),
        model=model,
        sampling=SamplingConfig(max_new_tokens=4),
        algorithm=algorithm,
        episodes_per_step=episodes,
    )
    actor_critic = ActorCritic.load(config.model, seed=3)
    played = rollout(Sampler(actor_critic, config.sampling), training_tasks(config, 1), EnvPool(config.env))
    return Updater(actor_critic, algorithm, temperature=1.0), make_batch(played.episodes)


@pytest.fixture(scope="session")
def make_learner() -> MakeLearner:
    """`learner_of`, where tests can reach it."""
    return learner_of
