"""Alarms: each collapse is named, and neither learning nor a changed world is taken for one."""

import dataclasses
import functools
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.deploy.alarms import Alarm, AlarmConfig, Vital, alarms, weighed
from foretaste.deploy.online import current_score
from foretaste.deploy.settings import DeployConfig
from foretaste.deploy.training.response import Ladder, Response
from foretaste.errors import ConfigError

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


# What the weights of now answer -----------------------------------------------------------------


def said(history):
    return [(one.name, one.noticed) for one in weighed(alarms(history, CONFIG), history, CONFIG)]


def test_a_distance_alone_is_a_notice_while_the_answers_are_right() -> None:
    assert said(vitals(40, kl=4.16, score=0.97)) == [("kl", True)]
    assert (
        "97% of 40"
        in weighed(alarms(vitals(40, kl=4.16, score=0.97), CONFIG), vitals(40, score=0.97), CONFIG)[0].evidence
    )
    assert said(vitals(40, kl=4.16, score=0.3)) == [("kl", False)]
    assert said(vitals(40, kl=4.16, score=0.97, judged=2)) == [("kl", False)]  # nobody knows
    fallen = [*vitals(16, score=0.97), *vitals(8, kl=4.16, score=0.6)]
    assert ("kl", False) in said(fallen)


def test_old_answers_of_old_weights_end_no_learning() -> None:
    """Entropy is low because learning worked; only the last two of eight steps tell of the weights of now."""
    learned = [Vital(0.3, 20, 2.0, 0.1, 1.0)] * 14 + [Vital(0.99, 40, 0.001, 0.1, 1.0)] * 2
    low = [vital._replace(entropy=0.001) if place > 7 else vital for place, vital in enumerate(learned)]
    assert names(low) == []  # weighed by likelihood, the window itself is right already
    before = [*[Vital(0.3, 40, 2.0, 0.1, 1.0)] * 8, *[Vital(0.3, 60, 0.001, 0.1, 1.0)] * 6]
    assert said([*before, *[Vital(0.99, 40, 0.001, 0.1, 1.0)] * 2]) == [("entropy", True)]
    assert said([*before, *[Vital(0.3, 40, 0.001, 0.1, 1.0)] * 2]) == [("entropy", False)]


def test_numbers_that_are_not_finite_are_never_a_notice() -> None:
    history = [*vitals(20, score=1.0), Vital(1.0, 40, 1.0, 0.1, math.nan)]
    assert said(history) == [("gradient", False)]
    assert said([*vitals(20, score=1.0), Vital(1.0, 40, 1.0, 0.1, 1.0, not_finite="a weight")]) == [
        ("not_finite", False)
    ]


def test_answers_that_are_all_too_old_are_said_and_stop_nothing() -> None:
    assert said([Vital(0.5, 0, None, None, None, 1.0)] * 8) == [("stale", True)]
    assert said([Vital(0.5, 0, None, None, None, 1.0)] * 7) == []


def test_every_knob_names_a_setting_of_deploy_toml() -> None:
    histories = [
        vitals(8, kl=5.0),
        [*vitals(16), *vitals(8, entropy=2.5)],
        [*vitals(16, score=0.3), *vitals(8, score=0.3, entropy=0.01)],
        [*vitals(20, score=0.95), *vitals(8, score=0.6, kl=1.5)],
        [*vitals(4), *vitals(1, gradient=math.nan)],
        [*vitals(4), *vitals(8, gradient=0.0)],
        [Vital(0.5, 0, None, None, None, 1.0)] * 8,
        [Vital(0.5, 9, 1.0, 0.1, 1.0, not_finite="a weight")],
    ]
    found = [one for history in histories for one in alarms(history, CONFIG)]
    assert {one.name for one in found} == {"kl", "entropy", "reward", "gradient", "stale", "not_finite"}
    for alarm in found:
        named = re.findall(r"\b(?:training|takeover)(?:\.\w+)+", alarm.knob)
        assert named, alarm.knob
        for name in named:
            assert functools.reduce(getattr, name.split("."), DeployConfig()) is not dataclasses.MISSING


@given(st.lists(st.tuples(st.floats(-3, 3), st.booleans()), min_size=1, max_size=30))
def test_the_score_of_now_is_a_mean_of_scores_and_worth_no_more_than_its_answers(found) -> None:
    moved, right = zip(*found, strict=True)
    batch = SimpleNamespace(
        mask_BT=np.ones((len(found), 1), bool),
        logprobs_BT=np.zeros((len(found), 1)),
        episodes=[SimpleNamespace(success=float(one)) for one in right],
    )
    score, worth = current_score(batch, np.array(moved)[:, None])
    assert 0 <= score <= 1
    assert 1 - 1e-9 <= worth <= len(found) + 1e-9
    level, all_of_them = current_score(batch, np.zeros((len(found), 1)))
    assert level == pytest.approx(np.mean(right))
    assert all_of_them == pytest.approx(len(found))


def test_an_answer_that_would_not_be_given_any_more_tells_nothing() -> None:
    batch = SimpleNamespace(
        mask_BT=np.ones((20, 2), bool),
        logprobs_BT=np.full((20, 2), -1.0),
        episodes=[SimpleNamespace(success=float(place % 2)) for place in range(20)],
    )
    now = np.where(np.arange(20)[:, None] % 2 == 1, -0.5, -6.0)  # wrong answers have become unlikely
    score, worth = current_score(batch, np.repeat(now, 2, axis=1))
    assert score > 0.99
    assert worth == pytest.approx(10, abs=0.1)


# How an alarm is answered -----------------------------------------------------------------------

KL = Alarm("kl", "far away", "training.kl_coefficient (higher)")


def test_alarms_are_answered_softly_then_stop_learning_and_health_takes_soft_answers_back() -> None:
    ladder = Ladder(AlarmConfig(soft_responses=2, cooldown_steps=3, forgive_steps=4, soften=0.5))
    assert ladder.respond([KL._replace(noticed=True)]) is Response.NOTICED
    assert (ladder.level, ladder.rate) == (0, 1.0)
    assert ladder.respond([KL, KL._replace(noticed=True)]) is Response.SOFTENED
    assert [ladder.cool_down() for _ in range(4)] == [True, True, True, False]
    assert ladder.rate == 0.5
    assert ladder.respond([KL]) is Response.SOFTENED
    again = Ladder(ladder.config)
    again.load(ladder.state())  # as after a kill
    assert (again.rate, again.cooldown) == (0.25, 3)
    assert [again.forgive() for _ in range(8)] == [False, False, False, True] * 2
    assert (again.rate, again.forgive()) == (1.0, False)
    assert ladder.respond([KL]) is Response.STOPPED
    ladder.reset()
    assert ladder.respond([KL]) is Response.SOFTENED


@pytest.mark.parametrize(
    "setting", [{"soften": 0.0}, {"window": 0}, {"soft_responses": -1}, {"max_kl": math.nan}, {"success": 2}]
)
def test_limits_that_cannot_be_meant_are_refused_by_the_name_in_deploy_toml(setting) -> None:
    with pytest.raises(ConfigError, match=rf"training\.alarms\.{next(iter(setting))}"):
        AlarmConfig(**setting)
