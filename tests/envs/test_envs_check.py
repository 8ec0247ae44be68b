"""`check_env` names each fault of an environment broken in one way, and finds none in sound ones."""

import random

import gymnasium
import pytest
from gymnasium import spaces

from foretaste.envs import TextEnv, make, names
from foretaste.envs.check import check_env


class Good(TextEnv):
    """Say the letter that is shown, twice."""

    name = "good"
    instructions = "Repeat the letter."
    levels = range(1, 3)
    registers = ("plain", "loud")

    def begin(self):
        self.letter = self.random.choice("abcdefghij")
        self.right = 0
        return self.letter, {"privileged": self.letter, "checks": (False,)}

    def act(self, action):
        self.right += action == self.letter
        done = self.turn == 1
        info = {"checks": (action == self.letter,), "harm": 0.0, "privileged": self.letter}
        if done:
            info["success"] = self.right / 2
        return self.letter, float(action == self.letter), done, info

    def oracle(self):
        return self.letter

    def max_turns(self):
        return 3


def changed(**members):
    return type("Changed", (Good,), members)


def with_info(**more):
    def act(self, action):
        observation, reward, done, info = Good.act(self, action)
        return observation, reward, done, {**info, **{k: v(self) if callable(v) else v for k, v in more.items()}}

    return changed(act=act)


def with_step(change):
    def step(self, action):
        return change(*Good.step(self, action))

    return changed(step=step)


def begin_with(value):
    def begin(self):
        Good.begin(self)
        return value(self), {}

    return changed(begin=begin)


def crash(self, action):
    return self.letter, float(int(action or 0)), True, {"success": 0.0}


def endless(self, action):
    self.turn += 1
    return self.letter, 0.0, False, False, {}


def no_text_space(self, level=None):
    Good.__init__(self, level)
    self.action_space = spaces.Text(5)


def no_success(self, action):
    observation, reward, done, info = Good.act(self, action)
    info.pop("success", None)
    return observation, reward, done, info


def any_options(self, *, seed=None, options=None):
    return Good.reset(self, seed=seed)


def drift(self):
    Good.begin(self)
    return f"{self.letter}{random.random()}", {}


def same_item(self):
    Good.begin(self)
    self.letter = "a"
    return "a", {}


NOWHERE = {"none": "nothing"}

FAULTS = {
    "not reproducible": (changed(begin=drift), "same seed gives different items"),
    "always the same": (changed(begin=same_item),
                        "different seeds look the same"),
    "observation in reset": (begin_with(lambda self: 3), "reset returns an observation of type int"),
    "observation in step": (with_step(lambda o, r, e, t, i: (None, r, e, t, i)),
                            "step returns an observation of type NoneType"),
    "reward nan": (with_step(lambda o, r, e, t, i: (o, float("nan"), e, t, i)), "reward nan"),
    "reward none": (with_step(lambda o, r, e, t, i: (o, None, e, t, i)), "reward None"),
    "both ends": (with_step(lambda o, r, e, t, i: (o, r, e, e, i)), "terminated and truncated at once"),
    "terminated int": (with_step(lambda o, r, e, t, i: (o, r, int(e), t, i)), "terminated = 0"),
    "crashes on text": (changed(act=crash), "step raises ValueError on the action"),
    "never ends": (changed(step=endless), "goes on after max_turns (3)"),
    "space": (changed(__init__=no_text_space), "a TextEnv must accept any str"),
    "no success": (changed(act=no_success), "no 'success'"),
    "success above one": (with_info(success=2.0), "info['success'] is 2.0"),
    "negative harm": (with_info(harm=-1.0), "info['harm'] of step is -1.0"),
    "privileged": (with_info(privileged=["a"]), "info['privileged'] of step is list"),
    "checks a list": (with_info(checks=[True]), "info['checks'] of step is [True]"),
    "checks grow": (with_info(checks=lambda self: (True,) * (self.turn + 1)), "info['checks'] changes its length"),
    "error": (with_info(error=3), "info['error'] of step is int"),
    "info": (with_step(lambda o, r, e, t, i: (o, r, e, t, None)), "info of type NoneType"),
    "options": (changed(reset=any_options), "a level that does not exist"),
    "no plain": (changed(registers=("loud",)), "lack 'plain'"),
    "oracle is wrong": (changed(oracle=lambda self: "?"), "oracle does not solve level 1"),
    "oracle fails late": (changed(oracle=lambda self: self.letter if self.level == 1 else "?"),
                          "oracle does not solve level 2"),
    "oracle in one register": (changed(oracle=lambda self: self.letter if self.register == "plain" else "?"),
                               "register 'loud'"),
    "no oracle": (changed(oracle=TextEnv.oracle), "there is no oracle"),
    "no instructions": (changed(instructions=" "), "instructions are empty"),
    "no examples": (changed(worked_examples=lambda self, count, level: []), "worked_examples gives none"),
    "shared info": (changed(begin=lambda self: (Good.begin(self)[0], {"note": NOWHERE})), "share an object"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault):
    broken, message = FAULTS[fault]
    found = check_env(broken)
    assert any(message in line for line in found), found
    assert all("\n" not in line for line in found)


def test_a_sound_environment_has_no_fault():
    assert check_env(Good) == []
    assert check_env(Good()) == []


@pytest.mark.parametrize("name", [*names(), "reasoning/gcd", "reasoning/boxnet"])
def test_our_own_environments_are_sound(name):
    assert check_env(name) == []


class Plain(gymnasium.Env):
    """Guess a digit; a plain Gymnasium environment."""

    def __init__(self):
        self.observation_space = spaces.Text(40, charset="abcdefghijklmnopqrstuvwxyz 0123456789")
        self.action_space = spaces.Text(1, charset="0123456789")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.digit = str(self.np_random.integers(10))
        self.turn = 0
        return "guess a digit", {}

    def step(self, action):
        assert action in self.action_space
        self.turn += 1
        right = action == self.digit
        return "right" if right else "wrong", float(right), bool(right), False, {}


class NumberSpace(Plain):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Discrete(10)


class LiesInStep(Plain):
    def step(self, action):
        return 3, 0.0, True, False, {}


class Random(Plain):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return f"number {random.randrange(10**9)}", {}


class Outside(Plain):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return "LOUD", {}


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (NumberSpace, "action_space is Discrete(10), not text"),
        (LiesInStep, "returned an observation of type int"),
        (Random, "same seed gives different items"),
        (Outside, "not within the observation space"),
    ],
)
def test_faults_of_plain_environments(env, message):
    assert any(message in line for line in check_env(env))


def test_a_sound_plain_environment_has_no_fault():
    assert check_env(Plain) == []


def test_what_cannot_be_made_is_one_line():
    assert check_env("maez") == ["Unknown env 'maez'. Did you mean 'maze'? All: foretaste envs"]
    assert "not a gymnasium.Env" in check_env(dict)[0]


def test_any_text_reaches_a_plain_environment_only_if_it_accepts_it():
    env = make(Plain)
    env.reset(seed=1)
    inner = env.unwrapped
    observation, reward, terminated, truncated, _ = env.step("I think it is 5 🙂")
    assert "Not accepted. Write 1 to 1 characters, using only these: 0123456789" in observation
    assert (reward, terminated, truncated, inner.turn) == (0.0, False, False, 0)
    observation, reward, terminated, _, info = env.step(f" {inner.digit}\n")
    assert (observation, reward, terminated, info["success"]) == ("right", 1.0, True, 1.0)


def test_a_plain_environment_is_truncated():
    env = make(Plain)
    env.reset(seed=1)
    for _ in range(31):
        assert env.step("no")[3] is False
    assert env.step("no")[2:] == (False, True, {"success": 0.0})
