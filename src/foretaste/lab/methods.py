"""The ways of learning that studies compare, each as good as we know how to make it, in one place.

All go through the same loop with the same warm start, batch and token budget; only what is named here differs. The
settings were chosen on the tables of other seeds than those that studies score.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foretaste.config import (
    AlgorithmConfig,
    EnvConfig,
    HeldOutConfig,
    ImitateConfig,
    ModelConfig,
    SamplingConfig,
    TrainConfig,
)

NEW = 32
"""New episodes a step."""
FEW = 16
"""New episodes a step of the methods that replay: more updates for each episode."""
START = 4
"""Successes before an actor that imitates may move: two may agree by luck in what has nothing to do with success."""
IMITATING = 2e-3
"""Learning rate of the methods that imitate; the others were no better at 3e-4 than at 1e-3."""

_VALUE_REPLAY = {
    "critic_episodes": 8 * FEW,
    "actor_episodes": 4 * FEW,
    "policy_passes": 8,
    "success_episodes": FEW,
    "actor_start_successes": START,
}

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "value": {
        "run": {"episodes_per_step": FEW},
        "algorithm": {
            "learning_rate": IMITATING,
            "turn_lambda": 0.7,
            "adapt_lambda": True,
            "head_learning_rate": 1e-2,
        },
        "replay": _VALUE_REPLAY,
    },
    "auto": {
        "run": {"episodes_per_step": FEW},
        "algorithm": {"name": "auto", "learning_rate": IMITATING, "turn_lambda": 0.7, "head_learning_rate": 1e-2},
        "replay": {**_VALUE_REPLAY, "success_passes": 8},
    },
    "grpo": {"algorithm": {"name": "grpo", "group_size": 8}},
    "dynamic-grpo": {"algorithm": {"name": "grpo", "group_size": 8, "dynamic_sampling": True}},
    "leave-one-out": {"algorithm": {"name": "reinforce", "group_size": 8}},
    "batch-mean": {"algorithm": {"name": "reinforce"}},
    "success-replay": {
        "run": {"episodes_per_step": FEW},
        "algorithm": {"name": "reinforce", "learning_rate": IMITATING},
        "replay": {"success_episodes": FEW, "success_passes": 8, "actor_start_successes": START},
    },
}
"""Differences from `base`; "value" is recipes/replay-critic.toml, "batch-mean" leave-one-out without groups."""

BASELINES = ("grpo", "dynamic-grpo", "leave-one-out", "batch-mean", "success-replay")
"""All that do without a critic."""


def base(
    env: str,
    *,
    warm: ImitateConfig | None = None,
    max_new_tokens: int = 4,
    level: int = 1,
    instructions: bool = True,
) -> TrainConfig:
    """Return what all arms share: `nano-xs` with a critic of its own, a warm start, and a curve of held-out items."""
    return TrainConfig(
        env=EnvConfig(env, level=level, examples=0, instructions=instructions),
        model=ModelConfig("nano-xs", critic_layers=-1),
        sampling=SamplingConfig(max_new_tokens=max_new_tokens),
        algorithm=AlgorithmConfig(
            learning_rate=1e-3, critic_learning_rate=2e-3, microbatch_tokens=8192, value_pretraining_episodes=2 * NEW
        ),
        imitate=warm or ImitateConfig(episodes=128, passes=6, learning_rate=3e-3, teacher="uniform_action"),
        held_out=HeldOutConfig(items=100, every=2, curve_items=64, enough=0.9),
        episodes_per_step=NEW,
        save_every=1000,
    )


def method(name: str, config: TrainConfig) -> TrainConfig:
    """Return `config` with a method's settings; points of the curve stay as many episodes apart."""
    changes = METHODS[name]
    made = replace(config, **changes.get("run", {}))
    every = max(1, config.held_out.every * config.episodes_per_step // made.episodes_per_step)
    return replace(
        made,
        algorithm=replace(config.algorithm, **changes.get("algorithm", {})),
        replay=replace(config.replay, **changes.get("replay", {})),
        held_out=replace(config.held_out, every=every),
    )
