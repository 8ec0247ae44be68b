"""Who answers a request: draws that depend on its id alone, what the learner can do at all, and what the state permits.

Both draws are hashes of the request's id: nobody chooses them, and they can be computed again. What the learner can do
is listed in `network/request_settings.py`. Next: `chat.py`.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from foretaste.deploy.network.request_settings import unsupported_setting
from foretaste.deploy.state import State

LIMITS = ("max_tokens", "max_completion_tokens")
"""Limits on an answer's tokens; a longer answer of the learner is not given."""


VALUE_NOT_FINITE = "value_not_finite"
"""Why an answer is kept back whose V is NaN or infinite: damaged weights, or a forward pass that overflowed."""


class Draws(NamedTuple):
    """Independent numbers that belong to a request."""

    share: float
    """Below the share: the learner may answer."""
    check: float
    """Below the share of checks: both answer, whatever V says."""
    seed: int
    """Of the learner's random stream."""
    second: float
    """In [0, 1) too; below its share: the second judge is asked about a check."""


def draws(identity: str) -> Draws:
    """Return the draws of a request's id."""
    digest = hashlib.sha256(identity.encode()).digest()
    share, check, seed, second = (int.from_bytes(digest[start : start + 8], "big") for start in (0, 8, 16, 24))
    return Draws(share / 2**64, check / 2**64, seed >> 1, second / 2**64)


def plain_chat(request: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the messages as {role, content} of plain text, or None if the learner cannot answer such a request."""
    if unsupported_setting(request):
        return None
    plain: list[dict[str, Any]] = []
    for message in request["messages"]:
        role, content = message["role"], message["content"]
        if isinstance(content, list):
            content = "".join(part["text"] for part in content)
        plain.append({"role": "system" if role == "developer" else role, "content": content})
    return plain


def most_tokens(request: dict[str, Any]) -> int | None:
    """Return how many tokens the answer to a request may have; None if it sets no limit."""
    return min((request[name] for name in LIMITS if request.get(name) is not None), default=None)


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
