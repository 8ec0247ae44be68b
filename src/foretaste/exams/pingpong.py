"""Two bugs swapped for ever: what a repair episode's checks do from turn to turn. Pure functions.

The *check matrix* has one row a turn: which checks pass after that turn's action. A ping-pong is a
check that is fixed, broken again, fixed again; final success alone cannot show it.

Shapes: T turns, C checks. A *transition* leads from one row to the next; T rows have T - 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foretaste.records import Episode


class Cycle(NamedTuple):
    """States that repeat in the same order: period 2 is A B A B."""

    start: int
    """First turn of the cycle, from 0."""
    period: int
    """Turns after which the states repeat; at least 2, since staying put is no cycle."""
    turns: int
    """How many turns it lasts, at least 2 * period."""


@dataclass(frozen=True, slots=True)
class PingPong:
    """One episode's back and forth. Rates are None where nothing could have happened."""

    turns: int
    checks: int
    broken: int
    """Changes 1 -> 0, over all transitions."""
    fixed: int
    """Changes 0 -> 1."""
    regression_rate: float | None
    """#(1 -> 0) / #(passing before a transition)."""
    swap_rate: float | None
    """Share of transitions with both a 0 -> 1 and a 1 -> 0."""
    recurrence: int
    """Checks that went 0 -> 1 -> 0: fixed, then broken again."""
    recurrence_rate: float | None
    """`recurrence` over the checks that were ever fixed."""
    revisits: int
    """Turns that came back to an earlier pass vector after another one in between."""
    stalls: int
    """Turns that left the pass vector as it was."""
    repeated_actions: int | None
    """Turns whose action text had been tried before in the episode; None without actions."""
    cycle: Cycle | None
    """The longest cycle of pass vectors."""


def ping_pong(
    checks: ArrayLike, *, initial: Sequence[bool] | None = None, actions: Sequence[str] | None = None
) -> PingPong:
    """Measure a T x C check matrix.

    Args:
        initial: the C checks before the first action, where known: adds one transition.
        actions: T action texts (programs, patches), compared after stripping outer blanks.

    Raises: ValueError for a matrix without turns or checks, or parts that do not fit together.
    """
    rows_TC = np.asarray(checks, dtype=bool)
    if rows_TC.ndim != 2 or 0 in rows_TC.shape:
        raise ValueError(f"expected a matrix of turns x checks, got shape {rows_TC.shape}")
    if actions is not None and len(actions) != len(rows_TC):
        raise ValueError(f"expected one action per turn: {len(actions)} actions, {len(rows_TC)} turns")
    turns = len(rows_TC)
    if initial is not None:
        if len(initial) != rows_TC.shape[1]:
            raise ValueError(f"initial has {len(initial)} checks, the turns have {rows_TC.shape[1]}")
        rows_TC = np.vstack([np.asarray(initial, dtype=bool), rows_TC])
    before, after = rows_TC[:-1], rows_TC[1:]
    broke, fixed = before & ~after, ~before & after
    states = [row.tobytes() for row in rows_TC]
    back = sum(_fixed_then_broken(rows_TC[:, check]) for check in range(rows_TC.shape[1]))
    ever_fixed = int(fixed.any(axis=0).sum())
    cycle = longest_cycle(states)
    if cycle is not None and initial is not None:
        cycle = cycle._replace(start=cycle.start - 1)  # -1: the state before the first turn
    tried = None if actions is None else [action.strip() for action in actions]
    return PingPong(
        turns=turns,
        checks=rows_TC.shape[1],
        broken=int(broke.sum()),
        fixed=int(fixed.sum()),
        regression_rate=float(broke.sum() / before.sum()) if before.any() else None,
        swap_rate=float((broke.any(axis=1) & fixed.any(axis=1)).mean()) if len(before) else None,
        recurrence=back,
        recurrence_rate=back / ever_fixed if ever_fixed else None,
        revisits=revisits(states),
        stalls=sum(a == b for a, b in itertools.pairwise(states)),
        repeated_actions=None if tried is None else len(tried) - len(set(tried)),
        cycle=cycle,
    )


def ping_pong_of(episode: Episode) -> PingPong | None:
    """Measure an episode from `Turn.checks`; None if its environment has no checks or it has no turn."""
    played = [(turn.checks, turn.action.text) for turn in episode.turns if turn.checks]
    if not played:
        return None
    return ping_pong([checks for checks, _ in played], actions=[text for _, text in played])


class PingPongTotals(NamedTuple):
    """Means over episodes, each weighing the same."""

    episodes: int
    mean_regression_rate: float | None
    """Mean over the episodes in which something passed."""
    mean_swap_rate: float | None
    recurring_share: float | None
    """Share of episodes with at least one check fixed, then broken again."""
    revisiting_share: float | None
    cycling_share: float | None


def total(measured: Sequence[PingPong]) -> PingPongTotals:
    """Average over episodes; None where no episode could show it."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return PingPongTotals(
        len(measured),
        mean([m.regression_rate for m in measured]),
        mean([m.swap_rate for m in measured]),
        mean([float(m.recurrence > 0) for m in measured]),
        mean([float(m.revisits > 0) for m in measured]),
        mean([float(m.cycle is not None) for m in measured]),
    )


def revisits(states: Sequence[Hashable]) -> int:
    """Return how many states equal an earlier one that had been left: A B A counts 1, A A counts 0."""
    seen: set[Hashable] = set()
    count = 0
    for i, state in enumerate(states):
        if i and state != states[i - 1]:
            count += state in seen
        seen.add(state)
    return count


def longest_cycle(states: Sequence[Hashable]) -> Cycle | None:
    """Return the longest stretch that repeats with a period of at least 2 for at least two periods.

    Of equally long ones, the shortest period, then the earliest. A stretch of one state is no cycle.
    """
    best: Cycle | None = None
    for period in range(2, len(states) // 2 + 1):
        start = 0
        while start + 2 * period <= len(states):
            end = start + period
            while end < len(states) and states[end] == states[end - period]:
                end += 1
            length = end - start
            moves = len(set(states[start : start + period])) > 1
            if length >= 2 * period and moves and (best is None or length > best.turns):
                best = Cycle(start, period, length)
            start = max(start + 1, end - period + 1)
    return best


def _fixed_then_broken(column_T: NDArray[Any]) -> bool:
    """True if a check went 0 -> 1 -> 0."""
    changes = column_T[np.flatnonzero(np.diff(column_T.astype(int), prepend=2))]  # the column without repeats
    return "010" in "".join("01"[int(value)] for value in changes)
