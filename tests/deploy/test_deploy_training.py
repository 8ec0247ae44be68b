"""Learning on the job: what the store holds becomes experiences, and steps of learning become checkpoints."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from foretaste.config import ModelConfig, SamplingConfig
from foretaste.deploy import analysis, evidence, online, state, store, training_client
from foretaste.deploy.alarms import Alarm
from foretaste.deploy.database import reading, writing
from foretaste.deploy.judging import exact
from foretaste.deploy.learner_client import ProcessLearner
from foretaste.deploy.offline import Offline
from foretaste.deploy.promise.statement import promise_of
from foretaste.deploy.records import Answer, Exchange, Feedback, LearnerAnswer
from foretaste.deploy.settings import DeployConfig, LearnerConfig, TrainingConfig
from foretaste.deploy.tables import answers, checkpoints
from foretaste.deploy.training_process import PROGRESS_FILE, TrainingWork
from foretaste.models import checkpoint
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.records import Conversation, Message

CONFIG = DeployConfig(
    training=TrainingConfig(enabled=True, every=4, publish_every=2, learning_rate=1e-2, held_back_share=0.0)
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = ActorCritic.load(ModelConfig(name="nano", critic_layers=1), seed=1)
    saved = checkpoint.save(model, tmp_path_factory.mktemp("base") / "nano")
    return model, saved


@pytest.fixture
def offline(base: Any, tmp_path: Path) -> Any:
    (tmp_path / "deploy.toml").write_text("", encoding="utf-8")
    with Offline.open(tmp_path / "deploy.toml") as opened:
        opened.config = replace(CONFIG, learner=LearnerConfig(checkpoint=base[1].path, device="cpu"))
        yield opened


def write_judged(offline: Any, base: Any, count: int, *, first: int = 0) -> None:
    """Write requests that nano answered silently, every second one right by the incumbent."""
    model, saved = base
    sampler = Sampler(model, SamplingConfig(max_new_tokens=3, max_context=200))
    for place in range(first, first + count):
        conversation = Conversation(str(place), [Message("user", f"what is {place}?")], sample_seed=place)
        action = sampler.act([conversation])[0]
        prompt = conversation.tokens[: -len(action.tokens)]
        trace = {"prompt": prompt, "tokens": action.tokens, "logprobs": action.logprobs, "values": action.values}
        said = LearnerAnswer(action.text, saved.id, 0.5, 0.5, len(prompt), len(action.tokens), trace=trace)
        right = action.text if place % 2 == 0 else "4"
        body = json.dumps({"messages": [{"role": "user", "content": f"what is {place}?"}]}).encode()
        exchange = Exchange(f"r{place}", "k", body, "shadow", False, sampled=True)
        exchange.answers = [Answer("incumbent", True, 0.1, text=right), Answer("learner", False, 0.1, learner=said)]
        with writing(offline.engine) as connection:
            store.write_exchanges(connection, [exchange])
            store.judge(connection, [exchange.id], exact, correct_from=0.5)


def test_judged_answers_become_checkpoints_and_nothing_is_learned_twice(offline: Any, base: Any) -> None:
    work = TrainingWork(offline.config, offline.folder)
    assert work.step() is False  # nothing to learn from
    write_judged(offline, base, 9)
    found, last = work.experiences()
    assert [one.id for one in found] == ["r0", "r1", "r2", "r3"]
    assert last == 4
    assert [one.score for one in found] == [1.0, 0.0, 1.0, 0.0]
    assert [one.correction is not None for one in found] == [False, True, False, True]  # only what was wrong
    assert len(found[0].action.tokens) == len(found[0].action.logprobs)
    assert (work.step(), work.step(), work.step()) == (True, True, False)
    with reading(offline.engine) as connection:
        made = connection.execute(sa.select(checkpoints)).one()
    assert checkpoint.read(made.path).id == made.id != base[1].id
    assert made.parent == base[1].id
    assert json.loads(made.note)["step"] == 2
    progress = json.loads((offline.folder / "deployment" / PROGRESS_FILE).read_text())
    places = {"learned": 8, "corrected": 0, "made": [base[1].id, made.id], "newest": Path(made.path).name}
    kept = {"best": base[1].id[:16], "ladder": {"level": 0, "healthy": 2, "cooldown": 0}}
    assert progress == places | kept
    again = TrainingWork(offline.config, offline.folder)  # as after a kill
    assert again.experiences()[1] == 9
    work.engine.dispose()
    again.engine.dispose()


def test_a_restarted_training_goes_on_from_the_weights_that_hold_what_was_learned(offline: Any, base: Any) -> None:
    write_judged(offline, base, 17)

    def started() -> TrainingWork:
        return TrainingWork(offline.config, offline.folder)

    def weights(work: TrainingWork) -> str:
        return work.trainer.publish().id

    first = started()
    assert [first.step() for _ in range(4)] == [True] * 4
    with reading(offline.engine) as connection:
        one, two = connection.execute(sa.select(checkpoints).order_by(checkpoints.c.number))
    assert weights(first) == two.id
    accepted = {"accepted": one.id, "accepted_path": one.path}  # after the second had been made
    for changes in ({}, accepted, {"accepted": two.id, "accepted_path": two.path}):
        state.change(offline.engine, offline.key, "test", "person:test", changes, "test")
        again = started()
        assert (weights(again), again.learned) == (two.id, 16)
        assert again.trainer.accepted.id == changes.get("accepted", base[1].id)
        again.engine.dispose()
    other = checkpoint.save(ActorCritic.load(ModelConfig(name="nano", critic_layers=1), seed=2), offline.folder / "x")
    chosen = {"accepted": other.id, "accepted_path": other.path}  # by a person: not made here
    state.change(offline.engine, offline.key, "test", "person:test", chosen, "test")
    foreign = started()
    assert weights(foreign) == foreign.trainer.accepted.id == other.id
    for work in (first, foreign):
        work.engine.dispose()


def test_after_an_alarm_training_begins_with_the_accepted_weights(
    offline: Any, base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_judged(offline, base, 12)
    work = TrainingWork(offline.config, offline.folder)
    assert (work.step(), work.step()) == (True, True)  # the second step publishes
    monkeypatch.setattr(online, "alarms", lambda history, config: (Alarm("kl", "far away", "a knob"),))
    assert work.step() is True
    again = TrainingWork(offline.config, offline.folder)
    assert (again.trainer.publish().id, again.learned) == (base[1].id, 8)
    for one in (work, again):
        one.engine.dispose()


def test_answers_that_hold_nothing_to_learn_are_passed_over(offline: Any, base: Any) -> None:
    write_judged(offline, base, 9)
    nothing = answers.update().values(trace='{"prompt": [], "tokens": [], "logprobs": [], "values": []}')
    work = TrainingWork(offline.config, offline.folder)
    with writing(offline.engine) as connection:
        connection.execute(nothing.where(answers.c.request.in_(["r1", "r2", "r6"])))
    found, last = work.experiences()
    assert ([one.id for one in found], last) == (["r0", "r3", "r4", "r5"], 6)
    assert (work.step(), work.step()) == (True, False)  # r7 and r8 wait for two more
    assert work.learned == 6
    with writing(offline.engine) as connection:
        connection.execute(nothing.where(answers.c.role == "learner"))
    assert (work.step(), work.learned) == (False, 9)  # never read again
    work.engine.dispose()


def test_learning_needs_permission(offline: Any, base: Any) -> None:
    write_judged(offline, base, 4)
    work = TrainingWork(offline.config, offline.folder)
    state.change(offline.engine, offline.key, "cap", "person:test", {"may_learn": False}, "test")
    assert work.step() is False
    state.change(offline.engine, offline.key, "cap", "person:test", {"may_learn": True, "killed": True}, "test")
    assert work.step() is False
    state.change(offline.engine, offline.key, "lift", "person:test", {"killed": False}, "test")
    assert work.step() is True
    work.engine.dispose()


def test_a_persons_correction_is_what_should_have_been_said(offline: Any, base: Any) -> None:
    write_judged(offline, base, 4)
    given = Feedback("r1", "k", "correction", None, "42")
    with writing(offline.engine) as connection:
        store.write_feedback(connection, given, exact, correct_from=0.5)
    work = TrainingWork(offline.config, offline.folder)
    found = {one.id: one for one in work.experiences()[0]}
    assert found["r1"].correction == tuple(base[0].template.action("42"))
    assert found["r3"].correction == tuple(base[0].template.action("4"))
    work.engine.dispose()


def test_an_answer_that_users_rejected_is_not_imitated(offline: Any, base: Any) -> None:
    write_judged(offline, base, 4)
    with writing(offline.engine) as connection:
        store.write_feedback(connection, Feedback("r0", "k", "thumbs", 0.0), exact, correct_from=0.5)  # both said it
        wrong = answers.update().where(answers.c.request == "r1")
        connection.execute(wrong.where(answers.c.role == "incumbent").values(score=0.0, judge="user"))
        # Served and rejected; the incumbent, asked for a check, says the same and was judged by nobody.
        same = sa.select(answers.c.text).where(answers.c.request == "r2", answers.c.role == "incumbent")
        connection.execute(answers.update().where(answers.c.request == "r2").values(text=connection.scalar(same)))
        served = answers.update().where(answers.c.request == "r2", answers.c.role == "learner")
        connection.execute(served.values(score=0.0, judge="user"))
    work = TrainingWork(offline.config, offline.folder)
    found = {one.id: (one.score, one.correction) for one in work.experiences()[0]}
    assert {name: found[name] for name in ("r0", "r1", "r2")} == dict.fromkeys(("r0", "r1", "r2"), (0.0, None))
    assert found["r3"] == (0.0, tuple(base[0].template.action("4")))
    work.engine.dispose()


def test_after_a_step_back_what_was_remembered_is_forgotten(offline: Any, base: Any) -> None:
    write_judged(offline, base, 9)
    work = TrainingWork(offline.config, offline.folder)
    assert work.step() is True
    assert len(work.trainer.episodes) == 4
    state.change(offline.engine, offline.key, "rollback", "stages", {"fresh_from": 4}, "test")
    assert work.step() is True
    assert len(work.trainer.episodes) == 4  # those of this step alone
    work.engine.dispose()


def test_an_alarm_is_held_against_all_that_the_same_learning_has_made(
    offline: Any, base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_judged(offline, base, 12)
    work = TrainingWork(offline.config, offline.folder)
    assert (work.step(), work.step()) == (True, True)  # the second step publishes
    with reading(offline.engine) as connection:
        made = connection.execute(sa.select(checkpoints)).one()
        assert store.alarms_of(connection, made.id) == ()
    monkeypatch.setattr(online, "alarms", lambda history, config: (Alarm("kl", "far away", "a knob"),))
    assert work.step() is True
    present = replace(state.load(offline.engine), checkpoint=made.id)
    with reading(offline.engine) as connection:
        promise = promise_of(offline.config)
        mature = evidence.Mature.of(connection, promise, time.time())
        seen = evidence.gather(connection, present, promise, mature, correct_from=0.5, threshold=None, old_tasks=None)
    assert seen.alarms == ("kl: far away",)
    assert analysis.alarms(seen).verdict is not analysis.Verdict.SUCCESS
    work.engine.dispose()


def test_a_killed_training_is_started_again_and_learns_all_that_was_judged(
    kit: Any, offline: Any, base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_client, "PAUSE_SECONDS", 0.0)
    write_judged(offline, base, 8)
    deployment: Any = SimpleNamespace(
        config=offline.config,
        folder=offline.folder,
        learner=object.__new__(ProcessLearner),  # only asked what it is
        state=state.load(offline.engine),
        killed=False,
        on_killed=[],
    )
    training = training_client.Training(deployment)
    progress = offline.folder / "deployment" / PROGRESS_FILE

    def learned() -> int:
        return json.loads(progress.read_text())["learned"] if progress.exists() else 0

    def wait_until(condition: Any) -> None:
        kit.wait_for(lambda: training.keep_going() or condition(), 180)

    try:
        wait_until(lambda: learned() == 8)
        first = training.process_id
        assert first is not None
        write_judged(offline, base, 8, first=8)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: training.process_id not in (None, first))
        assert training.restarts == 1
        wait_until(lambda: learned() == 16)
        deployment.state = replace(deployment.state, may_learn=False)
        training.keep_going()
        wait_until(lambda: training.process_id is None)
    finally:
        training.close()
    with reading(offline.engine) as connection:
        notes = [json.loads(note) for note in connection.scalars(sa.select(checkpoints.c.note))]
    assert [note["step"] for note in notes] == [2, 2]  # each process counts its own steps
