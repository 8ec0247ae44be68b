"""Drives: a few fixed, cheap feelings about the course of an episode, used as potential-based shaping.

None knows a task. Each reads what the learner itself met in this episode (its own actions, observations, values, harm)
and says how things stand, from -1 to 1; their weighted sum is the potential Phi of a state, that is of a history:

    F_t = gamma Phi(s_{t+1}) - Phi(s_t)          Phi(start) = 0, Phi(end) = 0, Phi(cut state) as it stands there

F is added to the actor's TD errors and to nothing else: rewards, success, the critic's targets and all measurements
stay what they are. Summed over an episode F vanishes, so that no policy is worth more or less (Ng, Harada & Russell
1999; a potential of histories is one of the states of the history process). What it does instead: GAE with F is GAE
with V + Phi in place of V, so drives stand in for a value function that has not learned yet (Wiewiora 2003), as far
as lambda is below 1, and fade by `half_life_steps` (a potential that changes between steps: Devlin & Kudenko 2012).
The argument: docs/value-function.md. `learn.py` calls `potentials` and `shaping_advantages`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretaste.config import AlgorithmConfig, DrivesConfig
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl.batch import Batch, actor_lambda
from foretaste.rl.returns import Array, gae

KEPT = 0.5
"""Share of a passing feeling that is left a turn later."""
DISPLEASED = frozenset((
    "angry", "annoyed", "bad", "cannot", "complaint", "denied", "disappointed", "error", "fail", "failed",
    "failure", "forbidden", "illegal", "incorrect", "invalid", "mistake", "no", "nobody", "nope", "not",
    "nothing", "rejected", "refused", "sorry", "stop", "unacceptable", "unhappy", "unknown", "unusable", "upset",
    "useless", "wrong",
))  # fmt: skip
"""Words of an observation that show that something displeased, in any task that speaks English."""
_WORD = re.compile(r"[^\W_]+")


class Potential(NamedTuple):
    """Phi of the states of a batch."""

    states_BT: Array
    """At each action token; the same for all tokens of a turn, and 0 on padding."""
    final_B: Array
    """In the state after the last token: 0 where the task ended."""


# What is felt: for K turns K + 1 numbers, one a state, the last of them after the last turn. The first is 0, since a
# feeling is about what came of one's actions.


def repetition(episode: Episode) -> list[float]:
    """Going in circles: -1 while every action repeats one that was taken on the very same observation."""
    done: set[tuple[str, str]] = set()
    felt = []
    for turn in episode.turns:
        act = (turn.observation, turn.action.text)
        felt.append(-float(act in done))
        done.add(act)
    return _passing(felt)


def checks(episode: Episode) -> list[float]:
    """Share of the checks that pass, where the environment reports checks."""
    return [0.0, *(sum(turn.checks) / len(turn.checks) if turn.checks else 0.0 for turn in episode.turns)]


def novelty(episode: Episode) -> list[float]:
    """Share of an observation's words that are new in this episode.

    Source: episodic novelty, Badia et al. 2002.06038 section 3.
    """
    seen: set[str] = set()
    felt = []
    for text in _observations(episode):
        words = set(_words(text))
        felt.append(len(words - seen) / len(words) if words else 0.0)
        seen |= words
    return _passing(felt[1:])


def surprise(episode: Episode) -> list[float]:
    """By how much V moved over a turn, up or down; 0 where no values were recorded.

    Source: curiosity as the error of one's own prediction, Schmidhuber 1991.
    """
    values = [turn.action.values[0] for turn in episode.turns if turn.action.values]
    if len(values) < len(episode.turns) or not values:
        return [0.0] * (len(episode.turns) + 1)
    values.append(episode.final_value)
    return _passing([abs(after - before) for before, after in itertools.pairwise(values)])


def displeasure(episode: Episode) -> list[float]:
    """-1 while every observation has a word of displeasure (`DISPLEASED`)."""
    return _passing([-float(not DISPLEASED.isdisjoint(_words(text))) for text in _observations(episode)[1:]])


def permission(episode: Episode) -> list[float]:
    """Minus the harm done to others so far in this episode, at worst -1; it does not pass."""
    return [0.0, *(-min(1.0, float(harm)) for harm in np.cumsum([turn.harm for turn in episode.turns]))]


DRIVES: dict[str, Callable[[Episode], list[float]]] = {
    "repetition": repetition,
    "checks": checks,
    "novelty": novelty,
    "surprise": surprise,
    "displeasure": displeasure,
    "permission": permission,
}
"""Each drive by the name of its weight in `DrivesConfig`."""


def weights_of(config: DrivesConfig) -> dict[str, float]:
    """Return the weights that are not 0."""
    given = {name: float(getattr(config, name)) for name in DRIVES}
    return {name: weight for name, weight in given.items() if weight}


def share_left(config: DrivesConfig, step: int) -> float:
    """Return the share of the drives that is left in a training step, halved every `half_life_steps`."""
    return 0.5 ** (step / config.half_life_steps)


class Feelings:
    """What the drives say of a training step's episodes: worked out once an episode, whoever asks.

    Episodes are told apart by identity; each is kept as long as what is known of it.
    """

    def __init__(self, config: DrivesConfig) -> None:
        self.weights = weights_of(config)
        self._known: dict[int, tuple[Episode, dict[str, list[float]]]] = {}

    def of(self, episode: Episode) -> dict[str, list[float]]:
        """Return what each drive that has a weight says of the states of an episode."""
        if id(episode) not in self._known:
            self._known[id(episode)] = episode, {name: DRIVES[name](episode) for name in self.weights}
        return self._known[id(episode)][1]


def potentials(batch: Batch, feelings: Feelings, *, share: float = 1.0) -> Potential:
    """Return Phi of every state of a batch, times `share`."""
    weights = feelings.weights
    states_BT, final_B = np.zeros_like(batch.rewards_BT), np.zeros(len(batch.episodes))
    for b, episode in enumerate(batch.episodes):
        said = feelings.of(episode)
        felt = np.sum([weight * np.array(said[name]) for name, weight in weights.items()], axis=0) * share
        counts = [len(turn.action.tokens) for turn in episode.turns]
        states_BT[b, : sum(counts)] = np.repeat(felt[:-1], counts)
        final_B[b] = 0.0 if episode.end is EpisodeEnd.TERMINATED else felt[-1]
    return Potential(states_BT, final_B)


def shaping_rewards(potential: Potential, length_B: NDArray[np.int64], *, gamma: float) -> Array:
    """Return F_t = gamma Phi(s_{t+1}) - Phi(s_t) of every action token, B x T, 0 on padding.

    Within a turn Phi stands still, so that with gamma = 1 F is 0 there and falls on the turn's last token.

    Source: Ng, Harada & Russell 1999, equation 2.
    """
    rows, last_B = np.arange(len(length_B)), length_B - 1
    next_BT = np.roll(potential.states_BT, -1, axis=1)
    next_BT[rows, last_B] = potential.final_B
    inside = np.arange(next_BT.shape[1])[None, :] <= last_B[:, None]
    return np.where(inside, gamma * next_BT - potential.states_BT, 0.0)


def shaping_advantages(batch: Batch, potential: Potential, algorithm: AlgorithmConfig) -> Array:
    """Return what F adds to the actor's advantages, B x T: sum over l of (gamma lambda)^l F_{t+l}, gates corrected.

    GAE is linear, so this is GAE with V + Phi less GAE with V, for any V.
    """
    rewards_BT = shaping_rewards(potential, batch.length_B, gamma=algorithm.gamma)
    nothing = np.zeros_like(rewards_BT)
    return gae(
        rewards_BT,
        nothing,
        nothing[:, 0],
        batch.length_B,
        actor_lambda(batch, algorithm),
        gamma=algorithm.gamma,
        gate_BT=batch.gate_BT,
    ).advantages_BT


def metrics_of(episodes: Sequence[Episode], feelings: Feelings, *, share: float) -> dict[str, float]:
    """Return the mean of each drive over the states before the actions of some episodes, and what is left of them."""
    metrics = {"drives/share": share}
    for name in feelings.weights:
        metrics[f"drives/{name}"] = float(np.mean([felt for one in episodes for felt in feelings.of(one)[name][:-1]]))
    return metrics


def _passing(felt: Sequence[float]) -> list[float]:
    """Return the running feeling of each state: what is left of the last, and what the turn added."""
    states = [0.0]
    for one in felt:
        states.append(KEPT * states[-1] + (1 - KEPT) * one)
    return states


def _observations(episode: Episode) -> list[str]:
    return [*(turn.observation for turn in episode.turns), episode.final_observation]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
