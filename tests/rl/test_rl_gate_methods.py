"""The gate beside ways of learning without V: refused, left off in `auto`, and stopped episodes reach none of them."""

import dataclasses

import numpy as np
import pytest

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
from foretaste.lab.gate import STUDY
from foretaste.lab.study import Arm
from foretaste.records import EpisodeEnd
from foretaste.rl import learn
from foretaste.rl.advise import Advice, Evidence
from foretaste.rl.gate import Gate, GateKeeper
from foretaste.rl.probe_envs import Delayed
from foretaste.rl.replay import read_episodes
from foretaste.rl.train import train
from foretaste.rl.update import Updater

GATE = GateConfig(max_probability=0.75)


@pytest.mark.parametrize("gate", [GATE, dataclasses.replace(GATE, unbiased=False)])
@pytest.mark.parametrize("name", ["grpo", "reinforce"])
def test_a_gate_without_a_value_function_is_refused(name, gate):
    algorithm = AlgorithmConfig(name=name, group_size=8)
    with pytest.raises(ConfigError, match=rf"gate\.max_probability = 0\.75 .*'{name}'.*algorithm\.name = \"ppo\""):
        check(TrainConfig(algorithm=algorithm, gate=gate))
    check(TrainConfig(algorithm=algorithm, gate=dataclasses.replace(gate, max_probability=0.0)))


def test_a_gate_with_a_value_function_is_accepted_and_so_are_all_arms_of_its_study():
    for name in ("ppo", "auto"):
        check(TrainConfig(algorithm=AlgorithmConfig(name=name), gate=GATE))
    for plan in (STUDY.quick, STUDY.full):
        for arm in plan.arms.values():
            check(arm.config(1) if isinstance(arm, Arm) else arm(1))


class Good(Delayed):
    """Pays for any two answers."""

    def act(self, action):
        done = self.turn == 1
        return "again", float(done), done, {"success": 1.0} if done else {}


def test_auto_takes_the_gate_only_while_it_learns_by_value(tmp_path, monkeypatch):
    """By value in steps 1 and 2, and from the choice in step 2 on without V: step 3 samples whole episodes again."""

    def advice(method):
        return Advice(method, (), Evidence(0, 0, 2.0, {}))

    chosen = iter(["value", "leave-one-out", "leave-one-out"])
    learned = []
    update = Updater.update

    def watched(self, batch, **options):
        learned.append((self.algorithm.name, batch))
        return update(self, batch, **options)

    monkeypatch.setattr(learn, "RECHECK_STEPS", 1)
    monkeypatch.setattr(learn, "probe", lambda *args, **options: advice("value"))
    monkeypatch.setattr(learn, "choose", lambda evidence: advice(next(chosen)))
    monkeypatch.setattr(GateKeeper, "gate", lambda self, **_: Gate(10.0, 0.5, 100.0))  # nearly everything is hopeless
    monkeypatch.setattr(Updater, "update", watched)
    config = TrainConfig(
        env=EnvConfig("delayed", examples=0),
        model=ModelConfig("nano-xs", critic_layers=-1),
        sampling=SamplingConfig(max_new_tokens=3),
        algorithm=AlgorithmConfig(name="auto", value_pretraining_episodes=16, value_pretraining_passes=1),
        replay=ReplayConfig(actor_start_successes=1),
        gate=GATE,
        held_out=HeldOutConfig(items=4),
        steps=3,
        episodes_per_step=16,
        runs_folder=str(tmp_path),
    )
    run = train(config, env=Good).run or ""
    sampled = [read_episodes(tmp_path / run / "episodes" / f"step-00000{step}.npz") for step in (1, 2, 3)]
    stopped = [sum(episode.end is EpisodeEnd.STOPPED for episode in episodes) for episodes in sampled]
    assert min(stopped[:2]) > 0
    assert stopped[2] == 0
    assert [name for name, _ in learned] == ["ppo", "reinforce", "reinforce"]
    assert EpisodeEnd.STOPPED in {episode.end for episode in learned[0][1].episodes}
    for (_, batch), step in zip(learned[1:], (2, 3), strict=True):
        assert len(batch.episodes) == 2 * 16 - stopped[step - 2] - stopped[step - 1]
        assert all(episode.success == 1.0 for episode in batch.episodes)
    assert all(np.isfinite(batch.logprobs_BT).all() for _, batch in learned)
