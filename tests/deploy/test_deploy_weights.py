"""The weights that answer are those that the state names, whoever changed it: without network or processes."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste.deploy import keys, learner_process, operator, promotion, store, tables
from foretaste.deploy import state as states
from foretaste.deploy.analysis import Finding, Verdict
from foretaste.deploy.chat import chat
from foretaste.deploy.database import reading, writing
from foretaste.deploy.deployment import Deployment
from foretaste.deploy.learner import LearnerUnavailable, ScriptedLearner
from foretaste.deploy.learner_client import ProcessLearner
from foretaste.deploy.settings import DeployConfig, IncumbentConfig, LearnerConfig, OldTasksConfig
from foretaste.deploy.stages import Decision
from foretaste.deploy.supervisor import Supervisor
from foretaste.deploy.training_client import Training
from foretaste.deploy.upstream import UpstreamError
from foretaste.errors import DeployError

PERSON = "person:test"
NOBODY = DeployConfig(incumbent=IncumbentConfig(url="http://127.0.0.1:9/v1", models=("m",)))
"""An incumbent that cannot be reached; the learner stands in for its one model."""


class Folders(ScriptedLearner):
    """A scripted learner some of whose folders cannot be loaded."""

    lost: frozenset[str] = frozenset()
    holds: Mapping[str, str] = MappingProxyType({})
    """What is in a folder whose content is not named like it."""

    async def load(self, path: str) -> str:
        if path in self.lost:
            raise LearnerUnavailable("no such folder")
        return await super().load(self.holds.get(path, path))


@dataclass
class Bench:
    """A deployment whose supervisor looks only when it is told to."""

    deployment: Deployment
    supervisor: Supervisor
    learner: Folders
    run: Callable[[Any], Any]
    """Runs a coroutine in the event loop."""
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Any:
        return self.deployment.state

    def person(self, **changes: Any) -> None:
        self.deployment.change("test", PERSON, changes, "for a test")

    def at_the_command_line(self, **changes: Any) -> None:
        """Change the store alone; the server finds out when it is synchronised."""
        states.change(self.deployment.engine, self.deployment.audit_key, "test", PERSON, changes, "for a test")

    def act(self, name: str) -> None:
        operator.act(self.deployment, name, PERSON)

    def publish(self, name: str) -> None:
        with writing(self.deployment.engine) as connection:
            store.add_checkpoint(connection, name, name, None, {})

    def kill(self) -> None:
        self.deployment.switch.kill("for a test")
        self.supervisor.sync()

    def lift(self) -> None:
        self.deployment.switch.file.unlink(missing_ok=True)
        self.at_the_command_line(killed=False)
        self.supervisor.sync()

    def look(self) -> None:
        self.supervisor.look()

    def look_until_answered(self) -> None:
        """Look until all who are loaded have answered the old items, and once more."""
        asking = None
        while asking is None or self.supervisor._asking is not asking:
            self.look()
            asking = self.supervisor._asking
            asking.result(60)
            self.look()

    def ask(self, number: int) -> int:
        """Ask as a user would, and wait for the silent answers; return the status."""
        deployment, sent = self.deployment, []
        if "user" not in self.secrets:
            with writing(deployment.engine) as connection:
                made = keys.create(connection, deployment.audit_key, "user", "user", actor=PERSON)
            self.secrets["user"] = made[1]
            self.supervisor.sync()
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": str(number)}]}).encode()

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        async def work() -> None:
            scope = {"headers": [(b"authorization", f"Bearer {self.secrets['user']}".encode())]}
            try:
                await chat(deployment, scope, receive, send)
            except UpstreamError as error:  # the server answers with it
                sent.append({"status": error.status})
            while silent := list(deployment.shadow._silent):
                await asyncio.wait(silent)

        self.run(work())
        deployment.writer.submit(lambda _: None).result(120)
        return sent[0]["status"]

    def answered(self) -> list[tuple[str, bool]]:
        """Who has answered so far, and whether the user got it."""
        query = sa.select(tables.answers).where(tables.answers.c.role == "learner").order_by(tables.answers.c.number)
        with reading(self.deployment.engine) as connection:
            return [(row.checkpoint, row.served) for row in connection.execute(query)]


def answer(_: Any) -> tuple[str, float]:
    return "yes", 0.9


@contextmanager
def bench(folder: Path, *, loaded: str = "A", config: DeployConfig | None = None) -> Iterator[Bench]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(120)

    learner = Folders(answer)
    learner.checkpoint = loaded
    deployment = Deployment(config or DeployConfig(), folder, learner=learner)
    run(deployment.start())
    training = Training(deployment)
    supervisor = Supervisor(deployment, loop, training)
    supervisor.close()  # its own thread: looks are made by the test
    try:
        yield Bench(deployment, supervisor, learner, run)
    finally:
        run(deployment.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def canary_of_b(found: Bench) -> None:
    """B in canary, A accepted."""
    found.look()
    found.person(accepted="A", accepted_path="A")
    found.publish("B")
    found.look()
    assert (found.learner.checkpoint, found.state.checkpoint) == ("B", "B")
    found.person(stage="canary", share=0.05, tau=0.5, looked=10**9)


def test_a_persons_rollback_loads_the_accepted_weights(tmp_path: Path) -> None:
    with bench(tmp_path) as found:
        canary_of_b(found)
        found.act("rollback")
        found.look()
        found.look()
        assert (found.learner.checkpoint, found.state.checkpoint, found.state.stage) == ("A", "A", "shadow")
    with bench(tmp_path, loaded="A") as found:  # what was left behind is not taken up again after a restart
        found.look()
        assert (found.learner.checkpoint, found.state.checkpoint, found.state.held) == ("A", "A", True)


def test_weights_that_cannot_be_loaded_are_asked_for_again_and_nothing_else_is_adopted(tmp_path: Path) -> None:
    with bench(tmp_path) as found:
        canary_of_b(found)
        found.learner.lost = frozenset({"A"})
        found.act("rollback")
        for _ in range(3):
            found.look()
            assert (found.learner.checkpoint, found.state.checkpoint) == ("B", "A")
        found.learner.lost = frozenset()
        found.look()
        assert (found.learner.checkpoint, found.state.checkpoint) == ("A", "A")


def test_a_folder_that_holds_other_weights_by_now_begins_in_shadow(tmp_path: Path) -> None:
    with bench(tmp_path) as found:
        found.look()
        found.person(stage="live", share=1.0, tau=0.5, checkpoint="what A was", checkpoint_path="A", held=True)
        found.look()
        assert (found.state.checkpoint, found.state.stage, found.state.tau) == ("A", "shadow", None)


def live_with_candidate(found: Bench) -> None:
    """A live, B beside it."""
    found.look()
    found.person(stage="live", share=1.0, tau=0.5, looked=10**9, accepted="A", accepted_path="A", held=True)
    found.publish("B")
    found.look()
    assert (found.state.candidate, found.deployment.candidate.checkpoint) == ("B", "B")


def test_a_candidate_ends_with_its_state(tmp_path: Path) -> None:
    with bench(tmp_path) as found:
        live_with_candidate(found)
        candidate: Any = found.deployment.candidate
        found.publish("C")
        found.look()
        assert (found.state.candidate, found.deployment.candidate.checkpoint) == ("C", "C")
        assert found.deployment.candidate is not candidate
        found.person(stage="shadow", share=0.0)
        found.publish("D")
        found.look()
        assert (found.state.checkpoint, found.learner.checkpoint, found.state.candidate) == ("D", "D", None)
        assert found.deployment.candidate is None


def test_a_candidate_is_there_again_after_a_restart_and_after_a_kill(tmp_path: Path) -> None:
    with bench(tmp_path) as found:
        live_with_candidate(found)
        since = found.state.candidate_since
    with bench(tmp_path) as found:
        found.look()
        assert (found.deployment.candidate.checkpoint, found.state.candidate) == ("B", "B")
        assert found.state.candidate_since == since  # it goes on where it was
        found.kill()
        assert found.deployment.candidate.ended
        found.lift()
        found.look()
        assert found.deployment.candidate.checkpoint == "B"
        assert not found.deployment.candidate.ended


def test_a_candidate_that_cannot_be_loaded_is_dropped(tmp_path: Path) -> None:
    with bench(tmp_path) as found:
        live_with_candidate(found)
        found.deployment.candidate.fault = "no value function"
        found.look()
        assert (found.state.candidate, found.deployment.candidate) == (None, None)
        found.look()
        assert found.state.candidate is None
        assert found.state.stage == "live"


STEPS: dict[str, Callable[[Bench], None]] = {
    "promote": lambda found: found.act("promote"),
    "rollback": lambda found: found.act("rollback"),
    "breach": lambda found: found.person(stage="shadow", share=0.0, tau=None),
    "publish": lambda found: found.publish(f"C{found.state.taken_up}"),
    "kill": Bench.kill,
    "lift": Bench.lift,
    "look": Bench.look,
}


@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_a_look_what_is_loaded_is_what_the_state_names(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with bench(tmp_path_factory.mktemp("bench")) as found:
        for step in ["look", *steps, "lift", "look"]:
            try:
                STEPS[step](found)
            except DeployError:  # what a person may not do at this stage
                continue
            if step != "look" or found.deployment.killed:
                continue
            state, candidate = found.state, found.deployment.candidate
            assert found.learner.checkpoint == state.checkpoint
            assert (candidate.checkpoint if candidate else None) == state.candidate
            assert candidate is None or not candidate.ended


def test_a_process_that_ended_for_good_says_so_at_once_when_weights_are_asked_for() -> None:
    async def ask() -> str:
        learner = object.__new__(ProcessLearner)
        learner._closing = True
        try:
            await asyncio.wait_for(learner.load("A"), 5)
        except LearnerUnavailable as error:
            return str(error)
        return ""

    assert asyncio.run(ask()) == "killed"


def test_a_process_that_dies_while_it_loads_begins_with_the_weights_that_answered() -> None:
    async def ask() -> tuple[str, str]:
        learner = object.__new__(ProcessLearner)
        learner._config, learner._closing, learner._loop = LearnerConfig(), False, asyncio.get_running_loop()
        learner._loads, learner._waiting, learner.path, learner.fault = {}, {}, "A", ""
        learner._outbox = queue.SimpleQueue()
        loading = asyncio.create_task(learner.load("B"))
        await asyncio.sleep(0)
        while_loading = learner.path
        learner._handle(learner_process.Loaded("B", "b"))
        await loading
        return while_loading, learner.path

    assert asyncio.run(ask()) == ("A", "B")


def test_a_candidate_is_asked_silently_though_the_learner_answers_everybody(tmp_path: Path) -> None:
    with bench(tmp_path, config=NOBODY) as found:
        live_with_candidate(found)
        assert [found.ask(number) for number in range(3)] == [200] * 3
        assert sorted(found.answered()) == [("A", True)] * 3 + [("B", False)] * 3
        found.person(may_shadow=False)
        assert found.ask(3) == 200
        assert found.answered()[6:] == [("A", True)]


def test_in_shadow_both_are_asked_and_in_a_canary_the_candidate_alone(tmp_path: Path) -> None:
    with bench(tmp_path, config=NOBODY) as found:
        live_with_candidate(found)
        found.person(stage="canary", share=0.0)
        assert found.ask(1) == 502  # nobody is the incumbent here
        assert found.answered() == [("B", False)]
        found.person(stage="shadow")
        assert found.ask(2) == 502
        assert sorted(found.answered()[1:]) == [("A", False), ("B", False)]
        found.deployment.candidate = None
        found.person(stage="canary", share=1.0, tau=0.99)
        assert found.ask(3) == 502
        assert found.answered()[3:] == [("A", False)]  # V too low: its answer is known, and not asked for again


OLD = [{"messages": [{"role": "user", "content": str(n)}], "answer": "yes"} for n in range(100)]


def with_old_items(folder: Path, items: list[dict[str, Any]] = OLD) -> DeployConfig:
    (folder / "old.jsonl").write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    return DeployConfig(old_tasks=OldTasksConfig(file="old.jsonl"))


def held_against_old(found: Bench, name: str) -> Finding:
    return next(one for one in found.supervisor.seen[name].findings if one.check == "old tasks")


def test_the_accepted_versions_answers_to_old_items_outlive_a_restart(tmp_path: Path) -> None:
    config = with_old_items(tmp_path)
    with bench(tmp_path, config=config) as found:
        found.look_until_answered()
        found.person(stage="live", share=1.0, tau=0.5, looked=10**9, accepted="A", accepted_path="A", held=True)
    with bench(tmp_path, config=config) as found:
        found.learner.function = lambda _: ("no", 0.9)  # what comes next has forgotten everything
        found.publish("B")
        found.look_until_answered()
        assert found.state.candidate == "B"
        told = held_against_old(found, "candidate")
        assert (told.verdict, "forgetting" in told.reason) == (Verdict.FAILURE, True)


def test_an_accepted_version_answers_the_old_items_before_anything_is_held_against_it(tmp_path: Path) -> None:
    config = with_old_items(tmp_path)
    with bench(tmp_path, config=config) as found:
        found.person(stage="live", share=1.0, accepted="A", accepted_path="A", held=True)
        found.person(checkpoint="B", checkpoint_path="B", stage="shadow", share=0.0)
        found.learner.checkpoint = "B"
        found.look_until_answered()
        told = held_against_old(found, "current")
        assert (told.verdict, "A" in told.reason) == (Verdict.INCONCLUSIVE, True)
        assert "0 of 100" in told.reason
        found.publish("C")
        found.act("rollback")
        found.learner.seconds = 0.2
        found.supervisor._weights.follow(found.learner)
        assert found.learner.checkpoint == "A"
        for _ in range(2):
            found.look()
            assert found.state.checkpoint == "A"  # C has to wait until A has answered
        found.look_until_answered()
        assert found.state.checkpoint == "C"
        found.look_until_answered()
        assert held_against_old(found, "current").verdict is Verdict.SUCCESS


def test_answers_to_old_items_are_kept_though_some_failed(tmp_path: Path) -> None:
    config = with_old_items(tmp_path)
    with bench(tmp_path, config=config) as found:
        asked: list[str] = []

        def busy(messages: Any) -> tuple[str, float]:
            asked.append(messages[-1]["content"])
            if len(asked) > 30:
                raise RuntimeError
            return "yes", 0.9

        found.learner.function = busy
        found.look()
        found.supervisor._asking.result(60)
        assert found.supervisor._old.missing("A") == 70
        found.learner.function = answer
        found.look()
        assert "30 of 100 old items; the last failure: failed" in held_against_old(found, "current").reason
        found.look_until_answered()
        assert found.supervisor._old.missing("A") == 0
        assert len(asked) == 100
    more = with_old_items(tmp_path, [*OLD[1:], {**OLD[0], "answer": "no"}])
    with bench(tmp_path, config=more) as found:
        assert found.supervisor._old.missing("A") == 1  # an item with another answer is another item


def test_old_items_hold_up_neither_a_look_nor_what_comes_from_outside(tmp_path: Path) -> None:
    with bench(tmp_path, config=with_old_items(tmp_path)) as found:
        found.learner.seconds = 60.0
        began = time.monotonic()
        found.look()
        found.look()
        found.at_the_command_line(held=True)
        found.supervisor.sync()
        assert found.state.held
        assert time.monotonic() - began < 30
        assert found.supervisor.seen["current"].kind == "hold"
        found.supervisor.close()


def test_what_a_person_does_holds_against_a_decision_that_was_made_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in ({"held": True}, {"stage": "shadow", "share": 0.5, "since": 7}):
        with bench(tmp_path / str(len(changes))) as found:
            found.look()
            found.person(stage="canary", share=0.5, step=0, tau=0.5)

            def decided(deployment: Any, present: Any, old: Any, changes: Any = changes, found: Any = found) -> Any:
                found.at_the_command_line(**changes)  # while the decision is being made
                stage = promotion.stage_of(present)
                return Decision("promote", "for a test", replace(stage, name="live", share=0.5))

            with monkeypatch.context() as patched:
                patched.setattr(promotion, "decision", decided)
                with pytest.raises(DeployError, match=r"raised by people only|Nothing was changed"):
                    found.look()
            found.supervisor.sync()
            assert found.state.stage == changes.get("stage", "canary")
            assert found.state.accepted is None


def test_in_live_the_share_follows_the_ceiling_down_and_up_unless_it_is_held(tmp_path: Path) -> None:
    with bench(tmp_path) as found:
        found.look()
        found.person(stage="live", share=1.0, tau=0.5, looked=10**9)
        shares: list[float] = []
        for changes in ({"share_ceiling": 0.2}, {"share_ceiling": 1.0, "held": True}, {"held": False}):
            found.person(**changes)
            found.look()
            shares.append(found.state.share)
        assert shares == [0.2, 0.2, 1.0]


def test_a_candidate_takes_over_with_the_weights_that_were_tried_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decided(deployment: Any, present: Any, old: Any) -> Decision:
        stage = promotion.stage_of(present)
        if present.checkpoint == "A":
            return Decision("hold", "for a test", stage)
        return Decision("promote", "for a test", replace(stage, name="canary", share=0.05))

    monkeypatch.setattr(promotion, "decision", decided)
    with bench(tmp_path) as found:
        live_with_candidate(found)
        found.learner.holds = {"B": "what B became"}
        found.person(held=False)
        found.look()
        assert (found.state.checkpoint, found.state.stage, found.state.candidate) == ("A", "live", None)
        found.look()
        assert found.learner.checkpoint == "A"
        found.learner.holds = {}
        found.publish("D")
        found.look()
        assert (found.state.checkpoint, found.state.stage, found.learner.checkpoint) == ("D", "canary", "D")
        assert (found.state.candidate, found.deployment.candidate) == (None, None)
