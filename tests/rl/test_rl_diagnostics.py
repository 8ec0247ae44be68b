"""What is measured of the critic, and what a run warns of."""

from __future__ import annotations

import dataclasses

import pytest

from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl import diagnostics
from foretaste.rl.batch import make_batch


def played(values: tuple[float, float], *, success: float | None = 0.0, gate: float = 0.0) -> Episode:
    """Two turns, each with V before its tokens; the reward comes last. Stopped at the gate where success is None."""
    turns = [Turn("", Action("", (1, 2), (-1.0, -1.0), (value, value)), (3,)) for value in values]
    turns[1] = dataclasses.replace(turns[1], gate_probability=gate, reward=success or 0.0)
    if success is None:
        end = EpisodeEnd.STOPPED
        return Episode("toy", 1, "train", 1, "plain", (turns[0],), end, None, final_value=values[1])
    return Episode("toy", 1, "train", 1, "plain", tuple(turns), EpisodeEnd.TERMINATED, success)


def test_figures_of_the_critic_under_a_gate_are_those_without_one() -> None:
    doomed, fooled, won = (0.4, 0.1), (0.6, 0.8), (0.5, 0.7)
    free = [played(doomed)] * 4 + [played(fooled)] * 2 + [played(won, success=1.0)] * 3
    # A gate of 3/4 stops three of the four that V takes for doomed.
    gated = [played(doomed, success=None)] * 3 + [played(doomed, gate=0.75), *free[4:]]
    found = []
    for episodes in (free, gated):
        batch = make_batch(episodes)
        explained = diagnostics.PooledVariance().update(batch, batch.values_BT, gamma=1.0)
        found.append({"explained": explained, **diagnostics.ranking(episodes)})
    assert found[0]["75"] == pytest.approx(4 / 6)
    assert found[1] == pytest.approx(found[0])
    stopped = make_batch(gated[:3])
    assert diagnostics.PooledVariance().update(stopped, stopped.values_BT, gamma=1.0) is None


def test_a_policy_that_waits_for_long_is_a_warning_that_names_the_knob() -> None:
    waiting = {"policy/waiting": 1.0, "train/success": 0.4}
    assert diagnostics.warnings(waiting, step=9, max_entropy=None) == []
    [(text, knob)] = diagnostics.warnings(waiting, step=10, max_entropy=None)
    assert "waited for 10 steps" in text
    assert "mean success 0.40" in text
    assert "replay.actor_start_successes" in knob
    assert diagnostics.warnings({"train/success": 0.4}, step=10, max_entropy=None) == []


def test_sampler_and_trainer_are_called_apart_beyond_what_bfloat16_does_and_not_before():
    """Two sound readings in bfloat16 differ by .2 to .7 at the 99.9th percentile of a step of the default recipe."""
    assert diagnostics.warnings({"policy/sampler_difference_p999": 0.9}, step=2, max_entropy=None) == []
    [(text, knob)] = diagnostics.warnings({"policy/sampler_difference_p999": 1.1}, step=2, max_entropy=None)
    assert "99.9th percentile 1.10; bfloat16 alone" in text
    assert knob == "model.dtype = float32"
