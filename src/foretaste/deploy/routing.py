"""Who answers a request: draws that depend on its id alone, what the learner can do at all, and what the state permits.

Both draws are hashes of the request's id: nobody chooses them, and they can be computed again. Next: `chat.py`.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from foretaste.deploy.state import State

UNSUPPORTED = (
    "tools",
    "functions",
    "tool_choice",
    "response_format",
    "logprobs",
    "logit_bias",
    "stop",
    "modalities",
    "audio",
    "prediction",
)
"""Settings of a request that the learner cannot honour; such requests are the incumbent's.

Temperature, top_p, seed and penalties are not among them, though they are not honoured: most clients send some, and the
learner's answers are sampled as `learner.temperature` says, so that it can learn from them.
"""
LIMITS = ("max_tokens", "max_completion_tokens")
"""Limits on an answer's tokens; a longer answer of the learner is not given."""
ROLES = ("system", "user", "assistant")


VALUE_NOT_FINITE = "value_not_finite"
"""Why an answer is kept back whose V is NaN or infinite: damaged weights, or a forward pass that overflowed."""


class Draws(NamedTuple):
    """Two independent numbers in [0, 1) that belong to a request."""

    share: float
    """Below the share: the learner may answer."""
    check: float
    """Below the share of checks: both answer, whatever V says."""
    seed: int
    """Of the learner's random stream."""


def draws(identity: str) -> Draws:
    """Return the draws of a request's id."""
    digest = hashlib.sha256(identity.encode()).digest()
    share, check, seed = (int.from_bytes(digest[start : start + 8], "big") for start in (0, 8, 16))
    return Draws(share / 2**64, check / 2**64, seed >> 1)


def plain_chat(request: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the messages as {role, content} of plain text, or None if the learner cannot answer such a request."""
    if any(request.get(name) for name in UNSUPPORTED) or request.get("n", 1) not in (1, None):
        return None
    if not isinstance(request.get("stream_options"), dict | None) or any(limit < 1 for limit in _limits(request)):
        return None
    plain: list[dict[str, Any]] = []
    for message in request["messages"]:
        role, content = message.get("role"), message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            texts = [part for part in parts if isinstance(part, str)]
            content = "".join(texts) if len(texts) == len(parts) else None
        if role == "developer":
            role = "system"
        if role not in ROLES or not isinstance(content, str) or message.get("tool_calls"):
            return None
        plain.append({"role": role, "content": content})
    return plain if plain and plain[-1]["role"] == "user" else None


def most_tokens(request: dict[str, Any]) -> int | None:
    """Return how many tokens the answer to a request may have; None if it sets no limit."""
    return min(_limits(request), default=None)


def _limits(request: dict[str, Any]) -> list[int]:
    """Return the limits of a request; 0 stands for one that is no number of tokens."""
    given = [request[name] for name in LIMITS if request.get(name) is not None]
    return [one if isinstance(one, int) and not isinstance(one, bool) else 0 for one in given]


def kept_back(state: State, *, killed: bool, checkpoint: str | None, share: float, tokens: int, healthy: bool) -> str:
    """Return why the learner may not answer this user, or "" if it may.

    `checkpoint` is what is loaded now: the threshold belongs to one checkpoint and says nothing about another.
    """
    if killed or state.killed:
        return "killed"
    if not state.may_serve:
        return "not_permitted"
    if state.stage == "shadow":
        return "shadow"
    if share >= min(state.share, state.share_ceiling):
        return "not_drawn"
    if state.tau is None:
        return "no_threshold"
    if checkpoint is None or checkpoint != state.checkpoint:
        return "not_loaded"
    if tokens >= state.tokens_per_day:
        return "token_cap"
    return "" if healthy else "store_failing"
