"""What only the environment knows reaches the critic in training, and nothing else, ever."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from foretaste.checks import check
from foretaste.config import (
    AlgorithmConfig,
    EnvConfig,
    GateConfig,
    HeldOutConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.errors import ConfigError
from foretaste.ledger import Ledger
from foretaste.models.actor_critic import ActorCritic
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.batch import final_state_sequence, make_batch, privileged_sequence, token_sequence
from foretaste.rl.probe_envs import Observed
from foretaste.rl.replay import read_episodes
from foretaste.rl.train import train
from foretaste.rl.update import Updater

PRIVILEGED = ModelConfig("nano-xs", critic_layers=-1, privileged_critic=True)


def encode(text):
    return [ord(letter) for letter in text]


def played(secrets=("ab", None), *, end=EpisodeEnd.TERMINATED):
    turns = tuple(
        Turn("", Action("", (11 + k, 21 + k), (-0.7, -0.7), ()), (31, 41 + k), float(k), privileged=secret)
        for k, secret in enumerate(secrets)
    )
    cut = end is EpisodeEnd.TRUNCATED
    return Episode(
        "toy", 1, "train", 1, "plain", turns, end, 1.0,
        final_observation_tokens=(51,) if cut else (), final_privileged="c" if cut else None,
    )  # fmt: skip


def test_the_note_stands_between_observation_and_action_and_is_no_action():
    sequence = privileged_sequence(played(), encode)
    note = encode("[ab]")
    assert sequence.tokens == [31, 41, *note, 11, 21, 31, 42, 12, 22]
    assert sequence.action_mask == [False] * 6 + [True, True, False, False, True, True]
    assert token_sequence(played()).tokens == [31, 41, 11, 21, 31, 42, 12, 22]


def test_the_state_of_a_cut_is_read_after_its_observation_and_note():
    sequence = final_state_sequence(played(end=EpisodeEnd.TRUNCATED), encode)
    assert sequence.tokens[-5:-1] == [51, *encode("[c]")]
    assert sequence.action_mask == [False] * (len(sequence.tokens) - 1) + [True]


def updater(config=PRIVILEGED, **algorithm):
    settings = AlgorithmConfig(learning_rate=1e-2, critic_learning_rate=1e-2, warmup_steps=0, **algorithm)
    return Updater(ActorCritic.load(config), settings, temperature=1.0)


def test_values_change_with_the_note_and_log_probabilities_do_not():
    one, other = (make_batch([played((secret, "same"))]) for secret in ("sound", "ruined, 3 left"))
    made = updater()
    made.actor_critic.critic.head.linear.weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    assert not np.allclose(made.values(one), made.values(other), atol=1e-6)
    np.testing.assert_array_equal(made.logprobs(one), made.logprobs(other))
    plain = updater(dataclasses.replace(PRIVILEGED, privileged_critic=False))
    np.testing.assert_array_equal(plain.values(one), plain.values(other))


def test_the_policy_never_learns_from_the_note():
    """With advantages given, one update moves the policy alike whatever the notes say."""
    weights = []
    for secret in ("sound", "ruined, 3 left"):
        made = updater(minibatches=1, passes=1)
        batch = make_batch([played((secret, secret)), played((secret, secret), end=EpisodeEnd.TRUNCATED)])
        made.update(batch._replace(values_BT=np.full_like(batch.values_BT, 0.3)), step=1, seed=0)
        weights.append([weight.detach().clone() for weight in made.actor_critic.policy_parameters()])
    assert all((a == b).all() for a, b in zip(*weights, strict=True))


def test_a_cut_episode_is_worth_what_the_critic_of_now_says():
    made = updater()
    batch = make_batch([played(end=EpisodeEnd.TRUNCATED), played()])
    made.actor_critic.set_value_bias(0.2)
    refreshed = made.refreshed(batch)
    assert refreshed.final_value_B[0] == pytest.approx(0.2, abs=0.05)
    assert refreshed.final_value_B[1] == 0.0  # an end stays an end


def test_a_gate_with_a_privileged_critic_is_refused():
    config = TrainConfig(model=PRIVILEGED, gate=GateConfig(max_probability=0.5))
    with pytest.raises(ConfigError, match=r"while they are sampled.*privileged_critic = false"):
        check(config)


class Hinted(Observed):
    """Tells the critic what the right word is."""

    turns = 2

    def act(self, action):
        observation, reward, done, info = super().act(action)
        return observation, reward, done, {**info, "privileged": "left" if self.signs[0] == "<" else "right"}


def test_a_run_marks_its_critic_records_no_v_and_measures_no_calibration(tmp_path):
    config = TrainConfig(
        env=EnvConfig("hinted", examples=0),
        model=PRIVILEGED,
        sampling=SamplingConfig(max_new_tokens=3),
        algorithm=AlgorithmConfig(value_pretraining_episodes=8, adapt_lambda=True),
        replay=ReplayConfig(critic_episodes=16),
        held_out=HeldOutConfig(items=8),
        steps=2,
        episodes_per_step=8,
        runs_folder=str(tmp_path),
    )
    checkpoint = train(config, env=Hinted)
    with Ledger.open(tmp_path) as ledger:
        assert ledger.records(checkpoint.run or "", "calibration") == []
        assert ledger.records(checkpoint.run or "", "summary")[-1].payload["value_calibration_error"] is None
        metrics = ledger.records(checkpoint.run or "", "metrics")[-1].payload
    assert metrics["value/loss"] > 0
    stored = read_episodes(next((tmp_path / (checkpoint.run or "")).glob("episodes/step-000001.npz")))
    assert all(turn.action.values == () for episode in stored for turn in episode.turns)
    assert any(turn.privileged in ("left", "right") for episode in stored for turn in episode.turns)
    card = json.loads((tmp_path / (checkpoint.run or "") / "checkpoint" / "foretaste.json").read_text())
    assert card["config"]["privileged_critic"] is True
