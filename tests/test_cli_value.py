"""`foretaste doctor` and `foretaste think` from the command line: what they print and what they exit with."""

import dataclasses
import json

import pytest

from foretaste.cli import main
from foretaste.commands import doctor as command
from foretaste.config import ModelConfig, TrainConfig, to_dict
from foretaste.errors import ConfigError
from foretaste.ledger import Ledger
from foretaste.models import checkpoint as checkpoints
from foretaste.models.actor_critic import ActorCritic
from foretaste.rl import doctor
from foretaste.rl.checkup import Finding


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("think")
    return checkpoints.save(ActorCritic.load(ModelConfig("nano-xs", critic_layers=-1)), folder / "checkpoint").path


def test_think_prints_accuracy_against_tokens(saved, capsys):
    arguments = ["think", saved, "--env", "guess", "--env.examples", "0", "--items", "2", "--n", "2"]
    arguments += ["--sampling.max-new-tokens", "3", "--methods", "one", "best", "--json"]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["method"] for row in rows] == ["one", "best"]
    assert rows[1]["tokens_per_item"] > rows[0]["tokens_per_item"] > 0
    assert rows[0]["interval"][0] <= rows[0]["solved"] <= rows[0]["interval"][1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--methods", "one", "bets", "--json"], "Did you mean 'best'"),
        (["--items", "0"], "1 or more"),
        (["--n", "0"], "n = 0"),
    ],
)
def test_think_says_what_it_accepts_before_it_plays(saved, capsys, changes, message):
    assert main(["think", saved, "--env", "guess", *changes]) == 2
    printed = capsys.readouterr()
    assert message in " ".join(printed.err.split())
    assert printed.out == ""


def with_findings(monkeypatch, *findings):
    monkeypatch.setattr(doctor, "examine", lambda config, **options: iter(findings))


SOUND = Finding("credit", True, "as by hand", "credit: rl/returns.py")
WRONG = Finding("mask", False, "the mask is off by +1", "mask: rl/batch.py")


def test_doctor_prints_a_table_and_exits_by_what_it_found(monkeypatch, capsys):
    with_findings(monkeypatch, SOUND)
    assert main(["doctor", "--env", "guess"]) == 0
    assert "Machinery sound." in capsys.readouterr().out
    with_findings(monkeypatch, SOUND, WRONG)
    assert main(["doctor", "--env", "guess"]) == 1
    shown = capsys.readouterr().out
    assert "WRONG  mask" in shown
    assert "Bug here: mask: rl/batch.py" in shown


def finished(ledger, success_before, success_after, env="guess"):
    config = dataclasses.replace(TrainConfig(model=ModelConfig("nano-xs")), runs_folder="x")
    values = to_dict(config)
    values["env"]["id"] = env
    run = ledger.start_run("train", env, values)
    for label, success in (("before", success_before), ("after", success_after)):
        ledger.append(run, "held_out", {"label": label, "success": success, "seeds": list(range(len(success)))})
    return run


def test_doctor_judges_a_runs_gain_and_its_gain_over_another(tmp_path, monkeypatch, capsys):
    with_findings(monkeypatch, SOUND)
    half = [1.0, 0.0] * 30
    with Ledger.open(tmp_path) as ledger:
        flat = finished(ledger, half, half)
        good = finished(ledger, [0.0] * 60, [1.0] * 60)
        other = finished(ledger, half, half, env="maze")
    folder = ["--runs-folder", str(tmp_path)]
    assert main(["doctor", "--run", flat, *folder]) == 0
    assert "Machinery sound, the idea does not help" in capsys.readouterr().out
    assert main(["doctor", "--run", good, "--against", flat, *folder]) == 0
    assert "the idea helps" in capsys.readouterr().out
    assert main(["doctor", "--run", good, "--against", other, *folder]) == 2
    assert "different items" in capsys.readouterr().err


def test_doctor_takes_a_recipe_and_flags_over_it():
    given = command.read_arguments(["recipes/quick.toml", "--algorithm.turn-lambda", "0.9"])
    assert given.config.env.id == "guess"
    assert given.config.algorithm.turn_lambda == 0.9
    assert command.read_arguments([]).config.model.name == "nano"
    with pytest.raises(ConfigError, match="give --run too"):
        command.read_arguments(["--against", "x"])


def test_doctor_advises(capsys):
    arguments = ["doctor", "--advise", "--env", "guess", "--env.examples", "0", "--model", "nano-xs"]
    assert main([*arguments, "--sampling.max-new-tokens", "3"]) == 0
    shown = capsys.readouterr().out
    assert "Advice: " in shown
    assert "AUC of V at 50%" in shown
