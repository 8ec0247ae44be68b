"""The few pieces of HTTP that the quick path needs, without a framework in between: bodies in, JSON and refusals out.

Errors have the shape of OpenAI's, so that its clients raise what they should.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]
SEND_SECONDS = 30.0
"""A client that reads nothing for so long is let go."""


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, code: str, message: str, *, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or []

    def body(self) -> bytes:
        """Return the error as OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        return json.dumps({"error": error}).encode()


class ClientGone(Exception):
    """The client has closed its connection, or reads nothing."""


async def read_body(scope: Scope, receive: Receive, *, most: int, seconds: float) -> bytes:
    """Return the request's body.

    Raises: Refusal (413 for a larger one, 408 for one that does not arrive), ClientGone.
    """
    length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
    too_large = Refusal(
        413, "too_large", f"The request is larger than {most} bytes.", headers=[(b"connection", b"close")]
    )
    if length is not None and length.isdigit() and int(length) > most:
        raise too_large
    message = await _first(receive, seconds)
    body = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > most:
            raise too_large
        return body
    pieces, size = [body], len(body)
    try:
        async with asyncio.timeout(seconds):
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > most:
                    raise too_large
    except TimeoutError as error:
        raise _slow() from error
    return b"".join(pieces)


async def _first(receive: Receive, seconds: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError as error:
        raise _slow() from error
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


def _slow() -> Refusal:
    return Refusal(408, "too_slow", "The request's body did not arrive in time.", headers=[(b"connection", b"close")])


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
    )
    await send_piece(send, body, more=False)


async def send_piece(send: Send, body: bytes, *, more: bool) -> None:
    """Send a part of an answer's body.

    Raises: ClientGone if the client takes nothing for `SEND_SECONDS`.
    """
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": body, "more_body": more})
    except TimeoutError as error:
        raise ClientGone from error


def has_body(scope: Scope) -> bool:
    """Return whether a request's head announces a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ") != b"")
        for name, value in scope["headers"]
    )


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body.

    Raises: Refusal 400 for anything else.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "not_json", "The request's body is not valid JSON.") from error
    if not isinstance(found, dict):
        raise Refusal(400, "not_an_object", "The request's body must be a JSON object.")
    return found
