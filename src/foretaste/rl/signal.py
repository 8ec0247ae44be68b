"""How much signal each estimator of the policy gradient has, on the same frozen episodes.

The gradient of a step is a mean over episodes of sum_t A_t grad log pi(a_t | s_t). Its quality is signal^2 / variance:
the squared length of the mean over the variance of one episode's contribution. Both are taken in a few random
directions of weight space, where the derivative of every log-probability is a difference of two forward passes, so
that any model and any estimator can be compared at the cost of evaluating the episodes twice a direction.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch

from foretaste.config import AlgorithmConfig
from foretaste.rl.batch import Batch, compute_returns
from foretaste.rl.returns import Array
from foretaste.rl.tasks import keyed_seed
from foretaste.rl.update import Updater

LAMBDAS = (1.0, 0.95, 0.8, 0.5)
STEP = 1e-3
"""Size of a difference, relative to the root mean square of each weight matrix."""


class Signal(NamedTuple):
    """An estimator and the quality of its gradient."""

    estimator: str
    quality: float
    """Signal^2 / variance of one episode, without the part that chance alone would give; 0 if nothing remains."""
    relative: float | None
    """Quality over that of leave-one-out; None where leave-one-out has none."""


def signals(updater: Updater, batch: Batch, *, directions: int = 16, seed: int = 0) -> list[Signal] | None:
    """Compare leave-one-out with V at several lambdas on `batch`, whose values must not have been fitted to it.

    None where the weights are not float32 (differences vanish in rounding) or fewer than four episodes are there.
    """
    weights = updater.actor_critic.policy_parameters()
    if len(batch.episodes) < 4 or any(weight.dtype != torch.float32 for weight in weights):
        return None
    scores_KBT = score_projections(updater, batch, directions=directions, seed=seed)
    estimators = {"leave one out": AlgorithmConfig(name="reinforce")}
    for value in LAMBDAS:
        estimators[f"V, lambda {value:g}"] = AlgorithmConfig(turn_lambda=value)
    qualities = {}
    for name, algorithm in estimators.items():
        algorithm = dataclasses.replace(algorithm, gamma=updater.algorithm.gamma)
        advantages_BT = compute_returns(batch, algorithm).advantages_BT
        qualities[name] = quality(np.einsum("kbt,bt->kb", scores_KBT, advantages_BT))
    base = qualities["leave one out"]
    return [Signal(name, value, value / base if base > 0 else None) for name, value in qualities.items()]


def quality(projections_KB: Array) -> float:
    """Return sum_k (mean_k^2 - var_k / n)^+ / sum_k var_k over directions k and n episodes.

    Subtracting var / n removes what the square of a mean of pure noise is on average.
    """
    n = projections_KB.shape[1]
    variance_K = projections_KB.var(axis=1, ddof=1)
    signal = float((projections_KB.mean(axis=1) ** 2 - variance_K / n).sum())
    noise = float(variance_K.sum())
    return max(0.0, signal) / noise if noise > 0 else 0.0


@torch.no_grad()
def score_projections(updater: Updater, batch: Batch, *, directions: int, seed: int) -> Array:
    """Return the derivative of every action token's log-probability in random directions, K x B x T.

    The weights are put back bit by bit.
    """
    weights = updater.actor_critic.policy_parameters()
    kept = [weight.detach().clone() for weight in weights]
    scores = np.zeros((directions, *batch.logprobs_BT.shape))
    try:
        for k in range(directions):
            generator = torch.Generator().manual_seed(keyed_seed(seed, "direction", k))
            moves = [
                torch.randn(one.shape, generator=generator).to(one.device) * (STEP * one.square().mean().sqrt())
                for one in kept
            ]
            ends = []
            for sign in (1.0, -1.0):
                for weight, start, move in zip(weights, kept, moves, strict=True):
                    weight.copy_(start + sign * move)
                ends.append(updater.logprobs(batch))
            scores[k] = (ends[0] - ends[1]) / (2 * STEP)
    finally:
        for weight, start in zip(weights, kept, strict=True):
            weight.copy_(start)
    return scores
