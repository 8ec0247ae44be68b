"""A whole run whose episodes another engine samples: gate, values of cut episodes and new weights reach it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from fake_server import FakeServer

from foretaste.config import AlgorithmConfig, EnvConfig, HeldOutConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.ledger import Ledger
from foretaste.models import vllm_sampler
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.models.vllm_sampler import VllmSampler
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl.gate import Gate
from foretaste.rl.rollout import EnvPool, is_sampler, rollout
from foretaste.rl.tasks import training_tasks
from foretaste.rl.train import train


def test_a_rollout_plays_it_as_it_plays_a_sampler() -> None:
    config = TrainConfig(
        env=EnvConfig("guess", examples=0, max_turns=2),
        model=ModelConfig("nano"),
        sampling=SamplingConfig(max_new_tokens=4, concurrent=3),
        episodes_per_step=6,
    )
    model = ActorCritic.load(config.model, seed=3)
    model.critic.head.set_bias(0.3)
    sampler = VllmSampler(model, config.sampling, server=FakeServer(model, config.sampling))
    assert is_sampler(sampler)

    def play(policy: Any, gate: Gate | None = None) -> list[Episode]:
        return rollout(policy, training_tasks(config, 1), EnvPool(config.env), gate=gate).episodes

    played, as_usual = play(sampler), play(Sampler(model, config.sampling))
    assert {episode.end for episode in played} == {episode.end for episode in as_usual} == {EpisodeEnd.TRUNCATED}
    assert all(episode.final_value == pytest.approx(0.3, abs=0.05) for episode in played)
    assert [episode.seed for episode in played] == [episode.seed for episode in as_usual]


def test_a_run_hands_its_weights_over_once_a_step_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[FakeServer] = []

    def made(*given: Any) -> FakeServer:
        servers.append(FakeServer(*given))
        return servers[-1]

    monkeypatch.setattr(vllm_sampler, "VllmServer", made)
    config = TrainConfig(
        env=EnvConfig("guess", examples=0),
        model=ModelConfig("nano"),
        sampling=SamplingConfig(engine="vllm", max_new_tokens=4),
        algorithm=AlgorithmConfig(value_pretraining_episodes=4),
        held_out=HeldOutConfig(items=2),
        steps=2,
        episodes_per_step=4,
    )
    results = [train(config, runs_folder=str(tmp_path / name)).id for name in ("one", "two")]
    assert results[0] == results[1]
    # Held-out items, value pretraining (no new policy), two steps, held-out items.
    assert servers[0].events.count("load") == 3
    assert servers[0].events.count("rest") == 2
    with_rest = [event for event in servers[0].events if event != "begin"]
    assert with_rest == ["load", "rest", "load", "rest", "load"]
    ledger = Ledger.open(tmp_path / "one")
    [run] = [one.id for one in ledger.runs()]
    differences = [record.payload["policy/sampler_difference_max"] for record in ledger.records(run, "metrics")]
    ledger.close()
    assert len(differences) == 2
    assert max(differences) < 1e-4
