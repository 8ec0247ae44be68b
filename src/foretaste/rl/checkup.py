"""Exact checks of the trainer on sampled episodes: each quantity is worked out a second time, token by token.

Nothing here calls `batch`, `returns` or the losses to know what is right, so that a fault in them cannot hide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foretaste.models.conversation import ChatTemplate
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl import batch as batches
from foretaste.rl.batch import Batch
from foretaste.rl.update import Updater

TOLERANCE = 1e-6
LOGPROB_TOLERANCE = {"torch.float32": 1e-2, "torch.bfloat16": 0.5}
"""Largest median difference of log-probabilities between sampler and trainer that rounding explains."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was probed, whether it is sound (None: not checked), what was seen, what is likely at fault."""

    probe: str
    sound: bool | None
    text: str
    suspect: str
    settings: str = ""
    """Of a sound learning probe: what of the user's settings kept it from being learned with them."""


class _Token:
    """What must be known of one action token."""

    __slots__ = ("lambda_", "reward", "value", "where")

    def __init__(self, value: float, where: int) -> None:
        self.value, self.where, self.reward, self.lambda_ = value, where, 0.0, 0.0


def check_episodes(updater: Updater, template: ChatTemplate, episodes: Sequence[Episode]) -> Iterator[Finding]:
    """Yield findings on mask, rewards, values, advantages and log-probabilities.

    Raises: ValueError if no episode is usable.
    """
    batch = batches.make_batch(episodes)
    mask = _mask(batch, template)
    yield mask
    if not mask.sound:  # every other figure would be of other tokens
        return
    yield _rewards(batch)
    yield from _agreement(updater, batch)
    if updater.has_critic:
        yield _advantages(updater, batch)


def check_truncation(updater: Updater, episodes: Sequence[Episode]) -> Finding:
    """Return whether cut episodes keep the value of the state they were cut in."""
    suspect = "truncation: rl/player.py, rl/rollout.py, rl/batch.py (final_value)"
    batch = batches.make_batch(episodes)
    ends = {episode.end for episode in batch.episodes}
    if ends != {EpisodeEnd.TRUNCATED}:
        return Finding("truncation", False, f"episodes cut by a limit end as {', '.join(sorted(ends))}", suspect)
    if not updater.has_critic:
        return Finding("truncation", True, "cut episodes are marked as cut; no critic to bootstrap from", suspect)
    if not all(episode.final_observation_tokens for episode in batch.episodes):
        return Finding("truncation", False, "the state that an episode was cut in was not kept", suspect)
    # A fresh critic's V lies strictly between 0 and 1, so a 0 is a forged end.
    expected = updater.refreshed(batch).final_value_B
    if updater.privileged:
        return Finding("truncation", bool(np.all(expected != 0)), "V of the cut state is read anew", suspect)
    if np.any(batch.final_value_B == 0) or np.max(np.abs(batch.final_value_B - expected)) > 0.05:
        text = f"V of the cut state is {expected.mean():.2f}, but {batch.final_value_B.mean():.2f} is bootstrapped"
        return Finding("truncation", False, text, suspect)
    returns = batches.compute_returns(batch, updater.algorithm)
    last = [returns.targets_BT[b, n - 1] - batch.rewards_BT[b, n - 1] for b, n in enumerate(batch.length_B)]
    wanted = updater.algorithm.gamma * batch.final_value_B
    if np.max(np.abs(np.array(last) - wanted)) > TOLERANCE:
        text = f"the last target holds {np.mean(last):.2f} of the future; V there is {np.mean(wanted):.2f}"
        return Finding("truncation", False, text, "truncation: rl/returns.py (final_value_B)")
    return Finding("truncation", True, f"cut episodes bootstrap V of their last state, {expected.mean():.2f}", suspect)


def tokens_of(episode: Episode, turn_lambda: float, token_lambda: float) -> list[_Token]:
    """Return the action tokens of an episode with value, reward and the lambda of the step that leaves them."""
    found: list[_Token] = []
    where = 0
    for turn in episode.turns:
        where += len(turn.observation_tokens)
        for index in range(len(turn.action.tokens)):
            values = turn.action.values
            token = _Token(values[index] if values else 0.0, where)
            token.lambda_ = turn_lambda if index == len(turn.action.tokens) - 1 else token_lambda
            found.append(token)
            where += 1
        if found:
            found[-1].reward += turn.reward
    return found


def _mask(batch: Batch, template: ChatTemplate) -> Finding:
    suspect = "mask: rl/batch.py (token_sequence), models/trunk.py"
    for episode, sequence in zip(batch.episodes, batch.sequences, strict=True):
        sampled = [token for turn in episode.turns for token in turn.action.tokens]
        marked = [token for token, mark in zip(sequence.tokens, sequence.action_mask, strict=True) if mark]
        places = [i for i, mark in enumerate(sequence.action_mask) if mark]
        wanted = [token.where for token in tokens_of(episode, 0, 0)]
        if places == wanted and marked == sampled:
            continue
        shift = next((by for by in (1, -1) if len(set(places) ^ {at + by for at in wanted}) <= 2), 0)
        if shift:
            text = f"the mask is off by {shift:+d}: it marks {template.text(marked[:3])!r}... instead of the action"
        else:
            text = f"{len(marked)} tokens are marked as actions, {len(sampled)} were sampled"
        return Finding("mask", False, text, suspect)
    return Finding("mask", True, f"marks the {batch.tokens} sampled tokens and no others", suspect)


def _rewards(batch: Batch) -> Finding:
    suspect = "rewards: rl/batch.py (make_batch)"
    mask = batch.mask_BT
    outside = float(np.abs(np.where(mask, 0.0, batch.rewards_BT)).sum())
    if outside > TOLERANCE:
        return Finding("rewards", False, f"{outside:.2f} of reward lies on masked tokens, where it is lost", suspect)
    for b, episode in enumerate(batch.episodes):
        wanted = np.array([token.reward for token in tokens_of(episode, 0, 0)])
        got = batch.rewards_BT[b, : len(wanted)]
        if np.max(np.abs(got - wanted)) <= TOLERANCE:
            continue
        if abs(got.sum() - wanted.sum()) > TOLERANCE:
            text = f"an episode earned {wanted.sum():.2f} and its tokens carry {got.sum():.2f}"
        else:
            text = "rewards sit on other tokens than the last of their turn"
        return Finding("rewards", False, text, suspect)
    return Finding("rewards", True, "each lands on the last token of its turn", suspect)


def _agreement(updater: Updater, batch: Batch) -> Iterator[Finding]:
    """Sampler and trainer must say the same of the same tokens."""
    suspect = "positions: models/actor_critic.py, models/trunk.py, or sampling that differs from training"
    dtype = str(updater.actor_critic.policy_parameters()[0].dtype)
    mask = batch.mask_BT
    limit = LOGPROB_TOLERANCE.get(dtype, 0.5)
    difference = np.abs(updater.logprobs(batch) - batch.logprobs_BT)[mask]
    worst = float(np.quantile(difference, 0.99))
    text = f"sampler and trainer differ by {worst:.4f} (99th percentile)"
    yield Finding("log-probabilities", worst <= limit, text, suspect)
    if updater.has_critic and not updater.privileged and all(t.action.values for e in batch.episodes for t in e.turns):
        gap = float(np.quantile(np.abs(updater.values(batch) - batch.values_BT)[mask], 0.99))
        yield Finding("values", gap <= 0.05, f"sampler and trainer differ by {gap:.4f} in V", f"V's {suspect}")


def _advantages(updater: Updater, batch: Batch) -> Finding:
    """Compare advantages with GAE written out for each episode, and name a shift where it is one."""
    suspect = "credit: rl/returns.py (gae), rl/batch.py (compute_returns)"
    algorithm = updater.algorithm
    # Values drawn here, so that an untrained critic's near-constant V cannot hide a wrong index.
    values_BT = np.random.default_rng(0).uniform(0, 1, batch.values_BT.shape)
    got = batches.compute_returns(batch, algorithm, values_BT=values_BT).advantages_BT
    wanted = np.zeros_like(got)
    for b, episode in enumerate(batch.episodes):
        tokens = tokens_of(episode, algorithm.turn_lambda, algorithm.token_lambda)
        following, later = episode.final_value if episode.end is not EpisodeEnd.TERMINATED else 0.0, 0.0
        for t in range(len(tokens) - 1, -1, -1):
            token = tokens[t]
            keep = 1.0 / (1.0 - batch.gate_BT[b, t + 1]) if t + 1 < len(tokens) else 1.0
            delta = token.reward + algorithm.gamma * following - values_BT[b, t]
            later = delta + algorithm.gamma * token.lambda_ * keep * later
            wanted[b, t], following = later, values_BT[b, t]
    if _close(got, wanted):
        return Finding("credit", True, "advantages equal GAE written out by hand", suspect)
    for shift in (1, -1):
        if _close(np.roll(got, -shift, axis=1)[:, 1:-1], wanted[:, 1:-1]):
            text = f"advantages are shifted by one token: each sits {'after' if shift > 0 else 'before'} its own"
            return Finding("credit", False, text, suspect)
    return Finding("credit", False, f"advantages are off by up to {np.abs(got - wanted).max():.2f}", suspect)


def _close(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.allclose(left, right, atol=TOLERANCE))
