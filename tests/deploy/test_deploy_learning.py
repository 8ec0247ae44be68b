"""Learning on the job beside a server: alarms are seen and resumed, lies contained, processes that hang ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import poisoned_traffic
import pytest
import sqlalchemy as sa

from foretaste.commands import deploy as deploy_command
from foretaste.config import ModelConfig
from foretaste.deploy import audit, online, state, store, training_client, training_process
from foretaste.deploy.alarms import Alarm
from foretaste.deploy.database import reading, writing
from foretaste.deploy.judging import exact
from foretaste.deploy.learner_client import ProcessLearner
from foretaste.deploy.offline import Offline
from foretaste.deploy.records import Answer, Exchange, Feedback
from foretaste.deploy.settings import DeployConfig, LearnerConfig, TakeoverConfig, TrainingConfig
from foretaste.deploy.tables import checkpoints
from foretaste.deploy.training import admission, held_back, keeping, status
from foretaste.deploy.training.alarm_config import AlarmConfig
from foretaste.deploy.training_process import PROGRESS_FILE, TrainingWork
from foretaste.models import checkpoint
from foretaste.models.actor_critic import ActorCritic
from foretaste.records import Checkpoint

TRAINING = TrainingConfig(
    enabled=True, every=2, publish_every=1, held_back_share=0.0, learning_rate=1e-2, key_share=1.0, text_share=1.0
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    model = ActorCritic.load(ModelConfig("nano-xs", critic_layers=-1), seed=1)
    return checkpoint.save(model, tmp_path_factory.mktemp("base") / "nano")


@pytest.fixture
def offline(base: Checkpoint, tmp_path: Path) -> Any:
    (tmp_path / "deploy.toml").write_text("[training]\nenabled = true\n", encoding="utf-8")
    with Offline.open(tmp_path / "deploy.toml") as opened:
        opened.config = DeployConfig(training=TRAINING, learner=LearnerConfig(checkpoint=base.path, device="cpu"))
        yield opened


def correct(offline: Any, *numbers: int, text: str = "4", compare: Any = None, body: Any = None) -> None:
    """Write requests that the incumbent answered alone, and a user's correction of each."""
    asked = json.dumps(body or {"messages": [{"role": "user", "content": "two and two?"}]}).encode()
    with writing(offline.engine) as connection:
        for number in numbers:
            exchange = Exchange(f"r{number}", "k", asked, "live", False, sampled=True, status=200)
            exchange.answers = [Answer("incumbent", True, 0.1, text="5")]
            store.write_exchanges(connection, [exchange])
            given = Feedback(exchange.id, "k", "correction", None, text)
            store.write_feedback(connection, given, compare, correct_from=0.5)


def alarmed(monkeypatch: pytest.MonkeyPatch, *, noticed: bool = False) -> None:
    """Have each step raise an alarm."""
    found = (Alarm("kl", "far away", "training.kl_coefficient (higher)", noticed=noticed),)
    monkeypatch.setattr(online, "alarms", lambda history, config: found)


# Alarms -----------------------------------------------------------------------------------------


def test_an_alarm_softens_then_stops_is_seen_everywhere_and_resumed_by_a_person(
    offline: Any, base: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = AlarmConfig(soft_responses=1, cooldown_steps=1)
    offline.config = replace(
        offline.config, training=replace(TRAINING, alarms=limits), takeover=TakeoverConfig(comparator="none")
    )
    work = TrainingWork(offline.config, offline.folder)
    alarmed(monkeypatch)
    correct(offline, 1, 2)
    assert work.step() is True
    assert work.trainer.updater.algorithm.learning_rate == pytest.approx(0.5e-2)
    assert work.trainer.updater.algorithm.kl_coefficient == pytest.approx(0.04)
    again = TrainingWork(offline.config, offline.folder)  # as after a kill: nothing is forgotten
    assert (again.trainer.ladder.level, again.trainer.updater.algorithm.learning_rate) == (1, pytest.approx(0.5e-2))
    again.engine.dispose()
    correct(offline, 3, 4)
    assert work.step() is True  # passed over: a cool-down
    assert "cooling down" in offline.status()[7]
    correct(offline, 5, 6)
    assert work.step() is True
    now = state.load(offline.engine)
    assert now.may_learn is False
    said = "\n".join(offline.status())
    assert "stopped" in said
    assert "kl: far away" in said
    assert "training.kl_coefficient (higher)" in said
    assert "foretaste deploy learn --resume" in said
    with reading(offline.engine) as connection:
        kinds = [one.kind for one in audit.entries(connection)]
        alarm = next(one for one in audit.entries(connection) if one.kind == "training_alarm")
    assert kinds.count("training_alarm") == 2
    assert kinds[-1] == "learning_stopped"
    assert alarm.payload["knob"] == "training.kl_coefficient (higher)"
    correct(offline, 7, 8)
    assert work.step() is False
    monkeypatch.setattr(online, "alarms", lambda history, config: ())
    config = str(offline.folder / "deploy.toml")
    assert deploy_command.run(["learn", "--resume", "--config", config]) == 0
    assert "resume" not in capsys.readouterr().out.split("last alarm")[0]
    assert state.load(offline.engine).may_learn is True
    assert work.step() is True
    assert work.trainer.updater.algorithm.learning_rate == 1e-2
    with reading(offline.engine) as connection:
        resumed = next(one for one in audit.entries(connection) if one.kind == "resume_learning")
    assert resumed.actor.startswith("person:")
    assert deploy_command.run(["learn", "--pause", "--config", config]) == 0
    assert "not permitted" in capsys.readouterr().out
    work.engine.dispose()


def test_a_notice_changes_nothing_and_is_audited_once(
    offline: Any, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline.config = replace(offline.config, takeover=TakeoverConfig(comparator="none"))
    work = TrainingWork(offline.config, offline.folder)
    alarmed(monkeypatch, noticed=True)
    correct(offline, *range(6))
    assert [work.step() for _ in range(4)] == [True, True, True, False]
    with reading(offline.engine) as connection:
        assert [one.kind for one in audit.entries(connection)].count("training_alarm") == 1
        made = list(connection.execute(sa.select(checkpoints)))
    assert len(made) == 3  # and they may be promoted
    assert all("alarms" not in json.loads(row.note) for row in made)
    assert (work.trainer.ladder.level, state.load(offline.engine).may_learn) == (0, True)
    work.engine.dispose()


def test_a_server_tells_of_learning_at_health_metrics_admin_and_in_the_log(
    kit: Any, incumbent: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = kit.config_for(incumbent.url, training=TrainingConfig(enabled=True))
    alarm = {"name": "kl", "reason": "far away", "knob": "training.kl_coefficient", "response": "stopped"}
    told = {"phase": "stopped", "step": 7, "metrics": {"policy/loss": 0.5, "policy/entropy": float("nan")}}
    with kit.serve(config, tmp_path, kit_learner(kit)) as running:
        deployment = running.deployment
        with running.client("admin") as client:
            kit.wait_for(lambda: deployment.learning)
            with writing(deployment.engine) as connection:
                status.write(connection, told | {"alarm": alarm | {"at": time.time() + 1, "step": 7}})
            deployment.change("learning_stopped", "training", {"may_learn": False}, "kl")
            kit.wait_for(lambda: client.get("/healthz").json()["learning"] == "stopped")
            health = client.get("/healthz").json()
            assert (health["status"], health["learner"]) == ("ok", "ready")  # users are served
            assert "foretaste deploy learn --resume" in health["learning_reason"]
            found = client.get("/admin/data").json()["learning"]
            assert (found["state"], found["alarm"]["name"], found["metrics"]["loss"]) == ("stopped", "kl", 0.5)
            assert found["metrics"]["entropy"] is None  # not measured
            page = client.get("/metrics").text
            stopped = status.STATES.index("stopped")
            assert f"foretaste_training_state {stopped:.1f}" in page
            assert 'foretaste_training_figure{name="loss"} 0.5' in page
            assert 'foretaste_training_alarms_total{name="kl",response="stopped"} 1.0' in page
            assert client.post("/admin/resume_learning").json()["done"] == "resume_learning"
            kit.wait_for(lambda: client.get("/healthz").json()["learning"] != "stopped")
    assert any("far away" in one.message and "kl_coefficient" in one.message for one in caplog.records)


def kit_learner(kit: Any) -> Any:
    from foretaste.deploy.learner import ScriptedLearner

    return ScriptedLearner(kit.echo)


# A process that is killed, or hangs -------------------------------------------------------------


@pytest.mark.parametrize("place", ["save", "add_checkpoint", "write_json"])
def test_a_training_that_is_killed_while_it_publishes_comes_back_and_loses_no_judgement(
    offline: Any, base: Checkpoint, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    class Killed(BaseException):
        pass

    def killed(*arguments: Any, **named: Any) -> Any:
        raise Killed

    offline.config = replace(offline.config, takeover=TakeoverConfig(comparator="none"))
    correct(offline, 1, 2)
    work = TrainingWork(offline.config, offline.folder)
    with monkeypatch.context() as patched:
        patched.setattr(*{"save": (checkpoint, "_write")}.get(place, (training_process, place)), killed)
        with pytest.raises(Killed):
            work.step()
    (offline.folder / "deployment" / "checkpoints" / ".new-left").mkdir()
    again = TrainingWork(offline.config, offline.folder)
    assert not (offline.folder / "deployment" / "checkpoints" / ".new-left").exists()
    assert again.step() is True
    progress = json.loads((offline.folder / "deployment" / PROGRESS_FILE).read_text())
    assert progress["corrected"] == 2
    assert checkpoint.load(offline.folder / "deployment" / "checkpoints" / progress["newest"], device="cpu")
    newest = offline.folder / "deployment" / "checkpoints" / progress["newest"] / "critic.safetensors"
    newest.write_bytes(newest.read_bytes()[:99])  # a disk that lost its end
    damaged = TrainingWork(offline.config, offline.folder)
    assert damaged.made == [base.id]  # from the accepted weights
    for one in (work, again, damaged):
        one.engine.dispose()


def beat(file: Path) -> None:
    """What stands for the training process: gives a sign of life, and nothing else."""
    while True:
        file.touch()
        time.sleep(0.02)


def test_a_stopped_training_is_noticed_ended_and_started_again(
    kit: Any, offline: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training_client, "PAUSE_SECONDS", 0.0)
    file = offline.folder / "deployment" / training_process.BEAT_FILE

    def start(*_: Any) -> Any:
        process = multiprocessing.get_context("fork").Process(target=beat, args=(file,), daemon=True)
        process.start()
        return process

    monkeypatch.setattr(training_client.processes, "start", start)
    config = replace(offline.config, training=replace(TRAINING, stalled_seconds=1.0))
    learner = object.__new__(ProcessLearner)  # only asked what it is
    deployment: Any = SimpleNamespace(config=config, folder=offline.folder, files=file.parent, learner=learner)
    deployment.state, deployment.killed, deployment.on_killed = state.load(offline.engine), False, []
    training = training_client.Training(deployment)
    try:
        kit.wait_for(lambda: training.keep_going() or file.exists())
        first = training.process_id
        assert first is not None
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            training.keep_going()
            time.sleep(0.02)
        assert (training.process_id, training.trouble) == (first, "")  # alive: left alone
        os.kill(first, signal.SIGSTOP)
        kit.wait_for(lambda: training.keep_going() or training.process_id not in (None, first))
        assert training.restarts == 1
        assert any("no sign of life" in one.message for one in caplog.records)
        kit.wait_for(lambda: training.keep_going() or not training.trouble)
    finally:
        training.close()


def test_why_a_training_failed_is_written_down(offline: Any) -> None:
    training_process.tell_failure(offline.config, offline.folder, ValueError("private"))
    assert "failed: ValueError" in offline.status()[7]
    assert "private" not in "\n".join(offline.status())


# Checkpoints on disk ----------------------------------------------------------------------------


def test_old_checkpoints_go_and_those_that_anything_names_stay(offline: Any) -> None:
    folder = offline.folder / "checkpoints"
    ids = [f"{place:016x}" + "0" * 48 for place in range(10)]
    with writing(offline.engine) as connection:
        for one in ids:
            (folder / one[:16]).mkdir(parents=True)
            store.add_checkpoint(connection, one, str(folder / one[:16]), None, {})
    for name in ("notes", "abcdefabcdefabcd", "fedcbafedcbafedc"):
        (folder / name).mkdir()
    os.utime(folder / "fedcbafedcbafedc", (0, 0))  # left behind long ago, and in no record
    named = {"checkpoint": ids[1], "checkpoint_path": str(folder / ids[1][:16]), "accepted": ids[2]}
    named |= {"candidate_path": str(folder / ids[3][:16])}
    state.change(offline.engine, offline.key, "test", "person:test", named, "test")
    with reading(offline.engine) as connection:
        removed = keeping.remove_old(
            connection,
            folder,
            state.load(offline.engine),
            keep=2,
            ids=[ids[4], None],
            paths=[str(folder / ids[5][:16])],
        )
    gone = {one[:16] for one in (ids[0], ids[6], ids[7])} | {"fedcbafedcbafedc"}
    assert {one.name for one in removed} == gone
    left = {one.name for one in folder.iterdir()}
    assert left == {one[:16] for one in ids} - gone | {"notes", "abcdefabcdefabcd"}


# Corrections and lies ---------------------------------------------------------------------------


def test_without_a_comparator_corrections_are_learned(offline: Any) -> None:
    offline.config = replace(offline.config, takeover=TakeoverConfig(comparator="none"))
    work = TrainingWork(offline.config, offline.folder)
    correct(offline, 1, 2)
    correct(offline, 3, body={"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]})
    found, _ = work.experiences()
    shown = tuple(work.trainer.model.template.action("4"))
    assert [(one.id, one.score, one.correction) for one in found] == [("r1", None, shown), ("r2", None, shown)]
    assert work.step() is True
    assert work.step() is False  # each once
    assert len(work.trainer.corrections) == 2
    work.engine.dispose()


def test_a_correction_that_nothing_uses_is_refused_and_no_reply_says_who_served(
    kit: Any, incumbent: Any, tmp_path: Path
) -> None:
    config = kit.config_for(incumbent.url, takeover=TakeoverConfig(comparator="none", every_seconds=0.05))
    with kit.serve(config, tmp_path, kit_learner(kit)) as running, running.client() as client:
        own = running.ask(1).json()["id"]
        refused = client.post("/v1/feedback", json={"response_id": own, "correction": "2"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "correction_unused")
        given = client.post("/v1/feedback", json={"response_id": own, "thumbs": "up"})
        assert (given.status_code, "incumbent" in given.text, "learner" in given.text) == (200, False, False)


def test_users_who_send_the_same_lie_do_not_teach_it(tmp_path: Path) -> None:
    """Three of ten keys correct everything to one word; by hand, block by block: poisoned_traffic.py."""
    first = poisoned_traffic.educated(tmp_path / "first")
    runs = {}
    for name in ("UNGUARDED", "CHECKS_ALONE", "GUARDED"):
        (tmp_path / name).mkdir()
        training = getattr(poisoned_traffic, name)
        blocks = 4 if name == "UNGUARDED" else 8
        runs[name] = poisoned_traffic.attack(training, tmp_path / name, first, blocks=blocks, attackers=3)
    assert min(block.right for block in runs["UNGUARDED"]) < 0.75  # the attack works ...
    for name in ("CHECKS_ALONE", "GUARDED"):
        assert sum(block.right for block in runs[name]) / 8 > 0.95  # ... and is contained
        assert all(block.evil < 0.05 for block in runs[name])
    alarms = [alarm for block in runs["CHECKS_ALONE"] for alarm in block.alarms]
    assert any(alarm.startswith("held_back softened: ") and "best kept checkpoint" in alarm for alarm in alarms)
    assert runs["GUARDED"][-1].left_out["suspect_key"] > 10


def test_keys_that_contradict_the_judges_are_named_and_honest_ones_are_not() -> None:
    known = Counter({f"k{place}": 50 for place in range(10)})
    honest = {f"k{place}": 2 + place % 3 for place in range(9)}
    assert admission.suspects(known, Counter(honest | {"k9": 45}), 1e-4).keys() == {"k9"}
    assert admission.suspects(known, Counter(honest | {"k9": 5}), 1e-4) == {}
    hard = Counter({f"k{place}": 20 for place in range(10)})  # the incumbent is often wrong, for everybody
    assert admission.suspects(known, hard, 1e-4) == {}
    assert admission.suspects(Counter({"k1": 50, "k2": 50}), Counter({"k1": 50}), 1e-4) == {}  # nobody to compare with


def test_one_key_and_one_text_have_a_share_of_a_step_at_most() -> None:
    def refusals(words: list[admission.Word], **more: Any) -> Counter[str]:
        gate = admission.Admission(TrainingConfig(every=40), exact, None, 0.5, **more)
        gate.begin_step()
        return Counter(gate.refuse(word, "{}") for word in words)

    from_one = [admission.Word("k1", f"text {place}") for place in range(20)]
    assert refusals(from_one, keys=10) == {"": 4, "key_cap": 16}
    assert refusals(from_one, keys=1) == {"": 20}  # all users share one key
    same = [admission.Word(f"k{place}", "Same  text") for place in range(20)]
    assert refusals(same, keys=20) == {"": 4, "text_cap": 16}
    assert refusals(same, keys=20, texts={"same text": 0.4}) == {"": 16, "text_cap": 4}  # a usual answer
    assert refusals(same, keys=20, suspects={"k3": "lies"})["suspect_key"] == 1


def test_held_back_requests_follow_from_their_id_and_are_compared_in_pairs() -> None:
    drawn = [held_back.held_back(f"chatcmpl-{place}", 0.1) for place in range(4000)]
    assert 0.08 < sum(drawn) / 4000 < 0.12
    assert drawn == [held_back.held_back(f"chatcmpl-{place}", 0.1) for place in range(4000)]
    names = [str(place) for place in range(40)]
    good, bad = dict.fromkeys(names, True), {name: int(name) % 3 == 0 for name in names}
    worse = held_back.compared(bad, good)
    assert (worse.n, worse.lost, worse.won) == (40, 26, 0)
    assert worse.chance == pytest.approx(2.0**-26)
    assert held_back.compared(good, bad).chance == 1.0
    assert held_back.compared(good, {}).n == 0
