"""Real networks: heads and bodies without end, clients that leave or read nothing, an incumbent that drips."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from foretaste.deploy.settings import ServerConfig


class Tunable:
    """An incumbent whose answers are told by the request's model; it notes whose client left it."""

    def __init__(self) -> None:
        self.open = self.left = 0
        self.seen: list[tuple[str, str, bytes, dict[str, str], bytes]] = []
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], scope["raw_path"].decode(), scope["query_string"], headers, body))
        self.open += 1
        try:
            await self._answer(body, receive, send)
        finally:
            self.open -= 1

    async def _answer(self, body: bytes, receive: Any, send: Any) -> None:
        stream = b'"stream"' in body
        kind = b"text/event-stream" if stream else b"application/json"
        gone = asyncio.ensure_future(receive())
        try:
            if b'"silent"' in body:
                await self._wait(gone, 30.0)
                return
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", kind), *self.headers],
                }
            )
            if b'"drip"' in body:
                for _ in range(300):
                    await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
                    if await self._wait(gone, 0.1):
                        return
            if b'"big"' in body:
                for _ in range(640):
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                    if gone.done():
                        return
            await send({"type": "http.response.body", "body": b'{"object": "anything"}', "more_body": False})
        finally:
            gone.cancel()

    async def _wait(self, gone: Any, seconds: float) -> bool:
        done, _ = await asyncio.wait([gone], timeout=seconds)
        self.left += bool(done)
        return bool(done)


@contextmanager
def tunable(kit: Any) -> Iterator[tuple[Tunable, int]]:
    found, port = Tunable(), kit.free_port()
    settings = uvicorn.Config(found, port=port, log_level="critical", lifespan="off")
    with kit.running(uvicorn.Server(settings)):
        yield found, port


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[Tunable, Any, Any]]:
    """A tunable incumbent, the server before it, with small limits, and the helpers."""
    import deploy_helpers as kit

    with tunable(kit) as (found, port), pytest.MonkeyPatch.context() as patch:
        import tempfile

        patch.setattr("foretaste.deploy.http.SEND_SECONDS", 1.0)
        patch.setattr("foretaste.deploy.network.connections.SEND_SECONDS", 1.0)
        server = ServerConfig(
            port=kit.free_port(),
            max_body_bytes=200_000,
            header_timeout_seconds=0.6,
            body_timeout_seconds=1.0,
            request_timeout_seconds=6.0,
            requests_per_minute=100_000,
            max_connections=60,
            max_connections_per_address=40,
            cors_origins=("https://chat.example.org",),
        )
        config = kit.config_for(f"http://127.0.0.1:{port}/v1", server=server)
        incumbent = replace(config.incumbent, answer_timeout_seconds=1.5, max_connections=4, wait_seconds=0.3)
        with (
            tempfile.TemporaryDirectory() as folder,
            kit.serve(replace(config, incumbent=incumbent), Path(folder)) as running,
        ):
            yield found, running, kit


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    if "behind" in request.fixturenames:
        found, running, kit = request.getfixturevalue("behind")
        found.left, found.headers = 0, []
        found.seen.clear()
        kit.wait_for(lambda: running.deployment.connections.open == 0 and found.open == 0)


def opened(running: Any) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])))
    one.settimeout(5)
    return one


def everything(one: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    found = b""
    try:
        while piece := one.recv(65536):
            found += piece
    except ConnectionError:
        pass
    return found


def head(running: Any, *lines: str, key: bool = True) -> bytes:
    given = [f"Authorization: Bearer {running.secrets['user']}"] if key else []
    return "\r\n".join(["POST /v1/chat/completions HTTP/1.1", "Host: x", *given, *lines, "", ""]).encode()


def chat(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "1"}], **more}).encode()


def asked(running: Any, body: bytes) -> bytes:
    return head(running, f"Content-Length: {len(body)}") + body


# Heads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "piece", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nX-Long: ", b"y" * 4096, b" 431 "),
        (b"GET /healthz HTTP/1.1\r\n", b"X-A: b\r\n" * 512, b" 431 "),
        (b"GET /", b"z" * 4096, b" 431 "),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 101 + b"\r\n", b"", b" 431 "),
        (b"GET /" + b"z" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"", b" 414 "),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", b"", b" 431 "),
    ],
)
def test_a_head_has_limits(behind: Any, start: bytes, piece: bytes, status: bytes) -> None:
    _, running, _ = behind
    with opened(running) as one:
        one.sendall(start)
        sent = 0
        try:
            while piece and sent < 20_000_000:
                sent += one.send(piece)
        except ConnectionError:
            pass
        found = everything(one) if sent < 2_000_000 else b""
    assert sent < 12_000_000  # what the sockets' own buffers take; the server stops reading long before
    assert not found or status in found


def test_a_refused_head_says_why(behind: Any) -> None:
    _, running, _ = behind
    with opened(running) as one:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 101 + b"\r\n")
        found = everything(one)
    assert b"HTTP/1.1 431" in found
    assert b'"code": "headers_too_large"' in found


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("drop", [b"\r\n", b"G"])
def test_a_head_must_end_in_time_on_every_request_of_a_connection(behind: Any, first: bytes, drop: bytes) -> None:
    _, running, _ = behind
    with opened(running) as one:
        if first:
            one.sendall(first)
            assert b"200 OK" in one.recv(65536)
        started = time.monotonic()
        with pytest.raises(ConnectionError):  # noqa: PT012
            for place in range(60):
                one.sendall(drop if place == 0 or drop != b"G" else b"x")
                time.sleep(0.1)
        assert time.monotonic() - started < 3


def test_trailers_and_frames_without_end_are_cut(behind: Any) -> None:
    _, running, _ = behind
    with opened(running) as one:
        one.sendall(head(running, "Transfer-Encoding: chunked") + b"0\r\nX-T: ")
        sent = 0
        with pytest.raises(ConnectionError):  # noqa: PT012
            while sent < 20_000_000:
                sent += one.send(b"t" * 65536)
        assert sent < 8_000_000


# Bodies --------------------------------------------------------------------------------------------------------


def test_a_body_without_a_key_is_not_waited_for(behind: Any) -> None:
    _, running, kit = behind
    with opened(running) as one:
        one.sendall(head(running, "Content-Length: 100000", key=False) + b"{")
        started = time.monotonic()
        found = everything(one)
        assert time.monotonic() - started < 0.5
        assert b"HTTP/1.1 401" in found
        assert b"connection: close" in found
        kit.wait_for(lambda: running.deployment.connections.open == 0, 5)


def test_the_answer_arrives_though_the_client_is_still_sending(behind: Any) -> None:
    _, running, _ = behind
    for _ in range(5):
        with opened(running) as one:
            one.sendall(head(running, "Content-Length: 900000", key=False) + b"x" * 300_000)
            assert b"no_key" in everything(one)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("identity", bytes),
        ("GZIP", gzip.compress),
    ],
)
def test_compressed_bodies_are_read(behind: Any, encoding: str, pack: Any) -> None:
    found, running, _ = behind
    with running.client() as client:
        answer = client.post("/v1/chat/completions", content=pack(chat("m")), headers={"content-encoding": encoding})
    assert answer.status_code == 200
    assert found.seen[0][4] == chat("m")
    assert "content-encoding" not in found.seen[0][3]


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(b" " * 20_000_000), 413),
        ("deflate", zlib.compress(b" " * 20_000_000), 413),
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(chat("m"))[:-9], 400),
        ("br", chat("m"), 415),
        ("gzip, gzip", gzip.compress(gzip.compress(chat("m"))), 415),
    ],
    ids=("gzip bomb", "deflate bomb", "no gzip", "cut gzip", "unknown", "twice"),
)
def test_bombs_and_broken_bodies_are_refused(behind: Any, encoding: str, body: bytes, status: int) -> None:
    found, running, _ = behind
    with running.client() as client:
        answer = client.post("/v1/chat/completions", content=body, headers={"content-encoding": encoding})
    assert answer.status_code == status
    assert found.seen == []


# Clients that leave, or read nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [chat("silent"), chat("drip", stream=True), chat("drip")])
@pytest.mark.parametrize("ahead", [0, 1])
def test_the_incumbent_stops_within_a_second_when_the_client_leaves(behind: Any, body: bytes, ahead: int) -> None:
    found, running, kit = behind
    with opened(running) as one:
        one.sendall(asked(running, body) * (1 + ahead))
        kit.wait_for(lambda: found.open == 1)
        time.sleep(0.2)
    started = time.monotonic()
    kit.wait_for(lambda: found.open == 0)
    assert time.monotonic() - started < 1.0
    assert found.left == 1
    running.flush()


def test_a_passed_on_request_ends_too_when_the_client_leaves(behind: Any) -> None:
    found, running, kit = behind
    body = chat("drip", stream=True)
    with opened(running) as one:
        one.sendall(asked(running, body).replace(b"/v1/chat/completions", b"/v1/responses"))
        kit.wait_for(lambda: found.open == 1)
        time.sleep(0.2)
    kit.wait_for(lambda: found.open == 0, 1.0)
    assert found.left == 1


def test_clients_that_read_nothing_hold_little_and_are_let_go(behind: Any) -> None:
    found, running, kit = behind
    held = [opened(running) for _ in range(4)]
    before = resident()
    for one in held:
        one.sendall(asked(running, chat("big")))
    kit.wait_for(lambda: found.open == 4)
    time.sleep(0.6)
    assert resident() - before < 40_000_000  # four answers are 160 MB
    kit.wait_for(lambda: running.deployment.connections.open == 0, 6)
    for one in held:
        one.close()


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_requests_sent_ahead_are_few(behind: Any) -> None:
    _, running, kit = behind
    with opened(running) as one:
        one.sendall(asked(running, chat("drip", stream=True)) * 50)
        kit.wait_for(lambda: running.deployment.connections.open == 0, 1.0)


# How many, and how long ------------------------------------------------------------------------------------------


def test_one_address_has_a_limited_number_of_connections(behind: Any) -> None:
    _, running, _ = behind
    held = [opened(running) for _ in range(40)]
    with opened(running) as one:
        found = everything(one)
    assert b"503" in found
    assert b"retry-after: 1" in found
    for other in held:
        other.close()


def test_connections_without_a_key_make_place(behind: Any) -> None:
    _, running, _ = behind
    port = int(running.url.rsplit(":", 1)[1])
    held = [
        socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.0.{2 + place % 4}", 0))
        for place in range(60)
    ]
    with opened(running) as one:
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in one.recv(65536)
    assert running.deployment.connections.evicted >= 1
    for one in held:
        one.close()


def test_an_answer_has_a_deadline(behind: Any) -> None:
    _, running, _ = behind
    started = time.monotonic()
    with running.client() as client:
        found = client.post("/v1/chat/completions", content=chat("drip", stream=True))
    assert 1.0 < time.monotonic() - started < 3.0
    assert '"code": "incumbent_too_long"' in found.text


def test_whoever_finds_all_connections_to_the_incumbent_taken_is_told_when_to_come_again(behind: Any) -> None:
    found, running, kit = behind
    held = [opened(running) for _ in range(4)]
    for one in held:
        one.sendall(asked(running, chat("silent")))
    kit.wait_for(lambda: found.open == 4)
    started = time.monotonic()
    refused = running.ask(1)
    assert time.monotonic() - started < 1.0
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "incumbent_busy")
    assert int(refused.headers["retry-after"]) >= 1
    for one in held:
        one.close()
    kit.wait_for(lambda: running.ask(1).status_code == 200)


# What browsers and balancers ask ------------------------------------------------------------------------------------


def test_a_page_of_an_allowed_origin_may_call_and_others_may_not(behind: Any) -> None:
    _, running, _ = behind
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}
    with httpx.Client(base_url=running.url) as client:
        for origin, allowed in (("https://chat.example.org", True), ("https://evil.example.org", False)):
            found = client.options("/v1/chat/completions", headers={"origin": origin, **asks})
            assert (found.status_code == 204) is allowed
            assert found.headers.get("access-control-allow-origin") == (origin if allowed else None)
            answer = client.post("/v1/chat/completions", headers={"origin": origin}, content=chat("m"))
            assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
        admin = client.get("/admin", headers={"origin": "https://chat.example.org"})
        assert "access-control-allow-origin" not in admin.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback", "/people/answers", "/admin/hold"])
def test_get_on_a_path_for_posts_is_405_and_says_what_is_allowed(behind: Any, path: str) -> None:
    _, running, _ = behind
    with running.client() as client:
        found = client.get(path)
    assert found.status_code == 405
    assert "POST" in found.headers["allow"]


def test_alive_and_ready_are_told_apart(kit: Any, tmp_path: Path) -> None:
    with tunable(kit) as (_, port):
        config = kit.config_for(f"http://127.0.0.1:{port}/v1")
        with kit.serve(config, tmp_path) as running:
            assert [httpx.get(f"{running.url}/{one}").status_code for one in ("livez", "readyz")] == [200, 200]
    with kit.serve(replace(config, server=ServerConfig(port=kit.free_port())), tmp_path) as running:
        assert [httpx.get(f"{running.url}/{one}").status_code for one in ("livez", "readyz")] == [200, 503]


# Ending, reading again, TLS -----------------------------------------------------------------------------------------


def settings_file(folder: Path, kit: Any, port: int, more: str = "") -> tuple[Path, str, str]:
    from foretaste.deploy.offline import Offline

    file, own = folder / "deploy.toml", kit.free_port()
    file.write_text(
        f'[server]\nport = {own}\n{more}\n[incumbent]\nurl = "http://127.0.0.1:{port}/v1"\n', encoding="utf-8"
    )
    with Offline.open(file) as offline:
        secret = offline.create_key("test", "user")[1]
    return file, f"http://127.0.0.1:{own}", secret


@contextmanager
def served(file: Path, url: str, kit: Any) -> Iterator[Any]:
    from foretaste.deploy import processes

    started = processes.start(kit.serve_file, (str(file),), "foretaste-server")

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/livez").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        kit.wait_for(answers, 30)
        yield started
    finally:
        started.kill()
        started.join()


def test_a_running_stream_ends_and_what_waits_is_written_when_the_server_is_told_to_stop(
    kit: Any, tmp_path: Path
) -> None:
    import sqlalchemy as sa

    from foretaste.deploy.database import open_engine, reading
    from foretaste.deploy.tables import requests

    with tunable(kit) as (found, port):
        file, url, secret = settings_file(tmp_path, kit, port)
        headers = {"authorization": f"Bearer {secret}"}
        with served(file, url, kit) as process:
            got: list[httpx.Response] = []

            def ask() -> None:
                content = chat("drip", stream=True)
                got.append(httpx.post(f"{url}/v1/chat/completions", content=content, headers=headers, timeout=60))

            client = threading.Thread(target=ask)
            client.start()
            kit.wait_for(lambda: found.open == 1)
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(1.0)
            found._wait = _no_wait  # the stream comes to its end
            client.join(30)
            assert got[0].text.endswith('{"object": "anything"}')
            process.join(10)
            assert not process.is_alive()
            assert not (tmp_path / "deployment" / "server.pid").exists()
        engine = open_engine(tmp_path / "deployment")
        with reading(engine) as connection:
            assert list(connection.scalars(sa.select(requests.c.status))) == [200]
        engine.dispose()


async def _no_wait(gone: Any, seconds: float) -> bool:
    return False


def test_sighup_takes_over_what_needs_no_restart(kit: Any, tmp_path: Path) -> None:
    with tunable(kit) as (_, port):
        file, url, secret = settings_file(tmp_path, kit, port, "max_body_bytes = 1000")
        headers = {"authorization": f"Bearer {secret}"}

        def ask(size: int) -> int:
            content = chat("m", user="x" * size)
            return httpx.post(f"{url}/v1/chat/completions", content=content, headers=headers).status_code

        with served(file, url, kit) as process:
            assert [ask(10), ask(2000)] == [200, 413]
            file.write_text(file.read_text("utf-8").replace("1000", "5000"), encoding="utf-8")
            os.kill(process.pid, signal.SIGHUP)
            kit.wait_for(lambda: ask(2000) == 200)
            file.write_text("[server]\nmax_body_bytes = -1\n", encoding="utf-8")
            os.kill(process.pid, signal.SIGHUP)
            time.sleep(0.3)
            assert ask(2000) == 200  # a file that cannot be used changes nothing


def test_tls_is_spoken_where_a_certificate_is_given(kit: Any, tmp_path: Path) -> None:
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"),
            *("-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=tmp_path,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("openssl is not installed")
    with tunable(kit) as (_, port):
        server = ServerConfig(port=kit.free_port(), certfile="cert.pem", keyfile="key.pem")
        with kit.serve(kit.config_for(f"http://127.0.0.1:{port}/v1", server=server), tmp_path) as running:
            url = running.url.replace("http://", "https://")
            context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
            with httpx.Client(base_url=url, verify=context, headers=running.auth()) as client:
                assert client.post("/v1/chat/completions", content=chat("m")).status_code == 200
                refused = client.post("/v1/chat/completions", content=chat("m"), headers={"authorization": "Bearer x"})
                assert refused.status_code == 401
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{running.url}/livez")
