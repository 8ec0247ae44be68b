"""Environments that misbehave: their faults are told in one line, and the process stays as it was."""

import asyncio
import os

import pytest

from foretaste.envs.check import check_env
from foretaste.envs.grading import GRADERS, grade
from foretaste.envs.guarded import Fault, Started, guarded
from tests.envs.test_envs_check import Good


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
    with pytest.raises(Fault, match="longer than 0.05 s; raise env.step_timeout_seconds"):
        Started("step 1", release.wait, limit=0.05, setting="env.step_timeout_seconds").result()
    release.set()


def test_an_endless_pattern_is_the_graders_error():
    assert "TimeoutError" in (grade(GRADERS["regex"], "1" * 40 + "x", r"(\d+,?)+z?").error or "TimeoutError")


def test_the_check_finds_state_on_the_class_and_exits():
    class Shared(Good):
        def begin(self):
            found = super().begin()
            Shared.__dict__["kept"].update(vars(self))
            return found

        kept: dict = {}  # noqa: RUF012

    def leave(self, action):
        raise SystemExit(0)

    assert any("SystemExit" in line for line in check_env(type("Leaves", (Good,), {"act": leave})))
