"""Advantages and value targets: pure functions on arrays, no model, no environment.

All arrays cover action tokens only, padded on the right: observations are skipped, not zero-valued,
so that one step t -> t+1 may cross an observation. Conventions, with B episodes and T action tokens:

    values_BT[b, t]  = V(s_t), read before token t          rewards_BT[b, t] = reward that landed on token t
    final_value_B[b] = V of the state after the last token  (0 where the task ended, never 0 for a cut)
    gate_BT[b, t]    = known probability with which the gate could have stopped the episode at s_t

Next: `batch.py` builds these arrays from episodes; `losses.py` consumes the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Returns(NamedTuple):
    """What the losses take, each B x T and zero on padding."""

    advantages_BT: Array
    targets_BT: Array
    """Value targets G_t in units of return; with a gate they may leave [0, 1]."""
    weights_BT: Array
    """Reach weights W_t; all ones without a gate."""


def gae(
    rewards_BT: Array,
    values_BT: Array,
    final_value_B: Array,
    length_B: NDArray[np.int64],
    actor_lambda_BT: Array,
    *,
    critic_lambda: float = 1.0,
    gamma: float = 1.0,
    gate_BT: Array | None = None,
) -> Returns:
    """Generalised advantage estimation, decoupled from the critic's targets, unbiased under a gate.

    With delta_t = r_t + gamma V_{t+1} - V_t and c_{t+1} = alive(t+1) / (1 - p_{t+1}):

        A_t = delta_t + gamma lambda_t c_{t+1} A_{t+1}
        G_t = r_t + gamma [V_{t+1} + critic_lambda c_{t+1} (G_{t+1} - V_{t+1})]
        W_t = product over j <= t of 1 / (1 - p_j)

    `actor_lambda_BT[b, t]` is the lambda of the step from t to t+1. An episode that the gate stopped
    simply ends, with V of the state it was stopped in as `final_value_B`. Multiply both losses by W.

    Source: Schulman et al. 1506.02438 eq. 16; decoupled lambda, VC-PPO 2503.01491; the gate's
    correction is derived in docs/value-function.md and tested by exact enumeration.
    """
    batch, width = rewards_BT.shape
    gates = np.zeros_like(rewards_BT) if gate_BT is None else gate_BT
    if gates.size and (gates.min() < 0 or gates.max() >= 1):
        raise ValueError(f"gate probabilities must lie in [0, 1), received {gates.min()} to {gates.max()}")
    mask_BT = np.arange(width)[None, :] < length_B[:, None]
    advantages, targets = np.zeros((batch, width)), np.zeros((batch, width))
    next_advantage, next_excess = np.zeros(batch), np.zeros(batch)  # A_{t+1}; G_{t+1} - V_{t+1}
    next_value, next_keep = final_value_B.astype(np.float64), np.ones(batch)
    for t in range(width - 1, -1, -1):
        inside = mask_BT[:, t]
        delta = rewards_BT[:, t] + gamma * next_value - values_BT[:, t]
        advantage = delta + gamma * actor_lambda_BT[:, t] * next_keep * next_advantage
        target = rewards_BT[:, t] + gamma * (next_value + critic_lambda * next_keep * next_excess)
        advantages[:, t] = np.where(inside, advantage, 0.0)
        targets[:, t] = np.where(inside, target, 0.0)
        next_advantage = np.where(inside, advantage, next_advantage)
        next_excess = np.where(inside, target - values_BT[:, t], next_excess)
        next_value = np.where(inside, values_BT[:, t], next_value)
        next_keep = np.where(inside, 1.0 / (1.0 - gates[:, t]), next_keep)
    weights = np.cumprod(1.0 / (1.0 - gates), axis=1)
    return Returns(advantages, targets, np.where(mask_BT, weights, 0.0))


def vtrace(
    rewards_BT: Array,
    values_BT: Array,
    final_value_B: Array,
    length_B: NDArray[np.int64],
    ratio_BT: Array,
    *,
    critic_lambda: float = 1.0,
    gamma: float = 1.0,
    ratio_cap: float = 1.0,
    gate_BT: Array | None = None,
) -> Array:
    """Value targets of the policy of now from episodes of an older one, B x T.

    With rho_t = min(ratio_cap, pi / mu), c_t = min(1, pi / mu) and k_{t+1} = alive(t+1) / (1 - p_{t+1}):

        v_t = V_t + rho_t (r_t + gamma V_{t+1} - V_t) + gamma critic_lambda c_t k_{t+1} (v_{t+1} - V_{t+1})

    `ratio_BT` is pi / mu of each action token. At ratios of 1 this is the critic target of `gae`.

    Source: V-trace, Espeholt et al. 1802.01561 eq. 1, with lambda in c as in their remark 2.
    """
    batch, width = rewards_BT.shape
    gates = np.zeros_like(rewards_BT) if gate_BT is None else gate_BT
    mask_BT = np.arange(width)[None, :] < length_B[:, None]
    targets = np.zeros((batch, width))
    next_value, next_excess, next_keep = final_value_B.astype(np.float64), np.zeros(batch), np.ones(batch)
    for t in range(width - 1, -1, -1):
        inside, value, ratio = mask_BT[:, t], values_BT[:, t], ratio_BT[:, t]
        excess = np.minimum(ratio_cap, ratio) * (rewards_BT[:, t] + gamma * next_value - value)
        excess = excess + gamma * critic_lambda * np.minimum(1.0, ratio) * next_keep * next_excess
        targets[:, t] = np.where(inside, value + excess, 0.0)
        next_value = np.where(inside, value, next_value)
        next_excess = np.where(inside, excess, next_excess)
        next_keep = np.where(inside, 1.0 / (1.0 - gates[:, t]), next_keep)
    return targets


def group_advantages(returns_B: Array, groups_B: NDArray[np.int64]) -> Array:
    """Return (R - mean of group) / (std of group) per episode; 0 where a group's returns are all equal.

    An episode without others, whose partners failed or were cut off, has 0.

    Source: GRPO, Shao et al. 2402.03300 eq. 3 (outcome supervision).
    """
    advantages = np.zeros_like(returns_B)
    for group in np.unique(groups_B):
        members = groups_B == group
        spread = returns_B[members].std()
        if spread > 1e-8:
            advantages[members] = (returns_B[members] - returns_B[members].mean()) / spread
    return advantages


def leave_one_out_advantages(returns_B: Array, groups_B: NDArray[np.int64] | None = None) -> Array:
    """Return R_b minus the mean return of the other episodes: of its group, or of the batch without groups.

    An episode without others has 0. Up to a factor that normalising removes, without groups it is the batch mean.

    Source: REINFORCE leave-one-out, Kool et al. 2019; Ahmadian et al. 2402.14740.
    """
    groups = np.zeros(len(returns_B), dtype=np.int64) if groups_B is None else groups_B
    advantages = np.zeros_like(returns_B)
    for group in np.unique(groups):
        members = groups == group
        count = int(members.sum())
        if count > 1:
            advantages[members] = (returns_B[members] - returns_B[members].mean()) * count / (count - 1)
    return advantages


def relative_gains(
    advantages_BT: Array, values_BT: Array, *, most: float, least: float = 0.05, floor: float = 0.05
) -> Array:
    """Return A_t / V(s_t) between 0 and `most`: by how much of the success that was left an action raised it.

    What lowers V, or raises it by less than `least`, is 0 and need not be read. V counts as `floor` at least, so that
    the noise of a critic in states that are as good as lost does not look like a gain.

    Source: the positive part of self-imitation, Oh et al. 1806.05635 eq. 2, on the scale of log success: each state's
    improvement counts alike, however little success there is as yet.
    """
    gains_BT = advantages_BT / np.maximum(values_BT, floor)
    return np.where(gains_BT < least, 0.0, np.minimum(gains_BT, most))


def gated_gains(
    rewards_BT: Array,
    values_BT: Array,
    final_value_B: Array,
    length_B: NDArray[np.int64],
    lambda_BT: Array,
    gate_BT: Array,
    stopped_B: NDArray[np.bool_],
    gain: Callable[[Array, Array], Array],
    *,
    gamma: float = 1.0,
) -> Array:
    """Return gains under a gate, B x T, whose mean over the gate's coins is `gain` of the ungated advantages.

    `gain(A, V)` is not linear in A, so `gae`'s correction of A itself would not do. A_t is a sum to which each further
    token adds a term. After token i it is

        L_t(i) = -V_t + sum_{j=t..i} [product_{k=t..j-1} gamma lambda_k] (r_j + gamma (1 - lambda_j) V_{j+1})
        gain_t = sum_{i>=t} W_i [gain(L_t(i), V_t) - gain(L_t(i - 1), V_t)]

    The step of token i is there if every gate j <= i was survived, and W_i divides by that chance, so the sum
    telescopes in expectation. After the last token of an episode that the gate did not stop (1 - lambda) is 1.
    With rewards and V of 0 or more L only rises, so that no gain is negative; where a negative reward made one, it is
    set to 0. `gain` must be 0 for advantages of 0 or less.

    Source: the estimate of a limit by random truncation, Rhee & Glynn 2015 (Operations Research 63:1026), with the
    gate's coins as the truncation.
    """
    width = rewards_BT.shape[1]
    weights_BT = np.cumprod(1.0 / (1.0 - gate_BT), axis=1)
    sums, discounts = -values_BT, np.ones_like(values_BT)
    gains, told = np.zeros_like(values_BT), np.zeros_like(values_BT)
    for i in range(width):
        inside, last = i < length_B, i + 1 == length_B
        following = np.where(last, final_value_B, values_BT[:, min(i + 1, width - 1)])
        taken = np.where(last & ~stopped_B, 1.0, 1.0 - lambda_BT[:, i])
        term = np.where(inside, rewards_BT[:, i] + gamma * taken * following, 0.0)
        sums[:, : i + 1] += discounts[:, : i + 1] * term[:, None]
        discounts[:, : i + 1] *= gamma * lambda_BT[:, i, None]
        gated = i + 1 < width and bool(np.any(gate_BT[:, i + 1]))
        if gated or np.any(last):  # between two gates W stands still, and only the sum matters
            now = gain(sums[:, : i + 1], values_BT[:, : i + 1])
            rise = weights_BT[:, i, None] * (now - told[:, : i + 1])
            gains[:, : i + 1] += np.where(inside[:, None], rise, 0.0)
            told[:, : i + 1] = np.where(inside[:, None], now, told[:, : i + 1])
    mask_BT = np.arange(width)[None, :] < length_B[:, None]
    return np.where(mask_BT, np.maximum(gains, 0.0), 0.0)


class RunningScale:
    """Root of a weighted, exponentially averaged second moment: the scale that advantages are divided by.

    A scale that remembers earlier steps keeps a step without signal (every episode failed alike) from being blown up
    to unit size, as normalising within that step would. That takes a step with signal before it: until then the scale
    is that of the small advantages themselves.
    """

    def __init__(self, decay: float = 0.8) -> None:
        self.decay = decay
        self.second_moment = 0.0
        self.mass = 0.0

    def update(self, values: Array, weights: Array) -> float:
        """Fold in one step's values (any shape; zero weight: padding) and return the scale."""
        total = float(weights.sum())
        if total > 0:
            moment = float((weights * values**2).sum() / total)
            self.second_moment = self.decay * self.second_moment + (1 - self.decay) * moment
            self.mass = self.decay * self.mass + (1 - self.decay)
        return max(self.scale, 1e-6)

    @property
    def scale(self) -> float:
        """The bias-corrected scale; 1 before the first update."""
        return (self.second_moment / self.mass) ** 0.5 if self.mass else 1.0

    def state(self) -> dict[str, float]:
        """Return what `load` restores."""
        return {"second_moment": self.second_moment, "mass": self.mass}

    def load(self, state: dict[str, float]) -> None:
        """Restore a state returned by `state`."""
        self.second_moment, self.mass = state["second_moment"], state["mass"]
