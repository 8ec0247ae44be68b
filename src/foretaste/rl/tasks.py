"""Which items are played: a Task names one attempt; `training_tasks` and `held_out_tasks` list them.

Every number that a task needs follows from the config and the position in the run, so a resumed run
meets the same items as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foretaste.config import TrainConfig
from foretaste.envs.base import choose_register
from foretaste.envs.seeds import seed_for
from foretaste.rl.sources import Source, held_out_sources, training_sources


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


def training_tasks(
    config: TrainConfig,
    step: int,
    episodes: int | None = None,
    *,
    first: int = 0,
    shares: Sequence[float] | None = None,
) -> list[Task]:
    """Return the tasks of a training step, `group_size` attempts an item; steps never share an item.

    Step 0 is reserved for value pretraining; training steps count from 1. `first` skips tasks already played.
    `shares` are the probabilities of the sources (`curriculum.py`); None: all alike.
    """
    count = config.episodes_per_step if episodes is None else episodes
    group = config.algorithm.group_size
    secret = f"run seed {config.seed}"
    sources = training_sources(config)
    items = range(first // group, -(-(first + count) // group))
    drawn = allot(shares or [1 / len(sources)] * len(sources), len(items), (config.seed, "sources", step, first))
    tasks = []
    for index in range(first, first + count):
        seed = seed_for("train", step * 1_000_000 + index // group, secret=secret)
        source = sources[drawn[index // group - items.start]]
        tasks.append(task_of(source, seed, keyed_seed(config.seed, "train", step, index)))
    return tasks


def held_out_tasks(config: TrainConfig, label: str, items: int) -> list[Task]:
    """Return attempts at the first `items` practice items, the same items at every call."""
    return list(itertools.islice(practice_tasks(config, label), items))


def practice_tasks(config: TrainConfig, label: str) -> Iterator[Task]:
    """Yield attempts at practice items without end, source after source in turn.

    They depend on `held_out.seed` and not on the run's, so that runs, and before and after, are compared on the same.
    """
    sources, drawn = held_out_sources(config), config.held_out.seed
    secret = f"held out {drawn}" if drawn else ""
    for index, source in enumerate(itertools.cycle(sources)):
        seed = seed_for("practice", index, secret=secret)
        yield task_of(source, seed, keyed_seed(config.seed, "held out", label, index))


def demonstration_tasks(config: TrainConfig) -> list[Task]:
    """Return the items that are demonstrated in a warm start, source after source in turn."""
    sources = training_sources(config)
    seeds = [
        seed_for("train", index, secret=f"demonstrations {config.seed}") for index in range(config.imitate.episodes)
    ]
    return [task_of(sources[index % len(sources)], seed, 0) for index, seed in enumerate(seeds)]


def allot(shares: Sequence[float], items: int, key: Sequence[object]) -> list[int]:
    """Return the index of a share for each item: every item meets index i with probability `shares[i]`.

    The count of an index is its share of the items, rounded up or down (systematic sampling), so that a small share is
    not left to luck; which items they are is shuffled. All randomness comes from `key`.

    Source: Madow 1949, systematic sampling with unequal probabilities.
    """
    if len(shares) == 1:
        return [0] * items
    rng = np.random.default_rng(keyed_seed(*key))
    places = (rng.random() + np.arange(items)) / items
    ends = np.cumsum(shares) / np.sum(shares)
    return rng.permutation(np.minimum(np.searchsorted(ends, places, side="right"), len(shares) - 1)).tolist()


def task_of(source: Source, seed: int, sample_seed: int) -> Task:
    """Return an attempt at a source's item; its register is drawn by the item's seed."""
    return Task(source.env, seed, source.level, choose_register(source.registers, seed), sample_seed)
