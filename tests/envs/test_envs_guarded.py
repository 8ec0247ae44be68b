"""Environments that misbehave: their faults are told in one line, and the process stays as it was."""

import asyncio
import os

import pytest

from foretaste.envs.base import TextEnv
from foretaste.envs.check import check_env
from foretaste.envs.grading import GRADERS, grade
from foretaste.envs.guarded import Fault, Started, guarded


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), asyncio.CancelledError(), KeyError("x")])
def test_whatever_is_raised_is_a_fault(error):
    def fail():
        raise error

    with pytest.raises(Fault, match=f"step 1 raised {type(error).__name__}"):
        guarded("step 1", fail)


def test_the_folder_and_variables_are_put_back(tmp_path):
    before = os.getcwd(), dict(os.environ)

    def change():
        os.chdir(tmp_path)
        os.environ["LEFT_BEHIND"] = "1"

    guarded("step 1", change)
    assert (os.getcwd(), dict(os.environ)) == before


def test_a_call_that_hangs_is_given_up():
    import threading

    release = threading.Event()
    with pytest.raises(Fault, match=r"longer than 0\.05 s; raise env\.step_timeout_seconds"):
        Started("step 1", release.wait, limit=0.05, setting="env.step_timeout_seconds").result()
    release.set()


def test_an_endless_pattern_is_the_graders_error(monkeypatch):
    monkeypatch.setattr("foretaste.envs.grading.REGEX_SECONDS", 0.05)
    found = grade(GRADERS["regex"], "1" * 40 + "x", r"(\d+,?)+")
    assert found.error is None or "TimeoutError" in found.error
    assert "TimeoutError" in str(grade(GRADERS["regex"], "a" * 60, r"(a|a)+b").error)


class Shared(TextEnv):
    """Keeps its item on the class."""

    name, instructions = "shared", "Say the number."
    state: dict = {}  # noqa: RUF012

    def begin(self):
        self.state["want"] = str(self.random.randrange(1000))
        return f"say {self.state['want']}", {}

    def oracle(self):
        return self.state["want"]

    def act(self, action):
        right = float(action.strip() == self.state["want"])
        return "", right, True, {"success": right}


class Leaves(Shared):
    def act(self, action):
        raise SystemExit(0)


def test_the_check_finds_state_on_the_class():
    assert any("keep state on self" in line for line in check_env(Shared))


def test_the_check_finds_exits():
    assert any("SystemExit" in line for line in check_env(Leaves))
