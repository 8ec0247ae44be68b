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
from foretaste.deploy.records import Answer, Exchange, LearnerAnswer
from foretaste.deploy.routing import VALUE_NOT_FINITE, Draws, draws, kept_back, most_tokens, plain_chat
from foretaste.deploy.upstream import Reply, UpstreamError

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment

PATH = "/chat/completions"
ID_HEADER = b"x-foretaste-id"
KEPT_BYTES = 4 << 20
"""Of a streamed answer, so much is kept to be written down."""


async def chat(deployment: Deployment, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one chat.

    Raises: Refusal for a request that is none; the caller answers with it.
    """
    started = time.perf_counter()
    server = deployment.config.server
    key = deployment.gatekeeper.admit(scope["headers"], ("user",))
    body = await http.read_body(scope, receive, most=server.max_body_bytes, seconds=server.body_timeout_seconds)
    request = http.parse_object(body)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Refusal(400, "no_messages", "`messages` must be a list of at least one message object.")
    identity = f"chatcmpl-{secrets.token_hex(12)}"
    exchange = Exchange(identity, key.id, body, deployment.state.stage, request.get("stream") is True)
    plain: Messages | None = None
    try:
        plain = plain_chat(request) if deployment.learner is not None else None
        await _route(deployment, exchange, request, plain, receive, send)
    finally:
        exchange.seconds = time.perf_counter() - started
        deployment.metrics.chat(exchange.route, exchange.status, exchange.seconds)
        if deployment.writer.put(exchange):
            _have_verified(deployment, exchange, plain or [])


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
    receive: Receive,
    send: Send,
) -> None:
    learner, state = deployment.learner, deployment.state
    if learner is None:
        exchange.reason = "no_learner"
        return await _incumbent(deployment, exchange, request, receive, send)
    if messages is None:
        exchange.reason = "unsupported"
        return await _incumbent(deployment, exchange, request, receive, send)
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
    check_share = deployment.config.takeover.check_share if state.stage == "live" else 1.0
    exchange.sampled = bool(exchange.reason) or drawn.check < check_share
    answer = None if exchange.reason else await _ask(deployment, exchange, learner, messages, drawn)
    if deployment.may_shadow():
        for one in _silent(deployment, exchange, learner):
            deployment.shadow.offer(one, exchange.id, messages, drawn.seed)
    if answer is not None:
        return await _serve(deployment, exchange, request, answer, send)
    deployment.metrics.kept_back.labels(exchange.reason).inc()
    return await _incumbent(deployment, exchange, request, receive, send)


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
    if time.monotonic() < deployment.learner_rests_until:
        exchange.reason = "slow"
        return None
    deadline = config.learner.deadline_seconds
    ends = time.monotonic() + deadline
    try:
        found = await learner.answer(messages, seed=drawn.seed, urgent=True, deadline_seconds=deadline)
    except LearnerUnavailable as error:
        exchange.reason = str(error)[:32]
        if exchange.reason == "deadline":  # do not let the next users wait as long for nothing
            deployment.learner_rests_until = time.monotonic() + deadline
        return None
    deployment.spend(found.completion_tokens)
    seconds = ends - time.monotonic()
    answer, in_time = await deployment.shadow.examined(messages, found, urgent=True, seconds=seconds)
    exchange.answers.append(answer)
    value = found.value if config.takeover.value == "request" else found.answer_value
    if not in_time:
        exchange.reason = "deadline"
        deployment.learner_rests_until = ends + deadline
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
    headers = [(ID_HEADER, exchange.id.encode())]
    if exchange.sampled and deployment.upstream is not None:
        body = deployment.outgoing(exchange.body, request, plain=True)
        deployment.shadow.check(deployment.upstream, exchange.id, PATH, body)
    try:
        if not exchange.stream:
            body = json.dumps(replies.completion(exchange.id, made, found)).encode()
            return await http.respond(send, 200, [*http.JSON, *headers], body)
        usage = bool((request.get("stream_options") or {}).get("include_usage"))
        headers += [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for event in replies.events(exchange.id, made, found, usage=usage):
            await http.send_piece(send, event, more=True)
        await http.send_piece(send, b"", more=False)
    except ClientGone:
        exchange.status = 499
    return None


async def _incumbent(
    deployment: Deployment, exchange: Exchange, request: dict[str, Any], receive: Receive, send: Send
) -> None:
    """Give the incumbent's answer to the user."""
    started = time.perf_counter()
    if deployment.people is not None:
        return await _person(deployment, exchange, request, send)
    assert deployment.upstream is not None
    exchange.route = "incumbent"
    try:
        reply = await deployment.upstream.post(PATH, deployment.outgoing(exchange.body, request))
        exchange.status = reply.status
        headers = [*reply.headers, (ID_HEADER, exchange.id.encode())]
        try:
            if exchange.stream and reply.status == 200:
                raw = await _pass_on(exchange, reply, headers, receive, send)
            else:
                raw = await reply.body()
                await http.respond(send, reply.status, headers, raw)
        finally:
            reply.release()
    except UpstreamError as error:
        exchange.status = error.status
        return await http.respond(send, error.status, http.JSON, Refusal(error.status, error.code, str(error)).body())
    except ClientGone:
        exchange.status = 499
        return None
    if exchange.status == 200:  # of a stream that broke off there is no whole answer
        spent = time.perf_counter() - started
        answer = Answer("incumbent", True, spent, raw, reply.content_type, reply.content_encoding)
        exchange.answers.append(answer)
    return None


async def _pass_on(exchange: Exchange, reply: Reply, headers: http.Headers, receive: Receive, send: Send) -> bytes:
    """Send a stream on, piece by piece, until it ends or the client goes; return what was sent.

    If it breaks off the client gets an error event, since the status has been sent.
    """
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    gone = asyncio.ensure_future(receive())
    pieces: list[bytes] = []
    kept = 0
    try:
        async for piece in reply.chunks():
            if gone.done():
                raise ClientGone
            await http.send_piece(send, piece, more=True)
            if kept < KEPT_BYTES:
                pieces.append(piece)
                kept += len(piece)
    except UpstreamError as error:
        exchange.status = error.status
        body = Refusal(error.status, error.code, str(error)).body()
        await http.send_piece(send, b"data: " + body + b"\n\n", more=True)
    finally:
        gone.cancel()
    await http.send_piece(send, b"", more=False)
    return b"".join(pieces)


async def _person(deployment: Deployment, exchange: Exchange, request: dict[str, Any], send: Send) -> None:
    """Wait for a person's answer and give it to the user."""
    assert deployment.people is not None
    exchange.route = "person"
    started = time.perf_counter()
    try:
        text = await deployment.people.ask(exchange.id, request["messages"])
    except UpstreamError as error:
        exchange.status = error.status
        return await http.respond(send, error.status, http.JSON, Refusal(error.status, error.code, str(error)).body())
    exchange.answers.append(Answer("person", True, time.perf_counter() - started, text=text))
    exchange.status = 200
    said = LearnerAnswer(text, "person", 0.0, 0.0)
    made = int(exchange.created)
    headers = [(ID_HEADER, exchange.id.encode())]
    if not exchange.stream:
        body = json.dumps(replies.completion(exchange.id, made, said)).encode()
        return await http.respond(send, 200, [*http.JSON, *headers], body)
    events = b"".join(replies.events(exchange.id, made, said, usage=False))
    return await http.respond(send, 200, [*headers, (b"content-type", b"text/event-stream")], events)
