"""The lock: its starting success is the stated formula, its mistakes show when they should."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.envs.base import demonstrate
from foretaste.envs.lock import CUES, EXAMPLE_CUES, LEVELS, RESPONSES, TERSE_CUES, Lock, draw_table, random_success
from foretaste.envs.seeds import SPLITS, seed_for
from foretaste.errors import ConfigError


def play_uniformly(lock: Lock, seed: int) -> float:
    lock.reset(seed=seed)
    done, info = False, {}
    while not done:
        _, _, done, _, info = lock.step(lock.uniform_action())
    return info["success"]


def fatal_play(lock: Lock, seed: int) -> tuple[int, list[str], dict]:
    """Make exactly one mistake, on the first critical turn; return that turn, the later observations, the last info."""
    lock.reset(seed=seed)
    turn, mistake, shown, done, info = 0, -1, [], False, {}
    while not done:
        accepted = lock.table.accepted.get(lock.sequence[turn])
        action = lock.oracle()
        if accepted is not None and mistake < 0:
            mistake, action = turn, "nonsense"
        observation, _, done, _, info = lock.step(action)
        if mistake >= 0:
            shown.append(observation)
        turn += 1
    return mistake, shown, info


@pytest.mark.parametrize("level", Lock.levels)
def test_the_oracle_opens_every_lock_at_the_horizon(level: int) -> None:
    for table in range(2):
        lock = Lock(table=table)
        for index in range(50):
            played = demonstrate(lock, seed_for(SPLITS[index % 4], index), level=level)
            assert lock.ruined_at is None
            assert len(played) == lock.max_turns() == LEVELS[level].horizon


def test_the_presets_cover_the_stated_starting_successes() -> None:
    stated = {1: 0.316, 2: 0.100, 3: 0.032, 4: 0.0032}
    for level, chain in LEVELS.items():
        assert random_success(chain.choices, chain.critical, chain.accepted) == pytest.approx(stated[level], rel=0.02)
    assert LEVELS[4].horizon == 80


@pytest.mark.parametrize(
    ("choices", "critical", "accepted", "episodes"), [(4, 4, 3, 1500), (2, 3, 1, 1500), (3, 2, 2, 800), (5, 1, 1, 1500)]
)
def test_random_success_agrees_with_simulation(choices: int, critical: int, accepted: int, episodes: int) -> None:
    lock = Lock(horizon=6, choices=choices, critical=critical, accepted=accepted, table=7)
    wins = sum(play_uniformly(lock, seed_for("train", index)) for index in range(episodes))
    expected = random_success(choices, critical, accepted)
    deviation = math.sqrt(expected * (1 - expected) / episodes)
    assert abs(wins / episodes - expected) < 4 * deviation


def test_every_episode_has_exactly_the_critical_turns_asked_for() -> None:
    lock = Lock(horizon=12, choices=2, critical=5)
    for index in range(20):
        lock.reset(seed=seed_for("train", index))
        assert sum(cue in lock.table.accepted for cue in lock.sequence) == 5


@pytest.mark.parametrize(("visibility", "delay", "turns"), [("at once", 3, 1), ("late", 3, 3), ("late", 5, 5)])
def test_a_mistake_shows_on_the_turn_its_visibility_names(visibility: str, delay: int, turns: int) -> None:
    lock = Lock(level=2, visibility=visibility, delay=delay)  # pyright: ignore[reportArgumentType]
    for index in range(10):
        mistake, shown, info = fatal_play(lock, seed_for("train", index))
        jammed = ["Jammed" in observation for observation in shown[:-1]]
        assert jammed == [later + 1 >= turns for later in range(len(jammed))]
        assert mistake + len(shown) == 20
        assert info["success"] == 0.0


def test_a_second_mistake_does_not_hide_the_first() -> None:
    lock = Lock(horizon=10, choices=2, critical=10, visibility="late")
    lock.reset(seed=seed_for("train", 0))
    shown = [lock.step("nonsense")[0] for _ in range(10)]
    assert ["Jammed" in observation for observation in shown] == [False] * 2 + [True] * 7 + [False]


def test_a_silent_mistake_shows_only_as_the_outcome() -> None:
    lock = Lock(level=2, visibility="silent")
    for index in range(10):
        _, shown, info = fatal_play(lock, seed_for("train", index))
        assert not any("Jammed" in observation for observation in shown)
        assert shown[-1] == "The lock stays shut."
        assert info["success"] == 0.0


@pytest.mark.parametrize(("visibility", "extra"), [("at once", 1), ("late", 3)])
def test_end_on_ruin_ends_when_the_mistake_shows(visibility: str, extra: int) -> None:
    lock = Lock(level=3, visibility=visibility, end_on_ruin=True)  # pyright: ignore[reportArgumentType]
    mistake, shown, info = fatal_play(lock, seed_for("train", 1))
    assert len(shown) == extra
    assert mistake + extra < 40
    assert info["success"] == 0.0
    assert (
        len(fatal_play(Lock(level=3, visibility="silent", end_on_ruin=True), seed_for("train", 1))[1]) == 40 - mistake
    )


def test_privileged_text_tells_at_once_even_of_a_silent_mistake() -> None:
    lock = Lock(level=1, visibility="silent")
    _, info = lock.reset(seed=seed_for("train", 0))
    assert info["privileged"] == "sound, 4 critical left"
    while lock.sequence[lock.turn] not in lock.table.accepted:
        _, _, _, _, info = lock.step("red")
        assert info["privileged"].startswith("sound")
    _, _, _, _, info = lock.step("nonsense")
    assert info["privileged"] == "ruined, 3 critical left"


def test_idle_cues_accept_anything_and_form_is_read_leniently() -> None:
    lock = Lock(level=2)
    lock.reset(seed=seed_for("train", 4))
    done, info = False, {}
    while not done:
        critical = lock.sequence[lock.turn] in lock.table.accepted
        _, _, done, _, info = lock.step(f" {lock.oracle().upper()}.\n" if critical else "???")
    assert info["success"] == 1.0


def test_tables_are_fresh_by_seed_and_the_same_for_every_episode() -> None:
    tables = [draw_table(seed, 4, 1, 8) for seed in range(10)]
    assert len({str(sorted((cue, sorted(words)) for cue, words in table.accepted.items())) for table in tables}) == 10
    assert draw_table(3, 4, 1, 8) == tables[3]
    assert all(not set(table.idle) & set(table.accepted) for table in tables)
    one, other = Lock(table=5), Lock(table=5)
    one.reset(seed=1)
    other.reset(seed=seed_for("sealed", 9))
    assert one.table == other.table


def test_worked_examples_give_no_rule_away() -> None:
    assert not set(CUES) & set(EXAMPLE_CUES)
    lock = Lock(level=4)
    for example in lock.worked_examples(3, 4):
        assert example[0][0].startswith("Words: red blue green gold. Turns: 80. Turn 1. Cue")
        assert all(cue not in observation.split() for cue in CUES for observation, _ in example)
        assert all(action in RESPONSES[:4] for _, action in example)


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.text(max_size=40), min_size=10, max_size=10), st.integers(0, 5))
def test_any_text_is_answered_and_the_episode_runs_to_its_horizon(texts: list[str], index: int) -> None:
    lock = Lock(level=1)
    lock.reset(seed=seed_for("train", index))
    ends = [lock.step(text)[2] for text in texts]
    assert ends == [False] * 9 + [True]


def test_a_seed_repeats_its_episode() -> None:
    lock, again = Lock(level=3), Lock(level=3)
    seed = seed_for("train", 8)
    assert demonstrate(lock, seed, level=3) == demonstrate(again, seed, level=3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"horizon": 0}, "horizon"), ({"choices": 9}, "choices"), ({"critical": 11}, "critical"),
        ({"accepted": 5}, "accepted"), ({"visibility": "later"}, "Did you mean 'late'"), ({"cues": 0}, "cues"),
        ({"delay": 0}, "delay"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(settings: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Lock(level=1, **settings)


@given(
    seed=st.integers(0, 10**6),
    choices=st.integers(2, 8),
    cues=st.integers(1, 30),
    data=st.data(),
)
@settings(deadline=None)
def test_no_word_is_accepted_by_more_cues_than_the_others(
    seed: int, choices: int, cues: int, data: st.DataObject
) -> None:
    accepted = data.draw(st.integers(1, choices))
    rows = draw_table(seed, choices, accepted, cues).accepted.values()
    assert all(len(row) == accepted for row in rows)
    counts = [sum(word in row for row in rows) for word in RESPONSES[:choices]]
    assert max(counts) - min(counts) <= 1


def test_a_terse_lock_shows_the_cue_alone_and_a_mark_behind_it_once_a_mistake_shows() -> None:
    lock = Lock(horizon=6, choices=2, critical=3, visibility="at once", terse=True)
    first, _ = lock.reset(seed=seed_for("train", 3))
    assert first == lock.sequence[0] in TERSE_CUES
    mistake, shown, info = fatal_play(lock, seed_for("train", 3))
    assert shown[:-1] == [f"{cue}!" for cue in lock.sequence[mistake + 1 :]]
    assert info["success"] == 0.0


def test_of_several_tables_each_episode_draws_one_and_the_same_again() -> None:
    lock = Lock(table=5, tables=3)
    drawn = []
    for index in range(30):
        lock.reset(seed=seed_for("train", index))
        drawn.append(lock.table)
        lock.reset(seed=seed_for("train", index))
        assert lock.table == drawn[-1]
    expected = [draw_table(seed, lock.chain.choices, lock.chain.accepted, 8) for seed in (5, 6, 7)]
    assert all(table in expected for table in drawn)
    assert all(table in drawn for table in expected)
    with pytest.raises(ConfigError, match="tables is 0"):
        Lock(tables=0)
