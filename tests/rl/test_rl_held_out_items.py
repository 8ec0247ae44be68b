"""Which held-out items are asked: those of a data set once each, those of other environments as they are drawn."""

import json
from pathlib import Path

import pytest

from foretaste.config import CurriculumConfig, EnvConfig, TrainConfig
from foretaste.rl.held_out import different_tasks
from foretaste.rl.pools import pool_of
from foretaste.rl.tasks import Task, held_out_tasks


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
