"""The pages for admins and people, and the calls behind them. Pages hold no data; every call takes a key.

A key travels in a header that a page's script sets, never in a cookie, so no other site can make a browser use it.
"""

from __future__ import annotations

import asyncio
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from foretaste.deploy import http
from foretaste.deploy.database import reading
from foretaste.deploy.figures import figures
from foretaste.deploy.http import Refusal
from foretaste.deploy.judging import Messages
from foretaste.deploy.keys import Key
from foretaste.deploy.operator import ACTIONS, act
from foretaste.deploy.promise import review
from foretaste.deploy.promise.statement import promise_of
from foretaste.deploy.state import STAGES
from foretaste.errors import DeployError
from foretaste.strict_json import to_json

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment
    from foretaste.deploy.server import App

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MOST_BODY = 200_000
BODY_SECONDS = 30.0
STORE_SECONDS = 15.0
"""After which a judgement that is not on disk yet is not acknowledged."""
MOST_CHECKS = 20
"""Checks that a person is shown at once."""


def routes(app: App) -> list[Route]:
    """Return the routes of both pages."""
    pages = Pages(app)
    return [
        Route("/admin", pages.admin_page),
        Route("/admin/data", pages.data),
        Route("/admin/{action}", pages.action, methods=["POST"]),
        Route("/people", pages.people_page),
        Route("/people/questions", pages.questions),
        Route("/people/answers", pages.answer, methods=["POST"]),
        Route("/people/checks", pages.checks),
        Route("/people/judgements", pages.judgement, methods=["POST"]),
    ]


class Pages:
    """The endpoints of the pages."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def admin_page(self, _: Request) -> Response:
        """The page of the admin: a form for the key, and a script that asks for the data."""
        return _page("admin.html")

    async def people_page(self, _: Request) -> Response:
        """The page on which a person answers, and judges the learner's answers."""
        return _page("people.html")

    async def data(self, request: Request) -> Response:
        """What the admin's page shows."""
        self._admit(request, "admin")
        deployment, supervisor = self._app.deployment, self._app.supervisor
        seen = dict(supervisor.seen) if supervisor else {}
        found = await asyncio.to_thread(_guarded, figures, deployment, seen, deployment.tokens_today())
        return _json(found)

    async def action(self, request: Request) -> Response:
        """Hold, release, promote, roll back, kill."""
        key = self._admit(request, "admin")
        name = request.path_params["action"]
        if name not in ACTIONS:
            raise Refusal(404, "unknown_action", f"There is no such action; accepted: {', '.join(ACTIONS)}.")
        deployment = self._app.deployment
        if name == "kill":  # first of all, and without the store
            deployment.switch.kill(f"the admin key {key.id} asked for it")
            return _json({"done": "kill"})
        state = await asyncio.to_thread(_guarded, act, deployment, name, f"key:{key.id}")
        return _json({"done": name, "stage": state.stage, "share": state.share, "held": state.held})

    async def questions(self, request: Request) -> Response:
        """The questions that wait for a person."""
        self._admit(request, "person")
        people = self._app.deployment.people
        waiting = people.waiting if people else []
        return _json([{"id": one.id, "asked": one.asked, "messages": _texts(one.messages)} for one in waiting])

    async def answer(self, request: Request) -> Response:
        """A person's answer to a question."""
        self._admit(request, "person")
        body = await http.read_body(request.scope, request.receive, most=MOST_BODY, seconds=BODY_SECONDS)
        given = http.parse_object(body)
        identity, text = given.get("id"), given.get("text")
        if not isinstance(identity, str) or not isinstance(text, str) or not text:
            raise Refusal(400, "no_answer", "Give the question's `id` and the answer's `text`.")
        people = self._app.deployment.people
        if people is None or not people.answer(identity, text):
            raise Refusal(404, "not_waiting", "This question does not wait any more.")
        return _json({"done": "answered"})

    async def checks(self, request: Request) -> Response:
        """The random checks that wait for a person, without a word on who else judges them."""
        self._admit(request, "person")
        found = await asyncio.to_thread(_guarded, _waiting_checks, self._app.deployment)
        return _json([{"answer": one.answer, "messages": _texts(one.messages), "text": one.text} for one in found])

    async def judgement(self, request: Request) -> Response:
        """A person's word on a check; acknowledged once it is on disk."""
        self._admit(request, "person")
        given = http.parse_object(
            await http.read_body(request.scope, request.receive, most=MOST_BODY, seconds=BODY_SECONDS)
        )
        number, verdict = given.get("answer"), given.get("verdict")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**63:
            raise Refusal(400, "no_answer", "Give the check's `answer`, a number that /people/checks names.")
        if verdict not in review.VERDICTS:
            raise Refusal(400, "no_verdict", f"`verdict` must be one of {', '.join(review.VERDICTS)}.")
        deployment = self._app.deployment
        promise, state = promise_of(deployment.config), deployment.state
        future = deployment.writer.submit(lambda connection: review.judge(connection, state, promise, number, verdict))
        try:
            async with asyncio.timeout(STORE_SECONDS):
                found = await asyncio.wrap_future(future)
        except (DeployError, TimeoutError) as error:
            message = "The judgement could not be stored now; send it again later."
            raise Refusal(503, "store_failing", message, headers=[(b"retry-after", b"5")]) from error
        if not found:
            raise Refusal(404, "not_waiting", "This check does not wait any more.")
        return _json({"done": "judged"})

    def _admit(self, request: Request, scope: str) -> Key:
        return self._app.deployment.gatekeeper.admit(request.scope["headers"], (scope,))


def set_gauges(deployment: Deployment) -> None:
    """Bring the gauges of /metrics up to date."""
    metrics, state, learner = deployment.metrics, deployment.state, deployment.learner
    metrics.stage.set(STAGES.index(state.stage))
    metrics.share.set(state.share)
    metrics.threshold.set(float("nan") if state.tau is None else state.tau)
    metrics.killed.set(deployment.killed)
    metrics.coverage.set(float("nan") if metrics.shadow_coverage is None else metrics.shadow_coverage)
    metrics.kill_switch_works.set(not deployment.switch.fault)
    metrics.records_intact.set(not deployment.tampered)
    metrics.store_waiting.set(deployment.writer.waiting)
    metrics.store_waiting_bytes.set(deployment.writer.waiting_bytes)
    metrics.store_dropped.set(deployment.writer.dropped)
    metrics.store_healthy.set(deployment.writer.healthy)
    metrics.learner_ready.set(learner is not None and learner.checkpoint is not None)
    metrics.learner_restarts.set(getattr(learner, "restarts", 0))
    metrics.learner_out.set(deployment.attendance.out)
    metrics.connections.set(deployment.connections.open)
    metrics.connections_refused.set(deployment.connections.refused)
    metrics.connections_evicted.set(deployment.connections.evicted)
    metrics.learning(deployment.learning)
    metrics.volunteered(deployment.volunteers)


def _waiting_checks(deployment: Deployment) -> list[review.WaitingCheck]:
    with reading(deployment.engine) as connection:
        return review.waiting(connection, deployment.state, promise_of(deployment.config), most=MOST_CHECKS)


def _guarded(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except DeployError as error:
        raise Refusal(503 if str(error).startswith("Store") else 409, "refused", str(error)) from error


def _texts(messages: Messages) -> list[dict[str, str]]:
    """Return messages as text for a page; parts that are no text are named."""

    def text(content: Any) -> str:
        if isinstance(content, list):
            return "".join(str(part.get("text", "[no text]")) if isinstance(part, dict) else "" for part in content)
        return str(content)

    return [{"role": str(one.get("role")), "content": text(one.get("content"))} for one in messages]


def _page(name: str) -> Response:
    import secrets

    nonce = secrets.token_urlsafe(16)
    text = (resources.files("foretaste.deploy") / "pages" / name).read_text(encoding="utf-8")
    text = re.sub(r"<script>", f'<script nonce="{nonce}">', text)
    headers = {
        "content-security-policy": POLICY.format(nonce=nonce),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return Response(text, 200, headers, media_type="text/html")


def _json(values: Any) -> Response:
    return Response(to_json(values), media_type="application/json", headers={"cache-control": "no-store"})
