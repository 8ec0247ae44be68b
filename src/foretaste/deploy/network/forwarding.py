"""Every path of the incumbent but chats: passed through unchanged, never learned from, never written down.

Key, rate and size are checked as for chats. Method, query, body and the answer (a stream too) go through as they are.
Next: `paths.py` for where a path leads, `headers.py` for which headers pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretaste.deploy import http
from foretaste.deploy.http import Receive, Refusal, Scope, Send
from foretaste.deploy.network import headers, sending
from foretaste.deploy.network.admission import admit
from foretaste.deploy.network.paths import may_pass

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
FAMILIES = frozenset(
    (
        "assistants",
        "audio",
        "batches",
        "chat",
        "completions",
        "containers",
        "conversations",
        "embeddings",
        "evals",
        "files",
        "fine_tuning",
        "images",
        "messages",
        "models",
        "moderations",
        "organization",
        "realtime",
        "rerank",
        "responses",
        "score",
        "threads",
        "tokenize",
        "uploads",
        "vector_stores",
        "videos",
    )
)
"""Kinds of paths that are counted by name; all others are counted together."""


async def forward(deployment: Deployment, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass one request through.

    Raises: Refusal, UpstreamError, ClientGone, sending.CutOff.
    """
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    if not may_pass(raw_path) or raw_path.rstrip(b"/") == b"/v1":
        raise Refusal(404, "http_404", "There is nothing at this path.")
    admit(deployment, scope, ("user",))
    if scope["method"] not in METHODS:
        allow = [(b"allow", ", ".join(METHODS).encode())]
        raise Refusal(405, "http_405", "This path does not take this method.", headers=allow)
    upstream, server = deployment.upstream, deployment.config.server
    if upstream is None:
        raise Refusal(404, "http_404", "There is nothing at this path: people answer chats alone.")
    body = await http.read_body(scope, receive, most=server.max_body_bytes, seconds=server.body_timeout_seconds)
    sent = headers.to_incumbent(scope["headers"], upstream.hop, body=True)
    family = family_of(scope["path"])
    status = 499
    try:
        reply = await upstream.send(scope["method"], raw_path.decode("ascii"), _query(scope), body, sent)
        try:
            status = reply.status
            await sending.pass_on(reply, reply.headers, send, keep=False, head_only=scope["method"] == "HEAD")
        finally:
            reply.release()
    finally:
        deployment.metrics.passed_on.labels(family, f"{status // 100}xx").inc()


def family_of(path: str) -> str:
    """Return what a path is counted as: `responses`, `embeddings`, ... or `other`."""
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["openai", "deployments"]:
        parts = parts[3:]
    return next((part for part in parts[:2] if part in FAMILIES), "other")


def _query(scope: Scope) -> str:
    return scope["query_string"].decode("latin-1")
