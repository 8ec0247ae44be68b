"""Recipes: what is accepted, what is refused and how, and the way to TOML and back."""

import dataclasses
import tomllib
import typing
from pathlib import Path
from types import UnionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.checks import RANGES, check, value_at
from foretaste.config import (
    AlgorithmConfig,
    EnvConfig,
    GateConfig,
    HeldOutConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
    from_dict,
    load_recipe,
    to_dict,
    to_toml,
)
from foretaste.errors import ConfigError


def of_hint(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type; numbers and texts without regard to ranges."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        fields = typing.get_type_hints(hint)
        return st.builds(typing.cast(type, hint), **{name: of_hint(kind) for name, kind in fields.items()})
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(of_hint(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(of_hint, arguments))
    if origin in (UnionType, typing.Union):
        return st.one_of(*(st.none() if kind is type(None) else of_hint(kind) for kind in arguments))
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if hint is int:
        return st.integers(-(2**63), 2**63 - 1)
    if hint is str:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return st.from_type(hint)


@settings(max_examples=60, deadline=None)
@given(of_hint(TrainConfig))
def test_toml_reads_back_to_an_equal_config(config: TrainConfig) -> None:
    assert from_dict(TrainConfig, tomllib.loads(to_toml(config))) == config


@settings(max_examples=30, deadline=None)
@given(of_hint(TrainConfig))
def test_plain_values_read_back_to_an_equal_config(config: TrainConfig) -> None:
    assert from_dict(TrainConfig, to_dict(config)) == config


def test_every_optional_setting_is_none_by_default_so_that_toml_may_leave_it_out() -> None:
    def optional(kind: Any, path: str = "") -> list[str]:
        found: list[str] = []
        for name, hint in typing.get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                found += optional(hint, f"{path}{name}.")
            elif type(None) in typing.get_args(hint):
                found.append(path + name)
        return found

    assert "env.max_turns" in optional(TrainConfig)
    for path in optional(TrainConfig):
        assert value_at(TrainConfig(), path) is None, path


def test_a_recipe_overrides_only_what_it_names(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('steps = 3\n[env]\nid = "maze"\nregisters = ["plain", "casual"]\n[algorithm]\ngamma = 1\n')
    config = load_recipe(recipe)
    assert config == TrainConfig(steps=3, env=EnvConfig(id="maze", registers=("plain", "casual")))
    assert isinstance(config.algorithm.gamma, float)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"step": 3}, ["Unknown setting in config 'step'", "Did you mean 'steps'?", "episodes_per_step"]),
        ({"env": {"ids": "maze"}}, ["Unknown setting in config.env 'ids'", "Did you mean 'id'?"]),
        ({"steps": "many"}, ["config.steps = 'many'", "accepted: int"]),
        ({"steps": True}, ["config.steps = True", "accepted: int"]),
        ({"steps": 2.5}, ["config.steps = 2.5", "accepted: int"]),
        ({"algorithm": {"gamma": "1"}}, ["config.algorithm.gamma = '1'", "accepted: float"]),
        ({"algorithm": {"name": "pppo"}}, ["config.algorithm.name = 'pppo'", "'ppo' | 'grpo' | 'reinforce'"]),
        ({"algorithm": {"normalize_advantages": 1}}, ["normalize_advantages = 1", "accepted: bool"]),
        ({"env": {"registers": "plain"}}, ["config.env.registers = 'plain'"]),
        ({"model": {"value_range": [0.0]}}, ["config.model.value_range = [0.0]"]),
        ({"env": "maze"}, ["config.env = 'maze'", "EnvConfig"]),
        ({"writers": ["tensorbord"]}, ["config.writers = 'tensorbord'", "'tensorboard'"]),
    ],
)
def test_wrong_settings_are_named_with_what_is_accepted(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(TrainConfig, values)
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_recipe_names_the_recipes_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"No recipe at 'mine'\. Recipes here: recipes/mine\.toml"):
        load_recipe("mine")


@pytest.mark.parametrize("content", [b"steps = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_says_so(tmp_path: Path, content: bytes) -> None:
    recipe = tmp_path / "broken.toml"
    recipe.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML"):
        load_recipe(recipe)


def test_the_defaults_can_be_used() -> None:
    assert check(TrainConfig()) == TrainConfig()


def test_every_number_of_a_config_has_a_range() -> None:
    def numbers(kind: Any, path: str = "") -> set[str]:
        found: set[str] = set()
        for name, hint in typing.get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                found |= numbers(hint, f"{path}{name}.")
            elif {int, float} & {hint, *typing.get_args(hint)} and typing.get_origin(hint) is not tuple:
                found.add(path + name)
        return found

    assert set(RANGES) == numbers(TrainConfig)


def with_value(path: str, value: object) -> TrainConfig:
    values = to_dict(TrainConfig())
    inside = values
    *tables, name = path.split(".")
    for table in tables:
        inside = inside[table]
    inside[name] = value
    return from_dict(TrainConfig, values)


@pytest.mark.parametrize("path", sorted(RANGES))
def test_numbers_far_outside_their_range_are_refused_by_name(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(with_value(path, -7))
    assert str(caught.value).startswith(f"{path} = -7")
    assert str(caught.value).endswith(f" cannot be used; accepted: {RANGES[path].words}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.learning_rate"):
        check(with_value("algorithm.learning_rate", value))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(algorithm=AlgorithmConfig(name="grpo")), r"group_size = 1 .* at least 2"),
        (TrainConfig(algorithm=AlgorithmConfig(group_size=5)), r"episodes_per_step = 64 .* multiple .* = 5"),
        (TrainConfig(episodes_per_step=1), r"minibatches = 2 .* at most episodes_per_step = 1"),
        (TrainConfig(env=EnvConfig(registers=())), r"env\.registers = \(\) .* at least one"),
        (TrainConfig(env=EnvConfig(id=" ")), r"env\.id = ' ' .* a name"),
        (TrainConfig(sampling=SamplingConfig(max_new_tokens=2048)), r"max_new_tokens = 2048 .*max_context = 2048"),
        (TrainConfig(model=ModelConfig(value_range=(1.0, 0.0))), r"value_range = \(1\.0, 0\.0\)"),
        (TrainConfig(model=ModelConfig(critic_layers=0)), r"critic_layers = 0 .* -1"),
        (TrainConfig(algorithm=AlgorithmConfig(turn_lambda=1.01)), r"turn_lambda = 1\.01 .* 0 to 1"),
        (TrainConfig(algorithm=AlgorithmConfig(gamma=0.0)), r"gamma = 0\.0 .* above 0"),
        (TrainConfig(held_out=HeldOutConfig(items=0)), r"held_out\.items = 0 .* 1 or more"),
        (
            TrainConfig(model=ModelConfig(value_head="regression"), gate=GateConfig(max_probability=0.5)),
            r"gate\.max_probability = 0\.5 .* 0 with model\.value_head = 'regression'",
        ),
        (
            TrainConfig(
                model=ModelConfig(value_head="hl_gauss", value_range=(-10.0, 0.0)), replay=ReplayConfig(policy_passes=1)
            ),
            r"policy_passes = 1 .* model\.value_range = \(-10\.0, 0\.0\)",
        ),
        (
            TrainConfig(model=ModelConfig(value_head="hl_gauss"), gate=GateConfig(max_probability=0.5)),
            r"gate\.max_probability = 0\.5 .*\"hl_gauss\".*model\.value_head = \"bce\"",
        ),
        (
            TrainConfig(model=ModelConfig(value_head="hl_gauss"), replay=ReplayConfig(ratio_cap=2.0)),
            r"replay\.ratio_cap = 2\.0 .*replay\.ratio_cap = 1 or",
        ),
        (
            TrainConfig(algorithm=AlgorithmConfig(name="reinforce"), replay=ReplayConfig(policy_passes=2)),
            r"policy_passes = 2 .* 0 with algorithm\.name = 'reinforce'",
        ),
        (
            TrainConfig(algorithm=AlgorithmConfig(name="grpo", group_size=2, gamma=0.9)),
            r"gamma = 0\.9 .* 1 with .*'grpo'",
        ),
        (
            TrainConfig(
                algorithm=AlgorithmConfig(group_size=2, dynamic_sampling=True), replay=ReplayConfig(actor_episodes=64)
            ),
            r"dynamic_sampling = True .* replay\.actor_episodes = 0",
        ),
        (
            TrainConfig(algorithm=AlgorithmConfig(name="auto", group_size=2, dynamic_sampling=True)),
            r"dynamic_sampling = True .* other than auto",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(config: TrainConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(steps=0),
        TrainConfig(algorithm=AlgorithmConfig(name="grpo", group_size=2)),
        TrainConfig(algorithm=AlgorithmConfig(turn_lambda=0.0, critic_lambda=1.0)),
        TrainConfig(algorithm=AlgorithmConfig(gamma=0.9), replay=ReplayConfig(policy_passes=1)),
        TrainConfig(algorithm=AlgorithmConfig(name="grpo", group_size=2, dynamic_sampling=True)),
        TrainConfig(model=ModelConfig(value_head="hl_gauss"), replay=ReplayConfig(policy_passes=1)),
        TrainConfig(model=ModelConfig(value_head="regression", value_range=(-5.0, 5.0))),
        TrainConfig(model=ModelConfig(critic_layers=-1)),
        TrainConfig(env=EnvConfig(max_turns=1)),
    ],
)
def test_values_on_the_edge_of_a_range_are_accepted(config: TrainConfig) -> None:
    assert check(config) is config
