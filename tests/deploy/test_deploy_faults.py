"""What may break: processes, the incumbent, the store, the clock. Nothing acknowledged is lost; users get an answer."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from foretaste.deploy import audit, keys, processes, tables
from foretaste.deploy.database import open_engine, reading, writing
from foretaste.deploy.deployment import Deployment
from foretaste.deploy.kill import SIGNAL, pull, running
from foretaste.deploy.learner import ScriptedLearner
from foretaste.deploy.offline import Offline
from foretaste.deploy.settings import DeployConfig, IncumbentConfig, StoreConfig, TakeoverConfig, check


@contextlib.contextmanager
def process(file: Path, url: str, kit: Any) -> Iterator[Any]:
    started = processes.start(kit.serve_file, (str(file),), "foretaste-server")

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/healthz").status_code == 200
        return False

    try:
        kit.wait_for(answers, 30)
        yield started
    finally:
        started.kill()
        started.join()


def write_settings(folder: Path, kit: Any, incumbent: Any, learner: str) -> tuple[Path, str, str]:
    """Return the settings' file, the server's address and a user's key."""
    port = kit.free_port()
    file = folder / "deploy.toml"
    file.write_text(
        f'[server]\nport = {port}\n[incumbent]\nurl = "{incumbent.url}"\n'
        f'[learner]\nscripted = "deploy_helpers:{learner}"\n[takeover]\nevery_seconds = 0.1\n',
        encoding="utf-8",
    )
    with Offline.open(file) as offline:
        secret = offline.create_key("test", "user")[1]
    return file, f"http://127.0.0.1:{port}", secret


def test_what_was_acknowledged_survives_a_killed_server(kit: Any, incumbent: Any, tmp_path: Path) -> None:
    file, url, secret = write_settings(tmp_path, kit, incumbent, "echo")
    headers = {"authorization": f"Bearer {secret}"}
    acknowledged: list[str] = []
    with httpx.Client(base_url=url, headers=headers) as client:
        with process(file, url, kit) as first:
            for number in range(10):
                identity = client.post("/v1/chat/completions", json=kit.question(number)).json()["id"]
                assert client.post("/v1/feedback", json={"response_id": identity, "score": 1}).status_code == 200
                acknowledged.append(identity)
            os.kill(first.pid, signal.SIGKILL)
            first.join()
        engine = open_engine(tmp_path / "deployment")
        with reading(engine) as connection:
            query = sa.select(tables.requests.c.upstream_id).join(
                tables.feedback, tables.feedback.c.request == tables.requests.c.id
            )
            assert list(connection.scalars(query.order_by(tables.feedback.c.number))) == acknowledged
        engine.dispose()
        with process(file, url, kit) as second:
            again = client.post("/v1/feedback", json={"response_id": acknowledged[-1], "score": 1})
            assert again.status_code == 409
            assert client.post("/v1/chat/completions", json=kit.question(7)).status_code == 200
            pid_file = tmp_path / "deployment" / "server.pid"
            assert running(pid_file) == second.pid
            assert "has been told" in pull(file)
            kit.wait_for(lambda: httpx.get(f"{url}/healthz").json()["killed"])
            assert client.post("/v1/chat/completions", json=kit.question(7)).status_code == 200
        assert running(pid_file) is None


def test_the_kill_switch_works_while_the_server_hangs(kit: Any, incumbent: Any, tmp_path: Path) -> None:
    file, url, secret = write_settings(tmp_path, kit, incumbent, "stuck")
    with process(file, url, kit) as hanging:
        with contextlib.suppress(httpx.HTTPError):  # its silent answer blocks the event loop for ever
            httpx.post(
                f"{url}/v1/chat/completions",
                json=kit.question(1),
                headers={"authorization": f"Bearer {secret}"},
                timeout=0.5,
            )
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{url}/healthz", timeout=0.3)
        os.kill(hanging.pid, SIGNAL)
        kit.wait_for((tmp_path / "KILL").exists)  # written by the signal's own thread

        def recorded() -> bool:
            with Offline.open(file) as offline:
                return any("killed" in line.lower() for line in offline.status()[:1])

        kit.wait_for(recorded)


def test_the_kill_switch_takes_the_learner_out_and_a_person_lets_it_in(
    kit: Any, incumbent: Any, tmp_path: Path
) -> None:
    learner = ScriptedLearner(kit.echo)
    with kit.serve(kit.config_for(incumbent.url), tmp_path, learner) as found:
        deployment = found.deployment
        kit.wait_for(lambda: deployment.state.checkpoint)
        live = {"stage": "live", "share": 1.0, "tau": 0.5, "held": True, "looked": 10**9}
        deployment.change("test", "person:test", live, "for a test")
        assert found.ask(1).json()["model"] == "scripted"
        (tmp_path / "KILL").touch()
        kit.wait_for(lambda: learner.killed)
        assert found.ask(1).json()["model"] == "big"
        kit.wait_for(lambda: deployment.state.killed)  # written into the audit log by the server
        (tmp_path / "deploy.toml").write_text("", encoding="utf-8")
        with Offline.open(tmp_path / "deploy.toml") as offline:
            offline.lift()
        kit.wait_for(lambda: not deployment.killed)
        assert found.ask(1).json()["model"] == "scripted"


def test_an_incumbent_that_is_down_slow_or_talks_garbage(kit: Any, incumbent: Any, tmp_path: Path) -> None:
    config = kit.config_for(incumbent.url)
    config = replace(config, incumbent=replace(config.incumbent, read_timeout_seconds=0.3))
    with kit.serve(config, tmp_path) as found:
        incumbent.delay = 1.0
        slow = found.ask(1)
        assert (slow.status_code, slow.json()["error"]["code"]) == (504, "incumbent_silent")
        assert len(incumbent.seen) == 1  # it may have begun to work on it: not asked twice
        incumbent.delay, incumbent.fault = 0.0, "garbage"
        assert (found.ask(1).status_code, found.ask(1).text) == (200, "}{ not json")
        incumbent.fault = "error"
        assert (found.ask(1).status_code, found.ask(1).json()["error"]["message"]) == (503, "overloaded")
        incumbent.fault = "breaks_off"
        broken = found.ask(15, stream=True)
        assert broken.status_code == 200
        assert '"code": "incumbent_broke_off"' in broken.text
        assert "[DONE]" not in broken.text
        found.flush()
        with reading(found.deployment.engine) as connection:
            texts = list(connection.scalars(sa.select(tables.answers.c.text)))
        assert texts == [None, None]  # garbage has no text, and what broke off is no answer
    down = replace(config, incumbent=IncumbentConfig(url=f"http://127.0.0.1:{kit.free_port()}/v1"))
    with kit.serve(replace(down, server=replace(down.server, port=kit.free_port())), tmp_path / "down") as found:
        gone = found.ask(1)
        assert (gone.status_code, gone.json()["error"]["code"]) == (502, "incumbent_unreachable")


def test_while_the_store_fails_users_are_answered_and_nothing_is_acknowledged(
    kit: Any, incumbent: Any, tmp_path: Path
) -> None:
    config = replace(kit.config_for(incumbent.url), store=StoreConfig(flush_seconds=0.02))
    with kit.serve(config, tmp_path, ScriptedLearner(kit.echo)) as found:
        deployment = found.deployment
        kit.wait_for(lambda: deployment.state.checkpoint)
        live = {"stage": "live", "share": 1.0, "tau": 0.5, "held": True, "looked": 10**9}
        deployment.change("test", "person:test", live, "for a test")
        before = found.ask(1).json()["id"]
        found.flush()
        with _full_disk(deployment.engine):
            found.ask(2, user="x" * 100_000)
            kit.wait_for(lambda: not deployment.writer.healthy)
            answer = found.ask(3)
            assert (answer.status_code, answer.json()["model"]) == (200, "big")  # the learner must be accounted for
            with found.client() as client:
                refused = client.post("/v1/feedback", json={"response_id": before, "score": 1})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_failing")
        kit.wait_for(lambda: deployment.writer.healthy)
        with found.client() as client:
            assert client.post("/v1/feedback", json={"response_id": before, "score": 1}).status_code == 200
        found.flush()
        with reading(deployment.engine) as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(tables.requests)) == 3  # none was lost
        assert deployment.writer.dropped == 0


@contextlib.contextmanager
def _full_disk(engine: sa.Engine) -> Iterator[None]:
    """Let SQLite run out of pages: it then fails as it does where no space is left."""

    def limit(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the pages that there are, and no more

    def lift(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1073741823")

    sa.event.listen(engine, "checkout", limit)
    try:
        yield
    finally:
        sa.event.remove(engine, "checkout", limit)
        sa.event.listen(engine, "checkout", lift)


def test_a_killed_database_loses_nothing_acknowledged_and_users_are_answered(
    kit: Any, incumbent: Any, tmp_path: Path, postgres: Any
) -> None:
    config = replace(kit.config_for(incumbent.url), store=StoreConfig(url=postgres.url, flush_seconds=0.02))
    with kit.serve(config, tmp_path, ScriptedLearner(kit.echo)) as found:
        deployment = found.deployment
        kit.wait_for(lambda: deployment.state.checkpoint)
        first, second = (found.ask(number).json()["id"] for number in (1, 2))

        def rate(response: str) -> httpx.Response:
            with found.client() as client:
                return client.post("/v1/feedback", json={"response_id": response, "score": 1})

        assert rate(first).status_code == 200
        postgres.kill()
        try:
            answer = found.ask(3)
            assert (answer.status_code, answer.json()["model"]) == (200, "big")
            refused = rate(second)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_failing")
        finally:
            postgres.start()
        kit.wait_for(lambda: deployment.writer.healthy, 30)
        kit.wait_for(lambda: rate(second).status_code == 200, 30)
        assert rate(first).status_code == 409  # it is known already: the acknowledged one was kept
        found.flush()
        with reading(deployment.engine) as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(tables.requests)) == 3
            audit.verify(connection, deployment.audit_key)
        assert deployment.writer.dropped == 0
    engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
    tables.metadata.drop_all(engine)


def test_a_jump_of_the_clock_opens_no_cap(
    kit: Any, incumbent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kit.serve(kit.config_for(incumbent.url), tmp_path) as found:
        deployment: Deployment = found.deployment
        deployment.spend(500)
        assert deployment.tokens_today() == 500
        real = time.time
        for jump in (400 * 86_400.0, -400 * 86_400.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            assert deployment.tokens_today() == 500
            assert found.ask(1).status_code == 200
            monkeypatch.setattr(time, "time", real)


def test_many_silent_clients_leave_room_for_others(kit: Any, incumbent: Any, tmp_path: Path) -> None:
    incumbent.delay = 0.3
    with kit.serve(kit.config_for(incumbent.url), tmp_path) as found, found.client() as client:
        for _ in range(5):  # clients that go away amid their request
            with contextlib.suppress(httpx.HTTPError):
                client.post("/v1/chat/completions", json=kit.question(1), timeout=0.05)
        incumbent.delay = 0.0
        assert found.ask(1).status_code == 200


def test_a_store_by_a_newer_version_is_refused_and_an_older_one_is_migrated(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)

    def add_column(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE deploy_keys ADD COLUMN note TEXT"))

    with writing(engine) as connection:
        keys.create(connection, b"k" * 32, "kept", "user", actor="person:test")
        newest = len(tables.MIGRATIONS) + 1
        assert tables.migrate(connection, (*tables.MIGRATIONS, add_column)) == (newest, newest + 1)
        assert tables.migrate(connection, (*tables.MIGRATIONS, add_column)) == (newest + 1, newest + 1)
        assert connection.execute(sa.text("SELECT name, note FROM deploy_keys")).one() == ("kept", None)
    engine.dispose()
    from foretaste.errors import DeployError

    with pytest.raises(DeployError, match=f"version {newest + 1} is newer"):
        open_engine(tmp_path)


def test_settings_are_checked_before_anything_starts() -> None:
    from foretaste.errors import ConfigError

    check(DeployConfig())
    for wrong in (
        DeployConfig(incumbent=IncumbentConfig(url="localhost:8000")),
        DeployConfig(store=StoreConfig(queue=0)),
        DeployConfig(takeover=TakeoverConfig(newest=149)),
    ):
        with pytest.raises(ConfigError, match="cannot be used"):
            check(wrong)
