"""People as a judge: which random checks wait for a person, and what a person says of one.

The order is that in which checks become mature, and depends on nothing that anybody has said of them. Nobody sees who
else has judged. Where checks are drawn: `chat.py`; what is made of the words: `evidence.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.promise.statement import Promise
from foretaste.deploy.state import State
from foretaste.deploy.store import UNDECIDED, Judgement, write_judgements
from foretaste.deploy.tables import answers, judgements, requests

Verdict = Literal["right", "wrong", "cannot_tell"]
_JUDGEMENTS: dict[str, tuple[str, float]] = {
    "right": ("person", 1.0),
    "wrong": ("person", 0.0),
    "cannot_tell": (UNDECIDED, 0.5),
}
VERDICTS: tuple[str, ...] = tuple(_JUDGEMENTS)


@dataclass(frozen=True, slots=True)
class WaitingCheck:
    """An answer of the learner that a person is asked about."""

    answer: int
    """Its number in the store."""
    messages: list[dict[str, Any]]
    """The request's."""
    text: str
    """The learner's answer, whether a user got it or not."""


def waiting(
    connection: Connection, state: State, promise: Promise, *, most: int, answer: int | None = None
) -> list[WaitingCheck]:
    """Return checks that wait for a person, the next to be mature first, or only that of one answer.

    Checks of weights that nobody tries any more, and those from before the last breach, decide nothing: left out.
    """
    if "person" not in (promise.judge, promise.second_judge):
        return []
    said = sa.select(judgements.c.answer).where(judgements.c.judge.in_(("person", UNDECIDED)))
    query = (
        sa.select(answers.c.number, answers.c.text, requests.c.body)
        .join(requests, requests.c.id == answers.c.request)
        .where(answers.c.role == "learner", answers.c.text.is_not(None), requests.c.sampled)
        .where(answers.c.checkpoint.in_([one for one in (state.checkpoint, state.candidate) if one]))
        .where(requests.c.number > state.fresh_from, answers.c.number.not_in(said))
        .order_by(requests.c.number, answers.c.number)
        .limit(most)
    )
    if promise.judge != "person":
        query = query.where(requests.c.second)
    if answer is not None:
        query = query.where(answers.c.number == answer)
    return [WaitingCheck(row.number, _messages(row.body), row.text) for row in connection.execute(query)]


def judge(connection: Connection, state: State, promise: Promise, answer: int, verdict: Verdict) -> bool:
    """Write a person's word down, inside the caller's transaction; False if the check waits for nobody (any more).

    `cannot_tell` is no judgement: the check stays unknown, and is not offered again.
    """
    if not waiting(connection, state, promise, most=1, answer=answer):
        return False
    name, score = _JUDGEMENTS[verdict]
    return bool(write_judgements(connection, [Judgement(answer, name, score)]))


def _messages(body: str | None) -> list[dict[str, Any]]:
    """Return a request's messages; the body has been read before, so that only a store's damage can make it none."""
    try:
        found = json.loads(body or "{}").get("messages", [])
    except (ValueError, AttributeError):
        return []
    return [one for one in found if isinstance(one, dict)]
