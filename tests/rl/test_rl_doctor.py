"""Planted faults are named, sound machinery is called sound, and an idea without effect is called that."""

import dataclasses

import numpy as np
import pytest

from foretaste.config import AlgorithmConfig, EnvConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.models.actor_critic import TokenSequence
from foretaste.records import EpisodeEnd
from foretaste.rl import batch as batches
from foretaste.rl import checkup, doctor
from foretaste.rl.checkup import Finding
from foretaste.rl.doctor import diagnosis, outcome_of
from foretaste.rl.learning_probes import Bench, probe_config
from foretaste.rl.probe_envs import Endless, Masking, OneChoice

SETTINGS = TrainConfig(
    env=EnvConfig("guess", examples=0),
    model=ModelConfig("nano-xs", critic_layers=-1),
    sampling=SamplingConfig(max_new_tokens=4),
    algorithm=AlgorithmConfig(learning_rate=2e-3, critic_learning_rate=5e-3, turn_lambda=0.9),
)


@pytest.fixture(scope="module")
def played():
    """A bench and its episodes of each exact probe, sampled once."""
    found = {}
    for kind in (Masking, Endless):
        bench = Bench(probe_config(SETTINGS, kind), kind)
        found[kind] = (bench, bench.play(0, 8).episodes)
    return found


def findings(played, kind=Masking):
    bench, episodes = played[kind]
    found = list(checkup.check_episodes(bench.updater, bench.actor_critic.template, episodes))
    return [*found, checkup.check_truncation(bench.updater, episodes)] if kind is Endless else found


def test_sound_machinery_passes_every_exact_check(played):
    every = findings(played) + findings(played, Endless)
    assert [finding for finding in every if not finding.sound] == []
    assert {finding.probe for finding in every} == {
        "mask", "rewards", "log-probabilities", "values", "credit", "truncation"
    }  # fmt: skip
    assert diagnosis(every) == ("Machinery sound.", True)


def named(every):
    text, sound = diagnosis(every)
    assert not sound
    assert text.startswith("Bug here")
    return text


@pytest.mark.parametrize(("shift", "word"), [(1, "after"), (-1, "before")])
def test_advantages_shifted_by_one_are_named(played, monkeypatch, shift, word):
    real = batches.gae

    def shifted(*args, **options):
        returns = real(*args, **options)
        return returns._replace(advantages_BT=np.roll(returns.advantages_BT, shift, axis=1))

    monkeypatch.setattr(batches, "gae", shifted)
    text = named(findings(played))
    assert "advantages are shifted by one token" in text
    assert word in text
    assert "returns.py" in text


def with_batch(monkeypatch, change):
    real = batches.make_batch
    monkeypatch.setattr(batches, "make_batch", lambda episodes: change(real(episodes)))


def test_a_reward_on_a_masked_token_is_named(played, monkeypatch):
    def misplaced(batch):
        rewards = np.pad(batch.rewards_BT, ((0, 0), (1, 1)))[:, :-1]  # one token late: the last falls outside
        wide = {name: np.pad(getattr(batch, name), ((0, 0), (0, 1))) for name in ("logprobs_BT", "values_BT")}
        wide |= {name: np.pad(getattr(batch, name), ((0, 0), (0, 1))) for name in ("gate_BT", "turn_end_BT")}
        return batch._replace(rewards_BT=rewards, **wide)

    with_batch(monkeypatch, lambda batch: misplaced(batch))
    # Only the longest episodes have their last reward outside the mask; all have it somewhere wrong.
    text = named(findings(played))
    assert "masked tokens" in text
    assert "rewards" in text


def test_a_lost_reward_is_named(played, monkeypatch):
    with_batch(monkeypatch, lambda batch: batch._replace(rewards_BT=np.zeros_like(batch.rewards_BT)))
    assert "its tokens carry 0.00" in named(findings(played))


def test_truncation_treated_as_an_end_is_named(played, monkeypatch):
    with_batch(monkeypatch, lambda batch: batch._replace(final_value_B=np.zeros_like(batch.final_value_B)))
    every = findings(played, Endless)
    assert not every[-1].sound
    assert "but 0.00 is bootstrapped" in every[-1].text


def test_truncation_recorded_as_an_end_is_named(played):
    bench, episodes = played[Endless]
    ended = [dataclasses.replace(episode, end=EpisodeEnd.TERMINATED, final_value=0.0) for episode in episodes]
    finding = checkup.check_truncation(bench.updater, ended)
    assert not finding.sound
    assert "end as terminated" in finding.text


@pytest.mark.parametrize("shift", [1, -1])
def test_a_mask_off_by_one_is_named(played, monkeypatch, shift):
    real = batches.token_sequence

    def off(episode):
        sequence = real(episode)
        return TokenSequence(sequence.tokens, np.roll(sequence.action_mask, shift).tolist())

    monkeypatch.setattr(batches, "token_sequence", off)
    text = named(findings(played))
    assert f"the mask is off by {shift:+d}" in text
    assert "token_sequence" in text


def test_a_trainer_at_another_temperature_is_named(played, monkeypatch):
    monkeypatch.setattr(played[Masking][0].updater, "temperature", 0.5)
    assert "sampler and trainer differ" in named(findings(played))


def test_an_idea_without_effect_is_told_apart_from_a_bug(played):
    every = findings(played)
    rng = np.random.default_rng(0)
    before = (rng.random(200) < 0.4).astype(float).tolist()
    same = outcome_of((rng.random(200) < 0.4).astype(float).tolist(), before, "the run before")
    assert diagnosis(every, same)[0].startswith("Machinery sound, the idea does not help")
    assert diagnosis(every, same)[1]
    better = outcome_of([1.0] * 200, before, "the run before")
    assert "the idea helps" in diagnosis(every, better)[0]
    worse = outcome_of([0.0] * 200, before, "the run before")
    assert "it harms" in diagnosis(every, worse)[0]
    with pytest.raises(ValueError, match="no judged item"):
        outcome_of([None], [1.0], "x")


def test_a_bug_is_named_even_where_the_idea_seems_to_help(played, monkeypatch):
    with_batch(monkeypatch, lambda batch: batch._replace(rewards_BT=np.zeros_like(batch.rewards_BT)))
    better = outcome_of([1.0] * 50, [0.0] * 50, "the run before")
    assert diagnosis(findings(played), better)[0].startswith("Bug here")


def test_constant_reward_is_what_v_says():
    finding = doctor._constant(SETTINGS)
    assert finding.sound, finding.text


def test_the_users_own_environment_is_checked_too():
    found = list(doctor._own_environment(SETTINGS, None))
    assert found[0].probe == "your environment"
    assert found[0].sound, found[0].text
    assert all(finding.sound for finding in found), [finding.text for finding in found if not finding.sound]
    assert len(found) > 4


def test_what_builds_on_a_probe_that_is_not_learned_is_left_out(monkeypatch):
    monkeypatch.setattr(
        doctor, "learns", lambda config, kind, suspect: Finding(kind.name, kind is OneChoice, "", suspect)
    )
    first, second, third = doctor._learning(SETTINGS)
    assert (first.sound, second.sound, third.sound) == (True, False, None)
    assert "builds on observed" in third.text


def test_settings_that_do_not_learn_are_told_apart_from_a_bug(played):
    slow = Finding("learns observed", True, "with reference settings", "x", settings="learning_rate 3e-05 is too low")
    text, sound = diagnosis([*findings(played), slow])
    assert sound
    assert text.startswith("Machinery sound. The settings, not the code")
    assert "learn observed; with yours learning_rate 3e-05 is too low" in text
    broken = Finding("learns delayed", False, "not learned", "credit over turns")
    text, sound = diagnosis([*findings(played), slow, broken])
    assert not sound
    assert "does not learn delayed, with the reference settings neither. Likely: credit over turns." in text
