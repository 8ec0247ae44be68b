"""Whole runs with nano: they learn, survive a kill to the same result, and fail with a clear word."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foretaste.config import (
    AlgorithmConfig,
    DrivesConfig,
    EnvConfig,
    GateConfig,
    HeldOutConfig,
    ImitateConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
    to_dict,
)
from foretaste.envs.base import TextEnv
from foretaste.errors import ConfigError, RunError
from foretaste.ledger import Ledger
from foretaste.progress import Silent
from foretaste.records import episode_from_json
from foretaste.rl.gate import Gate, GateKeeper
from foretaste.rl.replay import read_episodes
from foretaste.rl.train import train


class Signs(TextEnv):
    """Two turns; each shows a sign and wants its word. The scripted player errs 3 times in 10."""

    name = "signs"
    words = {"<": "west", ">": "east"}  # noqa: RUF012

    def begin(self):
        self.right = 0
        return self._show(), {}

    def act(self, action):
        self.right += action.strip() == self.words[self.sign]
        done = self.turn == 1
        reward = float(self.right == 2) if done else 0.0
        return self._show(), reward, done, {"success": reward}

    def oracle(self):
        right = self.words[self.sign]
        return right if self.random.random() < 0.7 else {"west": "east", "east": "west"}[right]

    def max_turns(self):
        return 2

    def _show(self):
        self.sign = self.random.choice("<>")
        return self.sign


def config(folder, **changes):
    base = TrainConfig(
        env=EnvConfig(id="signs", examples=0),
        model=ModelConfig(name="nano-xs", critic_layers=1),
        sampling=SamplingConfig(max_new_tokens=3),
        algorithm=AlgorithmConfig(
            learning_rate=1e-3, critic_learning_rate=2e-3, value_pretraining_episodes=16, value_pretraining_passes=2
        ),
        imitate=ImitateConfig(episodes=32, passes=3, learning_rate=3e-3),
        held_out=HeldOutConfig(items=16),
        steps=3,
        episodes_per_step=16,
        save_every=2,
        runs_folder=str(folder),
    )
    return dataclasses.replace(base, **changes)


def figures(ledger, run, kind="metrics"):
    """Records of a kind without what a clock measured."""
    records = ledger.records(run, kind)
    return [(r.step, {k: v for k, v in r.payload.items() if not k.startswith("time/")}) for r in records]


def test_a_run_learns_a_tiny_task_and_writes_everything_down(tmp_path):
    settings = config(
        tmp_path,
        model=ModelConfig(name="nano-xs", critic_layers=-1),
        imitate=ImitateConfig(episodes=128, passes=6, learning_rate=3e-3),
        steps=8,
        episodes_per_step=32,
        held_out=HeldOutConfig(items=80, every=5),
    )
    checkpoint = train(settings, env=Signs)
    with Ledger.open(tmp_path) as ledger:
        run = ledger.run(checkpoint.run or "")
        summary = ledger.records(run.id, "summary")[-1].payload
        assert summary["success_before"] < 0.65
        assert summary["success_after"] > 0.9
        assert summary["gain_interval"][0] > 0.2
        assert summary["episodes"] == 8 * 32 + 16
        assert run.status == "finished"
        assert [r.payload["label"] for r in ledger.records(run.id, "held_out")] == ["before", "curve", "after"]
        assert len(ledger.records(run.id, "metrics")) == 8
        assert ledger.records(run.id, "metrics")[-1].payload["value/explained_variance"] is not None
        assert {r.payload["label"] for r in ledger.records(run.id, "calibration")} == {"before", "after"}
        shown = episode_from_json(
            {k: v for k, v in ledger.records(run.id, "episode")[0].payload.items() if k not in ("label", "tokens_text")}
        )
        assert shown.turns
        ledger.verify()
    stored = read_episodes(tmp_path / run.id / "episodes" / "step-000008.npz")
    assert len(stored) == 32
    tokens = sum(
        e.action_tokens for file in (tmp_path / run.id / "episodes").glob("*.npz") for e in read_episodes(file)
    )
    assert summary["sampled_tokens"] == tokens  # value pretraining's episodes too are counted, and kept

    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(checkpoint.path).config.model_type == "llama"
    assert (Path(checkpoint.path) / "critic.safetensors").is_file()


class Interrupting(Silent):
    """Breaks a run off after a step, as Ctrl-C would."""

    def metrics(self, step, values):
        if step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "replay": ReplayConfig(critic_episodes=32, actor_episodes=24, success_episodes=4),
            "gate": GateConfig(max_probability=0.5),
            "drives": DrivesConfig(repetition=0.2, novelty=0.2, surprise=0.3),
        },
        {
            "model": ModelConfig(name="nano-xs", critic_layers=-1),
            "algorithm": AlgorithmConfig(
                name="auto", learning_rate=1e-3, value_pretraining_episodes=8, value_pretraining_passes=1
            ),
        },
    ],
    ids=["plain", "replay, gate and drives", "auto"],
)
def test_a_resumed_run_ends_exactly_like_an_uninterrupted_one(tmp_path, changes):
    whole = train(config(tmp_path / "whole", steps=4, **changes), env=Signs)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "broken", steps=4, **changes), env=Signs, progress=Interrupting())
    with Ledger.open(tmp_path / "broken") as ledger:
        assert ledger.run("latest").status == "interrupted"
    resumed = train(resume="latest", runs_folder=str(tmp_path / "broken"), env=Signs)
    assert resumed.id == whole.id  # every weight, bit by bit
    with Ledger.open(tmp_path / "whole") as one, Ledger.open(tmp_path / "broken") as other:
        for kind in ("metrics", "held_out"):
            assert figures(one, whole.run, kind) == figures(other, resumed.run, kind)


def test_a_run_killed_without_warning_resumes_to_the_same_weights(tmp_path):
    settings = dataclasses.replace(
        config(tmp_path / "killed", steps=6, save_every=1), env=EnvConfig(id=f"{Path(__file__).stem}:Signs", examples=0)
    )
    code = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        "from foretaste.config import TrainConfig, from_dict\n"
        "from foretaste.rl.train import train\n"
        "train(from_dict(TrainConfig, json.loads(sys.argv[1])))"
    )
    import json

    child = subprocess.Popen([sys.executable, "-c", code, json.dumps(to_dict(settings))])
    resume_point = None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        resume_point = next((tmp_path / "killed").glob("*/episodes/step-000002.npz"), None)
        if resume_point:
            break
        time.sleep(0.02)
    assert resume_point, "the run never reached its second step"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with Ledger.open(tmp_path / "killed") as ledger:
        assert ledger.run("latest").status != "finished"
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = train(resume="latest", runs_folder=str(tmp_path / "killed"), env=Signs)
        whole = train(dataclasses.replace(settings, runs_folder=str(tmp_path / "whole")), env=Signs)
    finally:
        torch.set_num_threads(threads)
    assert resumed.id == whole.id


@pytest.mark.parametrize(
    "algorithm",
    [
        AlgorithmConfig(name="grpo", group_size=4, learning_rate=1e-3),
        AlgorithmConfig(name="reinforce", learning_rate=1e-3),
        AlgorithmConfig(kl_coefficient=0.1, entropy_coefficient=0.01, value_pretraining_episodes=16),
    ],
    ids=["grpo", "reinforce", "kl"],
)
def test_every_algorithm_runs_through_the_same_loop_and_records(tmp_path, algorithm):
    checkpoint = train(config(tmp_path, steps=2, algorithm=algorithm), env=Signs)
    with Ledger.open(tmp_path) as ledger:
        metrics = ledger.records(checkpoint.run or "", "metrics")[-1].payload
        summary = ledger.records(checkpoint.run or "", "summary")[-1].payload
    assert ("value/loss" in metrics) == (algorithm.name == "ppo")
    assert ("train/zero_signal_groups" in metrics) == (algorithm.name == "grpo")
    assert (summary["value_calibration_error"] is None) == (algorithm.name != "ppo")
    assert metrics["policy/sampler_difference_max"] < 1e-3


def test_dynamic_sampling_counts_all_it_samples_and_learns_from_groups_that_differ(tmp_path):
    algorithm = AlgorithmConfig(name="grpo", group_size=4, dynamic_sampling=True, learning_rate=1e-3)
    checkpoint = train(config(tmp_path, steps=1, imitate=ImitateConfig(), algorithm=algorithm), env=Signs)
    with Ledger.open(tmp_path) as ledger:
        metrics = ledger.records(checkpoint.run or "", "metrics")[-1].payload
    # An untrained policy never succeeds: every group is silent, and three further rounds are sampled in vain.
    assert metrics["train/episodes"] == 4 * 16
    assert metrics["train/zero_signal_groups"] == 1.0


def test_the_biased_gate_runs_for_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(GateKeeper, "gate", lambda self, **_: Gate(10.0, 0.9, 100.0))  # nearly everything is hopeless
    gate = GateConfig(max_probability=0.9, unbiased=False)
    checkpoint = train(config(tmp_path, steps=1, gate=gate, imitate=ImitateConfig()), env=Signs)
    stored = read_episodes(tmp_path / (checkpoint.run or "") / "episodes" / "step-000001.npz")
    assert {str(episode.end) for episode in stored} == {"terminated"}
    assert all(turn.gate_probability == 0 for episode in stored for turn in episode.turns)
    with Ledger.open(tmp_path) as ledger:
        stopped = [record.payload["gate/stopped"] for record in ledger.records(checkpoint.run or "", "metrics")]
    assert max(stopped) > 0


def test_the_actor_waits_for_its_first_successes(tmp_path):
    replay = ReplayConfig(critic_episodes=32, actor_start_successes=10_000)
    checkpoint = train(config(tmp_path, steps=2, replay=replay), env=Signs)
    with Ledger.open(tmp_path) as ledger:
        last = ledger.records(checkpoint.run or "", "metrics")[-1].payload
    assert last["policy/waiting"] == 1.0
    assert "policy/loss" not in last
    assert last["value/loss"] > 0


class Generous(Signs):
    """Every answer is right."""

    def act(self, action):
        return "", 1.0, True, {"success": 1.0}


def test_successes_of_value_pretraining_count_towards_the_actors_start(tmp_path):
    replay = ReplayConfig(critic_episodes=32, actor_start_successes=32)  # 16 of value pretraining, 16 of the step
    checkpoint = train(config(tmp_path, steps=1, replay=replay, imitate=ImitateConfig()), env=Generous)
    with Ledger.open(tmp_path) as ledger:
        last = ledger.records(checkpoint.run or "", "metrics")[-1].payload
    assert "policy/waiting" not in last
    assert "policy/loss" in last
    kept = read_episodes(tmp_path / (checkpoint.run or "") / "episodes" / "step-000000.npz")
    assert [episode.success for episode in kept] == [1.0] * 16


def test_no_episodes_of_value_pretraining_leave_it_out(tmp_path):
    algorithm = AlgorithmConfig(value_pretraining_episodes=0)
    checkpoint = train(config(tmp_path, steps=1, algorithm=algorithm, imitate=ImitateConfig()), env=Signs)
    with Ledger.open(tmp_path) as ledger:
        assert ledger.run(checkpoint.run or "").status == "finished"
        assert ledger.records(checkpoint.run or "", "value_pretraining") == []


def test_steps_that_learn_nothing_leave_the_policy_alone(tmp_path):
    frozen = AlgorithmConfig(learning_rate=0.0, critic_learning_rate=1e-3, value_pretraining_episodes=16)
    first = train(config(tmp_path / "a", steps=2, algorithm=frozen), env=Signs)
    none = train(config(tmp_path / "b", steps=0, algorithm=frozen), env=Signs)

    from safetensors.torch import load_file

    weights = [load_file(Path(c.path) / "model.safetensors") for c in (first, none)]
    critics = [load_file(Path(c.path) / "critic.safetensors") for c in (first, none)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert any((critics[0][name] != critics[1][name]).any() for name in critics[0])


class Faulty(Signs):
    """Raises in every episode."""

    def act(self, action):
        raise ZeroDivisionError("no checks to divide by")


def test_an_environment_that_always_fails_stops_the_run_with_its_reason(tmp_path):
    settings = config(tmp_path, imitate=ImitateConfig())
    with pytest.raises(RunError, match=r"failed in 16 of 16 .* no checks to divide by.* foretaste envs check"):
        train(settings, env=Faulty)
    with Ledger.open(tmp_path) as ledger:
        assert ledger.run("latest").status == "failed"


def test_a_fault_that_nobody_foresaw_is_written_down_as_a_failed_run(tmp_path):
    class Crashing(Silent):
        def phase(self, name, total):
            raise ZeroDivisionError("no items to divide by")

    with pytest.raises(ZeroDivisionError):
        train(config(tmp_path), env=Signs, progress=Crashing())
    with Ledger.open(tmp_path) as ledger:
        run = ledger.run("latest")
        assert run.status == "failed"
        last = ledger.records(run.id, "status")[-1].payload
    assert last["error"] == "ZeroDivisionError: no items to divide by"


def test_nothing_to_train_and_nothing_to_resume_are_said(tmp_path):
    with pytest.raises(ConfigError, match="Nothing to train"):
        train()
    settings = config(tmp_path, steps=1)
    run = train(settings, env=Signs).run or ""
    (tmp_path / run / "state" / "trainer.pt").unlink()
    with pytest.raises(RunError, match="no resume point"):
        train(resume=run, runs_folder=str(tmp_path), env=Signs)


def test_a_full_disk_keeps_the_resume_point_before(tmp_path, monkeypatch):
    import torch

    real = torch.save

    def full(state, file):
        if state["progressed"]["step"] >= 2:
            Path(file).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"no space is left on the disk.*foretaste train --resume"):
        train(config(tmp_path, steps=3), env=Signs)
    monkeypatch.setattr(torch, "save", real)
    resumed = train(resume="latest", runs_folder=str(tmp_path), env=Signs)
    assert resumed.step == 3
    assert not list(tmp_path.glob("*/state/*.writing"))
