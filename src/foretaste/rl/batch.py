"""Episodes -> the flat arrays that the losses take. One place decides which token gets which number.

    reward of a turn     lands on the last action token of that turn, never on an observation
    lambda of a step     `token_lambda` inside a turn, `turn_lambda` where it crosses an observation
    gate of a turn       sits on the first action token of that turn

Episodes that ended in an error, and episodes without an action token, carry no number and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foretaste.config import AlgorithmConfig
from foretaste.models.actor_critic import TokenSequence
from foretaste.models.trunk import common_prefix
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl.gate import episode_weight
from foretaste.rl.returns import Array, Returns, gae, group_advantages, leave_one_out_advantages


class Batch(NamedTuple):
    """Usable episodes with what was recorded of each action token. B episodes, T tokens of the longest."""

    episodes: tuple[Episode, ...]
    sequences: tuple[TokenSequence, ...]
    length_B: NDArray[np.int64]
    """Action tokens of each episode."""
    logprobs_BT: Array
    """Behaviour log-probabilities, as sampled."""
    values_BT: Array
    rewards_BT: Array
    gate_BT: Array
    turn_end_BT: NDArray[np.bool_]
    """True on the last action token of each turn."""
    final_value_B: Array
    group_B: NDArray[np.int64]
    """Episodes of one item share a group."""
    shared_prefix: int
    """Tokens that all sequences begin with."""

    @property
    def mask_BT(self) -> NDArray[np.bool_]:
        """True on action tokens, False on padding."""
        return np.arange(self.rewards_BT.shape[1])[None, :] < self.length_B[:, None]

    @property
    def stopped_B(self) -> NDArray[np.bool_]:
        """True where the gate stopped the episode."""
        return np.array([episode.end is EpisodeEnd.STOPPED for episode in self.episodes])

    @property
    def gated(self) -> bool:
        """Whether the gate could have stopped, or did stop, any of the episodes."""
        return bool(self.gate_BT.any() or self.stopped_B.any())

    @property
    def tokens(self) -> int:
        """Action tokens of the whole batch."""
        return int(self.length_B.sum())

    def scatter(self, target_BT: Array, rows: Sequence[int], values_N: Tensor) -> None:
        """Write flat values of the action tokens of `rows`, in order, into B x T."""
        mask = self.mask_BT[list(rows)]
        block = np.zeros(mask.shape)
        block[mask] = values_N.float().cpu().numpy()
        target_BT[list(rows)] = block


def usable(episode: Episode) -> bool:
    """Return whether an episode may enter a loss."""
    return episode.end is not EpisodeEnd.ERROR and episode.action_tokens > 0


def token_sequence(episode: Episode) -> TokenSequence:
    """Return the episode's tokens exactly as they were sampled and observed, with the action mask."""
    tokens: list[int] = []
    mask: list[bool] = []
    for turn in episode.turns:
        tokens += [*turn.observation_tokens, *turn.action.tokens]
        mask += [False] * len(turn.observation_tokens) + [True] * len(turn.action.tokens)
    return TokenSequence(tokens, mask)


class Weighed(NamedTuple):
    """The part of an episode that weighs something: tokens up to the last such action, and the weights of all such."""

    sequence: TokenSequence
    weights: Array


def weighed_part(sequence: TokenSequence, weights_T: Array) -> Weighed:
    """Return what of an episode must be read to learn from the action tokens whose weight is not 0.

    `weights_T` holds a weight for each action token, in order, and padding.
    """
    actions = np.flatnonzero(sequence.action_mask)
    kept = np.flatnonzero(weights_T[: len(actions)])
    end = int(actions[kept[-1]]) + 1 if len(kept) else 0
    mask = np.zeros(end, dtype=bool)
    mask[actions[kept]] = True
    return Weighed(TokenSequence(sequence.tokens[:end], mask.tolist()), weights_T[kept])


def whole_part(sequence: TokenSequence, weight: float = 1.0) -> Weighed:
    """Return all of a sequence, every action token with the same weight."""
    return Weighed(sequence, np.full(sum(sequence.action_mask), weight))


def survivor_part(episode: Episode) -> Weighed:
    """Return a whole episode that weighs as many episodes as it stands for: 1 without a gate."""
    return whole_part(token_sequence(episode), episode_weight(episode))


def without_values(episode: Episode) -> Episode:
    """Return the episode with the values taken off: a privileged critic's readings without its text mean nothing."""
    turns = tuple(replace(turn, action=replace(turn.action, values=())) for turn in episode.turns)
    return replace(episode, turns=turns, final_value=0.0)


def as_failures(episodes: Sequence[Episode]) -> list[Episode]:
    """Return stopped episodes as if the task had failed, and all without gates: the biased stop, for comparison."""
    found = []
    for episode in episodes:
        turns = tuple(replace(turn, gate_probability=0.0) for turn in episode.turns)
        changed = replace(episode, turns=turns)
        if episode.end is EpisodeEnd.STOPPED:
            end = EpisodeEnd.TERMINATED
            nothing = {"final_value": 0.0, "final_observation_tokens": (), "final_observation": ""}
            changed = replace(changed, end=end, success=0.0, **nothing)
        found.append(changed)
    return found


def telling(episodes: Sequence[Episode]) -> list[Episode]:
    """Return the episodes of those items whose attempts did not all have the same return."""
    kept = [episode for episode in episodes if usable(episode)]
    returns: dict[tuple[str, int, int, str], set[float]] = {}
    for episode in kept:
        returns.setdefault(_item(episode), set()).add(round(episode.total_reward, 9))
    return [episode for episode in kept if len(returns[_item(episode)]) > 1]


Encode = Callable[[str], list[int]]
"""Text -> tokens."""


def privileged_sequence(episode: Episode, encode: Encode) -> TokenSequence:
    """Return what a privileged critic reads: before each action, what the environment alone knew of that state.

    The note stands between observation and action, as "[" + text + "]"; the mask still marks the sampled tokens, so
    the values come out in the same places. The policy is never given this sequence.
    """
    tokens: list[int] = []
    mask: list[bool] = []
    for turn in episode.turns:
        before = [*turn.observation_tokens, *_note(turn.privileged, encode)]
        tokens += [*before, *turn.action.tokens]
        mask += [False] * len(before) + [True] * len(turn.action.tokens)
    return TokenSequence(tokens, mask)


def final_state_sequence(episode: Episode, encode: Encode) -> TokenSequence:
    """Return the privileged sequence up to the state in which the episode was cut.

    Its only marked token is a placeholder after that state: the value read before it is V of the state.
    """
    tokens = list(privileged_sequence(episode, encode).tokens)
    tokens += [*episode.final_observation_tokens, *_note(episode.final_privileged, encode)]
    return TokenSequence([*tokens, tokens[-1]], [False] * len(tokens) + [True])


def _note(text: str | None, encode: Encode) -> list[int]:
    return [] if text is None else encode(f"[{text}]")


def make_batch(episodes: Sequence[Episode]) -> Batch:
    """Lay out the usable episodes; raises ValueError if there is none."""
    kept = tuple(episode for episode in episodes if usable(episode))
    if not kept:
        raise ValueError("no usable episode: every one ended in an error or without an action token")
    width = max(episode.action_tokens for episode in kept)
    shape = (len(kept), width)
    logprobs, values, rewards, gates = (np.zeros(shape) for _ in range(4))
    turn_end = np.zeros(shape, dtype=np.bool_)
    for b, episode in enumerate(kept):
        t = 0
        for turn in episode.turns:
            count = len(turn.action.tokens)
            if count == 0:  # an action without tokens: its reward belongs to the last token before it
                if t:
                    rewards[b, t - 1] += turn.reward
                continue
            logprobs[b, t : t + count] = turn.action.logprobs
            if turn.action.values:
                values[b, t : t + count] = turn.action.values
            gates[b, t] = turn.gate_probability
            t += count
            rewards[b, t - 1] += turn.reward
            turn_end[b, t - 1] = True
    groups = {key: index for index, key in enumerate(dict.fromkeys(map(_item, kept)))}
    sequences = tuple(token_sequence(episode) for episode in kept)
    return Batch(
        episodes=kept,
        sequences=sequences,
        length_B=np.array([episode.action_tokens for episode in kept], dtype=np.int64),
        logprobs_BT=logprobs,
        values_BT=values,
        rewards_BT=rewards,
        gate_BT=gates,
        turn_end_BT=turn_end,
        final_value_B=np.array([episode.final_value for episode in kept], dtype=np.float64),
        group_B=np.array([groups[_item(episode)] for episode in kept], dtype=np.int64),
        shared_prefix=common_prefix([list(sequence.tokens) for sequence in sequences]),
    )


def _item(episode: Episode) -> tuple[str, int, int, str]:
    return (episode.env, episode.seed, episode.level, episode.register)


def actor_lambda(batch: Batch, algorithm: AlgorithmConfig) -> Array:
    """Return the lambda of the actor's step from each action token to the next, B x T."""
    return np.where(batch.turn_end_BT, algorithm.turn_lambda, algorithm.token_lambda)


def compute_returns(batch: Batch, algorithm: AlgorithmConfig, *, values_BT: Array | None = None) -> Returns:
    """Return advantages, value targets and weights for the algorithm.

    `values_BT` replaces the values recorded while sampling (a critic that was trained since).
    `grpo` and `reinforce` have no critic: one advantage per episode, targets zero. (`auto` itself never arrives
    here while the actor learns: `advise.py` names one of the others.) An episode that survived gates stands for the
    stopped ones too, with its whole weight from the first token on, and none that was stopped may be among them.

    Raises: ValueError for a stopped episode where there is no critic: its return is not known.
    """
    if algorithm.name in ("ppo", "auto"):
        return gae(
            batch.rewards_BT,
            batch.values_BT if values_BT is None else values_BT,
            batch.final_value_B,
            batch.length_B,
            actor_lambda(batch, algorithm),
            critic_lambda=algorithm.critic_lambda,
            gamma=algorithm.gamma,
            gate_BT=batch.gate_BT,
        )
    if batch.stopped_B.any():
        raise ValueError(f"{algorithm.name} cannot learn from an episode that the gate stopped; leave it out")
    returns_B = batch.rewards_BT.sum(axis=1)
    if algorithm.name == "grpo":
        advantages_B = group_advantages(returns_B, batch.group_B)
    else:
        advantages_B = leave_one_out_advantages(returns_B, batch.group_B if algorithm.group_size > 1 else None)
    mask = batch.mask_BT
    survivors_BT = np.prod(1.0 / (1.0 - batch.gate_BT), axis=1, keepdims=True) * mask
    return Returns(advantages_B[:, None] * mask, np.zeros_like(batch.rewards_BT), survivors_BT)
