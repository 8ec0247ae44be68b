"""Alarms: each collapse is named, and neither learning nor a changed world is taken for one."""

import math

from foretaste.deploy.alarms import AlarmConfig, Vital, alarms

CONFIG = AlarmConfig()


def vitals(count, *, score=0.8, entropy=1.0, kl=0.1, gradient=1.0, judged=20):
    return [Vital(score, judged, entropy, kl, gradient)] * count


def names(history):
    return [alarm.name for alarm in alarms(history, CONFIG)]


def test_healthy_learning_raises_no_alarm() -> None:
    assert names([]) == []
    learning = [
        Vital(min(1.0, step / 20), 20, 6.0 * 0.8**step, min(3.0, step / 8), 1.0 / (step + 1)) for step in range(40)
    ]
    for end in range(len(learning) + 1):
        assert names(learning[:end]) == []


def test_a_changed_world_alone_is_no_alarm() -> None:
    """The score falls by half while the policy has hardly moved: learning must go on."""
    assert names([*vitals(20, score=0.95), *vitals(20, score=0.4)]) == []


def test_a_score_that_falls_while_the_policy_runs_away_is_one() -> None:
    history = [*vitals(20, score=0.95), *vitals(8, score=0.6, kl=1.5)]
    assert names(history) == ["reward"]
    assert "95% to 60%" in alarms(history, CONFIG)[0].reason
    assert names([*vitals(20, score=0.95), *vitals(8, score=0.92, kl=1.5)]) == []  # noise


def test_entropy_that_dissolves_or_freezes_is_one() -> None:
    assert names([*vitals(16), *vitals(8, entropy=2.5)]) == ["entropy"]
    assert names([*vitals(16, score=0.3), *vitals(8, score=0.3, entropy=0.01)]) == ["entropy"]
    assert names([*vitals(16), *vitals(8, score=0.95, entropy=0.01)]) == []  # sure because it is right
    low = [*vitals(16, entropy=0.1), *vitals(8, entropy=0.3)]
    assert names(low) == []  # three times as much, and still nearly nothing


def test_running_away_from_the_accepted_version_is_one() -> None:
    assert names(vitals(8, kl=5.0)) == ["kl"]
    assert names([*vitals(7, kl=0.1), *vitals(1, kl=9.0)]) == []  # one step is no trend


def test_a_gradient_that_is_gone_or_no_number_is_one_unless_all_is_right() -> None:
    assert names([*vitals(4), *vitals(1, gradient=math.nan)]) == ["gradient"]
    assert names([*vitals(4), *vitals(8, gradient=0.0)]) == ["gradient"]
    assert names(vitals(8, gradient=0.0, score=1.0)) == []
    found = alarms([Vital(None, 0, None, None, 0.0)] * 8, CONFIG)
    assert "no answer was judged" in found[0].reason
    assert "feedback" in found[0].knob
