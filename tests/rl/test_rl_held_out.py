"""Held-out items and figures: no question twice; an item is solved or not, in the share as in the interval."""

import json
from pathlib import Path

import pytest

from foretaste.config import CurriculumConfig, EnvConfig, TrainConfig
from foretaste.rl.held_out import HeldOut, _by_source, different_tasks
from foretaste.rl.pools import pool_of
from foretaste.rl.tasks import Task, held_out_tasks


def outcome(*success):
    return HeldOut("curve", list(success), 0, 0.0, None)


def test_a_graded_success_below_one_is_not_solved_and_a_failed_item_not_judged():
    assert outcome(1.0, 0.9, None, 0.5).solved == 1 / 3
    assert outcome(0.95, 0.95).solved == 0.0
    assert outcome(None).solved is None


def test_sources_are_counted_alike():
    config = TrainConfig(curriculum=CurriculumConfig(sources=("guess@1", "guess@2")))
    tasks = held_out_tasks(config, "curve", 4)
    found = _by_source(config, tasks, [1.0, 0.9, 0.8, None])["by_source"]
    assert found == {"guess@1": {"success": 0.5, "n": 2}, "guess@2": {"success": 0.0, "n": 1}}


def questions(file: Path, count: int, start: int = 0) -> str:
    """Write `count` held-out questions, and one to train on; return the environment's id."""
    rows = [{"prompt": f"{start + n} + 1?", "answer": str(start + n + 1), "split": "practice"} for n in range(count)]
    rows.append({"prompt": f"{start - 1} + 1?", "answer": str(start), "split": "train"})
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return f"dataset:{file}"


def asked(config: TrainConfig, tasks: list[Task]) -> list[str]:
    pool = pool_of(config)
    return [pool.of(task).instance().reset(seed=task.seed, options={"level": task.level})[0] for task in tasks]


@pytest.mark.parametrize(("has", "wanted"), [(12, 40), (60, 40)])
def test_no_question_of_a_data_set_is_asked_twice(tmp_path: Path, has: int, wanted: int) -> None:
    config = TrainConfig(env=EnvConfig(id=questions(tmp_path / "few.jsonl", has), examples=0))
    tasks = different_tasks(config, pool_of(config), "before", wanted)
    assert len(tasks) == len(set(asked(config, tasks))) == min(has, wanted)
    assert len(set(asked(config, held_out_tasks(config, "before", wanted)))) < wanted  # as drawn, some repeat
    assert [task.seed for task in different_tasks(config, pool_of(config), "after", wanted)] == [t.seed for t in tasks]


def test_the_same_question_of_two_data_sets_is_two_items(tmp_path: Path) -> None:
    names = (questions(tmp_path / "one.jsonl", 3), questions(tmp_path / "two.jsonl", 5))
    config = TrainConfig(env=EnvConfig(examples=0), curriculum=CurriculumConfig(sources=names))
    tasks = different_tasks(config, pool_of(config), "before", 50)
    assert sorted(task.env for task in tasks) == sorted([names[0]] * 3 + [names[1]] * 5)


def test_items_of_other_environments_are_those_that_are_drawn() -> None:
    config = TrainConfig(env=EnvConfig(id="guess"))
    assert different_tasks(config, pool_of(config), "before", 30) == held_out_tasks(config, "before", 30)
