"""The server: an OpenAI-compatible API, feedback, health, metrics, and the pages for admins and people.

Chats and feedback go past the framework's router, straight to their handlers: it would cost more than all the rest
of a passed-on request. Next: `chat.py`, `feedback.py`, `admin.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from foretaste.deploy import admin, http
from foretaste.deploy.chat import chat
from foretaste.deploy.deployment import Deployment, describe
from foretaste.deploy.feedback import feedback
from foretaste.deploy.http import ClientGone, Receive, Refusal, Scope, Send
from foretaste.deploy.learner import Learner
from foretaste.deploy.openapi import document
from foretaste.deploy.replies import model_name
from foretaste.deploy.settings import DeployConfig
from foretaste.deploy.supervisor import Supervisor
from foretaste.deploy.training_client import Training
from foretaste.deploy.upstream import UpstreamError
from foretaste.strict_json import to_json

logger = logging.getLogger(__name__)

QUICK = {"/v1/chat/completions": chat, "/v1/feedback": feedback}


class App:
    """The ASGI application of one deployment."""

    def __init__(
        self, config: DeployConfig, folder: Path, *, learner: Learner | None = None, with_signal: bool = False
    ) -> None:
        """Open the store; `learner` takes the place of the configured one, `with_signal` listens for SIGUSR1.

        Raises: ConfigError or DeployError for settings or a store that cannot be used.
        """
        self.deployment = Deployment(config, folder, learner=learner)
        self.supervisor: Supervisor | None = None
        self._with_signal = with_signal
        self._openapi = json.dumps(document()).encode()
        routes = [
            Route("/v1/models", self._models),
            Route("/healthz", self._health),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._document),
            *admin.routes(self),
        ]
        handlers: Any = {Refusal: _refused, HTTPException: _http_error, Exception: _failed}
        self._slow = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        handler = QUICK.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handler is None:
            await self._slow(scope, receive, send)
            return
        started = False

        async def sent(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await handler(self.deployment, scope, receive, sent)
        except ClientGone:
            return
        except Refusal as refusal:
            if not started:
                if refusal.code not in ("no_key", "wrong_key", "wrong_scope", "too_many_requests"):
                    self.deployment.metrics.refused.labels(refusal.code).inc()
                await http.respond(send, refusal.status, [*http.JSON, *refusal.headers], refusal.body())
        except Exception as error:  # whatever fails, the client gets an answer and the log no private text
            logger.error("%s failed: %s", scope["path"], describe(error))
            if not started:
                broken = Refusal(500, "internal_error", "The server failed; nothing is wrong with the request.")
                await http.respond(send, 500, http.JSON, broken.body())

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self.deployment.start(with_signal=self._with_signal)
        training = Training(self.deployment)
        self.supervisor = Supervisor(self.deployment, asyncio.get_running_loop(), training)
        try:
            yield
        finally:
            await asyncio.to_thread(self.supervisor.close)
            await asyncio.to_thread(training.close)
            await self.deployment.stop()

    async def _models(self, request: Request) -> Response:
        """The incumbent's models, and the learner's weights by their content."""
        deployment = self.deployment
        deployment.gatekeeper.admit(request.scope["headers"], ("user", "admin"))
        models: list[Any] = []
        if deployment.upstream is not None:
            with contextlib.suppress(UpstreamError, ValueError, AttributeError):
                reply = await deployment.upstream.get("/models")
                try:
                    found = json.loads(await reply.body()).get("data", []) if reply.status == 200 else []
                finally:
                    reply.release()
                models += [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        learner = deployment.learner
        if learner is not None and learner.checkpoint is not None:
            name = model_name(learner.checkpoint)
            models.append({"id": name, "object": "model", "created": 0, "owned_by": "foretaste"})
        return _json({"object": "list", "data": models})

    async def _health(self, _: Request) -> Response:
        """200 while requests can be answered; says what does not work."""
        deployment = self.deployment
        learner = deployment.learner
        ready = learner is not None and learner.checkpoint is not None
        return _json(
            {
                "status": "ok",
                "stage": deployment.state.stage,
                "killed": deployment.killed,
                "store": "ok" if deployment.writer.healthy else "failing",
                "learner": "none" if learner is None else "ready" if ready else "not ready",
                "learning": deployment.learning.get("state", "starting"),
                "learning_reason": deployment.learning.get("words", ""),
            }
        )

    async def _metrics(self, _: Request) -> Response:
        """Counters and gauges for Prometheus."""
        admin.set_gauges(self.deployment)
        page = await asyncio.to_thread(self.deployment.metrics.page)
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _document(self, _: Request) -> Response:
        return Response(self._openapi, media_type="application/json")


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with a limit on the time in which a connection must send its first request's head."""

    header_seconds = 10.0

    def connection_made(self, transport: Any) -> None:
        """Close the connection if no request has begun by then."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.header_seconds, self._no_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._head_timer.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head_timer.cancel()
        super().on_headers_complete()

    def _no_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def server_of(app: App) -> uvicorn.Server:
    """Return the server of an application, ready to be run."""
    settings = app.deployment.config.server
    protocol = type("ConfiguredProtocol", (Protocol,), {"header_seconds": settings.header_timeout_seconds})
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=protocol,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=10,
        )
    )


def _json(values: Any, status: int = 200) -> Response:
    return Response(to_json(values), status, media_type="application/json")


async def _refused(_: Request, refusal: Refusal) -> Response:
    headers = {name.decode(): value.decode() for name, value in refusal.headers}
    return Response(refusal.body(), refusal.status, headers, media_type="application/json")


async def _http_error(_: Request, error: HTTPException) -> Response:
    text = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    refusal = Refusal(error.status_code, f"http_{error.status_code}", text.get(error.status_code, error.detail))
    return Response(refusal.body(), error.status_code, error.headers, media_type="application/json")


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("%s failed: %s", request.url.path, describe(error))
    return Response(Refusal(500, "internal_error", "The server failed.").body(), 500, media_type="application/json")
