"""Shadow, canary, live and back in a running server, by the evidence in its own store."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.deploy import audit, examination, promotion, state
from foretaste.deploy.database import open_engine, reading, writing
from foretaste.deploy.learner import ScriptedLearner
from foretaste.deploy.records import Answer, Exchange, LearnerAnswer
from foretaste.deploy.settings import DeployConfig, ExamConfig, OldTasksConfig, StoreConfig, TakeoverConfig
from foretaste.deploy.stage_config import FIRST_LOOK, StageConfig
from foretaste.deploy.store import number_judged, write_exchanges
from foretaste.deploy.tables import answers
from foretaste.errors import DeployError

STAGES = StageConfig(
    alpha=0.1, canary_shares=(0.5,), shadow_requests=60, bake_requests=30, minimum_judged=10, minimum_coverage=0.5
)


class World:
    """A learner that is right and sure of even numbers, wrong and unsure of odd ones; its skill can be taken away."""

    broken = False

    def answer(self, messages: list[dict[str, Any]]) -> tuple[str, float]:
        number = int(messages[-1]["content"])
        right = number % 2 == 0 and not self.broken
        return str(number + 1) if right else "?", 0.95 if number % 2 == 0 else 0.1


def kinds(running: Any) -> list[str]:
    with reading(running.deployment.engine) as connection:
        return [entry.kind for entry in audit.entries(connection)]


def ask_until(running: Any, kit: Any, condition: Any, most: int = 1500) -> int:
    """Ask one request after another until it holds; return how many. The store keeps up, however slow the disk is."""
    with running.client() as client:
        for number in range(most):
            assert client.post("/v1/chat/completions", json=kit.question(number)).status_code == 200
            if number % 10 == 9:
                running.flush()
            if condition():
                return number
    raise AssertionError(f"not after {most} requests: {running.app.supervisor.seen}, {running.deployment.state}")


def test_from_shadow_to_live_on_what_it_can_do_and_back_when_it_breaks(
    kit: Any, incumbent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = """print('{"sentence": "PASS (for a test)", "report": "page.html"}')"""
    monkeypatch.setattr(examination, "FORETASTE", (sys.executable, "-c", passes))
    world = World()
    old = [{"messages": [{"role": "user", "content": str(2 * n)}], "answer": str(2 * n + 1)} for n in range(5)]
    (tmp_path / "old.jsonl").write_text("\n".join(map(json.dumps, old)), encoding="utf-8")
    config = replace(
        kit.config_for(incumbent.url),
        stages=STAGES,
        takeover=TakeoverConfig(every_seconds=0.02, check_share=0.5),
        old_tasks=OldTasksConfig(file="old.jsonl"),
        exam=ExamConfig(paper="guess"),
        store=StoreConfig(flush_seconds=0.02),
    )
    with kit.serve(config, tmp_path, ScriptedLearner(world.answer)) as running:
        deployment = running.deployment
        ask_until(running, kit, lambda: deployment.state.stage == "canary")
        assert 0.1 < deployment.state.tau <= 0.95  # even numbers alone
        ask_until(running, kit, lambda: deployment.state.stage == "live")
        assert (deployment.state.share, deployment.state.accepted) == (1.0, "scripted")
        models = [running.ask(number).json()["model"] for number in (10, 11, 12, 13)]
        assert models == ["scripted", "big", "scripted", "big"]
        world.broken = True
        ask_until(running, kit, lambda: deployment.state.stage == "shadow")
        assert deployment.state.tau is None
        assert running.ask(10).json()["model"] == "big"
        assert [kind for kind in kinds(running) if kind in ("promote", "rollback")] == [
            "promote",
            "promote",
            "rollback",
        ]
        with reading(deployment.engine) as connection:
            audit.verify(connection, deployment.audit_key)
            reasons = [entry.payload["reason"] for entry in audit.entries(connection) if entry.kind == "promote"]
        assert ["exam: PASS (for a test)" in reason for reason in reasons] == [True, False]  # to leave the shadow alone


def test_a_held_deployment_is_not_promoted(kit: Any, incumbent: Any, tmp_path: Path) -> None:
    config = replace(
        kit.config_for(incumbent.url),
        stages=STAGES,
        takeover=TakeoverConfig(every_seconds=0.02),
        store=StoreConfig(flush_seconds=0.02),
    )
    with kit.serve(config, tmp_path, ScriptedLearner(World().answer)) as running:
        kit.wait_for(lambda: running.deployment.state.checkpoint)
        running.deployment.change("hold", "person:test", {"held": True}, "for a test")
        ask_until(
            running,
            kit,
            lambda: (
                "current" in running.app.supervisor.seen and running.app.supervisor.seen["current"].kind == "promote"
            ),
        )
        assert running.deployment.state.stage == "shadow"


def test_calibration_goes_on_when_more_was_judged_than_it_chooses_from(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    config = DeployConfig(takeover=TakeoverConfig(newest=FIRST_LOOK))
    deployment: Any = SimpleNamespace(engine=engine, config=config)

    def judged(first: int, count: int, score: float) -> None:
        """Write that many answers of one checkpoint, judged alike."""
        found: list[Exchange] = []
        for number in range(first, first + count):
            one = Exchange(f"r{number}", "k", b"{}", "live", False, sampled=True)
            said = LearnerAnswer("yes", "weights", 0.9, 0.9)
            one.answers = [Answer("learner", True, 0.1, learner=said, verdict=score)]
            found.append(one)
        with writing(engine) as connection:
            write_exchanges(connection, found)
            number_judged(connection, [one.id for one in found])

    present = state.State(checkpoint="weights")
    judged(0, FIRST_LOOK - 1, 1.0)
    assert promotion.calibrated(deployment, present) is None
    judged(FIRST_LOOK - 1, 1, 1.0)
    first = promotion.calibrated(deployment, present)
    assert first is not None
    assert (first.tau, first.looks) == (0.9, 1)
    assert promotion.calibrated(deployment, first) is None  # the second look waits for half as many again
    judged(FIRST_LOOK, FIRST_LOOK, 0.0)
    second = promotion.calibrated(deployment, first)
    assert second is not None
    assert (second.tau, second.looks) == (None, 2)
    assert second.threshold is not None
    assert second.threshold["n"] == FIRST_LOOK  # the newest: all wrong
    with writing(engine) as connection:  # all but one of the answers are older than what is kept
        connection.execute(answers.delete().where(answers.c.judged < 2 * FIRST_LOOK))
    judged(2 * FIRST_LOOK, FIRST_LOOK - 2, 1.0)
    assert promotion.calibrated(deployment, second) is None
    judged(3 * FIRST_LOOK - 2, 1, 1.0)
    third = promotion.calibrated(deployment, second)
    assert third is not None
    assert (third.looks, third.looked) == (3, 3 * FIRST_LOOK - 1)
    assert promotion.calibrated(deployment, third) is None
    engine.dispose()


def test_only_people_loosen_caps(tmp_path: Path) -> None:
    engine, key = open_engine(tmp_path), b"k" * 32
    state.begin(engine, key, DeployConfig(stages=StageConfig(share_ceiling=0.3)))

    def change(actor: str, **changes: Any) -> state.State:
        return state.change(engine, key, "test", actor, changes, "test")

    for wrong in (
        {"share_ceiling": 0.4},
        {"tokens_per_day": 10**9},
        {"harm_budget": 0.1},
        {"share": 0.31},
    ):
        with pytest.raises(DeployError, match="raised by people only"):
            change("stages", **wrong)
    change("stages", share_ceiling=0.2, share=0.2)
    change("person:ada", share_ceiling=0.5, held=True, killed=True, may_serve=False)
    for wrong in ({"held": False}, {"killed": False}, {"may_serve": True}):
        with pytest.raises(DeployError, match="raised by people only"):
            change("stages", **wrong)
    assert change("key:0a1b", held=False).held is False
    with pytest.raises(DeployError, match="Did you mean 'share'"):
        change("person:ada", shar=1)
    with pytest.raises(DeployError, match="accepted: 0 to 1"):
        change("person:ada", share=1.5)
    with reading(engine) as connection:
        refused = [entry for entry in audit.entries(connection) if entry.kind == "test_refused"]
        audit.verify(connection, key)
    assert [list(entry.payload["refused"]) for entry in refused][:2] == [["share_ceiling"], ["tokens_per_day"]]
    assert len(refused) == 7
    engine.dispose()


ANYTHING = {
    "stage": st.sampled_from(state.STAGES),
    "share": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    "share_ceiling": st.sampled_from([0.2, 1.0]),
    "checkpoint": st.sampled_from(["A", "B", "C"]),
    "since": st.integers(0, 3),
    "held": st.booleans(),
}
CHANGES = st.fixed_dictionaries({}, optional=ANYTHING)


@given(st.lists(st.tuples(st.booleans(), CHANGES, CHANGES), max_size=6))
@settings(max_examples=25, deadline=None)
def test_nothing_automatic_moves_on_what_a_person_holds_or_has_moved_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[bool, dict[str, Any], dict[str, Any]]]
) -> None:
    engine, key = open_engine(tmp_path_factory.mktemp("store")), b"k" * 32
    before = state.begin(engine, key, DeployConfig())
    state.change(engine, key, "test", "person:ada", {"accepted": "A", "checkpoint": "A"}, "test")
    for late, by_person, automatic in moves:
        decided_from = state.load(engine)
        before = state.change(engine, key, "test", "person:ada", by_person, "test") if late else decided_from
        try:
            after = state.change(engine, key, "test", "stages", automatic, "test", decided_from=decided_from)
        except DeployError:
            assert state.load(engine) == before
            continue
        assert (before.stage, before.checkpoint, before.since) == (
            decided_from.stage,
            decided_from.checkpoint,
            decided_from.since,
        )
        assert after.share_ceiling <= before.share_ceiling
        assert after.held or not before.held
        if before.held:
            assert after.share <= before.share
            assert state.STAGES.index(after.stage) <= state.STAGES.index(before.stage)
            assert after.stage == "shadow" or after.checkpoint in (before.checkpoint, "A")
    with reading(engine) as connection:
        audit.verify(connection, key)
    engine.dispose()
