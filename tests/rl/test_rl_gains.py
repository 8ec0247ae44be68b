"""Imitating what raised V: the gain of an action, and that only gains are imitated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from foretaste.config import (
    AlgorithmConfig,
    EnvConfig,
    HeldOutConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.ledger import Ledger
from foretaste.models.actor_critic import TokenSequence
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.batch import Batch, weighed_part
from foretaste.rl.learn import Learner
from foretaste.rl.replay import Replay
from foretaste.rl.returns import relative_gains
from foretaste.rl.train import train
from foretaste.rl.update import Updater

SHAPE = (3, 5)


@given(
    arrays.arrays(np.float64, SHAPE, elements=st.floats(-1, 1)),
    arrays.arrays(np.float64, SHAPE, elements=st.floats(0, 1)),
)
def test_a_gain_is_the_share_of_the_success_left_that_was_won(advantages: np.ndarray, values: np.ndarray) -> None:
    gains = relative_gains(advantages, values, most=2.0, least=0.1, floor=0.05)
    assert ((gains == 0.0) | (gains >= 0.1)).all()
    assert gains.max() <= 2.0
    assert (gains[advantages <= 0] == 0).all()
    plain = (advantages >= 0.1001 * values) & (values >= 0.05) & (advantages <= 2 * values)
    np.testing.assert_allclose(gains[plain] * values[plain], advantages[plain], atol=1e-12)


def test_the_floor_keeps_noise_in_lost_states_small() -> None:
    noise, lost = np.array([[0.001]]), np.array([[0.0005]])
    assert relative_gains(noise, lost, most=2.0, least=0.0, floor=0.05) == pytest.approx(0.02)
    assert relative_gains(noise, lost, most=2.0, least=0.05, floor=0.05) == 0.0


@pytest.fixture(scope="module")
def learner(make_learner: Any) -> tuple[Updater, Batch]:
    model = ModelConfig("nano-xs", critic_layers=1)
    return make_learner(model, AlgorithmConfig(minibatches=2, microbatch_tokens=256), 8)


def test_the_loss_told_is_that_of_what_was_imitated(learner: tuple[Updater, Batch]) -> None:
    updater, batch = learner
    gains = np.zeros_like(batch.rewards_BT)
    gains[0] = batch.mask_BT[0]  # all in one of the two minibatches
    told = updater.imitate_gains(batch, gains, passes=1, seed=0, step=9, learning_rate=0.0)
    expected = -float(updater.logprobs(batch)[0][batch.mask_BT[0]].mean())
    assert told == pytest.approx(expected, rel=1e-4)


def test_what_comes_after_the_last_gain_is_not_read(learner: tuple[Updater, Batch]) -> None:
    """And what is left out changes nothing: tokens before it are seen, those after it could not matter."""
    updater, batch = learner
    gains = np.zeros_like(batch.rewards_BT)
    gains[1, 0], gains[2, :2] = 0.5, (0.0, 2.0)
    whole = [weighed_part(sequence, row) for sequence, row in zip(batch.sequences, gains, strict=True)]
    assert [len(part.weights) for part in whole[:3]] == [0, 1, 1]
    for row, column in ((1, 0), (2, 1)):
        part, full = whole[row].sequence, batch.sequences[row]
        last = [at for at, acted in enumerate(full.action_mask) if acted][column]
        assert part == TokenSequence(full.tokens[: last + 1], [at == last for at in range(last + 1)])
    told = updater.imitate_gains(batch, gains, passes=1, seed=0, step=9, learning_rate=0.0)
    logprobs = updater.logprobs(batch)
    expected = []  # the weighed mean of each minibatch
    for rows in updater.minibatches(batch, 0, ("gains", 9, 0)):
        if mass := gains[rows].sum():
            expected.append(-(gains[rows] * logprobs[rows]).sum() / mass)
    assert told == pytest.approx(np.mean(expected), rel=1e-4)


def test_what_gained_becomes_likelier_than_what_did_not(learner: tuple[Updater, Batch]) -> None:
    updater, batch = learner
    gains = np.zeros_like(batch.rewards_BT)
    gains[::2] = 2.0 * batch.mask_BT[::2]
    before = updater.logprobs(batch)
    for step in range(1, 4):
        loss = updater.imitate_gains(batch, gains, passes=2, seed=0, step=step, learning_rate=3e-3)
    after = updater.logprobs(batch)
    assert loss > 0
    change = (after - before).sum(axis=1)
    assert change[::2].min() > 0
    assert change[::2].mean() > change[1::2].mean()


def test_without_gains_nothing_moves(learner: tuple[Updater, Batch]) -> None:
    updater, batch = learner
    before = updater.logprobs(batch)
    none = np.zeros_like(batch.rewards_BT)
    assert updater.imitate_gains(batch, none, passes=2, seed=0, step=9, learning_rate=1e-2) == 0.0
    np.testing.assert_array_equal(updater.logprobs(batch), before)


def test_training_with_gains_writes_their_loss_down_and_ends_when_it_is_good_enough(tmp_path) -> None:
    config = TrainConfig(
        env=EnvConfig("lock?horizon=4&choices=2&critical=0&terse=true", examples=0, instructions=False),
        model=ModelConfig("nano-xs", critic_layers=-1),
        sampling=SamplingConfig(max_new_tokens=2),
        algorithm=AlgorithmConfig(value_pretraining_episodes=8),
        replay=ReplayConfig(critic_episodes=16, policy_passes=1),
        held_out=HeldOutConfig(items=8, every=1, curve_items=4, enough=1.0),
        steps=9,
        episodes_per_step=8,
        runs_folder=str(tmp_path),
    )
    made = train(config)
    with Ledger.open(tmp_path) as ledger:
        metrics = ledger.records(made.run or "", "metrics")
    assert len(metrics) == 2  # without critical cues every answer is right: two good points, and it ends
    assert all("policy/gains_loss" in record.payload for record in metrics)
    auto = replace(config.algorithm, name="auto")
    made = train(replace(config, algorithm=auto, replay=ReplayConfig(success_passes=2), runs_folder=f"{tmp_path}/auto"))
    with Ledger.open(f"{tmp_path}/auto") as ledger:
        (before,) = ledger.records(made.run or "", "value_pretraining")
    assert before.payload["policy/imitation_loss"] > 0  # successes of value pretraining are not left to later steps


class Imitator:
    """Stands in for the updater: counts what is imitated."""

    has_critic = True
    actor_critic = SimpleNamespace(critic_taught=False)

    def __init__(self) -> None:
        self.imitated: list[int] = []

    def warmup(self, step: int) -> float:
        return 1.0

    def imitate(self, sequences: list[Any], *, learning_rate: float) -> float:
        self.imitated.append(len(sequences))
        return float(len(self.imitated))


def imitating(folder: Path, name: Any, outcomes: tuple[float, ...]) -> tuple[Learner, Imitator]:
    """Return a learner of steps of 32 episodes that has stored episodes of these outcomes, and what counts."""
    config = TrainConfig(
        algorithm=AlgorithmConfig(name=name),
        replay=ReplayConfig(success_episodes=2, success_passes=3),
        episodes_per_step=32,
    )
    replay, updater = Replay(folder), Imitator()
    turn = Turn("a", Action("x", (1,), (0.0,), (0.5,)), (1,), 0.0)
    replay.add([Episode("toy", 1, "train", 1, "plain", (turn,), EpisodeEnd.TERMINATED, won) for won in outcomes], 1)
    return Learner(config, cast(Any, updater), replay, lambda step, advice: None), updater


@pytest.mark.parametrize(
    ("name", "method", "steps"),
    [("reinforce", "value", 3), ("auto", "success replay", 3), ("auto", "value", 3), ("auto", "leave-one-out", 0)],
)
def test_each_pass_over_successes_is_a_step_beside_v_too(tmp_path: Path, name: Any, method: Any, steps: int) -> None:
    learner, updater = imitating(tmp_path, name, (1.0, 1.0, 1.0, 0.0))
    learner.method, learner.successes = method, 4
    metrics = learner._replay_successes(2)
    assert updater.imitated == [2] * steps
    assert metrics.get("policy/imitation_loss") == ({0: None, 1: 1.0, 3: 2.0}[steps])


@pytest.mark.parametrize(
    ("name", "method", "successes", "steps"),
    [
        ("auto", "success replay", 4, 2 * 3),  # as two steps of 32 episodes would have taken, and no third of 16
        ("auto", "success replay", 3, 0),
        ("auto", "value", 4, 2 * 3),
        ("auto", "leave-one-out", 4, 0),
        ("reinforce", "success replay", 4, 0),
    ],
)
def test_auto_learns_at_once_from_what_was_played_for_the_probe(
    tmp_path: Path, name: Any, method: Any, successes: int, steps: int
) -> None:
    learner, updater = imitating(tmp_path, name, (1.0,) * successes)
    learner.method, learner.successes = method, successes
    metrics = learner._caught_up(80)
    assert updater.imitated == [2] * steps
    assert ("policy/imitation_loss" in metrics) == (steps > 0)
