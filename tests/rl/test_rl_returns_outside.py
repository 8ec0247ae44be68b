"""Returns that the value head cannot stand for are told at the first batch, with what to set instead."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from foretaste.commands.envs import run
from foretaste.config import AlgorithmConfig, EnvConfig, HeldOutConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.envs.check import returns_note
from foretaste.ledger import Ledger
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.batch import make_batch
from foretaste.rl.diagnostics import outside_metrics, warnings
from foretaste.rl.probe_envs import Delayed
from foretaste.rl.train import train


def episode(*rewards: float) -> Episode:
    turns = tuple(Turn("", Action("", (1,), (-0.1,), (0.5,)), (2,), reward) for reward in rewards)
    return Episode("toy", 1, "train", 1, "plain", turns, EpisodeEnd.TERMINATED, 1.0)


def test_what_counts_is_the_return_from_every_token_on() -> None:
    inside = [episode(0.5, 0.5), episode(0.0), episode(0.3, -0.2, 0.2)]
    assert outside_metrics(make_batch(inside), (0.0, 1.0)) == {}
    paid = outside_metrics(make_batch([*inside, episode(-1.0, 2.0)]), (0.0, 1.0))  # adds up to 1, but not on the way
    assert paid == {"value/returns_outside": 0.25, "value/return_low": 0.0, "value/return_high": 2.0}
    assert outside_metrics(make_batch([episode(-0.5)]), (0.0, 1.0))["value/return_low"] == -0.5
    assert outside_metrics(make_batch([episode(5.0)]), (0.0, 10.0)) == {}
    assert outside_metrics(make_batch([episode(5.0)]), None) == {}
    [(text, knob)] = warnings(paid, step=1, max_entropy=None)
    assert "returns from 0 to 2" in text
    assert '"hl_gauss" with model.value_range = [0, 2]' in knob


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ModelConfig(), (0.0, 1.0)),
        (ModelConfig(value_head="hl_gauss", value_range=(-1.0, 3.0)), (-1.0, 3.0)),
        (ModelConfig(value_head="regression"), None),
    ],
)
def test_each_head_has_its_range(model: ModelConfig, expected: tuple[float, float] | None) -> None:
    assert model.returns_range == expected


class Generous(Delayed):
    """Pays ten."""

    def act(self, action):
        done = self.turn == 1
        return "again", 10.0 * done, done, {"success": 1.0} if done else {}


def test_a_run_says_so_before_its_first_step_and_names_the_next_one(tmp_path: Path) -> None:
    config = TrainConfig(
        env=EnvConfig("delayed", examples=0),
        model=ModelConfig("nano-xs", critic_layers=1),
        sampling=SamplingConfig(max_new_tokens=3),
        algorithm=AlgorithmConfig(value_pretraining_episodes=4, value_pretraining_passes=1, passes=1),
        held_out=HeldOutConfig(items=2),
        steps=0,
        episodes_per_step=4,
        runs_folder=str(tmp_path),
    )
    made = train(config, env=Generous)
    with Ledger.open(tmp_path) as ledger:
        said = [(one.step, one.payload["text"]) for one in ledger.records(made.run or "", "warning")]
    assert [step for step, _ in said] == [0]
    assert "returns from 10 to 10 lie outside" in said[0][1]
    wide = dataclasses.replace(config, model=dataclasses.replace(config.model, value_head="regression"))
    made = train(wide, env=Generous)
    with Ledger.open(tmp_path) as ledger:
        assert not ledger.records(made.run or "", "warning")


def test_the_check_of_an_environment_says_so_and_finds_no_fault_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    note = returns_note(Generous)
    assert note is not None
    assert "returns from 0 to 10" in note
    assert "model.value_head" in note
    assert returns_note("guess") is None
    assert run(["check", "guess"]) == 0
    assert capsys.readouterr().out == "guess: ok\n"
