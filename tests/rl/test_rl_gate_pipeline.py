"""The gate is unbiased through the whole pipeline: episodes of a frozen nano, batch, returns, weights.

The policy is a frozen `nano-xs`, V its untrained critic made deliberately wrong, the environment random. Every set of
coins that the gates could have tossed on an episode is enumerated, each with its exact probability, so that the
expectation over coins has no sampling error. Advantages times weights, and value errors times weights, are projected
onto random directions; their expectation must equal that of the episode without gates.
"""

import dataclasses

import numpy as np
import pytest
import torch

from foretaste.config import AlgorithmConfig, EnvConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl import batch as batches
from foretaste.rl.gate import Gate
from foretaste.rl.learning_probes import Bench
from foretaste.rl.probe_envs import Masking

ALGORITHM = AlgorithmConfig(turn_lambda=0.7, token_lambda=0.95, critic_lambda=0.9, gamma=0.98)
PROJECTIONS = 48


class Long(Masking):
    """Five turns, so that gates can follow each other."""

    turns = 5


def bench():
    config = TrainConfig(
        env=EnvConfig("long", examples=0),
        model=ModelConfig("nano-xs", critic_layers=-1),
        sampling=SamplingConfig(max_new_tokens=3),
        algorithm=ALGORITHM,
    )
    made = Bench(config, Long)
    # V says something, all of it wrong: random output weights, centred so that it does not saturate.
    linear = made.actor_critic.critic.head.linear
    with torch.no_grad():
        linear.weight.normal_(std=2.0, generator=torch.Generator().manual_seed(5))
        batch = batches.make_batch(made.play(1, 12).episodes)
        logits = made.actor_critic.evaluate(batch.sequences, policy=False).value_logits
        linear.weight.div_(logits.std())
        linear.bias.copy_(-(logits - linear.bias).mean() / logits.std())
    return made


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    played = bench().play(0, 24).episodes
    values = np.array([turn.action.values[0] for episode in played for turn in episode.turns])
    assert values.std() > 0.05
    return played


def outcomes(episode: Episode, gate: Gate):
    """Yield (probability, episode) for every way that the coins of an episode can fall."""
    past: list[float] = []
    reach = 1.0
    turns = list(episode.turns)
    for index, turn in enumerate(turns):
        p = gate.probability(turn.action.values[0], past) if index else 0.0
        if p:
            stop = dataclasses.replace(
                episode,
                turns=tuple(dataclasses.replace(t, gate_probability=q) for t, q in zip(turns, past, strict=False)),
                end=EpisodeEnd.STOPPED,
                success=None,
                final_value=turn.action.values[0],
            )
            yield reach * p, stop
        past.append(p)
        reach *= 1 - p
    whole = tuple(dataclasses.replace(t, gate_probability=q) for t, q in zip(turns, past, strict=True))
    yield reach, dataclasses.replace(episode, turns=whole)


def projected(episode: Episode, directions: np.ndarray) -> np.ndarray:
    """Weighted advantages and weighted value errors of an episode along fixed directions over its tokens."""
    batch = batches.make_batch([episode])
    returns = batches.compute_returns(batch, ALGORITHM)
    count = batch.tokens
    actor = (returns.weights_BT * returns.advantages_BT)[0, :count]
    critic = (returns.weights_BT * (returns.targets_BT - batch.values_BT))[0, :count]
    return np.stack([directions[:, :count] @ actor, directions[:, :count] @ critic])


def bias(episodes: list[Episode], gate: Gate) -> float:
    """Largest difference between the expectation over coins and no gate, relative to the ungated spread."""
    rng = np.random.default_rng(3)
    worst, scale, stopped = 0.0, [], 0.0
    for episode in episodes:
        directions = rng.normal(size=(PROJECTIONS, episode.action_tokens))
        plain = projected(episode, directions)
        expected = np.zeros_like(plain)
        total = 0.0
        for chance, one in outcomes(episode, gate):
            expected += chance * projected(one, directions)
            total += chance
            stopped += chance * (one.end is EpisodeEnd.STOPPED)
        assert total == pytest.approx(1.0)
        worst = max(worst, float(np.abs(expected - plain).max()))
        scale.append(plain)
    assert stopped > 0.2 * len(episodes)  # else the gate did nothing and the test says nothing
    return worst / float(np.std(scale))


@pytest.fixture(scope="module")
def gate(episodes) -> Gate:
    values = np.array([turn.action.values[0] for episode in episodes for turn in episode.turns])
    return Gate(float(np.quantile(values, 0.8)), max_probability=0.75, max_weight=4.0)


def test_the_pipeline_is_unbiased_under_the_gate(episodes, gate):
    assert bias(episodes, gate) < 1e-9


def returns_with(monkeypatch, change):
    real = batches.compute_returns
    monkeypatch.setattr(
        batches, "compute_returns", lambda batch, algorithm: change(batch, real(batch, algorithm), real, algorithm)
    )


MUTATIONS = {
    "reach weights removed": lambda b, r, real, a: r._replace(weights_BT=(r.weights_BT > 0).astype(float)),
    "reach weights doubled": lambda b, r, real, a: r._replace(weights_BT=r.weights_BT**2),
    "reach weights one gate late": lambda b, r, real, a: r._replace(weights_BT=r.weights_BT * (1 - b.gate_BT)),
    "future correction removed": lambda b, r, real, a: r._replace(
        **{
            name: getattr(real(b._replace(gate_BT=np.zeros_like(b.gate_BT)), a), name)
            for name in ("advantages_BT", "targets_BT")
        }
    ),
    "future correction doubled": lambda b, r, real, a: r._replace(
        **{
            name: getattr(real(b._replace(gate_BT=1 - (1 - b.gate_BT) ** 2), a), name)
            for name in ("advantages_BT", "targets_BT")
        }
    ),
    "whole-episode weight on every token": lambda b, r, real, a: r._replace(
        weights_BT=b.mask_BT * r.weights_BT.max(axis=1, keepdims=True)
    ),
    "stops counted as failures": lambda b, r, real, a: real(
        b._replace(final_value_B=np.zeros_like(b.final_value_B)), a
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_unbiased_no_longer_once_any_weight_is_removed_or_doubled(episodes, gate, monkeypatch, name):
    returns_with(monkeypatch, MUTATIONS[name])
    assert bias(episodes, gate) > 0.02


def test_the_pipeline_is_unbiased_on_sampled_coins_too(episodes):
    """Rollouts with and without a gate, same seeds: the mean reward stands in for the whole estimate.

    The survivors' rewards, weighted by their reach, must add up to the ungated rewards within sampling error.
    """
    made = bench()
    values = [turn.action.values[0] for episode in episodes for turn in episode.turns]
    gate = Gate(float(np.quantile(values, 0.8)), max_probability=0.5, max_weight=4.0)
    from foretaste.rl.rollout import rollout
    from foretaste.rl.tasks import training_tasks

    tasks = training_tasks(made.config, 1, 250)
    gated = rollout(made.sampler, tasks, made.pool, gate=gate).episodes
    plain = rollout(made.sampler, tasks, made.pool).episodes
    assert 25 < sum(episode.end is EpisodeEnd.STOPPED for episode in gated) < 245
    totals = []
    for found in (gated, plain):
        batch = batches.make_batch(found)
        weights = batches.compute_returns(batch, ALGORITHM).weights_BT
        totals.append((weights * batch.rewards_BT).sum(axis=1))
    difference = totals[0] - totals[1]
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(difference))
    unweighted = batches.make_batch(gated).rewards_BT.sum(axis=1) - totals[1]
    assert abs(unweighted.mean()) > 4 * unweighted.std(ddof=1) / np.sqrt(len(unweighted))
