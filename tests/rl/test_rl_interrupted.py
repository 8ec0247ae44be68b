"""Runs that end midway and are resumed: on the same items, from all that was finished, by one process at a time."""

import dataclasses
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import foretaste
from foretaste.checks import check
from foretaste.config import (
    AlgorithmConfig,
    EnvConfig,
    HeldOutConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.errors import ConfigError, LedgerError, RunError
from foretaste.ledger import Ledger
from foretaste.locks import only_one
from foretaste.progress import Silent
from foretaste.rl.train import train


class Greet(foretaste.TextEnv):
    name, instructions = "greet", "Say hi."

    def begin(self):
        return f"item {self.random.randrange(1000)}", {}

    def oracle(self):
        return "hi"

    def act(self, action):
        right = float(action.strip() == "hi")
        return "", right, True, {"success": right}


class Stopping(Greet):
    """Interrupted, as by Ctrl-C, in an action."""

    left = 0

    def act(self, action):
        Stopping.left -= 1
        if Stopping.left < 0:
            raise KeyboardInterrupt
        return super().act(action)


PLAIN = TrainConfig(
    env=EnvConfig("greet", examples=0),
    model=ModelConfig("nano-xs", critic_layers=1),
    sampling=SamplingConfig(max_new_tokens=3),
    algorithm=AlgorithmConfig(learning_rate=1e-3, value_pretraining_episodes=0, passes=1),
    held_out=HeldOutConfig(items=4),
    steps=4,
    episodes_per_step=4,
    save_every=100,
)


def interrupted(folder: Path, after: int, config: TrainConfig = PLAIN) -> TrainConfig:
    """Train until an action is interrupted: 4 held-out ones, then 4 a step."""
    config = dataclasses.replace(config, runs_folder=str(folder))
    Stopping.left = after
    with pytest.raises(KeyboardInterrupt):
        train(config, env=Stopping)
    return config


def test_an_interruption_while_sampling_loses_no_finished_step(tmp_path: Path) -> None:
    whole = train(dataclasses.replace(PLAIN, runs_folder=str(tmp_path / "whole")), env=Greet)
    interrupted(tmp_path / "cut", after=4 + 2 * 4 + 2)  # in the third step; no resume point was due before the end
    told: list[str] = []

    class Listening(Silent):
        def note(self, text):
            told.append(text)

    resumed = train(resume="latest", runs_folder=str(tmp_path / "cut"), env=Greet, progress=Listening())
    assert "resumed after step 2" in told
    assert resumed.id == whole.id  # every weight, bit by bit
    with Ledger.open(tmp_path / "cut") as ledger:
        summary = ledger.records(ledger.run("latest").id, "summary")[-1].payload
        assert summary["episodes"] == 16  # what was sampled of the cut step is not counted twice


def test_a_run_with_a_class_of_its_own_is_not_resumed_without_it(tmp_path: Path) -> None:
    interrupted(tmp_path, after=6)
    with pytest.raises(ConfigError, match=r"started with the environment class .*Stopping.*foretaste\.train\(resume="):
        train(resume="latest", runs_folder=str(tmp_path))
    train(resume="latest", runs_folder=str(tmp_path), env=Greet)


def test_a_run_of_its_settings_environment_is_not_resumed_on_a_class(tmp_path: Path) -> None:
    config = dataclasses.replace(PLAIN, env=EnvConfig("guess", examples=0), steps=1, runs_folder=str(tmp_path))
    train(config)
    with pytest.raises(ConfigError, match="Leave env out"):
        train(resume="latest", runs_folder=str(tmp_path), env=Greet)


def test_a_class_handed_over_gives_the_run_its_name(tmp_path: Path) -> None:
    config = dataclasses.replace(PLAIN, env=EnvConfig(examples=0), steps=1, runs_folder=str(tmp_path))
    train(config, env=Greet)
    with Ledger.open(tmp_path) as ledger:
        run = ledger.run("latest")
        assert (run.name, run.config["env"]["id"]) == ("greet", "greet")
        assert ledger.records(run.id, "summary")[-1].payload["env"] == "greet"


def questions(file: Path, words: str) -> None:
    file.write_text("\n".join(json.dumps({"prompt": f"{words} {i}?", "answer": str(i)}) for i in range(80)))


def test_a_data_set_that_was_changed_is_noticed_when_its_run_is_resumed(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    questions(file, "Old")
    config = dataclasses.replace(PLAIN, env=EnvConfig(f"dataset:{file}", examples=0), runs_folder=str(tmp_path))

    class Interrupting(Silent):
        def metrics(self, step, values):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Interrupting())
    before = file.read_bytes()
    questions(file, "New")
    with pytest.raises(RunError, match=r"questions\.jsonl is not the one that run .* was started with"):
        train(resume="latest", runs_folder=str(tmp_path))
    file.write_bytes(before)
    train(resume="latest", runs_folder=str(tmp_path))


class Drifting(Greet):
    """Asks other questions in every process of measuring: nothing that can be paired."""

    shown = 0

    def begin(self):
        Drifting.shown += 1
        return f"item {Drifting.shown}", {}


def test_different_questions_before_and_after_are_not_paired(tmp_path: Path) -> None:
    config = dataclasses.replace(PLAIN, steps=1, runs_folder=str(tmp_path))
    run = train(config, env=Drifting).run
    with Ledger.open(tmp_path) as ledger:
        summary = ledger.records(str(run), "summary")[-1].payload
    (note,) = [note for note in summary["notes"] if "another question" in note]
    assert "4 of 4 held-out items" in note
    assert "two independent samples" in note
    low, high = summary["gain_interval"]
    assert high - low > 0.9  # four against four, unpaired


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_stored_episodes_that_are_gone_are_asked_for_where_they_are_learned_from(tmp_path: Path, damage: str) -> None:
    learning = dataclasses.replace(PLAIN, replay=ReplayConfig(critic_episodes=8))
    for config, folder in ((learning, tmp_path / "learning"), (PLAIN, tmp_path / "plain")):
        interrupted(folder, after=4 + 2 * 4 + 1, config=config)
        (file,) = folder.glob("*/episodes/step-000001.npz")
        if damage == "lost":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=r"learns from stored episodes.*step-000001\.npz.*Restore them"):
        train(resume="latest", runs_folder=str(tmp_path / "learning"), env=Greet)
    train(resume="latest", runs_folder=str(tmp_path / "plain"), env=Greet)


def test_latest_is_the_latest_run_of_training(tmp_path: Path) -> None:
    interrupted(tmp_path, after=6)
    with Ledger.open(tmp_path) as ledger:
        training = ledger.run("latest").id
        exam = ledger.start_run("exam", "practice", {"paper": "practice"})
        assert ledger.run("latest").id == exam
        assert ledger.run("latest", kind="train").id == training
        with pytest.raises(LedgerError, match="is a run of kind 'exam'; accepted here: one of kind 'train'"):
            ledger.run(exam, kind="train")
        with pytest.raises(LedgerError, match=r"holds no run of kind 'study' yet"):
            ledger.run("latest", kind="study")
    assert train(resume="latest", runs_folder=str(tmp_path), env=Greet).run == training


def test_a_run_that_goes_on_elsewhere_is_not_resumed_beside_it(tmp_path: Path) -> None:
    interrupted(tmp_path, after=6)
    with Ledger.open(tmp_path) as ledger:
        run = ledger.run("latest").id
        records = len(ledger.records(run))
    with only_one(tmp_path / run / "running.lock", "the other"), pytest.raises(RunError, match="in another process"):
        train(resume="latest", runs_folder=str(tmp_path), env=Greet)
    with Ledger.open(tmp_path) as ledger:
        assert len(ledger.records(run)) == records
    train(resume="latest", runs_folder=str(tmp_path), env=Greet)


def test_a_terminated_command_ends_as_an_interrupted_one_and_can_be_resumed(tmp_path: Path) -> None:
    flags = (
        "--env guess --model nano-xs --steps 3000 --episodes-per-step 4 --held-out.items 4 --save-every 2999 "
        "--algorithm.value-pretraining-episodes 4 --sampling.max-new-tokens 4"
    )
    command = [sys.executable, "-u", "-m", "foretaste", "train", "--runs-folder", str(tmp_path), *flags.split()]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.stdout is not None
    next(line for line in run.stdout if line.startswith("step 3/"))
    listed = [sys.executable, "-m", "foretaste", "runs", "--runs-folder", str(tmp_path)]
    assert " running " in subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    run.send_signal(signal.SIGTERM)
    rest = run.communicate(timeout=60)[0]
    assert run.returncode == 128 + signal.SIGTERM
    with Ledger.open(tmp_path) as ledger:
        info = ledger.run("latest")
        steps = [record.step for record in ledger.records(info.id, "metrics")]
    assert info.status == "interrupted"
    assert f"Go on with: foretaste train --resume {info.id}" in rest
    state = torch.load(tmp_path / info.id / "state" / "trainer.pt", weights_only=True)
    assert state["progressed"]["step"] == steps[-1] >= 3  # no finished step is lost


def test_a_killed_run_is_listed_as_killed(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        run = ledger.start_run("train", "greet", {})
    (tmp_path / run).mkdir()
    shown = subprocess.run(
        [sys.executable, "-m", "foretaste", "runs", "--runs-folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "killed: --resume" in shown.stdout


def test_the_resume_point_is_synced_through_a_descriptor_that_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, []

    def as_on_windows(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", as_on_windows)
    train(dataclasses.replace(PLAIN, steps=0, runs_folder=str(tmp_path)), env=Greet)
    assert synced


@pytest.mark.parametrize("setting", ["seed", "held_out.seed"])
def test_a_seed_fits_into_63_bits(setting: str) -> None:
    def with_seed(seed: int) -> TrainConfig:
        if setting == "seed":
            return dataclasses.replace(PLAIN, seed=seed)
        return dataclasses.replace(PLAIN, held_out=dataclasses.replace(PLAIN.held_out, seed=seed))

    check(with_seed(2**63 - 1))
    for seed in (2**63, 10**20, -1):
        with pytest.raises(ConfigError, match=rf"{setting} = {seed} cannot be used; accepted: 0 to"):
            check(with_seed(seed))
