"""The server: an OpenAI-compatible API, feedback, health, metrics, and the pages for admins and people.

Chats, feedback and what is passed through go past the framework's router, straight to their handlers: it would cost
more than all the rest of a passed-on request. Next: `chat.py`, `feedback.py`, `network/forwarding.py`, `admin.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from foretaste.deploy import admin, http
from foretaste.deploy.chat import chat
from foretaste.deploy.deployment import Deployment, describe
from foretaste.deploy.feedback import feedback
from foretaste.deploy.http import ClientGone, Receive, Refusal, Scope, Send
from foretaste.deploy.learner import Learner
from foretaste.deploy.network import cors
from foretaste.deploy.network.admission import refuse_loops
from foretaste.deploy.network.connections import Server, connection_of, protocol_of
from foretaste.deploy.network.forwarding import forward
from foretaste.deploy.network.reloading import Reloading
from foretaste.deploy.network.sending import CutOff
from foretaste.deploy.openapi import document
from foretaste.deploy.replies import model_name
from foretaste.deploy.settings import DeployConfig
from foretaste.deploy.supervisor import Supervisor
from foretaste.deploy.training_client import Training
from foretaste.deploy.upstream import UpstreamError
from foretaste.strict_json import to_json

logger = logging.getLogger(__name__)

QUICK = {"/v1/chat/completions": chat, "/v1/feedback": feedback}
OWN = frozenset({"/v1/models", "/healthz", "/livez", "/readyz", "/metrics", "/openapi.json", "/admin", "/people"})
OWN_BELOW = ("/admin/", "/people/")
COUNTED_BEFORE = ("no_key", "wrong_key", "wrong_scope", "too_many_requests")
"""Refusals that the gatekeeper has counted."""


class App:
    """The ASGI application of one deployment."""

    def __init__(
        self,
        config: DeployConfig,
        folder: Path,
        *,
        learner: Learner | None = None,
        with_signal: bool = False,
        file: Path | None = None,
    ) -> None:
        """Open the store; `learner` takes the place of the configured one.

        `with_signal` listens for SIGUSR1 (the kill switch) and SIGHUP, on which `file` is read again.
        Raises: ConfigError or DeployError for settings or a store that cannot be used.
        """
        self.deployment = Deployment(config, folder, learner=learner)
        self.supervisor: Supervisor | None = None
        self.reloading = Reloading(self.deployment, file)
        self._with_signal = with_signal
        self._openapi = json.dumps(document()).encode()
        routes = [
            Route("/v1/models", self._models),
            Route("/healthz", self._health),
            Route("/livez", self._live),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._document),
            *admin.routes(self),
        ]
        handlers: Any = {Refusal: _refused, HTTPException: _http_error, Exception: _failed}
        self._slow = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._slow(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        origins = self.deployment.config.server.cors_origins
        if origins and (origin := cors.allowed_origin(scope, origins)) is not None:
            if cors.is_preflight(scope):
                await http.respond(send, 204, cors.preflight(scope, origin), b"")
                return
            send = cors.readable(send, origin)
        if method == "POST" and path in QUICK:
            await self._answer(QUICK[path], scope, receive, send)
        elif path in OWN or path.startswith(OWN_BELOW):
            await self._slow(scope, receive, send)
        else:
            await self._answer(_only_post if path in QUICK else self._forward, scope, receive, send)

    async def _answer(self, handler: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a handler answer within the time of a request, and end its work if the client goes."""
        started, connection = False, connection_of(scope)

        async def sent(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        refusal: Refusal | None = None
        if connection is not None and handler is not feedback:  # what somebody says is stored, whether they wait or not
            connection.work(asyncio.current_task())
        try:
            async with asyncio.timeout(self.deployment.config.server.request_timeout_seconds):
                refuse_loops(self.deployment, scope)
                await handler(self.deployment, scope, receive, sent)
        except Refusal as found:
            refusal = found
        except UpstreamError as error:
            refusal = Refusal(error.status, error.code, str(error), headers=error.headers)
        except asyncio.CancelledError:
            if connection is None or not connection.lost:
                raise
            self.deployment.metrics.client_gone.inc()
            return
        except ClientGone:
            self.deployment.metrics.client_gone.inc()
            if connection is not None:
                connection.abort()
            return
        except CutOff:
            if connection is not None:
                connection.abort()
            return
        except TimeoutError:
            refusal = Refusal(504, "too_long", "The answer was not whole in time.")
        except Exception as error:  # whatever fails, the client gets an answer and the log no private text
            logger.error("%s failed: %s", _shown(scope), describe(error))
            refusal = Refusal(500, "internal_error", "The server failed; nothing is wrong with the request.")
        finally:
            if connection is not None:
                connection.work(None)
        if refusal is None:
            return
        if started:
            if connection is not None:
                connection.abort()
            return
        await self._refuse(refusal, scope, send)

    async def _refuse(self, refusal: Refusal, scope: Scope, send: Send) -> None:
        if refusal.code not in COUNTED_BEFORE:
            self.deployment.metrics.refused.labels(refusal.code).inc()
        headers = [*http.JSON, *refusal.headers]
        if http.has_body(scope) and not any(name == b"connection" for name, _ in headers):
            headers.append((b"connection", b"close"))  # its body may not have been read
        await http.respond(send, refusal.status, headers, refusal.body())

    async def _forward(self, deployment: Deployment, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through, but for one about the learner's own model, which the incumbent does not know."""
        learner = deployment.learner
        name = model_name(learner.checkpoint) if learner is not None and learner.checkpoint is not None else None
        if scope["method"] == "GET" and name is not None and scope["path"] == f"/v1/models/{name}":
            deployment.gatekeeper.admit(scope["headers"], ("user", "admin"))
            return await http.respond(send, 200, http.JSON, json.dumps(_own_model(name)).encode())
        return await forward(deployment, scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self.deployment.start(with_signal=self._with_signal)
        training = Training(self.deployment)
        loop = asyncio.get_running_loop()
        self.supervisor = Supervisor(self.deployment, loop, training)
        listens = self._with_signal and hasattr(signal, "SIGHUP")
        if listens and threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGHUP, self.reloading.reload)
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
            models.append(_own_model(model_name(learner.checkpoint)))
        return _json({"object": "list", "data": models})

    async def _health(self, _: Request) -> Response:
        """200 while requests can be answered; says what does not work."""
        deployment = self.deployment
        learner = deployment.learner
        ready = learner is not None and learner.checkpoint is not None
        present = "not answering" if ready and deployment.attendance.out else "ready" if ready else "not ready"
        return _json(
            {
                "status": "ok",
                "stage": deployment.state.stage,
                "killed": deployment.killed,
                "kill_switch": deployment.switch.fault or "watching",
                "records": "changed outside the log" if deployment.tampered else "ok",
                "store": "ok" if deployment.writer.healthy else "failing",
                "learner": "none" if learner is None else present,
                "models": "" if learner is None else deployment.stand_in.problem,
                "learning": deployment.learning.get("state", "starting"),
                "learning_reason": deployment.learning.get("words", ""),
            }
        )

    async def _live(self, _: Request) -> Response:
        """200 while the process answers at all: one that does not is to be started again."""
        return _json({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        """200 while a request would find somebody to answer it: whoever balances load may send some."""
        upstream = self.deployment.upstream
        reachable = upstream is None or await upstream.reachable()
        return _json({"status": "ok" if reachable else "the incumbent cannot be reached"}, 200 if reachable else 503)

    async def _metrics(self, _: Request) -> Response:
        """Counters and gauges for Prometheus."""
        admin.set_gauges(self.deployment)
        page = await asyncio.to_thread(self.deployment.metrics.page)
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _document(self, _: Request) -> Response:
        return Response(self._openapi, media_type="application/json")


def server_of(app: App) -> uvicorn.Server:
    """Return the server of an application, ready to be run."""
    settings = app.deployment.config.server
    folder = app.deployment.folder
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol_of(app.deployment.connections),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # an address that a client names is nobody's
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
        ssl_certfile=None if settings.certfile is None else folder / settings.certfile,
        ssl_keyfile=None if settings.keyfile is None else folder / settings.keyfile,
    )
    server = Server(config)
    app.reloading.serve(server)
    return server


async def _only_post(deployment: Deployment, scope: Scope, receive: Receive, send: Send) -> None:
    raise Refusal(405, "http_405", "This path does not take this method.", headers=[(b"allow", b"POST")])


def _own_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "foretaste"}


def _shown(scope: Scope) -> str:
    """Return a path for the log: of others than our own nothing, since it is a client's text."""
    return scope["path"] if scope["path"] in QUICK else "A request that is passed through"


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
