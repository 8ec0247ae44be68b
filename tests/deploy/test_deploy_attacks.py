"""What an attacker may try: refused with a clear error, counted, and written down."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from foretaste.deploy import audit
from foretaste.deploy.database import reading, writing
from foretaste.deploy.keys import create, revoke
from foretaste.deploy.settings import ServerConfig
from foretaste.deploy.tables import events, state
from foretaste.errors import DeployError


@pytest.fixture(scope="module")
def running(incumbent: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from deploy_helpers import config_for, free_port, serve

    server = ServerConfig(port=free_port(), max_body_bytes=10_000, body_timeout_seconds=0.5, header_timeout_seconds=0.5)
    with serve(config_for(incumbent.url, server=server), tmp_path_factory.mktemp("attacks")) as found:
        yield found


def code_of(answer: httpx.Response) -> str:
    return answer.json()["error"]["code"]


def test_without_a_valid_key_nothing_is_answered(running: Any, kit: Any, incumbent: Any) -> None:
    with httpx.Client(base_url=running.url) as client:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {running.secrets['user']}"},
            {"authorization": running.secrets["user"]},
            {"authorization": "Bearer " + "\xff".encode().decode("latin-1")},
            {"authorization": f"Bearer {running.secrets['user'].upper()}"},
        ):
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            for method, path in (
                ("POST", "/v1/chat/completions"),
                ("POST", "/v1/feedback"),
                ("GET", "/v1/models"),
                ("GET", "/admin/data"),
                ("POST", "/admin/kill"),
                ("GET", "/people/questions"),
            ):
                answer = client.request(method, path, headers=encoded, json=kit.question())
                assert (answer.status_code, code_of(answer)) == (401, "wrong_key" if headers else "no_key"), path
    assert incumbent.seen == []
    assert not running.deployment.killed


def test_a_key_does_nothing_outside_its_scope(running: Any, kit: Any, incumbent: Any) -> None:
    for scope, method, path in (
        ("user", "POST", "/admin/kill"),
        ("user", "GET", "/admin/data"),
        ("person", "POST", "/admin/promote"),
        ("admin", "POST", "/v1/chat/completions"),
        ("person", "POST", "/v1/feedback"),
        ("user", "GET", "/people/questions"),
        ("admin", "POST", "/people/answers"),
    ):
        with running.client(scope) as client:
            answer = client.request(method, path, json=kit.question())
        assert (answer.status_code, code_of(answer)) == (403, "wrong_scope"), (scope, path)
    assert not running.deployment.killed
    assert incumbent.seen == []


def test_a_revoked_key_ends_at_once(running: Any, kit: Any) -> None:
    deployment = running.deployment
    with writing(deployment.engine) as connection:
        key, secret = create(connection, deployment.audit_key, "short", "user", actor="person:test")

    def status() -> int:
        return httpx.get(f"{running.url}/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code

    kit.wait_for(lambda: status() == 200)
    with writing(deployment.engine) as connection:
        revoke(connection, deployment.audit_key, key.id, actor="person:test")
    kit.wait_for(lambda: status() == 401)
    with reading(deployment.engine) as connection:
        dump = str([list(row) for row in connection.execute(sa.text("SELECT * FROM deploy_keys"))])
    assert secret not in dump


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "not_json"),
        (b"[1]", 400, "not_an_object"),
        (b"{}", 400, "no_messages"),
        (b'{"messages": []}', 400, "no_messages"),
        (b'{"messages": ["hi"]}', 400, "no_messages"),
        (b"[" * 9000, 400, "not_json"),
        (b"\xff\xfe", 400, "not_json"),
        (b"x" * 10_001, 413, "too_large"),
    ],
)
def test_malformed_and_oversized_bodies(running: Any, incumbent: Any, body: bytes, status: int, code: str) -> None:
    with running.client() as client:
        answer = client.post("/v1/chat/completions", content=body)
        assert (answer.status_code, code_of(answer)) == (status, code)
        chunked = client.post("/v1/chat/completions", content=iter([body[:50], body[50:]]))
        assert (chunked.status_code, code_of(chunked)) == (status, code)
    assert incumbent.seen == []


def test_a_client_that_hangs_is_let_go(running: Any) -> None:
    port = int(running.url.rsplit(":", 1)[1])
    key = running.secrets["user"]
    half_head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: "
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 50\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", port)) as slow_head,
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        slow_head.sendall(half_head)
        slow.sendall(head.encode() + b'{"messages')
        slow_head.settimeout(5)
        slow.settimeout(5)
        assert slow_head.recv(1000) == b""
        assert b" 408 " in slow.recv(1000)


def test_headers_cannot_be_injected(running: Any, kit: Any, incumbent: Any) -> None:
    headers = {"x-evil": "1", "cookie": "a=b", "x-forwarded-for": "1.2.3.4", "openai-organization": "other"}
    with running.client() as client:
        answer = client.post(
            "/v1/chat/completions?a=%0d%0aset-cookie:b", headers=headers, json=kit.question(1, model="m\r\nx-evil: 1")
        )
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    sent = incumbent.headers[0]
    assert not {"x-evil", "cookie", "x-forwarded-for", "openai-organization", "authorization"} & set(sent)
    port = int(running.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nBad\x00Header: 1\r\n\r\n")
        raw.settimeout(5)
        assert b" 400 " in raw.recv(1000)


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/admin/../../pyproject.toml", "/admin/%2e%2e%2fdeploy.toml", "//etc/passwd", "/v1"]
)
def test_paths_lead_nowhere(running: Any, path: str) -> None:
    port = int(running.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        found = b""
        while piece := raw.recv(65536):
            found += piece
    assert found.split(b" ")[1] in (b"404", b"405")
    assert b"root:" not in found
    assert b"[server]" not in found


def test_feedback_is_for_ones_own_answers_and_counts_once(running: Any, kit: Any) -> None:
    own = running.ask(1).json()["id"]
    with writing(running.deployment.engine) as connection:
        _, other = create(connection, running.deployment.audit_key, "other", "user", actor="person:test")
    with running.client() as client:

        def give(secret: str | None = None, **body: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {secret}"} if secret else {}
            return client.post("/v1/feedback", json=body, headers=headers)

        given = give(response_id=own, thumbs="up")
        assert (given.status_code, given.json().keys()) == (200, {"object", "response_id", "kind"})  # not who served
        replayed = give(response_id=own, thumbs="up")
        assert (replayed.status_code, code_of(replayed)) == (409, "feedback_replayed")
        kit.wait_for(lambda: give(other, response_id=own, thumbs="up").status_code != 401)
        foreign = give(other, response_id=own, thumbs="up")
        assert (foreign.status_code, code_of(foreign)) == (404, "unknown_response_id")
        assert give(response_id="chatcmpl-nothing", score=1).status_code == 404
        for body in (
            {"response_id": own},
            {"response_id": own, "score": 1, "thumbs": "up"},
            {"response_id": own, "score": 1.01},
            {"response_id": own, "score": True},
            {"response_id": own, "score": "1"},
            {"response_id": own, "thumbs": "sideways"},
            {"response_id": own, "correction": 5},
            {"response_id": own, "verifier": "yes"},
            {"response_id": "", "score": 1},
            {"response_id": ["x"], "score": 1},
            {"response_id": own, "scor": 1},
        ):
            assert give(**body).status_code == 400, body
        nan = client.post("/v1/feedback", content=f'{{"response_id": "{own}", "score": NaN}}')
        assert nan.status_code == 400


def test_an_incumbent_with_equal_ids_cannot_confuse_feedback(running: Any, incumbent: Any) -> None:
    incumbent.same_id = True
    first, second = running.ask(1), running.ask(2)
    assert first.json()["id"] == second.json()["id"]
    with running.client() as client:
        doubtful = client.post("/v1/feedback", json={"response_id": first.json()["id"], "score": 1})
        assert (doubtful.status_code, code_of(doubtful)) == (409, "ambiguous_response_id")
        for answer in (first, second):
            told = client.post("/v1/feedback", json={"response_id": answer.headers["x-foretaste-id"], "score": 1})
            assert told.json()["response_id"] == answer.headers["x-foretaste-id"]


def test_refusals_are_counted_and_audited(running: Any, kit: Any) -> None:
    supervisor = running.app.supervisor
    supervisor.audit_refusals()
    with httpx.Client(base_url=running.url) as client:
        for _ in range(3):
            client.get("/v1/models", headers={"authorization": "Bearer guess"})
    supervisor.audit_refusals()
    with reading(running.deployment.engine) as connection:
        entry = next(one for one in reversed(list(audit.entries(connection))) if one.kind == "refused")
    assert {"reason": "wrong_key", "key": "-", "count": 3} in entry.payload["refusals"]
    assert "guess" not in json.dumps(entry.payload)


def test_rates_are_limited_by_key(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    server = ServerConfig(port=kit.free_port(), requests_per_minute=12)
    with kit.serve(kit.config_for(incumbent.url, server=server), tmp_path) as running:
        assert running.ask(1).status_code == 200
        refused = running.ask(1)
        assert (refused.status_code, code_of(refused)) == (429, "too_many_requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 5
        with running.client("admin") as client:
            assert client.get("/admin/data").status_code == 200


def test_the_audit_log_names_the_first_entry_that_was_changed(kit: Any, tmp_path: Any) -> None:
    from foretaste.deploy import state as states
    from foretaste.deploy.database import open_engine
    from foretaste.deploy.settings import DeployConfig

    engine, key = open_engine(tmp_path), b"k" * 32
    states.begin(engine, key, DeployConfig())
    for place in range(4):
        states.change(engine, key, "cap", "person:test", {"tokens_per_day": place}, "test")
    with reading(engine) as connection:
        kept = audit.verify(connection, key)
        assert kept.seq == 5
        audit.verify(connection, key, kept=kept)

    def tampered(statement: Any, complaint: str, **options: Any) -> None:
        with reading(engine) as connection, connection.begin():  # never committed
            connection.execute(statement)
            with pytest.raises(DeployError, match=complaint):
                audit.verify(connection, options.get("key", key), kept=options.get("kept"))
            connection.rollback()

    tampered(events.update().where(events.c.seq == 3).values(payload="{}"), "entry 3 .* was changed")
    tampered(events.update().where(events.c.seq == 2).values(actor="person:x"), "entry 2 .* was changed")
    tampered(events.delete().where(events.c.seq == 3), "entry 3 is missing")
    tampered(events.delete().where(events.c.seq == 5), "ends at entry 4, its head says 5")
    tampered(state.update().where(state.c.name == "stage").values(value='"live"'), "'stage' is \"live\", but the log")
    tampered(sa.text("SELECT 1"), "entry 1 .* another key", key=b"x" * 32)
    tampered(sa.text("SELECT 1"), "rewritten", kept=audit.Head(5, "0" * 64))
    tampered(sa.text("SELECT 1"), "the head that was kept is entry 6", kept=audit.Head(6, "0" * 64))
    engine.dispose()
