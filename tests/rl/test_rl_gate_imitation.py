"""Whatever learns again from stored episodes under the gate learns what it would without one, over all coins.

Every set of coins that the gates could have tossed on an episode is put through `Learner.learn`; what the policy then
imitates (gains and successes), weighed by the coins' probability, must add up to what it imitates without a gate.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretaste.checks import check
from foretaste.config import AlgorithmConfig, GateConfig, ModelConfig, ReplayConfig, TrainConfig
from foretaste.errors import ConfigError
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl import batch as batches
from foretaste.rl.advise import evidence_of
from foretaste.rl.batch import Batch, Weighed, make_batch
from foretaste.rl.diagnostics import episode_metrics
from foretaste.rl.gate import Gate
from foretaste.rl.learn import Learner
from foretaste.rl.losses import k2_penalty
from foretaste.rl.replay import Replay
from foretaste.rl.returns import gae, gated_gains, relative_gains
from foretaste.rl.update import Updater

ALGORITHM = AlgorithmConfig(
    learning_rate=0, critic_learning_rate=0, head_learning_rate=0, passes=1, minibatches=1, turn_lambda=0.7
)
TURNS = 4
T = 5
unit = st.floats(0, 1)


def gain_of(advantages: np.ndarray, values: np.ndarray) -> np.ndarray:
    return relative_gains(advantages, values, most=2.0)


def outcomes(episode: Episode, gate: Gate) -> Iterator[tuple[float, Episode]]:
    """Yield (probability, episode) for every way that the coins of an episode can fall."""
    past: list[float] = []
    reach = 1.0
    for index, turn in enumerate(episode.turns):
        value = turn.action.values[0]
        p = gate.probability(value, past) if index else 0.0
        if p:
            met = tuple(dataclasses.replace(t, gate_probability=q) for t, q in zip(episode.turns, past, strict=False))
            # `final_observation_tokens` leads to the state that the gate judged: `Reader.final_values` reads it anew.
            yield (
                reach * p,
                dataclasses.replace(
                    episode,
                    turns=met,
                    end=EpisodeEnd.STOPPED,
                    success=None,
                    final_value=value,
                    final_observation_tokens=turn.observation_tokens,
                ),
            )
        past.append(p)
        reach *= 1 - p
    met = tuple(dataclasses.replace(t, gate_probability=q) for t, q in zip(episode.turns, past, strict=True))
    yield reach, dataclasses.replace(episode, turns=met)


def episodes_of(updater: Updater, count: int) -> list[Episode]:
    """Return episodes of random tokens whose values are those of the updater's critic, some solved."""
    rng = np.random.default_rng(1)
    made = []
    for number in range(count):
        turns = tuple(
            Turn(
                "",
                Action("", tuple(rng.integers(5, 200, 2).tolist()), (-5.0, -5.0), (0.5, 0.5)),
                tuple(rng.integers(5, 200, 3).tolist()),
                float(number % 2 and at == TURNS - 1),
            )
            for at in range(TURNS)
        )
        made.append(Episode("toy", number, "train", 1, "plain", turns, EpisodeEnd.TERMINATED, float(number % 2)))
    batch = make_batch(made)
    values_BT = updater.values(batch)
    found = []
    for episode, row in zip(made, values_BT, strict=True):
        turns = tuple(
            dataclasses.replace(turn, action=dataclasses.replace(turn.action, values=tuple(row[2 * at : 2 * at + 2])))
            for at, turn in enumerate(episode.turns)
        )
        found.append(dataclasses.replace(episode, turns=turns))
    return found


@pytest.fixture(scope="module")
def updater(make_learner: Any) -> Updater:
    """A critic that says something, all of it wrong."""
    made, batch = make_learner(ModelConfig("nano-xs", critic_layers=1), ALGORITHM, 4)
    linear = made.actor_critic.critic.head.linear
    with torch.no_grad():
        linear.weight.normal_(std=2.0, generator=torch.Generator().manual_seed(5))
        logits = made.actor_critic.evaluate(batch.sequences, policy=False).value_logits
        linear.weight.div_(logits.std())
        linear.bias.copy_(-(logits - linear.bias).mean() / logits.std())
    return made


class Imitated:
    """What `Learner.learn` hands to imitation: gains of a batch, and weights of replayed successes, by token."""

    def __init__(self, updater: Updater, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gains = self.successes = np.zeros(2 * TURNS)
        monkeypatch.setattr(updater, "imitate_gains", self._of_gains)
        monkeypatch.setattr(updater, "_imitate", self._of_successes)

    def _of_gains(self, batch: Batch, gains_BT: np.ndarray, **_: Any) -> float:
        self.gains = np.zeros(2 * TURNS)
        self.gains[: gains_BT.shape[1]] = gains_BT[0]
        return 0.0

    def _of_successes(self, parts: list[Weighed], **_: Any) -> float:
        self.successes = np.zeros(2 * TURNS)
        self.successes[: len(parts[0].weights)] = parts[0].weights
        return 0.0


def learned(updater: Updater, episode: Episode, folder: Path, critic: int, into: Imitated) -> np.ndarray:
    """Return gains and weights of successes that a step with this one episode imitates, 2 x tokens."""
    config = TrainConfig(
        algorithm=ALGORITHM,
        replay=ReplayConfig(critic_episodes=critic, policy_passes=1, success_episodes=1),
        episodes_per_step=1,
    )
    replay = Replay(folder)
    replay.add([episode], 1)
    into.gains = into.successes = np.zeros(2 * TURNS)
    Learner(config, updater, replay, lambda step, advice: None).learn(make_batch([episode]), 1, None)
    return np.stack([into.gains, into.successes])


@pytest.mark.parametrize("critic", [0, 1])
def test_what_is_imitated_under_the_gate_is_what_would_be_without_it(
    updater: Updater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, critic: int
) -> None:
    into = Imitated(updater, monkeypatch)
    gate = Gate(0.9, max_probability=0.75, max_weight=8.0)
    stopped = mass = 0.0
    for episode in episodes_of(updater, 6):
        plain = learned(updater, episode, tmp_path, critic, into)
        expected = np.zeros_like(plain)
        for chance, one in outcomes(episode, gate):
            if critic and one.end is EpisodeEnd.STOPPED:  # an older critic's word, which must not be used
                one = dataclasses.replace(one, final_value=0.99)
            expected += chance * learned(updater, one, tmp_path, critic, into)
            stopped += chance * (one.end is EpisodeEnd.STOPPED)
        np.testing.assert_allclose(expected, plain, atol=1e-4)  # values are read in float32, in other batches
        assert (expected[1] > 0).all() == (episode.success == 1.0)
        mass += plain[0].sum()
    assert stopped > 2
    assert mass > 5


@settings(max_examples=100, deadline=None)
@given(
    arrays(float, T, elements=unit),
    arrays(float, T, elements=unit),
    arrays(float, T, elements=st.floats(0, 0.9)),
    arrays(float, T, elements=unit),
    unit,
    st.floats(0.8, 1),
)
def test_gains_under_the_gate_have_the_mean_of_gains_without_it(
    rewards: np.ndarray, values: np.ndarray, gates: np.ndarray, lambdas: np.ndarray, final: float, gamma: float
) -> None:
    """For any wrong V, any rewards of 0 or more, any lambdas; none is negative."""
    gates = gates.copy()
    gates[0] = 0.0
    expected = np.zeros(T)
    for stop in range(1, T + 1):
        chance = math.prod(1 - p for p in gates[1:stop]) * (gates[stop] if stop < T else 1.0)
        found = gated_gains(
            rewards[None, :stop],
            values[None, :stop],
            np.array([final if stop == T else values[stop]]),
            np.array([stop]),
            lambdas[None, :stop],
            gates[None, :stop],
            np.array([stop < T]),
            gain_of,
            gamma=gamma,
        )[0]
        assert (found >= 0).all()
        expected[:stop] += chance * found
    ungated = gae(rewards[None], values[None], np.array([final]), np.array([T]), lambdas[None], gamma=gamma)
    gains = gain_of(ungated.advantages_BT, values[None])[0]
    near = np.abs(ungated.advantages_BT[0] - 0.05 * np.maximum(values, 0.05)) > 1e-9  # off the step at the least gain
    np.testing.assert_allclose(expected[near], gains[near], atol=1e-9)


def test_gains_of_several_rows_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(2)
    rewards, values, lambdas = rng.random((3, T)), rng.random((3, T)), rng.random((3, T))
    gates = rng.random((3, T)) * 0.8
    gates[:, 0] = 0
    final, length, stopped = rng.random(3), np.array([5, 2, 3]), np.array([False, True, False])
    inside = np.arange(T)[None] < length[:, None]
    rewards, values, gates = (np.where(inside, one, 0.0) for one in (rewards, values, gates))
    whole = gated_gains(rewards, values, final, length, lambdas, gates, stopped, gain_of)
    for b, n in itertools.product(range(3), (5,)):
        row = slice(b, b + 1)
        alone = gated_gains(
            rewards[row, :n], values[row, :n], final[row], length[row], lambdas[row, :n], gates[row, :n],
            stopped[row], gain_of,
        )  # fmt: skip
        np.testing.assert_allclose(whole[row], alone, atol=1e-12)
    assert (whole[~inside] == 0).all()


def survivor(probability: float, success: float | None, reward: float) -> Episode:
    turns = tuple(
        Turn("", Action("", (1,), (-0.1,), (0.5,)), (2,), reward, gate_probability=p) for p in (0.0, probability)
    )
    end = EpisodeEnd.STOPPED if success is None else EpisodeEnd.TERMINATED
    return Episode("toy", 1, "train", 1, "plain", turns, end, success)


def test_figures_of_a_gated_step_are_those_of_no_gate() -> None:
    """A success that survived with chance 1/4 stands for three that were stopped, in rewards and in evidence too."""
    short = dataclasses.replace(survivor(0.0, None, 0.0), turns=survivor(0.0, None, 0.0).turns[:1])
    episodes = [survivor(0.75, 1.0, 0.5), short, short, short]
    metrics = episode_metrics(episodes)
    assert metrics["train/success"] == pytest.approx(1.0)
    assert metrics["train/reward"] == pytest.approx((0.5 + 4 * 0.5) / 4)  # the first turn's reward, and the second's
    evidence = evidence_of(episodes)
    assert (evidence.episodes, evidence.successes, evidence.stopped) == (1, 1, 3)
    assert evidence.success == pytest.approx(1.0)
    failed = evidence_of([survivor(0.75, 1.0, 0.0), *[survivor(0.0, 0.0, 0.0)] * 6, short])
    assert failed.success == pytest.approx(4 / 8)


def test_entropy_and_distance_count_a_survivor_as_often_as_its_advantage() -> None:
    one = k2_penalty(torch.tensor([1.0, 2.0]), torch.zeros(2), torch.tensor([1.0, 4.0]), normalizer=2.0)
    assert float(one) == pytest.approx(0.5 * (1 + 4 * 4) / 2)


def test_the_entropy_bonus_counts_a_survivor_as_often_as_its_advantage(
    updater: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(episodes_of(updater, 2)[:1])  # no reward: with a V of 0 everywhere only the bonus has a gradient
    monkeypatch.setattr(updater, "algorithm", dataclasses.replace(ALGORITHM, entropy_coefficient=0.1))
    weights, found = updater.actor_critic.policy_parameters(), []

    def keep(rates: dict[str, float]) -> dict[str, float]:
        found.append(torch.cat([one.grad.flatten() for one in weights if one.grad is not None]))
        updater.actor_critic.zero_grad()
        return dict.fromkeys(("policy", "value"), 0.0)

    monkeypatch.setattr(updater.optimizer, "step", keep)
    monkeypatch.setattr(updater.optimizer, "accumulate", lambda: None)
    nothing = np.zeros_like(batch.values_BT)
    gates = nothing.copy()
    gates[:, 0] = 0.75
    for gate_BT in (nothing, gates):
        updater.actor_critic.zero_grad()
        updater.update(batch._replace(gate_BT=gate_BT, values_BT=nothing), step=1, seed=0, critic=False)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[1], 4 * found[0], rtol=1e-4, atol=1e-7)


def test_groups_chosen_by_their_outcomes_are_refused_beside_a_gate() -> None:
    algorithm = AlgorithmConfig(group_size=2, dynamic_sampling=True)
    with pytest.raises(ConfigError, match=r"dynamic_sampling = True .*gate\.max_probability = 0"):
        check(TrainConfig(algorithm=algorithm, gate=GateConfig(max_probability=0.5)))
    check(TrainConfig(algorithm=algorithm))


def test_a_survivors_whole_weight_is_that_of_its_gates() -> None:
    part = batches.survivor_part(survivor(0.75, 1.0, 0.0))
    assert part.weights.tolist() == [4.0, 4.0]
    assert part.sequence == batches.token_sequence(survivor(0.75, 1.0, 0.0))
