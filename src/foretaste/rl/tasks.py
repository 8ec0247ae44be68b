"""Which items are played: a Task names one attempt; `training_tasks` and `held_out_tasks` list them.

Every number that a task needs follows from the config and the position in the run, so a resumed run
meets the same items as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from foretaste.config import EnvConfig, TrainConfig
from foretaste.envs.base import choose_register
from foretaste.envs.seeds import seed_for


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at one item."""

    env: str
    seed: int
    level: int
    register: str
    sample_seed: int
    """Seed of the policy's random stream in this attempt."""


def keyed_seed(*parts: object) -> int:
    """Return a 62-bit seed that depends on every part and on nothing else."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def training_tasks(config: TrainConfig, step: int, episodes: int | None = None, *, first: int = 0) -> list[Task]:
    """Return the tasks of a training step, `group_size` attempts an item; steps never share an item.

    Step 0 is reserved for value pretraining; training steps count from 1. `first` skips tasks already played.
    """
    count = config.episodes_per_step if episodes is None else episodes
    group = config.algorithm.group_size
    secret = f"run seed {config.seed}"
    tasks = []
    for index in range(first, first + count):
        seed = seed_for("train", step * 1_000_000 + index // group, secret=secret)
        tasks.append(_task(config.env, seed, keyed_seed(config.seed, "train", step, index)))
    return tasks


def held_out_tasks(config: TrainConfig, label: str, items: int) -> list[Task]:
    """Return attempts at the first `items` practice items, the same items at every call.

    They depend on no run seed, so that runs, and before and after, are compared on the same items.
    """
    return [
        _task(config.env, seed_for("practice", index), keyed_seed(config.seed, "held out", label, index))
        for index in range(items)
    ]


def _task(env: EnvConfig, seed: int, sample_seed: int) -> Task:
    return Task(env.id, seed, env.level, choose_register(env.registers, seed), sample_seed)
