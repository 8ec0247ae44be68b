"""`foretaste train`: how recipe, flags and a resumed run make one config, and what is shown at the end."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from foretaste.cli import main
from foretaste.commands.train import expand_shorthands, read_arguments, show_summary, summary_rows
from foretaste.config import AlgorithmConfig, EnvConfig, ModelConfig, TrainConfig, to_dict
from foretaste.errors import ConfigError
from foretaste.ledger import Ledger
from foretaste.records import RunSummary

SUMMARY = RunSummary(
    run="maze-1",
    env="maze",
    model="nano",
    success_before=0.05,
    success_after=0.8,
    success_before_interval=(0.024, 0.09),
    success_after_interval=(0.738, 0.853),
    gain=0.75,
    gain_interval=(0.67, 0.81),
    n_items=200,
    episodes=1280,
    sampled_tokens=123456,
    wall_seconds=421.0,
    value_calibration_error=None,
    value_auc=0.875,
    checkpoint="ab" * 32,
    checkpoint_path="runs/maze-1/checkpoint",
    report="runs/maze-1/report.html",
    notes=("the critic explains little",),
)


def test_shorthands_stand_for_the_name_of_a_part() -> None:
    given = ["--env", "maze", "--model=nano", "--algorithm", "grpo", "--env.level", "2", "r.toml"]
    expected = ["--env.id", "maze", "--model.name=nano", "--algorithm.name", "grpo", "--env.level", "2", "r.toml"]
    assert expand_shorthands(given) == expected


def test_without_arguments_the_defaults_are_trained() -> None:
    assert read_arguments([]) == (TrainConfig(), None)


def test_flags_reach_every_part_of_the_config() -> None:
    flags = (
        "--env maze --model nano --steps 3 --algorithm grpo --algorithm.group-size 8 --env.registers plain casual "
        "--algorithm.no-normalize-advantages --writers tensorboard --model.value-range -1 2"
    )
    config, resume = read_arguments(flags.split())
    assert resume is None
    assert config == TrainConfig(
        env=EnvConfig(id="maze", registers=("plain", "casual")),
        model=ModelConfig(name="nano", value_range=(-1.0, 2.0)),
        algorithm=AlgorithmConfig(name="grpo", group_size=8, normalize_advantages=False),
        steps=3,
        writers=("tensorboard",),
    )


def test_flags_override_the_recipe_wherever_they_stand(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('steps = 3\nseed = 4\n[env]\nid = "maze"\nlevel = 2\n')
    expected = TrainConfig(env=EnvConfig(id="maze", level=5), steps=3, seed=4)
    assert read_arguments([str(recipe), "--env.level", "5"]) == (expected, None)
    assert read_arguments(["--env.level", "5", str(recipe)]) == (expected, None)


def test_a_flag_may_repair_what_a_recipe_lacks(tmp_path: Path) -> None:
    recipe = tmp_path / "grpo.toml"
    recipe.write_text('[algorithm]\nname = "grpo"\n')
    with pytest.raises(ConfigError, match=r"algorithm\.group_size = 1"):
        read_arguments([str(recipe)])
    assert read_arguments([str(recipe), "--algorithm.group-size", "4"])[0].algorithm.group_size == 4


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """Id of a run in the ledger of tmp_path, started with settings of its own."""
    with Ledger.open(tmp_path) as ledger:
        return ledger.start_run("train", "maze", to_dict(TrainConfig(env=EnvConfig(id="maze"), steps=7)))


def test_a_resumed_run_keeps_its_settings(tmp_path: Path, saved: str) -> None:
    for wanted in (saved, "latest", saved[:9]):
        config, resume = read_arguments(["--resume", wanted, "--runs-folder", str(tmp_path)])
        assert resume == saved
        assert config == TrainConfig(env=EnvConfig(id="maze"), steps=7, runs_folder=str(tmp_path))


def test_a_resumed_run_refuses_other_settings(tmp_path: Path, saved: str) -> None:
    arguments = ["--resume", saved, "--runs-folder", str(tmp_path)]
    assert read_arguments([*arguments, "--env", "maze"])[1] == saved
    with pytest.raises(ConfigError, match=rf"--env\.id 'repair' differs from the 'maze' of {saved}"):
        read_arguments([*arguments, "--env", "repair"])


def test_the_final_table_shows_every_figure_and_both_paths() -> None:
    output = io.StringIO()
    show_summary(SUMMARY, Console(file=output, width=100))
    shown = output.getvalue()
    for text in (
        "maze learned by nano",
        "0.050  [0.024, 0.090]",
        "0.800  [0.738, 0.853]",
        "+0.750  [+0.670, +0.810]",
        "200 fresh held-out items",
        "1,280",
        "123,456",
        "7 min 1 s",
        "not measured",
        "0.875",
        "Note: the critic explains little",
        "runs/maze-1/checkpoint",
        "runs/maze-1/report.html",
    ):
        assert text in shown


def test_a_loss_shows_its_sign() -> None:
    import dataclasses

    rows = dict(summary_rows(dataclasses.replace(SUMMARY, gain=-0.1, gain_interval=(-0.2, 0.01))))
    assert rows["gain"] == "-0.100  [-0.200, +0.010]"


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []

    def interrupted(config: TrainConfig, **_: Any) -> None:
        with Ledger.open(config.runs_folder) as ledger:
            started.append(ledger.start_run("train", config.env.id, to_dict(config)))
        raise KeyboardInterrupt

    monkeypatch.setattr("foretaste.api.train", interrupted)
    assert main(["train", "--runs-folder", str(tmp_path)]) == 130
    error = capsys.readouterr().err
    assert f"Interrupted. Go on with: foretaste train --resume {started[0]} --runs-folder {tmp_path}" in error


def test_an_interruption_before_the_run_began_names_no_older_run(
    tmp_path: Path, saved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(config: TrainConfig, **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("foretaste.api.train", interrupted)
    assert main(["train", "--runs-folder", str(tmp_path)]) == 130
    error = capsys.readouterr().err
    assert saved not in error
    assert "Nothing had been trained yet." in error


def test_a_path_with_brackets_in_the_final_table_is_no_markup() -> None:
    shown = io.StringIO()
    show_summary(dataclasses.replace(SUMMARY, model="models/v[/2]"), Console(file=shown, width=200))
    assert "maze learned by models/v[/2]" in shown.getvalue()
