"""Requests that no step learns from, and what published checkpoints make of them: the guard against bad lessons.

A share of the requests, drawn by a hash of the request's id, is held back from learning. Before a checkpoint is
published it answers the newest of them, and so does the best checkpoint so far; the stated judges (the verifier, or
the comparator with the incumbent's answer) say who was right. Users' words do not count here, so nobody who lies to
the learner can lie to this. Only requests drawn without regard to V are taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from scipy.stats import binom
from sqlalchemy.engine import Connection

from foretaste.deploy.judging import Comparator, Verifier
from foretaste.deploy.reading import messages_text
from foretaste.deploy.routing import draws, plain_chat
from foretaste.deploy.tables import answers, requests
from foretaste.records import Conversation, Message, Policy

SCANNED = 5000
"""Newest requests that are looked through for held-back ones."""


class Check(NamedTuple):
    """One held-back request."""

    request: str
    messages: tuple[Message, ...]
    right: Callable[[str], bool | None]
    """Whether an answer is right; None where the judges do not say."""
    seed: int


class Compared(NamedTuple):
    """What two versions made of the same checks."""

    n: int
    right: int
    """Of the newer version."""
    best_right: int
    lost: int
    """Right by the best version alone."""
    won: int
    """Right by the newer version alone."""
    chance: float
    """Of so many losses among the checks that differ, were both equally good: one-sided sign test."""


def held_back(request: str, share: float) -> bool:
    """Return whether a request is held back from learning; it follows from its id alone."""
    drawn = int.from_bytes(hashlib.sha256(f"held back {request}".encode()).digest()[:8], "big")
    return drawn / 2**64 < share


def checks(
    connection: Connection,
    *,
    share: float,
    newest: int,
    fresh_from: int,
    compare: Comparator | None,
    verify: Verifier | None,
    correct_from: float,
) -> list[Check]:
    """Return the newest held-back requests that the stated judges can judge, newest first."""
    if (compare is None and verify is None) or share <= 0 or newest <= 0:
        return []
    query = (
        sa.select(requests.c.id, requests.c.body, answers.c.text)
        .outerjoin(answers, sa.and_(answers.c.request == requests.c.id, answers.c.role != "learner"))
        .where(requests.c.sampled, requests.c.number > fresh_from, requests.c.status == 200)
        .order_by(requests.c.number.desc())
        .limit(SCANNED)
    )
    found: list[Check] = []
    for row in connection.execute(query):
        if len(found) == newest:
            break
        if not held_back(row.id, share) or (verify is None and row.text is None):
            continue
        body = messages_text(row.body)
        plain = plain_chat({"messages": body}) if body else None
        if plain is not None:
            messages = tuple(Message(one["role"], one["content"]) for one in plain)
            judge = _judge(plain, row.text, compare, verify, correct_from)
            found.append(Check(row.id, messages, judge, draws(row.id).seed))
    return found


def outcomes(policy: Policy, asked: Sequence[Check]) -> dict[str, bool]:
    """Let a policy answer each check once; return which were right, without those that nobody could judge."""
    conversations = [Conversation(one.request, list(one.messages), sample_seed=one.seed) for one in asked]
    said = policy.act(conversations) if conversations else []
    judged = {one.request: one.right(action.text) for one, action in zip(asked, said, strict=True)}
    return {request: right for request, right in judged.items() if right is not None}


def compared(newer: dict[str, bool], best: dict[str, bool]) -> Compared:
    """Compare two versions on the checks that both have answered."""
    both = [request for request in newer if request in best]
    lost = sum(best[one] and not newer[one] for one in both)
    won = sum(newer[one] and not best[one] for one in both)
    chance = float(binom.sf(lost - 1, lost + won, 0.5)) if lost else 1.0
    return Compared(len(both), sum(newer[one] for one in both), sum(best[one] for one in both), lost, won, chance)


def _judge(
    messages: list[dict[str, str]],
    reference: str | None,
    compare: Comparator | None,
    verify: Verifier | None,
    correct_from: float,
) -> Callable[[str], bool | None]:
    def right(text: str) -> bool | None:
        score = verify(messages, text) if verify is not None else None
        if score is None and compare is not None and reference is not None:
            score = compare(text, reference)
        return None if score is None else score >= correct_from

    return right
