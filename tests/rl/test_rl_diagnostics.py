"""What is measured of the critic, and what a run warns of."""

from __future__ import annotations

from foretaste.rl import diagnostics


def test_a_policy_that_waits_for_long_is_a_warning_that_names_the_knob() -> None:
    waiting = {"policy/waiting": 1.0, "train/success": 0.4}
    assert diagnostics.warnings(waiting, step=9, max_entropy=None) == []
    [(text, knob)] = diagnostics.warnings(waiting, step=10, max_entropy=None)
    assert "waited for 10 steps" in text
    assert "mean success 0.40" in text
    assert "replay.actor_start_successes" in knob
    assert diagnostics.warnings({"train/success": 0.4}, step=10, max_entropy=None) == []
