"""Sound machinery learns every probe, broken machinery none, and who is to blame for one that is not learned."""

import dataclasses

import numpy as np
import pytest

from foretaste.config import AlgorithmConfig, EnvConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.rl import learning_probes, update
from foretaste.rl.doctor import LEARNING, diagnosis
from foretaste.rl.learning_probes import STEPS, Attempt, attempt, learns, reference_config
from foretaste.rl.probe_envs import WORDS, Delayed, Observed, OneChoice

SETTINGS = TrainConfig(
    env=EnvConfig("guess", examples=0),
    model=ModelConfig("nano-xs", critic_layers=-1),
    sampling=SamplingConfig(max_new_tokens=4, temperature=0.9),
    algorithm=AlgorithmConfig(learning_rate=3e-5, passes=1),
)


def by(name, group_size=1):
    return dataclasses.replace(SETTINGS, algorithm=AlgorithmConfig(name=name, group_size=group_size))


def test_a_policy_step_in_the_wrong_direction_is_named(monkeypatch):
    real = update.ppo_loss

    def turned(*args, **options):
        found = real(*args, **options)
        return found._replace(loss=-found.loss)

    kind, suspect = LEARNING[0]
    monkeypatch.setattr(learning_probes, "PATIENT_STEPS", 1)  # sound, it needs no further attempt
    sound = learns(reference_config(SETTINGS), kind, suspect)
    assert sound.sound, sound.text
    monkeypatch.setattr(update, "ppo_loss", turned)
    text, fine = diagnosis([learns(reference_config(SETTINGS), kind, suspect)])
    assert not fine
    assert "rl/losses.py" in text


def test_credit_of_another_episode_is_not_learned_from(monkeypatch):
    real, rng = update.compute_returns, np.random.default_rng(0)

    def swapped(*args, **options):
        found = real(*args, **options)
        return found._replace(advantages_BT=found.advantages_BT[rng.permutation(len(found.advantages_BT))])

    monkeypatch.setattr(update, "compute_returns", swapped)
    assert not attempt(reference_config(by("reinforce")), Observed, STEPS).learned


@pytest.mark.slow
@pytest.mark.parametrize("kind", [OneChoice, Observed, Delayed])
@pytest.mark.parametrize("config", [by("ppo"), by("reinforce"), by("grpo", 8)], ids=["ppo", "reinforce", "grpo"])
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_the_reference_settings_learn_every_probe(config, kind, seed):
    done = attempt(reference_config(dataclasses.replace(config, seed=seed)), kind, learning_probes.PATIENT_STEPS)
    assert done.learned, done.success


def test_the_reference_settings_learn_to_read():
    done = attempt(reference_config(by("reinforce")), Observed, learning_probes.PATIENT_STEPS)
    assert done.learned, done.success
    assert done.success[0] < 0.45  # it leans to the wrong words, so that luck would have to turn it round twice


GOOD, BAD = Attempt([0.2, 0.9, 0.9, 0.9], [1.0] * 4, 1), Attempt([0.2, 0.2, 0.2, 0.2], [1.0] * 4, 1)
SLOW, LOST = Attempt([0.2, 0.4, 0.6, 0.7], [1.0] * 4, 1), Attempt([0.2, 0.3, 0.0, 0.0], [1.0, 0.2, 0.0, 0.0], 1)


def trying(monkeypatch, *outcomes):
    """Let attempts end as given; return the configs that are tried."""
    tried, left = [], list(outcomes)

    def attempted(config, kind, steps):
        tried.append((config, steps))
        return left.pop(0)

    monkeypatch.setattr(learning_probes, "attempt", attempted)
    return tried


def test_what_is_learned_with_the_settings_given_is_not_tried_again(monkeypatch):
    tried = trying(monkeypatch, GOOD)
    found = learns(SETTINGS, OneChoice, "x")
    assert found.sound
    assert not found.settings
    assert tried == [(SETTINGS, STEPS)]


@pytest.mark.parametrize(
    ("first", "blamed"),
    [
        (BAD, "success hardly moved in 4 steps: turn_lambda 0.7 (reference: 0.9), passes 1 (reference: 2), learn"),
        (LOST, "forgot how to answer, as from too large steps: turn_lambda 0.7 (reference: 0.9)"),
    ],
)  # fmt: skip
def test_settings_are_to_blame_where_the_reference_settings_learn(monkeypatch, first, blamed):
    tried = trying(monkeypatch, first, GOOD)
    found = learns(SETTINGS, OneChoice, "x")
    assert found.sound
    assert blamed in found.settings
    assert found.settings.endswith(
        "learning_rate 3e-05 (reference: 0.001), critic_learning_rate 0.0003 (reference: 0.004), "
        "temperature 0.9 (reference: 1)"
    )
    (_, _), (config, steps) = tried
    assert (config.algorithm.learning_rate, config.sampling.temperature, config.seed) == (1e-3, 1.0, SETTINGS.seed)
    assert (config.model, steps) == (SETTINGS.model, learning_probes.PATIENT_STEPS)


def test_settings_that_a_probe_does_not_read_are_not_blamed(monkeypatch):
    same = reference_config(by("reinforce"))
    unread = {"microbatch_tokens": 99, "warmup_steps": 9, "kl_coefficient": 0.1, "critic_learning_rate": 1.0}
    trying(monkeypatch, BAD, GOOD)
    config = dataclasses.replace(same, algorithm=dataclasses.replace(same.algorithm, **unread))
    assert learns(config, OneChoice, "x").settings.endswith("no setting differs; it was chance")


def test_nothing_is_to_blame_where_a_probe_was_being_learned_or_a_seed_was_unlucky(monkeypatch):
    trying(monkeypatch, SLOW, GOOD)
    assert not learns(SETTINGS, OneChoice, "x").settings
    tried = trying(monkeypatch, SLOW, BAD, GOOD)
    assert learns(SETTINGS, OneChoice, "x").sound
    assert [config.seed for config, _ in tried] == [0, 0, 1]


def test_the_code_is_accused_only_after_two_seeds_and_the_reference_model(monkeypatch):
    trying(monkeypatch, BAD, BAD, BAD)
    found = learns(SETTINGS, OneChoice, "the code")
    assert (found.sound, found.suspect) == (False, "the code")
    larger = dataclasses.replace(SETTINGS, model=ModelConfig("nano"))
    tried = trying(monkeypatch, BAD, BAD, BAD, BAD)
    assert learns(larger, OneChoice, "the code").suspect == "the code"
    assert tried[-1][0].model.name == "nano-xs"
    trying(monkeypatch, BAD, BAD, BAD, GOOD)
    found = learns(larger, OneChoice, "the code")
    assert not found.sound
    assert "the model nano," in found.suspect


@pytest.mark.parametrize("kind", [OneChoice, Observed, Delayed])
def test_a_warm_start_shows_the_rewarded_word_in_a_quarter_of_the_turns(kind):
    right = 0
    for seed in range(400):
        env = kind()
        env.reset(seed=seed)
        shown = env.oracle()
        assert shown in WORDS
        right += shown == env.rewarded()
    assert 70 <= right <= 130
