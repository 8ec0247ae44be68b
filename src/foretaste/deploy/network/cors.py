"""Browsers of other sites: the answers that let a page of an allowed origin call the API (the Fetch standard, CORS).

Without server.cors_origins no other site may. The pages for admins and people are for their own origin alone.
"""

from __future__ import annotations

from typing import Any

from foretaste.deploy.http import Headers, Scope, Send

METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD"
ACCEPTED = b"authorization, api-key, content-type, content-encoding, accept, idempotency-key, openai-beta, traceparent"
EXPOSED = b"x-foretaste-id, x-request-id, retry-after, retry-after-ms, x-should-retry"
MAX_AGE = b"600"


def allowed_origin(scope: Scope, origins: tuple[str, ...]) -> bytes | None:
    """Return the origin of a request, where it may read the answer."""
    if scope["path"].startswith(("/admin", "/people")):
        return None
    given = next((value for name, value in scope["headers"] if name == b"origin"), None)
    return given if given is not None and ("*" in origins or given.decode("latin-1") in origins) else None


def is_preflight(scope: Scope) -> bool:
    """Return whether a browser asks if it may send the real request."""
    return scope["method"] == "OPTIONS" and any(
        name == b"access-control-request-method" for name, _ in scope["headers"]
    )


def preflight(scope: Scope, origin: bytes) -> Headers:
    """Return the headers that let the real request come."""
    asked = next((value for name, value in scope["headers"] if name == b"access-control-request-headers"), b"")
    stainless = [one.strip() for one in asked.lower().split(b",") if one.strip().startswith((b"x-stainless-", b"x-"))]
    return [
        *_readable(origin),
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", b", ".join([ACCEPTED, *stainless[:32]])),
        (b"access-control-max-age", MAX_AGE),
    ]


def readable(send: Send, origin: bytes) -> Send:
    """Return `send` with the headers by which a page of that origin may read the answer."""

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            more = [*_readable(origin), (b"access-control-expose-headers", EXPOSED)]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sent


def _readable(origin: bytes) -> Headers:
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
