"""An OpenAI-compatible endpoint on a real port that does whatever a test asks of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Handler(BaseHTTPRequestHandler):
    """Plays `server.behaviour(handler, request, number of earlier requests)`; `server.bodies` keeps what came."""

    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append((self.path, dict(self.headers), body))
        self.server.behaviour(self, body, number)

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "small"}, {"id": "large"}]})

    def reply(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def answer(self, text: str, finish: str = "stop") -> None:
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
        self.reply(200, {"choices": [choice], "usage": self.server.usage})

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.lock, running.bodies, running.daemon_threads = threading.Lock(), [], True
    running.usage = {"prompt_tokens": 7, "completion_tokens": 2}
    running.behaviour = lambda handler, body, number: handler.answer("ok")
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()
