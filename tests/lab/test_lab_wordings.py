"""The work of split-brain and student-a-b: figures that hang together, and students that differ in nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from foretaste.config import to_dict
from foretaste.lab import split_brain, student_a_b
from foretaste.lab.jobs import Context
from foretaste.lab.study import Arm
from foretaste.lab.wordings import HELD_OUT, MANY, copy_and_examine, student
from foretaste.registers import REGISTERS


def test_what_is_held_out_is_never_shown() -> None:
    assert set(HELD_OUT).isdisjoint(MANY)
    assert {REGISTERS[name].family for name in HELD_OUT}.isdisjoint(REGISTERS[name].family for name in MANY)


@pytest.mark.parametrize("study", [split_brain.STUDY, student_a_b.STUDY])
def test_students_differ_in_what_they_are_shown_alone(study) -> None:
    one, other = (arm.config for arm in study.full.arms.values() if isinstance(arm, Arm))
    assert one.env.registers != other.env.registers
    assert dataclasses.replace(one, env=other.env, imitate=other.imitate) == other
    ratio = one.imitate.episodes / other.imitate.episodes
    assert ratio == (4 if study is student_a_b.STUDY else 1)


def test_figures_hang_together() -> None:
    config = dataclasses.replace(student(("plain", "casual"), 16), seed=3)
    arguments = {"config": to_dict(config), "options": {"items": 4}}
    context = Context(Path(), lambda share, words: None)
    found = copy_and_examine(arguments, context)
    assert found == copy_and_examine(arguments, context)  # it follows from the seed
    families = [value for name, value in found.items() if name.startswith("family:")]
    assert len(families) == len({REGISTERS[name].family for name in HELD_OUT})
    assert found["held_out"] == pytest.approx(sum(families) / len(families))
    assert found["gap"] == pytest.approx(found["plain"] - found["held_out"])
    assert 0 <= found["all_right"] <= found["plain"]
