"""Which headers pass: a client's to the incumbent, and the incumbent's to the client. All others stop here.

Lists of what may pass, in both directions: a header that nobody thought of is not sent on. Never among them are those
of one connection alone (RFC 9110, section 7.6.1), cookies, and the client's key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

TO_INCUMBENT = frozenset(
    {
        b"traceparent",
        b"tracestate",
        b"x-request-id",
        b"x-client-request-id",
        b"idempotency-key",
        b"x-idempotency-key",
        b"openai-beta",
        b"anthropic-beta",
        b"anthropic-version",
    }
)
"""Headers of a client that the incumbent gets with every request."""
OF_THE_BODY = frozenset(
    {b"accept", b"accept-encoding", b"content-type", b"content-encoding", b"range", b"if-match", b"if-none-match"}
)
"""Further ones where the body is passed on unchanged, both ways."""
TO_CLIENT = frozenset(
    {
        "content-type",
        "content-encoding",
        "content-disposition",
        "content-range",
        "accept-ranges",
        "etag",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-request-id",
        "request-id",
        "apim-request-id",
        "x-ms-request-id",
        "x-ms-region",
        "deprecation",
        "sunset",
    }
)
"""Headers of the incumbent's answer that the client gets, with all that begin with one of `PREFIXES`."""
PREFIXES = ("x-ratelimit-", "ratelimit", "openai-", "anthropic-ratelimit-", "x-ms-ratelimit-")
LONGEST = 4096
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")

VIA = b"via"
MOST_HOPS = 8
"""A request that has gone through so many deployments goes in a circle."""


def to_incumbent(headers: Iterable[tuple[bytes, bytes]], hop: str, *, body: bool = False) -> dict[str, str]:
    """Return a client's headers that are sent on; with `body` also those that describe a body passed on unchanged.

    `hop` is this server's entry in the header Via, by which it knows a request that comes back to it.
    """
    kept: dict[str, str] = {}
    via = hop
    for name, value in headers:
        if name in TO_INCUMBENT or (body and name in OF_THE_BODY):
            kept[name.decode("latin-1")] = value.decode("latin-1")
        elif name == VIA:
            via = f"{value.decode('latin-1')}, {hop}"
    kept["via"] = via
    return kept


def hops(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return the entries of a request's header Via."""
    found: list[str] = []
    for name, value in headers:
        if name == VIA:
            found += [one.strip() for one in value.decode("latin-1").split(",")]
    return found


def to_client(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the incumbent's headers that the client gets, in lower case."""
    kept: Headers = []
    for given, value in headers:
        name = given.lower()
        if name not in TO_CLIENT and not name.startswith(PREFIXES):
            continue
        if len(value) <= LONGEST and not _CONTROL.search(value) and _NAME.fullmatch(name):
            kept.append((name.encode(), value.encode("utf-8", "surrogateescape")))
    return kept
