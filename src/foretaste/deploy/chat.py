"""POST /v1/chat/completions: the incumbent's bytes as they come, or the learner's answer where it may be given.

The quick path (the incumbent answers) parses the request once and changes no byte of the answer. Everything that
is written down is put into the writer's queue; nothing here touches the database. Next: `routing.py`, `shadow.py`.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from typing import TYPE_CHECKING, Any

from foretaste.deploy import http, replies
from foretaste.deploy.http import ClientGone, Receive, Refusal, Scope, Send
from foretaste.deploy.learner import Learner, LearnerUnavailable, Messages
from foretaste.deploy.network import headers, sending
from foretaste.deploy.network.admission import admit
from foretaste.deploy.network.connections import connection_of
from foretaste.deploy.network.encodings import read_decoded
from foretaste.deploy.network.request_settings import unsupported_setting
from foretaste.deploy.records import Answer, Exchange, LearnerAnswer
from foretaste.deploy.routing import VALUE_NOT_FINITE, Draws, draws, kept_back, most_tokens, plain_chat
from foretaste.deploy.upstream import UpstreamError

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment

PATH = "/chat/completions"
ID_HEADER = b"x-foretaste-id"


async def chat(deployment: Deployment, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one chat.

    Raises: Refusal for a request that is none, UpstreamError if the incumbent gives no answer; the caller answers with
    it. ClientGone, CancelledError (the client left, or it took too long) and CutOff: the caller closes the connection.
    """
    started = time.perf_counter()
    server = deployment.config.server
    key = admit(deployment, scope, ("user",))
    body = await read_decoded(scope, receive, most=server.max_body_bytes, seconds=server.body_timeout_seconds)
    request = http.parse_object(body)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Refusal(400, "no_messages", "`messages` must be a list of at least one message object.")
    identity = f"chatcmpl-{secrets.token_hex(12)}"
    exchange = Exchange(identity, key.id, body, deployment.state.stage, request.get("stream") is True)
    plain: Messages | None = None
    try:
        plain = _plain(deployment, exchange, request) if deployment.learner is not None else None
        await _route(deployment, exchange, request, plain, scope, send)
    except (asyncio.CancelledError, ClientGone) as ended:
        connection = connection_of(scope)
        left = isinstance(ended, ClientGone) or connection is None or connection.lost
        exchange.status = 499 if left else 504
        raise
    finally:
        exchange.seconds = time.perf_counter() - started
        deployment.metrics.chat(exchange.route, exchange.status, exchange.seconds)
        if deployment.writer.put(exchange):
            _have_verified(deployment, exchange, plain or [])


def _plain(deployment: Deployment, exchange: Exchange, request: dict[str, Any]) -> Messages | None:
    """Return the messages if the learner can answer such a request at all; else the exchange says why not."""
    if not deployment.stand_in.covers(request.get("model")):
        exchange.reason = "other_model"
        return None
    name = unsupported_setting(request)
    if name:
        exchange.reason = "unsupported"
        deployment.metrics.unsupported.labels(deployment.setting_names.label(name)).inc()
        return None
    return plain_chat(request)


def _have_verified(deployment: Deployment, exchange: Exchange, messages: Messages) -> None:
    """Have the verifier judge what the learner said, now that the user has been answered."""
    for answer in exchange.answers:
        if answer.learner is not None:
            deployment.shadow.verify(exchange.id, messages, answer.learner.text)


async def _route(
    deployment: Deployment,
    exchange: Exchange,
    request: dict[str, Any],
    messages: Messages | None,
    scope: Scope,
    send: Send,
) -> None:
    learner, state = deployment.learner, deployment.state
    if learner is None or messages is None:
        exchange.reason = exchange.reason or "no_learner"
        if learner is not None:
            deployment.metrics.kept_back.labels(exchange.reason).inc()
        return await _incumbent(deployment, exchange, request, scope, send)
    exchange.most_tokens = most_tokens(request)
    drawn = draws(exchange.id)
    exchange.reason = kept_back(
        state,
        killed=deployment.killed,
        checkpoint=learner.checkpoint,
        share=drawn.share,
        tokens=deployment.tokens_today(),
        healthy=deployment.writer.healthy,
    )
    exchange.drawn = exchange.reason not in ("shadow", "not_drawn", "killed", "not_permitted")
    # What is kept back without a look at V is an unbiased sample too.
    exchange.check_share = deployment.check_share if state.stage == "live" and not exchange.reason else 1.0
    exchange.sampled = drawn.check < exchange.check_share
    takeover = deployment.config.takeover
    exchange.second = takeover.second_judge != "none" and drawn.second < takeover.second_share
    answer = None if exchange.reason else await _ask(deployment, exchange, learner, messages, drawn)
    if deployment.may_shadow():
        for one in _silent(deployment, exchange, learner):
            deployment.shadow.offer(one, exchange.id, messages, drawn.seed)
    if answer is not None:
        return await _serve(deployment, exchange, request, answer, send)
    deployment.metrics.kept_back.labels(exchange.reason).inc()
    return await _incumbent(deployment, exchange, request, scope, send)


def _silent(deployment: Deployment, exchange: Exchange, learner: Learner) -> list[Learner]:
    """Return who answers silently: a candidate every chat, the learner in shadow, or alone, what it did not answer."""
    candidate = deployment.candidate
    if candidate is None:
        return [] if exchange.answers else [learner]
    return [candidate, learner] if exchange.stage == "shadow" else [candidate]


async def _ask(
    deployment: Deployment, exchange: Exchange, learner: Learner, messages: Messages, drawn: Draws
) -> LearnerAnswer | None:
    """Return the learner's answer if it may be given; else the exchange says why not, and keeps the answer."""
    config, tau = deployment.config, deployment.state.tau
    if deployment.attendance.out:
        exchange.reason = "slow"
        return None
    deadline = config.learner.deadline_seconds
    ends = time.monotonic() + deadline
    try:
        found = await learner.answer(messages, seed=drawn.seed, urgent=True, deadline_seconds=deadline)
    except LearnerUnavailable as error:
        exchange.reason = str(error)[:32]
        if exchange.reason == "deadline":  # do not let the next users wait as long for nothing
            deployment.attendance.miss()
        return None
    deployment.spend(found.completion_tokens)
    seconds = ends - time.monotonic()
    answer, in_time = await deployment.shadow.examined(messages, found, urgent=True, seconds=seconds)
    exchange.answers.append(answer)
    value = found.value if config.takeover.value == "request" else found.answer_value
    if not in_time:
        exchange.reason = "deadline"
        deployment.attendance.miss()
    elif found.checkpoint != deployment.state.checkpoint:
        exchange.reason = "not_loaded"
    elif not (math.isfinite(found.value) and math.isfinite(found.answer_value)):
        exchange.reason = VALUE_NOT_FINITE
    elif tau is None or value < tau:
        exchange.reason = "low_value"
    elif found.cut:
        exchange.reason = "cut"
    elif exchange.most_tokens is not None and found.completion_tokens > exchange.most_tokens:
        exchange.reason = "max_tokens"
    elif answer.harm >= config.harm.refuse_from:
        exchange.reason = "harm"
    elif deployment.killed:
        exchange.reason = "killed"
    else:
        answer.served = True
        return found
    return None


async def _serve(
    deployment: Deployment, exchange: Exchange, request: dict[str, Any], found: LearnerAnswer, send: Send
) -> None:
    """Give the learner's answer to the user, and have the incumbent check a sample of such answers."""
    exchange.route, exchange.status = "learner", 200
    made = int(exchange.created)
    own = _own_headers(exchange)
    if exchange.sampled and deployment.upstream is not None:
        body = deployment.outgoing(exchange.body, request, plain=True)
        deployment.shadow.check(deployment.upstream, exchange.id, PATH, body)
    if not exchange.stream:
        body = json.dumps(replies.completion(exchange.id, made, found)).encode()
        return await http.respond(send, 200, [*http.JSON, *own], body)
    usage = bool((request.get("stream_options") or {}).get("include_usage"))
    own += [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": own})
    for event in replies.events(exchange.id, made, found, usage=usage):
        await http.send_piece(send, event, more=True)
    return await http.send_piece(send, b"", more=False)


async def _incumbent(
    deployment: Deployment, exchange: Exchange, request: dict[str, Any], scope: Scope, send: Send
) -> None:
    """Give the incumbent's answer to the user."""
    started = time.perf_counter()
    if deployment.people is not None:
        await _person(deployment, exchange, request, send)
        return
    upstream = deployment.upstream
    assert upstream is not None
    exchange.route = "incumbent"
    try:
        more = headers.to_incumbent(scope["headers"], upstream.hop)
        reply = await upstream.post(PATH, deployment.outgoing(exchange.body, request), more)
        exchange.status = reply.status
        try:
            found = await sending.pass_on(reply, [*reply.headers, *_own_headers(exchange)], send, keep=True)
        finally:
            reply.release()
    except UpstreamError as error:
        exchange.status = error.status
        raise
    except sending.CutOff:
        exchange.status = 502
        raise
    if found.error is not None:
        exchange.status = found.error.status
    if exchange.status == 200 and found.body is not None:  # of a stream that broke off there is no whole answer
        spent = time.perf_counter() - started
        answer = Answer("incumbent", True, spent, found.body, reply.content_type, reply.content_encoding)
        exchange.answers.append(answer)


def _own_headers(exchange: Exchange) -> http.Headers:
    return [(ID_HEADER, exchange.id.encode())]


async def _person(deployment: Deployment, exchange: Exchange, request: dict[str, Any], send: Send) -> None:
    """Wait for a person's answer and give it to the user."""
    assert deployment.people is not None
    exchange.route = "person"
    started = time.perf_counter()
    try:
        text = await deployment.people.ask(exchange.id, request["messages"])
    except UpstreamError as error:
        exchange.status = error.status
        raise
    exchange.answers.append(Answer("person", True, time.perf_counter() - started, text=text))
    exchange.status = 200
    said = LearnerAnswer(text, "person", 0.0, 0.0)
    made = int(exchange.created)
    own = _own_headers(exchange)
    if not exchange.stream:
        body = json.dumps(replies.completion(exchange.id, made, said)).encode()
        return await http.respond(send, 200, [*http.JSON, *own], body)
    events = b"".join(replies.events(exchange.id, made, said, usage=False))
    return await http.respond(send, 200, [*own, (b"content-type", b"text/event-stream")], events)
