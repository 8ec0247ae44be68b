"""What the store knows: the counts that `stages.decide` weighs, the answers that a threshold is chosen from.

Plain queries, made by the supervisor's thread and the admin page. Next: `supervisor.py`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.analysis import Evidence, Finding
from foretaste.deploy.state import State
from foretaste.deploy.store import alarms_of, requests_seen
from foretaste.deploy.tables import answers, requests
from foretaste.deploy.takeover import Judged, Threshold

_LEARNER = answers.c.role == "learner"


def judged_answers(
    connection: Connection,
    checkpoint: str,
    *,
    fresh_from: int,
    newest: int,
    value: Literal["request", "answer"],
    correct_from: float,
) -> list[Judged]:
    """Return the newest judged answers of a checkpoint that were drawn without regard to their value, oldest first.

    Requests up to the number `fresh_from` are left out.
    """
    column = answers.c.value if value == "request" else answers.c.answer_value
    query = _drawn(sa.select(column.label("v"), answers.c.score), checkpoint, fresh_from)
    newest_first = query.order_by(answers.c.number.desc()).limit(newest)
    rows = connection.execute(newest_first)
    # An answer whose V is not finite is never served, so it says nothing about any threshold.
    return [Judged(checkpoint, float(row.v), row.score >= correct_from) for row in rows if row.v is not None][::-1]


class JudgedCount(NamedTuple):
    """How many answers `judged_answers` would return without a limit."""

    kept: int
    new: int
    """Of those kept, how many were judged after a given judgement."""
    last: int
    """Number of the newest judgement; 0 where there is none."""


def judged_count(connection: Connection, checkpoint: str, *, fresh_from: int, after: int) -> JudgedCount:
    """Count a checkpoint's judged answers: all that are kept, and those judged after the judgement number `after`."""
    since = sa.func.count().filter(answers.c.judged > after)
    query = sa.select(sa.func.count(), since, sa.func.max(answers.c.judged))
    counts = connection.execute(_drawn(query, checkpoint, fresh_from)).one()
    return JudgedCount(*(int(count or 0) for count in counts))


def _drawn(query: Any, checkpoint: str, fresh_from: int) -> Any:
    """Limit a query to the judged answers of a checkpoint that were drawn without regard to their value."""
    return (
        query.select_from(answers.join(requests, requests.c.id == answers.c.request))
        .where(_LEARNER, answers.c.checkpoint == checkpoint, answers.c.score.is_not(None), requests.c.sampled)
        .where(requests.c.number > fresh_from)
    )


def gather(
    connection: Connection,
    state: State,
    *,
    correct_from: float,
    threshold: Threshold | None,
    old_tasks: Finding | None,
) -> Evidence:
    """Return what has been seen of the present checkpoint since its stage, or step, began."""
    since = requests.c.number > state.since
    base = (
        sa.select(sa.func.count())
        .select_from(answers.join(requests, requests.c.id == answers.c.request))
        .where(since, _LEARNER, answers.c.checkpoint == (state.checkpoint or ""))
    )
    outcomes = (
        sa.select(answers.c.score)
        .join(requests, requests.c.id == answers.c.request)
        .where(since, _LEARNER, answers.c.served, answers.c.checkpoint == (state.checkpoint or ""))
    )
    harm = sa.select(sa.func.sum(answers.c.harm)).join(requests, requests.c.id == answers.c.request)
    scores = connection.scalars(outcomes.where(answers.c.score.is_not(None)).order_by(requests.c.number))
    right = tuple(score >= correct_from for score in scores)
    return Evidence(
        checkpoint=state.checkpoint or "",
        requests=max(0, requests_seen(connection) - state.since),
        learner_answers=int(connection.scalar(base) or 0),
        served=int(connection.scalar(base.where(answers.c.served)) or 0),
        served_judged=len(right),
        served_correct=sum(right),
        served_outcomes=right,
        threshold=threshold,
        old_tasks=old_tasks,
        alarms=alarms_of(connection, state.checkpoint or ""),
        harm=float(connection.scalar(harm.where(since, _LEARNER, answers.c.served)) or 0.0),
    )


def learner_tokens_since(connection: Connection, created: float) -> int:
    """Return the tokens that the learner has generated since a time (seconds since 1970)."""
    query = sa.select(sa.func.sum(answers.c.completion_tokens)).where(_LEARNER, answers.c.created >= created)
    return int(connection.scalar(query) or 0)


def recent(connection: Connection, *, newest: int, text_limit: int) -> list[dict[str, Any]]:
    """Return the newest requests with their answers, for the admin page; long texts are cut."""
    rows = list(connection.execute(sa.select(requests).order_by(requests.c.number.desc()).limit(newest)))
    query = sa.select(answers).where(answers.c.request.in_([row.id for row in rows])).order_by(answers.c.number)
    by_request: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(query):
        found = {name: getattr(row, name) for name in ("role", "served", "value", "answer_value", "score", "judge")}
        found |= {"text": (row.text or "")[:text_limit], "trace": row.trace, "checkpoint": (row.checkpoint or "")[:12]}
        by_request.setdefault(row.request, []).append(found)
    return [
        {
            "id": row.id,
            "created": row.created,
            "route": row.route,
            "reason": row.reason,
            "status": row.status,
            "seconds": row.seconds,
            "body": row.body,
            "answers": by_request.get(row.id, []),
        }
        for row in rows
    ]
