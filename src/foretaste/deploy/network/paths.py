"""Where a request goes at the incumbent: its path under incumbent.url, and both queries.

The deployment's root stands for the incumbent's: with incumbent.url = "https://host/v1", /v1/responses becomes
https://host/v1/responses and /tokenize becomes https://host/tokenize. Nothing above that root can be reached.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

_OUTSIDE = re.compile(rb"[\x00-\x20\x7f\\#?]")


class Target(NamedTuple):
    """An incumbent's address, taken apart."""

    origin: str
    """Scheme, host and port."""
    base: str
    """Path of incumbent.url without a slash at its end; may be empty."""
    query: str
    """Query of incumbent.url, such as api-version=2024-10-21; may be empty."""

    @classmethod
    def of(cls, url: str) -> Target:
        """Take incumbent.url apart."""
        parts = urlsplit(url)
        return cls(f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/"), parts.query)

    def under_base(self, path: str, query: str = "") -> str:
        """Return the URL of a path below incumbent.url, such as /chat/completions."""
        return _url(self.origin + self.base + path, merged(query, self.query))

    def of_request(self, path: str, query: str) -> str:
        """Return the URL that a client's path, as it was sent, stands for."""
        root = self.base.removesuffix("/v1")
        if _below(path, "/v1"):
            return self.under_base(path[3:], query)
        if (self.base and _below(path, self.base)) or _below(path, "/openai"):
            root = ""
        return _url(self.origin + root + path, merged(query, self.query))


def may_pass(raw_path: bytes) -> bool:
    """Return whether a path names something below the root: no empty or dotted segment, whatever its spelling."""
    path = raw_path
    for _ in range(3):  # a server behind the incumbent may decode again what was encoded twice
        decoded = unquote_to_bytes(path)
        segments = decoded.strip(b"/").split(b"/")
        if not decoded.startswith(b"/") or b"//" in decoded or _OUTSIDE.search(decoded.replace(b" ", b"")):
            return False
        if any(one.split(b";")[0] in (b"", b".", b"..") for one in segments):
            return False
        path = decoded
    return True


def merged(query: str, configured: str) -> str:
    """Return a client's query as it was sent, and after it what incumbent.url has and the client does not name."""
    named = {part.partition("=")[0] for part in query.split("&")}
    more = [part for part in configured.split("&") if part and part.partition("=")[0] not in named]
    return "&".join([*([query] if query else []), *more])


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder + "/")


def _url(address: str, query: str) -> str:
    return f"{address}?{query}" if query else address
