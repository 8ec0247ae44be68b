"""The advice follows its evidence, the evidence follows the episodes, and `auto` acts on it."""

import dataclasses
import math

import numpy as np
import pytest

from foretaste.config import (
    AlgorithmConfig,
    EnvConfig,
    ImitateConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.ledger import Ledger
from foretaste.models.actor_critic import ActorCritic
from foretaste.rl.adapt import Ranking
from foretaste.rl.advise import Evidence, choose, evidence_of, filled, meet, words
from foretaste.rl.batch import make_batch
from foretaste.rl.learning_probes import Bench, probe_config
from foretaste.rl.probe_envs import Delayed, Masking
from foretaste.rl.signal import quality, score_projections, signals
from foretaste.rl.train import train
from foretaste.rl.update import Updater

SETTINGS = TrainConfig(model=ModelConfig("nano-xs", critic_layers=-1), algorithm=AlgorithmConfig(learning_rate=1e-3))


def evidence(successes, auc=None, error=0.03, *, episodes=100, turns=10.0):
    return Evidence(episodes, successes, turns, {"50": None if auc is None else Ranking(auc, error)})


@pytest.mark.parametrize(
    ("given", "method", "said"),
    [
        (evidence(5, 0.85), "value", "credit in mid-episode"),
        (evidence(40, 0.85), "value", "credit in mid-episode"),
        (evidence(1, 0.85, episodes=200), "value", "credit in mid-episode"),
        (evidence(40, 0.52), "success replay", "Until V is shown to rank"),
        (evidence(5, 0.52), "success replay", "Until V is shown to rank"),
        (evidence(1, 0.75, 0.15, episodes=200), "success replay", "learned from again"),
        (evidence(0), "success replay", "No estimator has a signal yet"),
        (evidence(100), "success replay", "not measured"),
        (evidence(40, 0.9, turns=1.0), "leave-one-out", "no later turn"),
        (evidence(0, turns=1.0), "leave-one-out", "no later turn"),
    ],
)
def test_the_choice_follows_the_evidence_and_says_why(given, method, said):
    advice = choose(given)
    assert advice.method == method
    assert said in " ".join(advice.reasons)
    assert "nan" not in " ".join(words(advice))


def test_groups_without_signal_are_counted():
    assert evidence(3).silent_groups == pytest.approx(0.97**8 + 0.03**8)


def test_auto_fills_only_what_was_left_open():
    config = filled(dataclasses.replace(SETTINGS, episodes_per_step=16))
    assert (config.replay.critic_episodes, config.replay.actor_episodes) == (64, 32)
    given = dataclasses.replace(config, replay=dataclasses.replace(config.replay, critic_episodes=20))
    assert filled(given).replay.critic_episodes == 20
    assert config.replay.success_passes == 8
    assert filled(dataclasses.replace(config, replay=ReplayConfig(success_passes=2))).replay.success_passes == 2
    other = dataclasses.replace(SETTINGS, model=dataclasses.replace(SETTINGS.model, value_head="regression"))
    assert (filled(SETTINGS).replay.policy_passes, filled(other).replay.policy_passes) == (1, 0)


@pytest.fixture(scope="module")
def bench():
    made = Bench(probe_config(SETTINGS, Masking), Masking)
    made.episodes = make_batch(made.play(0, 12).episodes)
    return made


def test_directional_scores_are_the_derivative_and_the_weights_come_back(bench):
    import torch

    from foretaste.rl.tasks import keyed_seed

    before = [weight.detach().clone() for weight in bench.actor_critic.policy_parameters()]
    batch = bench.episodes
    scores = score_projections(bench.updater, batch, directions=1, seed=5)
    weights = bench.actor_critic.policy_parameters()
    assert all(torch.equal(old, new) for old, new in zip(before, weights, strict=True))
    # The same by back-propagation: gradient of the sum of log-probabilities, dotted with the direction.
    total = bench.actor_critic.evaluate(batch.sequences, values=False).logprobs_N.sum()
    gradients = torch.autograd.grad(total, weights)
    generator = torch.Generator().manual_seed(keyed_seed(5, "direction", 0))
    dot = sum(
        float((g * torch.randn(w.shape, generator=generator) * w.detach().square().mean().sqrt()).sum())
        for g, w in zip(gradients, weights, strict=True)
    )
    assert scores[0][batch.mask_BT].sum() == pytest.approx(dot, rel=0.02, abs=0.05)


def test_signal_is_told_from_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(16, 200))
    assert quality(noise) < 0.004
    assert quality(noise + 0.5) == pytest.approx(0.25, rel=0.25)


def test_every_estimator_is_compared_on_the_same_episodes(bench):
    found = signals(bench.updater, bench.episodes, directions=2)
    assert found is not None
    assert [one.estimator for one in found] == [
        "leave one out", "V, lambda 1", "V, lambda 0.95", "V, lambda 0.8", "V, lambda 0.5"
    ]  # fmt: skip
    assert all(math.isfinite(one.quality) for one in found)
    half = ActorCritic.load(ModelConfig("nano-xs", critic_layers=-1, dtype="bfloat16"))
    assert signals(Updater(half, SETTINGS.algorithm, temperature=1.0), bench.episodes) is None


def test_evidence_counts_episodes_and_uses_values_of_another_critic(bench):
    batch = bench.episodes
    rows = [[episode.success or 0.0] * episode.action_tokens for episode in batch.episodes]
    found = evidence_of(batch.episodes, rows)
    assert found.episodes == 12
    assert found.turns == 2.0


def auto(folder, **changes):
    base = TrainConfig(
        env=EnvConfig("delayed", examples=0),
        model=ModelConfig("nano-xs", critic_layers=-1),
        sampling=SamplingConfig(max_new_tokens=3),
        algorithm=AlgorithmConfig(
            name="auto", learning_rate=2e-3, critic_learning_rate=4e-3, value_pretraining_episodes=32
        ),
        imitate=ImitateConfig(episodes=32, passes=4, learning_rate=3e-3, teacher="uniform_action"),
        held_out=dataclasses.replace(TrainConfig().held_out, items=16),
        steps=5,
        episodes_per_step=8,
        save_every=2,
        runs_folder=str(folder),
    )
    return dataclasses.replace(base, **changes)


def test_auto_chooses_before_the_first_step_checks_again_and_writes_both_down(tmp_path):
    checkpoint = train(auto(tmp_path), env=Delayed)
    with Ledger.open(tmp_path) as ledger:
        advice = ledger.records(checkpoint.run or "", "advice")
        metrics = [record.payload for record in ledger.records(checkpoint.run or "", "metrics")]
    assert [record.step for record in advice] == [0, 5]
    assert advice[0].payload["evidence"]["signals"]
    assert advice[0].payload["reasons"]
    assert all("value/loss" in values for values in metrics)  # the critic learns whatever the actor learns by


def test_an_environment_is_met_and_advised_on():
    advice = meet(auto("unused", imitate=ImitateConfig()), env=Delayed)
    assert advice.evidence.episodes >= 64
    assert "Evidence:" in words(advice)
