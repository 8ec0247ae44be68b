"""The maze: solvable by the oracle in the fewest turns, long at the top, deaf to nonsense."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.envs.base import demonstrate
from foretaste.envs.maze import LEVELS, Maze, understand
from foretaste.envs.maze_grid import DIRECTIONS, draw_plan, shortest_solution, step_from
from foretaste.envs.partition import belongs
from foretaste.envs.seeds import SPLITS, seed_for
from foretaste.errors import ConfigError


def fewest_turns(maze: Maze) -> int:
    """Search the whole game (cell, key, door) through `act` itself, independent of the plan's distances."""
    start = (maze.cell, maze.has_key, maze.door_open)
    frontier, seen, turns = [start], {start}, 0
    while frontier:
        turns += 1
        following = []
        for state in frontier:
            for action in (*DIRECTIONS, "take", "open"):
                maze.cell, maze.has_key, maze.door_open = state
                _, _, terminated, _ = maze.act(action)
                if terminated:
                    maze.cell, maze.has_key, maze.door_open = start
                    return turns
                reached = (maze.cell, maze.has_key, maze.door_open)
                if reached not in seen:
                    seen.add(reached)
                    following.append(reached)
        frontier = following
    raise AssertionError("the goal cannot be reached")


@pytest.mark.parametrize("level", Maze.levels)
def test_the_oracle_takes_a_shortest_path_within_the_levels_range(level: int) -> None:
    maze = Maze()
    for index in range(50):
        played = demonstrate(maze, seed_for(SPLITS[index % 4], index), level=level)
        assert maze.cell == maze.plan.goal
        assert LEVELS[level].shortest <= len(played) == maze.shortest() <= LEVELS[level].longest < maze.max_turns()


@pytest.mark.parametrize("level", [1, 3, 4])
def test_no_play_is_shorter_than_the_stated_shortest_solution(level: int) -> None:
    maze = Maze(level)
    for index in range(8):
        maze.reset(seed=seed_for("practice", index))
        assert fewest_turns(maze) == maze.shortest() == maze.remaining()


def test_the_top_level_takes_at_least_eighty_turns_of_at_most_twenty_words() -> None:
    maze = Maze(Maze.levels[-1])
    played = demonstrate(maze, seed_for("train", 1), level=Maze.levels[-1])
    assert len(played) >= 80
    assert max(len(observation.split()) for observation, _ in played) <= 20


def test_the_key_opens_the_door_and_the_goal_pays_once() -> None:
    maze = Maze(2)
    maze.reset(seed=seed_for("train", 0))
    observation, reward, _, _, _ = maze.step("open")
    assert reward == 0
    assert observation.startswith("No door here." if maze.cell != maze.plan.door[0] else "Locked.")
    rewards, done = [], False
    while not done:
        _, reward, done, _, info = maze.step(maze.oracle())
        rewards.append(reward)
    assert rewards[-1] == info["success"] == 1.0
    assert sum(rewards) == 1.0


def test_without_the_key_the_door_stays_shut() -> None:
    maze = Maze(3)
    maze.reset(seed=seed_for("train", 3))
    near, direction = maze.plan.door
    maze.cell = near
    assert maze.step("open")[0].startswith("Locked.")
    assert maze.step(direction)[0].startswith("Locked.")
    assert maze.cell == near
    maze.has_key = True
    assert f"Door {direction}." in maze.step("wait")[0]
    maze.step("open")
    maze.step(direction)
    assert maze.cell == step_from(near, direction)


def test_privileged_text_counts_the_turns_down() -> None:
    maze = Maze(3)
    _, info = maze.reset(seed=seed_for("train", 5))
    for left in range(maze.shortest(), 0, -1):
        assert info["privileged"] == f"{maze.oracle()}, {left} left"
        _, _, _, _, info = maze.step(maze.oracle())


def test_walls_hold_and_the_observation_names_every_way() -> None:
    maze = Maze(4)
    maze.reset(seed=seed_for("train", 2))
    for _ in range(20):
        ways = maze.plan.open_directions(maze.cell)
        for direction in set(DIRECTIONS) - set(ways):
            before = maze.cell
            assert maze.act(direction)[0].split(".")[0] in ("Wall", "Locked")
            assert maze.cell == before
        shown = maze.act("hm")[0].split("Open ")[1].split(".")[0].split()
        assert shown == ways
        maze.act(maze.random.choice(ways))


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("North", "north"), (" east.\n", "east"), ("go west!", "west"), ("Take the key", "take"), ("S", "south"),
        ("open door", "open"), ("north or south", None), ("north north", None), ("", None), ("northeast", None),
        ("I think maybe north", None), ("42", None), ("north " + "please " * 40, None),
    ],
)  # fmt: skip
def test_exactly_one_action_is_understood(text: str, action: str | None) -> None:
    assert understand(text) == action


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.text(max_size=60), min_size=1, max_size=30), st.integers(0, 3))
def test_any_text_is_answered_and_the_limit_truncates(texts: list[str], index: int) -> None:
    maze = Maze(1)
    maze.reset(seed=seed_for("train", index))
    for turn, text in enumerate(texts[: maze.max_turns()]):
        observation, reward, terminated, truncated, info = maze.step(text)
        assert isinstance(observation, str)
        assert reward in (0.0, 1.0)
        assert not truncated  # the limit is a rule of the task: reaching it ends the task
        assert terminated or turn + 1 < maze.max_turns()
        assert ("success" in info) == terminated
        if terminated:
            break


def test_a_seed_always_gives_the_same_maze_and_splits_share_none() -> None:
    maze = Maze(1)
    plans: dict[str, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for index in range(60):
            first = maze.reset(seed=seed_for(split, index))[0]
            assert belongs(maze.plan.text(), split)
            assert maze.reset(seed=seed_for(split, index))[0] == first
            plans[split].add(maze.plan.text())
    assert not plans["practice"] & (plans["train"] | plans["example"] | plans["sealed"])
    assert not plans["sealed"] & (plans["train"] | plans["example"])


def test_drawn_plans_do_not_depend_on_anything_but_their_generator() -> None:
    one = draw_plan(LEVELS[5], "train", random.Random(3))
    two = draw_plan(LEVELS[5], "train", random.Random(3))
    assert one.text() == two.text()
    assert shortest_solution(one) == shortest_solution(two)


def test_worked_examples_are_short_solutions_at_every_level() -> None:
    for level in Maze.levels:
        examples = Maze().worked_examples(2, level)
        assert len(examples) == 2
        assert all(len(played) <= LEVELS[1].longest for played in examples)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 6"):
        Maze(7)
