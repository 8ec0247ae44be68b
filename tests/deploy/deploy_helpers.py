"""A scripted incumbent on a real port, a server in a thread, and keys: what the tests of the server share.

A module of its own, so that processes which the tests start can import it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from foretaste.deploy import keys
from foretaste.deploy.database import writing
from foretaste.deploy.kill import block_signal
from foretaste.deploy.learner import Learner
from foretaste.deploy.server import App, server_of
from foretaste.deploy.settings import DeployConfig, IncumbentConfig, ServerConfig, TakeoverConfig, load


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Return the first true value of `condition`, or fail."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not become true in time")


@dataclass
class Incumbent:
    """An OpenAI-compatible endpoint that answers the number in the last message, plus one; its faults can be set."""

    port: int = field(default_factory=free_port)
    fault: str = ""
    delay: float = 0.0
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    same_id: bool = False
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        if scope["path"].endswith("/models"):
            model = {"id": "big", "object": "model", "aliases": ["m"]}
            await self._send(send, 200, json.dumps({"object": "list", "data": [model]}))
            return
        request = json.loads(body)
        self.seen.append(request)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.fault == "garbage":
            await self._send(send, 200, "}{ not json")
            return
        if self.fault == "error":
            await self._send(send, 503, json.dumps({"error": {"message": "overloaded"}}))
            return
        asked = request["messages"][-1].get("content")
        text = str(int(asked) + 1) if isinstance(asked, str) and asked.isascii() and asked.isdigit() else "?"
        identity = "chatcmpl-same" if self.same_id else f"chatcmpl-up{next(self.numbers)}"
        if request.get("stream"):
            await self._stream(send, identity, text)
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        values = {"id": identity, "object": "chat.completion", "created": 1, "model": "big"}
        await self._send(send, 200, json.dumps(values | {"choices": [choice], "usage": usage}))

    async def _stream(self, send: Any, identity: str, text: str) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for piece in [*text, None]:
            choice = {
                "index": 0,
                "delta": {"content": piece} if piece else {},
                "finish_reason": None if piece else "stop",
            }
            values = {"id": identity, "object": "chat.completion.chunk", "created": 1, "model": "big"}
            chunk = json.dumps(values | {"choices": [choice]})
            await send({"type": "http.response.body", "body": f"data: {chunk}\n\n".encode(), "more_body": True})
            if self.fault == "breaks_off":
                raise RuntimeError("breaks off")
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def _send(self, send: Any, status: int, body: str) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})


@contextmanager
def running(server: uvicorn.Server) -> Iterator[uvicorn.Server]:
    """Run a server in a thread until the block ends."""
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert server.started, "the server did not start"
        yield server
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive(), "the server did not end"


@contextmanager
def serve_incumbent(incumbent: Incumbent) -> Iterator[Incumbent]:
    settings = uvicorn.Config(incumbent, port=incumbent.port, log_level="critical", lifespan="off")
    with running(uvicorn.Server(settings)):
        yield incumbent


@dataclass
class Running:
    """A server under test, with a user's and an admin's key."""

    app: App
    url: str
    secrets: dict[str, str]

    @property
    def deployment(self) -> Any:
        return self.app.deployment

    def client(self, scope: str = "user") -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.auth(scope), timeout=20)

    def auth(self, scope: str = "user") -> dict[str, str]:
        return {"authorization": f"Bearer {self.secrets[scope]}"}

    def ask(self, number: int = 1, **more: Any) -> httpx.Response:
        with self.client() as client:
            return client.post("/v1/chat/completions", json=question(number, **more))

    def flush(self) -> None:
        """Wait until all that was put into the store is on disk."""
        self.deployment.writer.submit(lambda _: None).result(60)


def question(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": str(number)}], **more}


def config_for(incumbent_url: str, **parts: Any) -> DeployConfig:
    """Return settings for tests: a free port, quick looks."""
    base = DeployConfig(
        server=ServerConfig(port=free_port()),
        incumbent=IncumbentConfig(url=incumbent_url, read_timeout_seconds=2.0, connect_timeout_seconds=1.0),
        takeover=TakeoverConfig(every_seconds=0.05),
    )
    return replace(base, **parts)


@contextmanager
def serve(config: DeployConfig, folder: Path, learner: Learner | None = None) -> Iterator[Running]:
    app = App(config, folder, learner=learner)
    made: dict[str, str] = {}
    with writing(app.deployment.engine) as connection:
        for scope in keys.SCOPES:
            made[scope] = keys.create(connection, app.deployment.audit_key, scope, scope, actor="person:test")[1]
    with running(server_of(app)):
        yield Running(app, f"http://127.0.0.1:{config.server.port}", made)


def echo(messages: list[dict[str, Any]]) -> tuple[str, float]:
    """A scripted learner that is always right and sure."""
    return str(int(messages[-1]["content"]) + 1), 0.9


def stuck(_: list[dict[str, Any]]) -> tuple[str, float]:
    """A scripted learner that blocks the server's event loop, as a fault in its own code might."""
    time.sleep(3600)
    return "", 0.0


GATE = threading.Event()


def hanging(_: list[dict[str, Any]], answer: str) -> float:
    """A verifier, or a rule of harm, that says nothing until `GATE` is set: then it is 0.25."""
    GATE.wait(60)
    return 0.25


def serve_file(path: str) -> None:
    """What `foretaste serve` does, in a process that can be killed."""
    block_signal()
    file = Path(path)
    server_of(App(load(file), file.parent, with_signal=True, file=file)).run()
