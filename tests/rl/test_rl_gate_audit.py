"""The gate's audit: off only where it surely loses too much, and on again where it would not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.config import GateConfig
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.gate import Gate, GateKeeper
from foretaste.rl.gate_audit import ALPHA, Losses, Prospect

GATE = GateConfig(max_probability=0.75, max_lost_share=0.05)


def episode(success: float | None, *, weight: float = 1.0, value: float = 0.0) -> Episode:
    """An episode of two turns that survived its gate with a weight, or that the gate stopped (no success)."""
    turns = tuple(
        Turn("", Action("", (1,), (-0.1,), (v,)), (2,), 0.0, gate_probability=p)
        for v, p in ((0.5, 0.0), (value, 1 - 1 / weight))
    )
    end = EpisodeEnd.STOPPED if success is None else EpisodeEnd.TERMINATED
    return Episode("toy", 1, "train", 1, "plain", turns, end, success)


def test_two_lucky_survivors_are_told_but_turn_nothing_off() -> None:
    keeper = GateKeeper(GATE)
    step = [*[episode(None)] * 20, *[episode(1.0, weight=3.0)] * 2]
    metrics = keeper.update(step)
    assert metrics["gate/lost_share"] == pytest.approx(4 / 20)
    assert 0 < metrics["gate/lost_share_low"] < 0.05
    assert (metrics["gate/off"], keeper.off) == (0.0, False)
    steps = 1
    while not keeper.off and steps < 20:
        metrics = keeper.update(step)
        steps += 1
    assert 2 < steps < 10  # the same again and again is no luck
    assert metrics["gate/lost_share_low"] > 0.05
    assert metrics["gate/off"] == 1.0
    assert keeper.gate() is None


def audited(rng: np.random.Generator, share: float, steps: int, *, p: float = 0.75, limit: float = 0.05) -> bool:
    """Whether a gate that stops doomed episodes with probability p is ever found to lose more than the limit."""
    losses = Losses()
    for _ in range(steps):
        met = rng.random(12) < p
        lost = (~met) & (rng.random(12) < share)
        losses.add(int(met.sum()), [p / (1 - p)] * int(lost.sum()))
        if losses.above(limit):
            return True
    return False


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_a_gate_that_loses_no_more_than_it_may_is_seldom_turned_off_in_a_whole_run(share: float) -> None:
    rng = np.random.default_rng(0)
    assert sum(audited(rng, share, 60) for _ in range(80)) / 80 <= ALPHA


def test_a_gate_that_loses_a_lot_is_turned_off() -> None:
    rng = np.random.default_rng(0)
    assert all(audited(rng, 0.3, 40) for _ in range(10))


@settings(max_examples=40)
@given(st.integers(0, 60), st.lists(st.floats(0.1, 3), max_size=8))
def test_the_lower_bound_lies_below_the_estimate_and_moves_with_the_evidence(stopped: int, lost: list[float]) -> None:
    losses = Losses()
    losses.add(stopped, [*lost, 0.0])
    assert 0 <= losses.low <= 1
    if stopped:
        assert losses.low <= min(1.0, sum(lost) / stopped) + 1e-6
    more = Losses()
    more.load(losses.state())
    assert more.low == losses.low
    assert more.low > 0.999 or not more.above(more.low + 1e-6)
    more.add(0, [2.0])
    assert more.low >= losses.low
    losses.add(5, [])
    assert losses.low <= more.low


def test_it_comes_back_once_whole_episodes_show_that_it_would_lose_little() -> None:
    keeper = GateKeeper(GATE)
    keeper.off = True
    whole = [
        *[episode(0.0)] * 12,
        *[episode(1.0, value=0.9)] * 4,
    ]  # what it would stop fails, what it would not succeeds
    steps, metrics = 0, dict[str, float]()
    while keeper.off and steps < 40:
        assert keeper.gate() is None
        metrics = keeper.update(whole)
        steps += 1
    assert 2 < steps < 20
    assert metrics.get("gate/off") == 0.0
    assert keeper.gate() is not None


def test_it_stays_off_while_it_would_lose_more_than_it_may() -> None:
    rng = np.random.default_rng(1)
    back = 0
    for _ in range(60):
        prospect = Prospect(0.05)
        for _ in range(800):
            prospect.add(0.75, float(rng.random() < 0.05))
            if prospect.good:
                back += 1
                break
    assert back / 60 <= ALPHA


def test_the_chance_of_a_stop_is_that_of_all_its_gates() -> None:
    gate = Gate(0.4, max_probability=0.75, max_weight=100.0)
    turns = tuple(Turn("", Action("", (1,), (-0.1,), (v,)), (2,)) for v in (0.0, 0.2, 0.0, 0.4))
    played = Episode("toy", 1, "train", 1, "plain", turns, EpisodeEnd.TERMINATED, 0.0)
    assert gate.stopping(played) == pytest.approx(1 - (1 - 0.375) * (1 - 0.75))  # none before the first action


def test_its_record_is_kept_over_an_interruption() -> None:
    keeper, again = GateKeeper(GATE), GateKeeper(GATE)
    keeper.update([*[episode(None)] * 20, *[episode(1.0, weight=3.0)] * 2])
    keeper.prospect.add(0.5, 0.0)
    again.load(keeper.state())
    assert again.state() == keeper.state()
    assert again.losses.low == keeper.losses.low > 0
