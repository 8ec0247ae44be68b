"""Policy losses: pure functions of flat tensors over action tokens (N), nothing else.

Every loss is a sum divided by a constant that the caller chooses (the tokens of the whole
minibatch), so that micro-batches add up exactly and long episodes are not discounted
(Dr.GRPO 2503.20783). The value loss belongs to the critic's head: `models/critic.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """A differentiable loss and its diagnostics (sums over N, to be divided by the token count)."""

    loss: Tensor
    clipped: Tensor
    """Number of tokens whose gradient the clip removed."""
    kl: Tensor
    """Sum of the k3 estimate of KL(behaviour || policy), for display only."""


def ppo_loss(
    logprobs_N: Tensor,
    behaviour_logprobs_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    normalizer: float,
) -> PolicyLoss:
    """Clipped surrogate with an asymmetric range.

        L = -1/normalizer sum_n W_n min(rho_n A_n, clip(rho_n, 1 - clip_low, 1 + clip_high) A_n)

    Source: PPO, Schulman et al. 1707.06347 eq. 7; asymmetric range, DAPO 2503.14476.
    """
    log_ratio = logprobs_N - behaviour_logprobs_N
    ratio = log_ratio.exp()
    unclipped = ratio * advantages_N
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages_N
    loss = -(weights_N * torch.minimum(unclipped, clipped)).sum() / normalizer
    with torch.no_grad():
        # E_behaviour[(rho - 1) - log rho] is KL(behaviour || policy), each term non-negative (Schulman 2020).
        kl = (ratio - 1 - log_ratio).sum()
        removed = (clipped < unclipped).sum()
    return PolicyLoss(loss, removed, kl)


def k2_penalty(
    logprobs_N: Tensor, reference_logprobs_N: Tensor, weights_N: Tensor | float = 1.0, *, normalizer: float
) -> Tensor:
    """Return sum W/2 (log pi - log pi_ref)^2 / normalizer, whose gradient is that of KL(pi || pi_ref).

    Back-propagating the plain difference (k1) has zero expected gradient, and k3's is biased.
    Source: Schulman 2020, "Approximating KL divergence"; NeMo-RL issue 2506.
    """
    return 0.5 * (weights_N * (logprobs_N - reference_logprobs_N).square()).sum() / normalizer


def imitation_loss(logprobs_N: Tensor, *, normalizer: float) -> Tensor:
    """Return the negative log-likelihood of demonstrated action tokens, divided by `normalizer`."""
    return -logprobs_N.sum() / normalizer
