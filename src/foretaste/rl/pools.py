"""The environments of several sources: each task is played in the pool of its own environment and level."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import gymnasium

from foretaste.config import TrainConfig
from foretaste.envs.registry import make
from foretaste.errors import ConfigError
from foretaste.rl.rollout import EnvPool, Pool
from foretaste.rl.sources import held_out_sources, training_sources
from foretaste.rl.tasks import Task


class MixedPool:
    """One `EnvPool` for each environment and level among the sources, each with the prompt of its own."""

    def __init__(self, config: TrainConfig) -> None:
        """Make every environment once.

        Raises: ConfigError for an environment, level or register that there is not.
        """
        self._pools: dict[tuple[str, int], EnvPool] = {}
        registers: dict[tuple[str, int], tuple[str, ...]] = {}
        for source in (*training_sources(config), *held_out_sources(config)):
            place = source.env, source.level
            registers[place] = tuple(dict.fromkeys((*registers.get(place, ()), *source.registers)))
        for (name, level), wordings in registers.items():
            env = dataclasses.replace(config.env, id=name, level=level, registers=wordings)
            self._pools[name, level] = EnvPool(env, functools.partial(make, name, level=level))

    def of(self, task: Task) -> EnvPool:
        """Return the pool in which a task is played."""
        return self._pools[task.env, task.level]

    def close(self) -> None:
        """Close the environments of all sources."""
        for pool in self._pools.values():
            pool.close()


def pool_of(config: TrainConfig, env: Callable[[], gymnasium.Env[Any, Any]] | None = None) -> Pool:
    """Return the environments of a run; `env` takes the place of `config.env.id`.

    Raises: ConfigError for sources together with `env`, or what `MixedPool` refuses.
    """
    if not (config.curriculum.sources or config.curriculum.held_out):
        return EnvPool(config.env, env)
    if env is not None:
        raise ConfigError(
            f"curriculum.sources = {list(config.curriculum.sources)} cannot be used with an environment class given "
            "to train(); name it in the sources instead: my_module:MyEnv@1"
        )
    return MixedPool(config)
