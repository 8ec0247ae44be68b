"""What a step learns: from which episodes, and whom it lets learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.config import AlgorithmConfig, ModelConfig, ReplayConfig, TrainConfig
from foretaste.records import EpisodeEnd
from foretaste.rl.batch import Batch, make_batch
from foretaste.rl.critic_passes import CriticPasses
from foretaste.rl.learn import Learner
from foretaste.rl.replay import Replay
from foretaste.rl.returns import Array
from foretaste.rl.update import Updater


@pytest.fixture
def learner(make_learner: Any) -> tuple[Updater, Batch]:
    return make_learner(ModelConfig("nano-xs", critic_layers=1), AlgorithmConfig(passes=1, microbatch_tokens=512), 8)


def learns(updater: Updater, batch: Batch, folder: Path, replay: ReplayConfig) -> tuple[dict[str, float], set[str]]:
    """Take a step; return its metrics, and which of policy and critic moved."""
    config = TrainConfig(algorithm=updater.algorithm, replay=replay, episodes_per_step=8)
    parts = {"policy": updater.actor_critic.policy_parameters(), "critic": updater.actor_critic.critic_parameters()}
    before = {name: [one.detach().clone() for one in weights] for name, weights in parts.items()}
    metrics = Learner(config, updater, Replay(folder), lambda step, advice: None).learn(batch, 2, None)
    changed = {name for name in parts if any((a != b).any() for a, b in zip(before[name], parts[name], strict=True))}
    return metrics, changed


def test_while_the_actor_waits_the_critic_learns(learner: tuple[Updater, Batch], tmp_path: Path) -> None:
    metrics, moved = learns(*learner, tmp_path, ReplayConfig(actor_start_successes=10_000))
    assert moved == {"critic"}
    assert metrics["policy/waiting"] == 1.0
    assert metrics["value/loss"] > 0


def test_no_episode_of_the_step_is_drawn_as_an_older_one(
    learner: tuple[Updater, Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, batch = learner
    old, fresh = batch.episodes[:3], batch.episodes[3:]
    failed = dataclasses.replace(old[0], end=EpisodeEnd.ERROR, success=None)
    replay = Replay(tmp_path)
    replay.add(old, 0)
    replay.add([*fresh, failed, failed, failed], 1)
    fitted: list[Batch] = []
    monkeypatch.setattr(CriticPasses, "fit", lambda self, *_, **__: fitted.append(self.batch) or {})
    config = TrainConfig(
        algorithm=updater.algorithm, replay=ReplayConfig(critic_episodes=16), episodes_per_step=len(fresh) + 3
    )
    Learner(config, updater, replay, lambda step, advice: None)._replay_critic(make_batch(fresh), 1)
    assert fitted[0].episodes == (*old, *fresh)


def test_gains_are_imitated_where_the_critic_learns_beside_the_actor(
    learner: tuple[Updater, Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, batch = learner
    imitated: list[tuple[Batch, Array]] = []
    monkeypatch.setattr(updater, "imitate_gains", lambda of, gains_BT, **_: imitated.append((of, gains_BT)) or 0.5)
    values_BT = np.where(batch.mask_BT, 0.2, 0.0)
    won = batch._replace(values_BT=values_BT, rewards_BT=np.ones_like(values_BT))
    metrics, _ = learns(updater, won, tmp_path, ReplayConfig(policy_passes=1))
    assert metrics["policy/gains_loss"] == 0.5
    [(of, gains_BT)] = imitated
    assert of is won
    assert (gains_BT[batch.mask_BT] > 0).all()  # of the V that sampled, before it learns from these episodes
