"""Episodes on disk equal those sampled; drawing is reproducible and respects age and priority."""

import numpy as np
import pytest

from foretaste.errors import RunError
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.replay import Replay, read_episodes, write_episodes


def episode(seed, *, end=EpisodeEnd.TERMINATED, success=1.0, values=(0.25, 0.5)):
    turns = (
        Turn(
            "héllo 中", Action("ab", (1, 2), (-0.5, -0.25), values, True), (7, 8, 9), 0.5, 0.25, (True, False), 0.1, "p"
        ),
        Turn("", Action("", (), (), ()), (5,), 0.0),
        Turn("x", Action("c", (3,), (-1.5,), values[:1]), (), 1.0),
    )
    return Episode("toy", seed, "train", 2, "plain", turns, end, success, "id", 0.125, None, 99)


def test_round_trip_is_exact(tmp_path):
    episodes = [
        episode(1),
        episode(2, end=EpisodeEnd.STOPPED, success=None),
        Episode("toy", 3, "train", 1, "plain", (), EpisodeEnd.ERROR, None, error="reset raised"),
        episode(4, values=()),  # a policy without a critic
    ]
    write_episodes(tmp_path / "step-000001.npz", episodes)
    assert read_episodes(tmp_path / "step-000001.npz") == episodes


def test_damage_is_named(tmp_path):
    file = tmp_path / "step-000001.npz"
    write_episodes(file, [episode(1)])
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RunError, match="cannot be read"):
        read_episodes(file)


def test_load_forgets_the_steps_of_a_lost_attempt(tmp_path):
    replay = Replay(tmp_path)
    for step in (1, 2, 3):
        replay.add([episode(step), episode(10 + step, end=EpisodeEnd.ERROR, success=None)], step)
    again = Replay(tmp_path)
    again.load(2)
    assert [stored.episode.seed for stored in again.stored] == [1, 2]  # errors are on disk, not learned from
    assert len(read_episodes(tmp_path / "step-000001.npz")) == 2


def test_newest_and_drawn_never_overlap_and_capacity_holds(tmp_path):
    replay = Replay(tmp_path, capacity=6)
    for step in range(10):
        replay.add([episode(step)], step)
    assert [e.seed for e in replay.newest(3)] == [7, 8, 9]
    drawn = replay.draw(10, np.random.default_rng(0), exclude_newest=3)
    assert [e.seed for e in drawn] == [4, 5, 6]
    assert replay.draw(10, np.random.default_rng(0), exclude_newest=8) == []  # fewer are there than are left out


def test_drawing_prefers_the_young_and_the_important(tmp_path):
    replay = Replay(tmp_path)
    for step in range(40):
        replay.add([episode(step, success=float(step % 4 == 0))], step)
    rng = np.random.default_rng(0)
    young = [e.seed for _ in range(200) for e in replay.draw(4, rng, half_life_steps=5)]
    even = [e.seed for _ in range(200) for e in replay.draw(4, rng)]
    assert np.mean(young) > 30 > np.mean(even) + 5
    won = replay.draw(50, rng, priority=lambda e: e.success or 0.0)
    assert [e.seed for e in won] == list(range(0, 40, 4))
    assert replay.draw(5, rng, priority=lambda e: 0.0) == []
