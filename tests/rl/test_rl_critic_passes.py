"""Passes of the critic with the policy's part done once: the same numbers as passes that repeat it."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest

from foretaste.config import AlgorithmConfig, ModelConfig
from foretaste.rl import critic_passes
from foretaste.rl.batch import Batch, compute_returns, make_batch
from foretaste.rl.critic_passes import CriticPasses
from foretaste.rl.update import CRITIC, Updater


@pytest.fixture(params=[1, -1], ids=["tower", "separate decoder"])
def learner(request: pytest.FixtureRequest, make_learner: Any) -> tuple[Updater, Batch]:
    model = ModelConfig("nano-xs", critic_layers=request.param)
    return make_learner(model, AlgorithmConfig(minibatches=3, microbatch_tokens=512), 12)


def test_values_are_those_of_a_whole_forward_pass(learner: tuple[Updater, Batch]) -> None:
    updater, batch = learner
    whole = np.zeros_like(batch.values_BT)
    for row, sequence in enumerate(batch.sequences):
        batch.scatter(whole, [row], updater.actor_critic.evaluate([sequence], policy=False).values_N.detach())
    passes = CriticPasses(updater, batch, seed=0, key=())
    np.testing.assert_allclose(passes.values(), whole, atol=1e-5)
    assert sorted(row for micros in passes.minibatches for rows in micros for row in rows) == list(range(len(whole)))


def test_passes_move_the_critic_alone_and_kept_input_changes_nothing(
    learner: tuple[Updater, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, batch = learner
    wanted = np.full_like(batch.rewards_BT, 0.9) * batch.mask_BT
    returns = compute_returns(batch, CRITIC)._replace(targets_BT=wanted)
    policy = [parameter.clone() for parameter in updater.actor_critic.policy_parameters()]
    start = updater.state()
    before = {name: tensor.clone() for name, tensor in updater.actor_critic.critic.state_dict().items()}
    metrics = CriticPasses(updater, batch, seed=0, key=("a",)).fit(returns, passes=6)
    learned = CriticPasses(updater, batch, seed=0, key=()).values()
    assert metrics["value/loss"] > 0
    assert np.abs(learned - wanted)[batch.mask_BT].mean() < 0.3
    assert all((old == new).all() for old, new in zip(policy, updater.actor_critic.policy_parameters(), strict=True))

    updater.actor_critic.critic.load_state_dict(before)
    again = Updater(updater.actor_critic, updater.algorithm, temperature=1.0)
    assert start["optimizer"].keys() == again.state()["optimizer"].keys()
    monkeypatch.setattr(critic_passes, "KEPT_BYTES", 0)
    repeated = CriticPasses(again, batch, seed=0, key=("a",))
    repeated.fit(returns, passes=6)
    assert all(sum(tensor.nbytes for tensor in given.entering) == 0 for given in repeated.kept.values())
    np.testing.assert_allclose(CriticPasses(again, batch, seed=0, key=()).values(), learned, atol=1e-5)


def test_a_second_pretraining_goes_on_from_what_the_first_has_taught(learner: tuple[Updater, Batch]) -> None:
    updater, batch = learner
    updater.algorithm = dataclasses.replace(updater.algorithm, critic_learning_rate=0.0, head_learning_rate=0.0)
    paid = np.where(np.arange(batch.rewards_BT.shape[1]) == 0, 0.25, 0.0)[None, :].repeat(len(batch.episodes), axis=0)
    updater.pretrain_values(batch._replace(rewards_BT=paid), seed=0)
    first = updater.values(batch)
    assert first[batch.mask_BT] == pytest.approx(0.25, abs=0.05)  # a new critic starts at the mean
    updater.pretrain_values(batch._replace(rewards_BT=2 * paid), seed=0)
    np.testing.assert_array_equal(updater.values(batch), first)


def test_values_of_finds_the_same_episodes_in_another_order(learner: tuple[Updater, Batch]) -> None:
    updater, batch = learner
    passes = CriticPasses(updater, batch, seed=0, key=())
    part = make_batch(batch.episodes[5:2:-1])
    found = passes.values_of(part)
    assert found is not None
    np.testing.assert_allclose(found, updater.values(part), atol=1e-5)
    assert passes.values_of(make_batch([copy.deepcopy(batch.episodes[0])])) is None
