"""Whether the settings of a run can be used: ranges, and what they mean together.

Types and names are checked where a config is built (`config.from_dict`). A run calls `check`
once, after the recipe and the flags are merged, so that a flag may repair what a recipe lacks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from foretaste.config import TrainConfig
from foretaste.errors import ConfigError


class Range(NamedTuple):
    """Accepted values of one number: the test, and how a message says it."""

    accepts: Callable[[float], bool]
    words: str


def _at_least(low: float) -> Range:
    return Range(lambda value: value >= low, f"{low} or more")


_SEED = Range(lambda value: 0 <= value < 2**63, "0 to 9223372036854775807 (63 bits)")
_POSITIVE = Range(lambda value: value > 0, "above 0")
_UNIT = Range(lambda value: 0 <= value <= 1, "0 to 1")

RANGES: dict[str, Range] = {
    "steps": _at_least(0),
    "token_budget": _at_least(1),
    "episodes_per_step": _at_least(1),
    "seed": _SEED,
    "save_every": _at_least(1),
    "env.level": _at_least(0),
    "env.examples": _at_least(0),
    "env.max_turns": _at_least(1),
    "env.threads": _at_least(0),
    "env.step_timeout_seconds": _POSITIVE,
    "curriculum.explore": _UNIT,
    "curriculum.window": _at_least(4),
    "curriculum.mastered": _UNIT,
    "model.critic_layers": Range(lambda value: value == -1 or value >= 1, "-1 (a separate decoder), or 1 or more"),
    "model.lora_rank": _at_least(0),
    "sampling.vllm_memory": Range(lambda value: 0 < value <= 1, "above 0, at most 1"),
    "sampling.temperature": _POSITIVE,
    "sampling.max_new_tokens": _at_least(1),
    "sampling.concurrent": _at_least(1),
    "sampling.max_context": _at_least(2),
    "algorithm.group_size": _at_least(1),
    "algorithm.gamma": Range(lambda value: 0 < value <= 1, "above 0, at most 1"),
    "algorithm.turn_lambda": _UNIT,
    "algorithm.token_lambda": _UNIT,
    "algorithm.critic_lambda": _UNIT,
    "algorithm.clip_low": Range(lambda value: 0 < value <= 1, "above 0, at most 1"),
    "algorithm.clip_high": _POSITIVE,
    "algorithm.passes": _at_least(1),
    "algorithm.minibatches": _at_least(1),
    "algorithm.learning_rate": _at_least(0),
    "algorithm.critic_learning_rate": _at_least(0),
    "algorithm.head_learning_rate": _at_least(0),
    "algorithm.warmup_steps": _at_least(0),
    "algorithm.max_grad_norm": _POSITIVE,
    "algorithm.entropy_coefficient": _at_least(0),
    "algorithm.kl_coefficient": _at_least(0),
    "algorithm.value_pretraining_passes": _at_least(0),
    "algorithm.value_pretraining_episodes": _at_least(0),
    "algorithm.microbatch_tokens": _at_least(1),
    "replay.critic_episodes": _at_least(0),
    "replay.critic_passes": _at_least(1),
    "replay.actor_episodes": _at_least(0),
    "replay.half_life_steps": _POSITIVE,
    "replay.ratio_cap": _POSITIVE,
    "replay.policy_passes": _at_least(0),
    "replay.success_episodes": _at_least(0),
    "replay.success_passes": _at_least(0),
    "replay.actor_start_successes": _at_least(0),
    "replay.critic_start_successes": _at_least(0),
    "gate.max_probability": Range(lambda value: 0 <= value < 1, "0 or more, below 1"),
    "gate.hopeful_share": _at_least(0),
    "gate.max_weight": _at_least(1),
    "gate.max_lost_share": _UNIT,
    "drives.repetition": _at_least(0),
    "drives.checks": _at_least(0),
    "drives.novelty": _at_least(0),
    "drives.surprise": _at_least(0),
    "drives.displeasure": _at_least(0),
    "drives.permission": _at_least(0),
    "drives.half_life_steps": _POSITIVE,
    "imitate.episodes": _at_least(0),
    "imitate.passes": _at_least(1),
    "imitate.learning_rate": _at_least(0),
    "imitate.batch_episodes": _at_least(1),
    "held_out.items": _at_least(1),
    "held_out.every": _at_least(0),
    "held_out.curve_items": _at_least(1),
    "held_out.enough": _UNIT,
    "held_out.seed": _SEED,
}
"""The accepted range of every number in a `TrainConfig`, by its path."""


def check(config: TrainConfig) -> TrainConfig:
    """Return `config` if a run can use it.

    Raises: ConfigError naming the setting, the value received and the values accepted.
    """
    for path, accepted in RANGES.items():
        value = value_at(config, path)
        if value is not None and not (math.isfinite(value) and accepted.accepts(value)):
            _refuse(path, value, accepted.words)
    _check_env(config)
    _check_values(config)
    _check_groups(config)
    _check_without_effect(config)
    _check_gate(config)
    _check_drives(config)
    return config


def value_at(config: Any, path: str) -> Any:
    """Return the setting at a dotted path, e.g. `value_at(config, "env.level")`."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _check_env(config: TrainConfig) -> None:
    for path in ("env.id", "model.name", "model.device", "runs_folder"):
        if not value_at(config, path).strip():
            _refuse(path, value_at(config, path), "a name")
    if not config.env.registers:
        _refuse("env.registers", config.env.registers, 'at least one register, e.g. ["plain"]')
    if config.sampling.max_new_tokens >= config.sampling.max_context:
        _refuse(
            "sampling.max_new_tokens",
            config.sampling.max_new_tokens,
            f"fewer than sampling.max_context = {config.sampling.max_context}",
        )


def _check_values(config: TrainConfig) -> None:
    low, high = config.model.value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        _refuse("model.value_range", config.model.value_range, "two finite numbers, the smaller first")
    if config.model.value_head == "hl_gauss":
        _check_linear_targets(config)
    if config.model.rates_success:
        return
    for path in ("gate.max_probability", "replay.policy_passes"):
        if value_at(config, path):
            _refuse(
                path,
                value_at(config, path),
                f"0 with model.value_head = {config.model.value_head!r} and model.value_range = "
                f"{config.model.value_range}, since V is taken for a probability of success there; or set "
                'model.value_head = "bce"'
                + (', or "hl_gauss" with a range within [0, 1]' * (path != "gate.max_probability")),
            )


def _check_linear_targets(config: TrainConfig) -> None:
    """Corrected targets leave the range now and then and are right on average; bins can hold none outside it."""
    other = 'model.value_head = "bce", whose loss is linear in its target, for returns in [0, 1]'
    if config.gate.max_probability > 0:
        _refuse(
            "gate.max_probability",
            config.gate.max_probability,
            'with model.value_head = "hl_gauss": 0. Targets that make up for stopped episodes lie beyond its bins and '
            f"would be cut off there; set gate.max_probability = 0 or {other}",
        )
    if config.replay.ratio_cap > 1:
        _refuse(
            "replay.ratio_cap",
            config.replay.ratio_cap,
            'with model.value_head = "hl_gauss": 1 or less. With larger probability ratios targets lie beyond its bins '
            f"and would be cut off there; set replay.ratio_cap = 1 or {other}",
        )


def _check_groups(config: TrainConfig) -> None:
    """GRPO compares the episodes of a group with each other, so a group of one teaches nothing."""
    algorithm = config.algorithm
    if algorithm.name == "grpo" and algorithm.group_size < 2:
        _refuse("algorithm.group_size", algorithm.group_size, 'at least 2 when algorithm.name = "grpo", e.g. 8')
    if algorithm.dynamic_sampling and algorithm.group_size < 2:
        _refuse("algorithm.dynamic_sampling", True, "false, or algorithm.group_size of at least 2")
    if config.episodes_per_step % algorithm.group_size:
        _refuse(
            "episodes_per_step",
            config.episodes_per_step,
            f"a multiple of algorithm.group_size = {algorithm.group_size}",
        )
    if algorithm.minibatches > config.episodes_per_step:
        _refuse(
            "algorithm.minibatches",
            algorithm.minibatches,
            f"at most episodes_per_step = {config.episodes_per_step}, so that each holds an episode",
        )


def _check_without_effect(config: TrainConfig) -> None:
    """Refuse settings that nothing would read: who sets one expects it to do something."""
    algorithm, replay = config.algorithm, config.replay
    if algorithm.name in ("grpo", "reinforce"):
        other = f'with algorithm.name = {algorithm.name!r}; or set algorithm.name = "ppo"'
        if replay.policy_passes:
            why = "what an action gained is measured by a value function, and this algorithm has none"
            _refuse("replay.policy_passes", replay.policy_passes, f"0 {other} ({why})")
        if algorithm.freeze_policy:
            _refuse("algorithm.freeze_policy", True, f"false {other} (without a critic nothing would learn)")
        if config.model.critic_from is not None:
            _refuse("model.critic_from", config.model.critic_from, f"nothing {other} (this algorithm has no critic)")
        if algorithm.gamma < 1:
            why = "whole episodes are compared by their undiscounted returns"
            _refuse("algorithm.gamma", algorithm.gamma, f"1 {other} ({why})")
    if algorithm.name == "auto" and algorithm.freeze_policy:
        why = "auto chooses how the policy learns"
        _refuse("algorithm.freeze_policy", True, f'false, or algorithm.name = "ppo" ({why})')
    if algorithm.dynamic_sampling and (replay.actor_episodes or algorithm.name == "auto"):
        _refuse(
            "algorithm.dynamic_sampling",
            True,
            "false, or replay.actor_episodes = 0 and an algorithm other than auto, which sets it: the newest stored "
            "episodes are learned from whether their groups differ or not",
        )


def _check_gate(config: TrainConfig) -> None:
    """A stopped episode has no return, only the V that stands for it; V is read while sampling, without a note."""
    if config.gate.max_probability > 0 and config.algorithm.name not in ("ppo", "auto"):
        _refuse(
            "gate.max_probability",
            config.gate.max_probability,
            f"0 with algorithm.name = {config.algorithm.name!r}: an episode that the gate stopped has no return to "
            "compare with others, only a value function's V stands for its future; set gate.max_probability = 0 or "
            'algorithm.name = "ppo"',
        )
    if config.algorithm.dynamic_sampling and config.gate.max_probability > 0:
        _refuse(
            "algorithm.dynamic_sampling",
            True,
            f"false with gate.max_probability = {config.gate.max_probability} (which groups are kept would depend on "
            "where the gate stopped, and no weight undoes that); or set gate.max_probability = 0",
        )
    if config.model.privileged_critic and config.gate.max_probability > 0:
        raise ConfigError(
            "model.privileged_critic = True cannot be used with gate.max_probability = "
            f"{config.gate.max_probability}: the gate stops episodes by V while they are sampled, and what a "
            "privileged critic reads must not decide there (its V means nothing without it). Accepted: one of the "
            "two; set gate.max_probability = 0 or model.privileged_critic = false"
        )


def _check_drives(config: TrainConfig) -> None:
    """Drives stand in for V between turns: nothing is left of them in a return, and surprise needs V."""
    given = {one.name: getattr(config.drives, one.name) for one in dataclasses.fields(config.drives)}
    named = [name for name, weight in given.items() if name != "half_life_steps" and weight]
    if named and config.algorithm.name not in ("ppo", "auto"):
        _refuse(
            f"drives.{named[0]}",
            given[named[0]],
            f"0 with algorithm.name = {config.algorithm.name!r}: over a whole episode drives add up to nothing, so "
            'only an algorithm with a value function can use them; set algorithm.name = "ppo"',
        )
    if config.drives.surprise and config.model.privileged_critic:
        _refuse(
            "drives.surprise",
            config.drives.surprise,
            "0 with model.privileged_critic: no V is recorded while sampling, so there is none to be surprised of",
        )


def _refuse(path: str, received: object, accepted: str) -> None:
    raise ConfigError(f"{path} = {received!r} cannot be used; accepted: {accepted}")
