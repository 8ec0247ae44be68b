"""Environments are found by every kind of id; what cannot be used is refused with a clear next step."""

import subprocess
import sys

import gymnasium
import pytest

from foretaste.envs import (
    TextEnv,
    instructions_of,
    make,
    max_turns_of,
    names,
    register_env,
    registry,
    worked_examples_of,
)
from foretaste.envs.plain import PlainTextEnv
from foretaste.errors import ConfigError, EnvError

MODULE = """
import gymnasium
from gymnasium import spaces
from foretaste.envs import TextEnv

class Mine(TextEnv):
    name = "mine"
    instructions = "Say yes."
    levels = range(1, 4)
    def begin(self):
        return "well?", {}
    def act(self, action):
        return "", float(action == "yes"), True, {"success": float(action == "yes")}
    def oracle(self):
        return "yes"

class Plain(gymnasium.Env):
    max_turns = 7
    instructions = "Say anything."
    def __init__(self):
        self.observation_space = self.action_space = spaces.Text(5)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return "hi", {}
    def step(self, action):
        return "bye", 1.0, True, False, {}

class Fails(TextEnv):
    def __init__(self, level=None):
        raise RuntimeError("no server")

class NoSpaces(Plain):
    def __init__(self):
        pass

number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "user_module_of_test.py").write_text(MODULE)
    (tmp_path / "broken_module_of_test.py").write_text("import not_there_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("user_module_of_test", None)
    return tmp_path


@pytest.mark.parametrize("name", names())
def test_every_name_makes_its_environment_here_and_in_gymnasium(name):
    env = make(name)
    assert isinstance(env, TextEnv)
    assert env.name == name
    assert type(make(f"foretaste/{name}-v1")) is type(env)
    assert env.spec is not None
    assert env.spec.id == f"foretaste/{name}-v1"
    assert type(gymnasium.make(f"foretaste/{name}-v1", disable_env_checker=True).unwrapped) is type(env)
    assert instructions_of(env).strip()
    assert max_turns_of(env) >= 1
    assert len(worked_examples_of(env, 2, env.levels[0])) == 2
    assert worked_examples_of(env, 0, 1) == []
    assert make(name, level=env.levels[-1]).level == env.levels[-1]


def test_reasoning_is_in_gymnasiums_registry_too():
    assert (
        gymnasium.make("foretaste/reasoning-v1", family="gcd", disable_env_checker=True).unwrapped.name
        == "reasoning/gcd"
    )
    assert make("reasoning/gcd", level=2).spec.kwargs == {"family": "gcd", "level": 2}


def test_the_users_own_class_from_the_working_folder(folder):
    env = make("user_module_of_test:Mine", level=2)
    assert (env.level, instructions_of(env), max_turns_of(env)) == (2, "Say yes.", 1)
    assert worked_examples_of(env, 1, 1) == [[("well?", "yes")]]
    assert type(make(type(env), level=3)) is type(env)
    assert make(env) is env
    plain = make("user_module_of_test:Plain")
    assert isinstance(plain, PlainTextEnv)
    assert (instructions_of(plain), max_turns_of(plain), worked_examples_of(plain, 2, 1)) == ("Say anything.", 7, [])
    assert make(plain) is plain
    assert make("user_module_of_test:Plain", level=1).reset(seed=2**61)[0] == "hi"


@pytest.mark.parametrize(
    ("id", "kind", "message"),
    [
        ("maez", ConfigError, r"Unknown env 'maez'\. Did you mean 'maze'\?"),
        ("reasoning/gcdd", ConfigError, "Did you mean 'gcd'"),
        ("foretaste/extrac-v1", ConfigError, "Unknown env"),
        ("no_such_module_here:X", EnvError, "No module 'no_such_module_here'"),
        ("broken_module_of_test:X", EnvError, "failed: No module named 'not_there_at_all'"),
        ("user_module_of_test:Min", EnvError, "Did you mean 'Mine'"),
        ("user_module_of_test:Fails", EnvError, "could not be made: RuntimeError: no server"),
        ("user_module_of_test:number", EnvError, "is int, not a class"),
        ("user_module_of_test:NoSpaces", EnvError, "observation_space is missing, not text"),
        ("dataset:nowhere.jsonl", EnvError, "No dataset at"),
    ],
)
def test_what_cannot_be_used_is_refused(folder, id, kind, message):
    with pytest.raises(kind, match=message):
        make(id)


def test_levels_that_do_not_exist_are_refused(folder):
    with pytest.raises(ConfigError, match="extract has no level 6; it has 1 to 5"):
        make("extract", level=6)
    with pytest.raises(ConfigError, match="has no levels, so level 2 cannot be chosen"):
        make("user_module_of_test:Plain", level=2)


def test_registering_a_class_of_ones_own(folder, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})  # other tests list all names there are

    class Own(TextEnv):
        name = "own-of-test"

        def begin(self):
            return "", {}

    assert register_env(Own) is Own
    assert "own-of-test" in names()
    assert type(make("own-of-test")) is Own
    assert type(gymnasium.make("foretaste/own-of-test-v1", disable_env_checker=True).unwrapped) is Own
    for wrong, message in (
        (type("Nameless", (TextEnv,), {}), "give it a short name"),
        (type("Taken", (TextEnv,), {"name": "extract"}), "is taken"),
        (dict, "takes a subclass of TextEnv"),
    ):
        with pytest.raises(EnvError, match=message):
            register_env(wrong)


def test_importing_the_package_is_light():
    code = (
        "import sys, foretaste.envs; foretaste.envs.make('extract'); "
        "print([m for m in ('torch', 'reasoning_gym', 'transformers', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
