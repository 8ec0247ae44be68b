"""Is the critic any good, and is the run healthy? Measured every step, from episodes alone.

Explained variance is pooled over several steps (a single step's figure is mostly noise); ranking is
measured as the AUC between V partway through an episode and the final success. Formulas: docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from foretaste.records import Episode, EpisodeEnd
from foretaste.rl.batch import Batch, usable
from foretaste.rl.gate import episode_weight
from foretaste.rl.returns import Array, gae
from foretaste.statistics import auc, calibration_floor, expected_calibration_error, reliability_bins

PARTS = {"25": 0.25, "50": 0.5, "75": 0.75}
"""Places in an episode, as a share of its action tokens, where ranking is measured."""

LONG_WAIT = 10
"""Steps after which a policy that still waits for its first successes is worth a warning."""
APART = 1.0
"""Difference of sampler and trainer worth a warning: about three times what two sound readings of the same weights in
bfloat16 differ by at the 99.9th percentile (docs/performance.md), which for a small batch is its worst token or two."""


class PooledVariance:
    """Explained variance 1 - sum (G - V)^2 / sum (G - mean G)^2 over the last `steps` updates."""

    def __init__(self, steps: int = 5) -> None:
        self.steps = steps
        self.sums: list[list[float]] = []  # n, sum G, sum G^2, sum (G - V)^2

    def update(self, batch: Batch, values_BT: Array, *, gamma: float) -> float | None:
        """Fold in the Monte-Carlo returns of a batch; None while the returns do not vary.

        Episodes that survived their gates stand for those that were stopped, so that the figure is that of no gate.
        """
        full, mask = np.ones_like(batch.rewards_BT), batch.mask_BT
        returns = gae(batch.rewards_BT, values_BT, batch.final_value_B, batch.length_B, full, gamma=gamma)
        whole_B = np.array([_stands_for(episode) for episode in batch.episodes])
        weights = (whole_B[:, None] * mask)[mask]
        targets, errors = returns.targets_BT[mask], (returns.targets_BT - values_BT)[mask]
        sums = (weights, weights * targets, weights * targets**2, weights * errors**2)
        self.sums = [*self.sums, [float(each.sum()) for each in sums]][-self.steps :]
        count, total, squares, error = np.sum(self.sums, axis=0)
        if not count:
            return None
        spread = squares - total**2 / count
        return None if spread <= 1e-9 * count else float(1 - error / spread)

    def state(self) -> list[list[float]]:
        """Return what `load` restores."""
        return [list(row) for row in self.sums]

    def load(self, state: list[list[float]]) -> None:
        """Restore a state returned by `state`."""
        self.sums = [list(row) for row in state]


def _stands_for(episode: Episode) -> float:
    """Return how many episodes without a gate one stands for: none if it was stopped (Horvitz & Thompson 1952)."""
    return 0.0 if episode.end is EpisodeEnd.STOPPED else episode_weight(episode)


def token_values(episode: Episode) -> list[float]:
    """Return V before each action token of the episode, in order."""
    return [value for turn in episode.turns for value in turn.action.values]


def turn_values(episode: Episode, row: Sequence[float]) -> list[float]:
    """Return V at the beginning of each turn that has an action token; `row` holds V before each action token."""
    starts = np.cumsum([0, *(len(turn.action.tokens) for turn in episode.turns)])
    return [row[start] for start, turn in zip(starts, episode.turns, strict=False) if turn.action.tokens]


class Judged(NamedTuple):
    """What an episode that was played to its end says of V."""

    values: list[float]
    """V before each action token."""
    success: float
    weight: float
    """Episodes that it stands for: those that the gate stopped where it survived, too."""


def judged_values(episodes: Sequence[Episode], rows: Sequence[Sequence[float]] | None = None) -> list[Judged]:
    """Return V and success of the usable episodes where both are known.

    `rows` replaces the recorded values, one row an episode, padding allowed on the right.
    """
    given = [token_values(e) if rows is None else list(rows[i][: e.action_tokens]) for i, e in enumerate(episodes)]
    pairs = zip(episodes, given, strict=True)
    return [
        Judged(values, e.success, episode_weight(e))
        for e, values in pairs
        if e.success is not None and usable(e) and values
    ]


def value_at_part(values: Sequence[float], part: float) -> float:
    """Return V at a share of an episode's action tokens."""
    return values[int(part * (len(values) - 1))]


def ranking(episodes: Sequence[Episode], rows: Sequence[Sequence[float]] | None = None) -> dict[str, float | None]:
    """Return the AUC of V at 25, 50 and 75% of the action tokens against success; None if one class is missing.

    `rows` replaces the recorded values, see `judged_values`. Survivors of gates stand for the stopped episodes too.
    """
    judged = judged_values(episodes, rows)
    outcomes = np.array([one.success >= 1.0 for one in judged], dtype=bool)
    weights = np.array([one.weight for one in judged])
    result: dict[str, float | None] = {}
    for name, part in PARTS.items():
        scores = np.array([value_at_part(one.values, part) for one in judged])
        result[name] = auc(scores, outcomes, weights) if outcomes.any() and not outcomes.all() else None
    return result


def calibration(episodes: Sequence[Episode], *, label: str) -> dict[str, Any] | None:
    """Return the ledger's calibration record: V against success by quarter of the episode; None without values."""
    judged = judged_values(episodes)
    if not judged:
        return None
    bins: list[dict[str, Any]] = []
    for quarter in range(4):
        scores: list[float] = []
        outcomes: list[float] = []
        for values, success, _ in judged:
            chosen = values[quarter * len(values) // 4 : (quarter + 1) * len(values) // 4]
            scores += chosen
            outcomes += [success] * len(chosen)
        if scores:
            part = f"{25 * quarter}-{25 * (quarter + 1)}%"
            bins += [
                {"turn_part": part, **row._asdict()} for row in reliability_bins(np.array(scores), np.array(outcomes))
            ]
    every = np.array([value for one in judged for value in one.values])
    outcome = np.array([one.success for one in judged for _ in one.values])
    return {
        "label": label,
        "bins": bins,
        "ece": expected_calibration_error(every, outcome),
        "ece_floor": calibration_floor(every, [number for number, one in enumerate(judged) for _ in one.values]),
        "auc": ranking(episodes),
    }


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Return the `train/*` metrics of a step's episodes; failed ones are counted, never averaged in."""
    good = [episode for episode in episodes if episode.end is not EpisodeEnd.ERROR]
    metrics = {
        "train/episodes": float(len(episodes)),
        "train/sampled_tokens": float(sum(episode.action_tokens for episode in episodes)),
        "train/errors": float(len(episodes) - len(good)),
    }
    if good:
        actions = [turn.action for episode in good for turn in episode.turns]
        metrics["train/reward"] = float(np.mean([_reached_reward(episode) for episode in good]))
        metrics["train/truncated"] = float(np.mean([episode.end is EpisodeEnd.TRUNCATED for episode in good]))
        metrics["train/cut_actions"] = float(np.mean([action.cut for action in actions])) if actions else 0.0
        metrics["train/turns"] = float(np.mean([len(episode.turns) for episode in good]))
        # A survivor of gates stands for the stopped ones too (Horvitz & Thompson 1952); without a gate: the mean.
        metrics["train/success"] = sum(episode_weight(e) * e.success for e in good if e.success) / len(good)
    return metrics


def _reached_reward(episode: Episode) -> float:
    """Return the sum of an episode's rewards, each divided by the chance that the gate let it be reached."""
    weights = np.cumprod([1.0 / (1.0 - turn.gate_probability) for turn in episode.turns])
    return float(sum(weight * turn.reward for weight, turn in zip(weights, episode.turns, strict=True)))


def outside_metrics(batch: Batch, value_range: tuple[float, float] | None) -> dict[str, float]:
    """Return `value/returns_outside` and the ends of the returns where some lie outside what V can say; else nothing.

    A return here is the undiscounted sum of the rewards from a token on, which is what V of that token stands for.
    """
    if value_range is None:
        return {}
    low, high = value_range
    mask = batch.mask_BT
    returns_BT = np.cumsum(batch.rewards_BT[:, ::-1], axis=1)[:, ::-1]
    outside_B = (mask & ((returns_BT < low - 1e-6) | (returns_BT > high + 1e-6))).any(axis=1)
    if not outside_B.any():
        return {}
    return {
        "value/returns_outside": float(outside_B.mean()),
        "value/return_low": float(returns_BT[mask].min()),
        "value/return_high": float(returns_BT[mask].max()),
    }


def zero_signal_share(batch: Batch) -> float:
    """Return the share of groups whose episodes all have the same return: they teach a group method nothing."""
    returns = batch.rewards_BT.sum(axis=1)
    groups = np.unique(batch.group_B)
    return float(np.mean([np.ptp(returns[batch.group_B == group]) < 1e-9 for group in groups]))


def warnings(metrics: dict[str, float], *, step: int, max_entropy: float | None) -> list[tuple[str, str]]:
    """Return (what is likely wrong, which knob) for a step's metrics; empty for a healthy step.

    `max_entropy` is the policy's entropy in the first step, the yardstick for collapse.
    """
    found: list[tuple[str, str]] = []
    if metrics.get("train/cut_actions", 0.0) > 0.5:
        found.append(
            (
                f"{metrics['train/cut_actions']:.0%} of the actions were cut by the token limit before they ended",
                "sampling.max_new_tokens, or env.examples (more worked examples show where to stop)",
            )
        )
    explained = metrics.get("value/explained_variance")
    uncertain = 0.05 < metrics.get("train/success", 0.5) < 0.95  # else hardly any variance is left to explain
    if step >= 5 and uncertain and explained is not None and explained < 0:
        found.append(
            (
                f"the critic explains nothing yet (explained variance {explained:.2f}); lambda below 1 then misleads",
                "algorithm.value_pretraining_passes, algorithm.critic_learning_rate, or algorithm.turn_lambda = 1",
            )
        )
    if metrics.get("policy/sampler_difference_p999", 0.0) > APART:
        found.append(
            (
                "sampler and trainer disagree on log-probabilities "
                f"(99.9th percentile {metrics['policy/sampler_difference_p999']:.2f}; bfloat16 alone makes about 0.4)",
                "model.dtype = float32",
            )
        )
    if metrics.get("value/returns_outside"):
        low, high = metrics["value/return_low"], metrics["value/return_high"]
        found.append(
            (
                f"returns from {low:g} to {high:g} lie outside what the critic can say "
                f"({metrics['value/returns_outside']:.0%} of the episodes), so that it cannot learn them",
                f'model.value_head = "regression", or "hl_gauss" with model.value_range = [{low:g}, {high:g}] '
                "or wider, or rewards that add up to 0 to 1",
            )
        )
    entropy = metrics.get("policy/entropy")
    if max_entropy and entropy is not None and entropy < 0.05 * max_entropy and metrics.get("train/success", 1.0) < 0.5:
        found.append(
            (
                f"entropy fell to {entropy:.3f} without success: the policy has collapsed",
                "algorithm.learning_rate (lower), algorithm.entropy_coefficient (higher)",
            )
        )
    if step >= LONG_WAIT and metrics.get("policy/waiting"):  # it waits from the first step on
        found.append(
            (
                f"the policy has waited for {step} steps: too few episodes reach success 1.0 (mean success "
                f"{metrics.get('train/success', 0.0):.2f}); either the task is out of reach, or its grader never gives "
                "1.0, as success or else as the total reward",
                "env.level (easier), imitate.episodes, replay.actor_start_successes (lower; algorithm.name = ppo does "
                "without), or the grader",
            )
        )
    if metrics.get("value/dropped"):
        found.append(
            (
                f"the critic of an earlier run promised {metrics['value/promised_successes']:.1f} successes where "
                f"{metrics['value/came_successes']:.0f} came: it is not believed here, and learns anew",
                "model.critic_from (taught on tasks more like these)",
            )
        )
    if not all(math.isfinite(value) for name, value in metrics.items() if name.endswith("gradient_norm")):
        found.append(
            (
                "a gradient was not finite, and that update was left out",
                "algorithm.learning_rate (lower), model.dtype = float32",
            )
        )
    if metrics.get("train/zero_signal_groups", 0.0) > 0.9:
        found.append(
            (
                f"{metrics['train/zero_signal_groups']:.0%} of the groups have equal returns and teach nothing",
                "env.level (easier), imitate.episodes, or algorithm.name = ppo with group_size = 1",
            )
        )
    return found
