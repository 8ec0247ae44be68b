"""Ping-pong measures by hand, and against slow definitions on generated matrices."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.exams.pingpong import Cycle, longest_cycle, ping_pong, ping_pong_of, revisits, total
from foretaste.records import Action, Episode, EpisodeEnd, Turn

SWAPPING = [[1, 0], [0, 1], [1, 0], [0, 1]]

matrices = st.integers(1, 4).flatmap(
    lambda checks: st.lists(st.lists(st.booleans(), min_size=checks, max_size=checks), min_size=1, max_size=9)
)


def test_two_bugs_swapped_for_ever() -> None:
    found = ping_pong(SWAPPING, actions=["p", "q", "p", " q\n"])
    assert (found.broken, found.fixed) == (3, 3)
    assert (found.regression_rate, found.swap_rate) == (1.0, 1.0)
    assert (found.recurrence, found.recurrence_rate) == (2, 1.0)  # both checks: 1010 and 0101 hold 0 -> 1 -> 0
    assert (found.revisits, found.stalls, found.repeated_actions) == (2, 0, 2)
    assert found.cycle == Cycle(0, 2, 4)


def test_steady_progress_is_no_ping_pong() -> None:
    found = ping_pong([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    assert (found.regression_rate, found.swap_rate, found.recurrence, found.revisits) == (0.0, 0.0, 0, 0)
    assert (found.recurrence_rate, found.cycle, found.repeated_actions) == (0.0, None, None)


def test_mixed_episode_by_hand() -> None:
    # transitions: fix a; stall; fix b and break a (swap); fix a
    found = ping_pong([[0, 0], [1, 0], [1, 0], [0, 1], [1, 1]])
    assert found.regression_rate == pytest.approx(1 / 3)
    assert found.swap_rate == 0.25
    assert (found.recurrence, found.recurrence_rate, found.stalls, found.revisits) == (1, 0.5, 1, 0)


def test_initial_state_adds_a_transition() -> None:
    found = ping_pong([[0, 1], [1, 0], [0, 1]], initial=[True, False])
    assert (found.turns, found.broken, found.revisits) == (3, 3, 2)
    assert found.cycle == Cycle(-1, 2, 4)
    assert ping_pong([[0, 1]]).swap_rate is None
    assert ping_pong([[0, 0], [0, 0]]).regression_rate is None


@given(matrices)
def test_rates_against_their_definitions(rows: list[list[bool]]) -> None:
    found = ping_pong(rows)
    steps = list(itertools.pairwise(rows))
    broken = sum(a and not b for x, y in steps for a, b in zip(x, y, strict=True))
    passing = sum(map(sum, rows[:-1]))
    assert found.regression_rate == (broken / passing if passing else None)
    swaps = [any(a and not b for a, b in zip(x, y, strict=True)) and any(b and not a for a, b in zip(x, y, strict=True))
             for x, y in steps]  # fmt: skip
    assert found.swap_rate == (pytest.approx(sum(swaps) / len(steps)) if steps else None)
    columns = list(zip(*rows, strict=True))
    back = sum(
        any(not c[i] and c[j] and not c[k] for i, j, k in itertools.combinations(range(len(c)), 3)) for c in columns
    )
    assert found.recurrence == back
    assert found.fixed - found.broken == sum(rows[-1]) - sum(rows[0])
    assert found.revisits + found.stalls <= len(steps)


@given(st.lists(st.integers(0, 2), max_size=14))
def test_longest_cycle_against_all_stretches(states: list[int]) -> None:
    lengths = [
        end - start
        for start, end in itertools.combinations(range(len(states) + 1), 2)
        for period in range(2, (end - start) // 2 + 1)
        if all(states[i] == states[i - period] for i in range(start + period, end)) and len(set(states[start:end])) > 1
    ]
    found = longest_cycle(states)
    assert (found.turns if found else 0) == max(lengths, default=0)
    if found:
        stretch = states[found.start : found.start + found.turns]
        assert stretch[found.period :] == stretch[: -found.period]


def test_revisits_need_a_departure() -> None:
    assert revisits("AAAA") == 0
    assert revisits("ABABB") == 2
    assert revisits("") == 0


def episode(rows: list[tuple[bool, ...] | None]) -> Episode:
    turns = tuple(Turn("o", Action(f"try {i % 2}"), checks=row) for i, row in enumerate(rows))
    return Episode("repair", 0, "sealed", 1, "plain", turns, EpisodeEnd.TRUNCATED, 0.0)


def test_from_episodes() -> None:
    swapping = ping_pong_of(episode([(True, False), (False, True), (True, False), (False, True)]))
    assert swapping is not None
    assert (swapping.cycle, swapping.repeated_actions) == (Cycle(0, 2, 4), 2)
    assert ping_pong_of(episode([None, None])) is None
    assert ping_pong_of(episode([])) is None
    steady = ping_pong([[0], [1]])
    found = total([swapping, steady])
    assert (found.episodes, found.cycling_share, found.recurring_share) == (2, 0.5, 0.5)
    assert found.mean_regression_rate == 1.0  # nothing passed beforehand in the steady one
    assert total([]).cycling_share is None


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="turns x checks"):
        ping_pong([])
    with pytest.raises(ValueError, match="one action per turn"):
        ping_pong([[1]], actions=["a", "b"])
    with pytest.raises(ValueError, match="initial has 2"):
        ping_pong([[1]], initial=[True, False])
