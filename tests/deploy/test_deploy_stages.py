"""Stages: nothing is promoted without its evidence, a breach goes back at once, and only a person raises a cap."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.deploy.analysis import Evidence, Finding, Verdict
from foretaste.deploy.stage_config import StageConfig
from foretaste.deploy.stages import Stage, decide, shadow
from foretaste.deploy.takeover import NOTHING, Threshold
from foretaste.errors import ConfigError

CONFIG = StageConfig()
THRESHOLD = Threshold(0.8, 0.5, 0.04, 200, 0, "V >= 0.8")
KEPT = Finding("old tasks", Verdict.SUCCESS, "kept")
READY = Evidence("c1", requests=200, learner_answers=200, threshold=THRESHOLD, old_tasks=KEPT)
SERVED = Evidence("c1", requests=100, learner_answers=100, served=60, served_judged=40, served_correct=40)
BREACH = replace(SERVED, served_correct=20)


def test_the_way_up_is_shadow_then_each_step_of_the_canary_then_live() -> None:
    stage, seen = shadow("c1"), []
    for evidence in (READY, SERVED, SERVED, SERVED):
        decision = decide(stage, evidence, CONFIG)
        assert decision.kind == "promote", decision.reason
        stage = decision.stage
        seen.append((stage.name, stage.share, stage.since))
    assert seen == [("canary", 0.05, 200), ("canary", 0.2, 300), ("canary", 0.5, 400), ("live", 1.0, 500)]
    assert stage.last_good == "c1"
    stays = decide(stage, SERVED, CONFIG)
    assert (stays.kind, stays.stage) == ("hold", stage)


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"requests": 199}, "hold", "199 of 200"),
        ({"learner_answers": 50}, "inconclusive", "coverage"),
        ({"threshold": NOTHING}, "inconclusive", "takeover"),
        ({"threshold": None}, "inconclusive", "not been calibrated"),
        ({"old_tasks": None}, "inconclusive", "old tasks"),
        ({"old_tasks": Finding("old tasks", Verdict.FAILURE, "forgetting: 9 lost")}, "inconclusive", "9 lost"),
        ({"alarms": ("entropy rose",)}, "inconclusive", "entropy rose"),
        ({"checkpoint": "c2"}, "inconclusive", "the evidence is about c2"),
    ],
)
def test_a_shadow_without_its_evidence_is_not_promoted_and_says_what_is_missing(change, kind, word) -> None:
    decision = decide(shadow("c1"), replace(READY, **change), CONFIG)
    assert (decision.kind, decision.stage) == (kind, shadow("c1"))
    assert word in decision.reason


def test_a_breach_goes_back_to_the_last_good_checkpoint_once_and_then_to_shadow() -> None:
    live = Stage("live", "c1", 1.0, 1000, last_good="c0")
    first = decide(live, BREACH, CONFIG)
    assert first.kind == "rollback"
    assert first.stage == Stage("canary", "c0", 0.05, 1100, failures=1)
    assert "20 of 40 served answers wrong" in first.reason
    second = decide(first.stage, replace(BREACH, checkpoint="c0"), CONFIG)
    assert second.stage == shadow("c0", since=1200, failures=2)
    alone = decide(Stage("live", "c1", 1.0, last_good="c1"), BREACH, CONFIG)
    assert alone.stage.name == "shadow"  # there is no other good one
    early = decide(
        Stage("canary", "c1", 0.05), replace(BREACH, requests=21, served_judged=20, served_correct=8), CONFIG
    )
    assert early.kind == "rollback"  # no minimum of requests for a breach
    repeated = decide(Stage("canary", "c1", 0.05, failures=1, last_good="c0"), BREACH, CONFIG)
    assert repeated.stage.name == "shadow"


def test_a_threshold_that_answers_speak_against_is_a_breach_and_one_that_lacks_answers_is_not() -> None:
    stage = Stage("live", "c1", 1.0)
    gone = Threshold(None, 0.0, 1.0, 300, None, "no threshold keeps the error at 5%")
    assert decide(stage, replace(SERVED, threshold=gone), CONFIG).kind == "rollback"
    assert decide(stage, replace(SERVED, threshold=replace(gone, needed=40)), CONFIG).kind == "hold"


def test_harm_above_its_budget_is_a_breach_though_every_answer_is_right() -> None:
    stage = Stage("canary", "c1", 0.05)
    assert decide(stage, replace(SERVED, harm=0.1), CONFIG).kind == "rollback"
    assert decide(stage, replace(SERVED, harm=0.1), replace(CONFIG, harm_budget=0.2)).kind == "promote"


def test_too_few_judged_answers_pause_a_canary_without_going_back() -> None:
    stage = Stage("canary", "c1", 0.05)
    decision = decide(stage, replace(SERVED, served_judged=3, served_correct=2), CONFIG)
    assert (decision.kind, decision.stage) == ("inconclusive", stage)
    assert "17 more" in decision.reason


def test_no_stage_passes_the_ceiling_that_a_person_set() -> None:
    capped = replace(CONFIG, share_ceiling=0.2)
    stage = decide(Stage("canary", "c1", 0.05), SERVED, capped).stage
    assert stage.share == 0.2
    assert decide(stage, SERVED, capped).kind == "inconclusive"  # the next step would be above it
    last = decide(Stage("canary", "c1", 0.2, step=2), SERVED, capped).stage
    assert (last.name, last.share) == ("live", 0.2)
    assert decide(Stage("live", "c1", 1.0), SERVED, capped).stage.share == 0.2  # lowered while live
    assert decide(Stage("live", "c1", 0.2), SERVED, CONFIG).stage.share == 1.0  # raised again
    small = decide(Stage("live", "c1", 0.01, last_good="c0"), BREACH, CONFIG)
    assert (small.kind, small.stage.share) == ("rollback", 0.01)  # a breach gives nobody more
    assert decide(shadow("c1"), READY, replace(CONFIG, share_ceiling=0.0)).kind == "inconclusive"


@given(
    st.sampled_from(["shadow", "canary", "live"]),
    st.integers(0, 2),
    st.integers(0, 400),
    st.integers(0, 200),
    st.integers(0, 200),
    st.booleans(),
    st.floats(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_a_share_only_rises_by_promotion_and_never_above_the_ceiling(
    name, step, requests, right, wrong, calibrated, ceiling
) -> None:
    config = replace(CONFIG, share_ceiling=ceiling)
    share = {"shadow": 0.0, "canary": CONFIG.canary_shares[step], "live": 1.0}[name]
    stage = Stage(name, "c1", min(share, ceiling), step=step if name == "canary" else 0)
    evidence = Evidence(
        "c1",
        requests=requests,
        learner_answers=requests,
        served_judged=right + wrong,
        served_correct=right,
        threshold=THRESHOLD if calibrated else None,
        old_tasks=KEPT,
    )
    decision = decide(stage, evidence, config)
    assert 0 <= decision.stage.share <= ceiling
    assert decision.kind == "promote" or decision.stage.share <= stage.share
    if decision.kind == "promote" and name == "shadow":
        assert calibrated
    assert decision.reason


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for wrong in (
        {"canary_shares": ()},
        {"canary_shares": (0.5, 0.2)},
        {"alpha": 0.0},
        {"delta": 1.0},
        {"share_ceiling": 1.5},
        {"bake_requests": 0},
    ):
        with pytest.raises(ConfigError, match="accepted"):
            StageConfig(**wrong)
