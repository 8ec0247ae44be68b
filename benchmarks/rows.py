"""What is compared with what, and what was aimed for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.table import Row, bound


class SamplingRow(NamedTuple):
    """A workload of `workloads.py`, in sampled tokens a second."""

    workload: str
    name: str
    reaches: tuple[tuple[Peer, str, float], ...]
    """Peer, its module, and how many times faster to be."""
    minutes: float = 4.0
    """After these no further round begins, once there are `FEWEST` rounds."""


SAMPLING = (
    SamplingRow(
        "short",
        "sampling, 64 conversations, short prompts, 32 new tokens",
        ((peers.GENERATE, "side_generate", 3.0), (peers.VLLM, "side_vllm", 3.0)),
    ),
    SamplingRow(
        "shared",
        "sampling, 64 conversations, groups of 8 sharing a 256-token prompt",
        ((peers.GENERATE, "side_generate", 5.0),),
    ),
    SamplingRow(
        "multi-turn",
        "64 conversations x 8 turns, growing context",
        ((peers.GENERATE, "side_generate", 5.0), (peers.VLLM, "side_vllm", 2.0)),
        minutes=11.0,
    ),
    SamplingRow(
        "uneven",
        "192 conversations of uneven lengths, 64 at a time",
        ((peers.GENERATE, "side_generate", 5.0),),
        minutes=9.0,
    ),
)
STEP = (
    ("one training step, 64 x 32 tokens: PPO with critic beside GRPO", "s", 5.0),
    ("peak memory of that step", "GB", 2.0),
)
"""Name, unit, and how many times less it should take."""
STEP_MINUTES = 6.0
ROUNDS, FEWEST = 5, 3
"""Rounds of every row, and what a slow machine gets done in any case."""
NAMES = (*(row.workload for row in SAMPLING), "step", "nano", "help")
"""What ROWS= accepts."""


def nano_row(runs: int) -> Row:
    """Play multi-turn episodes of `guess` and `maze` with `nano`; report the share of time in environment code."""
    from foretaste.config import EnvConfig, ModelConfig, SamplingConfig, TrainConfig
    from foretaste.models.actor_critic import ActorCritic
    from foretaste.models.sampler import Sampler
    from foretaste.rl.rollout import EnvPool, rollout
    from foretaste.rl.tasks import training_tasks

    sampler = Sampler(ActorCritic.load(ModelConfig(name="nano")), SamplingConfig(max_new_tokens=8))
    shares, rates = {}, []
    for env in ("guess", "maze"):
        config = TrainConfig(env=EnvConfig(id=env))
        pool = EnvPool(config.env)
        played = [rollout(sampler, training_tasks(config, run + 1), pool) for run in range(runs + 1)][1:]
        seconds = sum(one.env_seconds + one.sample_seconds for one in played)
        shares[env] = sum(one.env_seconds for one in played) / seconds
        turns = sum(len(episode.turns) for one in played for episode in one.episodes)
        rates.append(f"{env} {turns / seconds:,.0f} turns/s")
    note = f"{', '.join(rates)}; the larger of both shares counts"
    name = "nano, multi-turn: share of time in environment code"
    return bound(name, "share", [max(shares.values())], below=0.1, note=note)


def help_row(runs: int, run: Callable[[], float] | None = None) -> Row:
    """Time `foretaste --help` as a whole process."""
    command = [str(Path(sys.executable).with_name("foretaste")), "--help"]

    def once() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    measure = run or once
    measure()
    return bound("foretaste --help", "s", [measure() for _ in range(runs)], below=0.3)
