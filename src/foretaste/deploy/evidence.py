"""What the store knows: the counts that `stages.decide` weighs, the answers that a threshold is chosen from.

Only random checks count, judged by the stated judges (`promise/statement.py`) and mature; what users volunteer is read
apart, by `votes` and `exposures`. Plain queries, made by the supervisor's thread and the admin page. Next:
`supervisor.py`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.analysis import Evidence, Finding
from foretaste.deploy.promise.checks import RIGHT, UNKNOWN, WRONG, ServedChecks
from foretaste.deploy.promise.statement import Promise, promise_of
from foretaste.deploy.promise.volunteers import (
    Exposure,
    Volunteers,
    Vote,
    complaint_warning,
    not_counted,
    records_of,
    total,
)
from foretaste.deploy.settings import DeployConfig
from foretaste.deploy.state import State
from foretaste.deploy.store import alarms_of, requests_seen
from foretaste.deploy.tables import answers, feedback, judgements, requests
from foretaste.deploy.takeover import Judged, Threshold

_LEARNER = answers.c.role == "learner"
NEWEST_VOTES = 5000
"""Requests back to which volunteers' feedback is read."""


class Mature(NamedTuple):
    """Which checks are mature: those of requests up to this number, and up to this time."""

    number: int
    created: float
    """Seconds since 1970."""

    @classmethod
    def of(cls, connection: Connection, promise: Promise, now: float) -> Mature:
        """Return the limit that holds at the time `now`."""
        last = requests_seen(connection) - promise.maturity_requests
        return cls(last, now - promise.maturity_seconds if promise.maturity_seconds else float("inf"))

    def holds(self) -> sa.ColumnElement[bool]:
        """Return the condition on a request."""
        return sa.and_(requests.c.number <= self.number, requests.c.created <= self.created)


def _with_words(query: Any, promise: Promise) -> tuple[Any, Any, Any]:
    """Join what each stated judge says of an answer; return the joined tables, the first judge's word, the second's."""
    columns: list[Any] = []
    for place, judge in enumerate((*promise.words, *([promise.second_judge] if promise.second_judge else []))):
        said = judgements.alias(f"said_{place}")
        query = query.outerjoin(said, sa.and_(said.c.answer == answers.c.number, said.c.judge == judge))
        columns.append(said.c.score)
    second = columns.pop() if promise.second_judge else sa.null()
    first = sa.func.coalesce(*columns) if len(columns) > 1 else columns[0] if columns else sa.null()
    return query, first.label("first"), second.label("second")


def _checks(promise: Promise, columns: list[Any]) -> Any:
    """Return a query of the learner's answers to randomly checked requests, with what each stated judge says."""
    tables, first, second = _with_words(answers.join(requests, requests.c.id == answers.c.request), promise)
    asked = sa.func.coalesce(requests.c.second, sa.false()) if promise.second_judge else sa.false()
    query = sa.select(*columns, first, second, asked.label("asked")).select_from(tables)
    return query.where(_LEARNER, requests.c.sampled)


def judged_answers(
    connection: Connection,
    checkpoint: str,
    promise: Promise,
    mature: Mature,
    *,
    fresh_from: int,
    newest: int,
    value: Literal["request", "answer"],
    correct_from: float,
) -> list[Judged]:
    """Return the newest mature checks of a checkpoint, oldest first, judged or not; none where nobody is to judge.

    Requests up to the number `fresh_from` are left out, and answers without a value, which are never served.
    """
    if promise.judge is None:
        return []
    column = answers.c.value if value == "request" else answers.c.answer_value
    query = _mature_of(_checks(promise, [column.label("v")]), checkpoint, fresh_from, mature)
    newest_first = query.where(column.is_not(None)).order_by(answers.c.number.desc()).limit(newest)

    def right(score: float | None) -> bool | None:
        return None if score is None else score >= correct_from

    rows = [
        Judged(checkpoint, float(row.v), right(row.first), right(row.second) if row.asked else None, bool(row.asked))
        for row in connection.execute(newest_first)
    ]
    return rows[::-1]


class JudgedCount(NamedTuple):
    """How many answers `judged_answers` would return without a limit."""

    kept: int
    new: int
    """Of those kept, how many belong to requests after a given one."""
    last: int
    """Number of the newest request; 0 where there is none."""


def judged_count(
    connection: Connection, checkpoint: str, promise: Promise, mature: Mature, *, fresh_from: int, after: int
) -> JudgedCount:
    """Count a checkpoint's mature checks, judged or not: all, and those of requests after the number `after`.

    When to look must not depend on what was judged: right answers may be confirmed sooner than wrong ones are found.
    """
    if promise.judge is None:
        return JudgedCount(0, 0, 0)
    since = sa.func.count().filter(requests.c.number > after)
    query = (
        sa.select(sa.func.count(), since, sa.func.max(requests.c.number))
        .select_from(answers.join(requests, requests.c.id == answers.c.request))
        .where(_LEARNER, requests.c.sampled)
    )
    counts = connection.execute(_mature_of(query, checkpoint, fresh_from, mature)).one()
    return JudgedCount(*(int(count or 0) for count in counts))


def _mature_of(query: Any, checkpoint: str, fresh_from: int, mature: Mature) -> Any:
    return query.where(answers.c.checkpoint == checkpoint, requests.c.number > fresh_from, mature.holds())


def served_checks(
    connection: Connection, checkpoint: str, promise: Promise, mature: Mature, *, after: int, correct_from: float
) -> ServedChecks:
    """Return the checks of answers that users got from a checkpoint, after the request `after`, in order."""
    columns = [requests.c.number, requests.c.created, requests.c.stage, requests.c.check_share]
    query = _checks(promise, columns).where(
        answers.c.served, answers.c.checkpoint == checkpoint, requests.c.number > after
    )
    rows = list(connection.execute(query.order_by(requests.c.number)))

    def word(score: float | None) -> int:
        return UNKNOWN if score is None else RIGHT if score >= correct_from else WRONG

    return ServedChecks(
        number=np.array([row.number for row in rows], dtype=np.int64),
        live=np.array([row.stage == "live" for row in rows], dtype=np.bool_),
        share=np.array([1.0 if row.check_share is None else row.check_share for row in rows], dtype=np.float64),
        mature=np.array([row.number <= mature.number and row.created <= mature.created for row in rows], np.bool_),
        first=np.array([word(row.first) for row in rows], dtype=np.int8),
        second=np.array([word(row.second) if row.asked else UNKNOWN for row in rows], dtype=np.int8),
        asked=np.array([bool(row.asked) for row in rows], dtype=np.bool_),
    )


def gather(
    connection: Connection,
    state: State,
    promise: Promise,
    mature: Mature,
    *,
    correct_from: float,
    threshold: Threshold | None,
    old_tasks: Finding | None,
    complaints: str = "",
) -> Evidence:
    """Return what has been seen of the present checkpoint since its stage, or step, began, and by its watch so far."""
    checkpoint = state.checkpoint or ""
    since = requests.c.number > state.since
    base = (
        sa.select(sa.func.count())
        .select_from(answers.join(requests, requests.c.id == answers.c.request))
        .where(since, _LEARNER, answers.c.checkpoint == checkpoint)
    )
    harm = sa.select(sa.func.sum(answers.c.harm)).join(requests, requests.c.id == answers.c.request)
    began = max(state.watched_from, state.fresh_from)
    watched: dict[str, Any] = {}
    if state.stage != "shadow":
        checks = served_checks(connection, checkpoint, promise, mature, after=began, correct_from=correct_from)
        watched = checks.evidence(state.since)
    return Evidence(
        checkpoint=checkpoint,
        requests=max(0, requests_seen(connection) - state.since),
        learner_answers=int(connection.scalar(base) or 0),
        served=int(connection.scalar(base.where(answers.c.served)) or 0),
        threshold=threshold,
        old_tasks=old_tasks,
        alarms=alarms_of(connection, checkpoint),
        harm=float(connection.scalar(harm.where(since, _LEARNER, answers.c.served)) or 0.0),
        trial=max(1, state.trial),
        complaints=complaints,
        **watched,
    )


# For the share of checks ----------------------------------------------------------------------


def served_live(connection: Connection, checkpoint: str, *, after: int) -> int:
    """Return how many users got an answer of the checkpoint in the live stage, after the request `after`."""
    query = (
        sa.select(sa.func.count())
        .select_from(answers.join(requests, requests.c.id == answers.c.request))
        .where(_LEARNER, answers.c.served, answers.c.checkpoint == checkpoint)
        .where(requests.c.number > after, requests.c.stage == "live")
    )
    return int(connection.scalar(query) or 0)


class Reach(NamedTuple):
    """How many of the newest answers reach the threshold."""

    reached: int
    arrived: int


def reach(connection: Connection, state: State, *, value: Literal["request", "answer"], newest: int = 500) -> Reach:
    """Return how many of the checkpoint's newest answers have a value of at least the threshold."""
    column = answers.c.value if value == "request" else answers.c.answer_value
    values = (
        sa.select(column)
        .where(_LEARNER, answers.c.checkpoint == (state.checkpoint or ""), column.is_not(None))
        .order_by(answers.c.number.desc())
        .limit(newest)
    )
    found = [float(one) for one in connection.scalars(values)]
    return Reach(sum(state.tau is not None and one >= state.tau for one in found), len(found))


# Volunteers -----------------------------------------------------------------------------------


def volunteers(connection: Connection, config: DeployConfig, state: State) -> Volunteers:
    """Return what users volunteered, their complaints since the learner was let out of the shadow."""
    correct_from = config.takeover.correct_from
    ignored = not_counted(records_of(votes(connection, promise_of(config), correct_from=correct_from)))
    after = max(state.watched_from, state.fresh_from)
    exposed = exposures(connection, after=after, correct_from=correct_from)
    warning = "" if state.stage == "shadow" else complaint_warning(exposed, ignored)
    return Volunteers(ignored, warning, total(exposed, ignored))


def votes(connection: Connection, promise: Promise, *, correct_from: float) -> list[Vote]:
    """Return what users said, or did not say, of the learner's answers that the first judge has judged.

    Of the newest requests alone; of several feedbacks on one answer the last counts.
    """
    newest = sa.select(sa.func.max(feedback.c.number).label("number")).where(feedback.c.score.is_not(None))
    last = newest.group_by(feedback.c.request).subquery("last_feedback")
    said = (
        sa.select(feedback.c.request, feedback.c.score).join(last, last.c.number == feedback.c.number).subquery("said")
    )
    served = answers.join(requests, requests.c.id == answers.c.request)
    tables, first, _ = _with_words(served.outerjoin(said, said.c.request == requests.c.id), promise)
    query = (
        sa.select(requests.c.key, said.c.score, first)
        .select_from(tables)
        .where(_LEARNER, answers.c.served, requests.c.sampled)
        .where(requests.c.number > requests_seen(connection) - NEWEST_VOTES)
        .order_by(requests.c.number)
    )
    rows = [row for row in connection.execute(query) if row.first is not None]
    return [
        Vote(row.key, None if row.score is None else row.score >= correct_from, row.first >= correct_from)
        for row in rows
    ]


def exposures(connection: Connection, *, after: int, correct_from: float) -> dict[str, Exposure]:
    """Return what each key was served after the request `after`, and what it complained about."""
    after = max(after, requests_seen(connection) - NEWEST_VOTES)
    served = (
        sa.select(requests.c.key, (requests.c.route == "learner").label("learner"), sa.func.count().label("n"))
        .where(requests.c.number > after, requests.c.route.in_(("learner", "incumbent", "person")))
        .group_by(requests.c.key, requests.c.route)
    )
    complained = (
        sa.select(
            requests.c.key,
            (requests.c.route == "learner").label("learner"),
            sa.func.count(sa.distinct(requests.c.id)).label("n"),
        )
        .join(feedback, feedback.c.request == requests.c.id)
        .where(requests.c.number > after, feedback.c.score.is_not(None), feedback.c.score < correct_from)
        .group_by(requests.c.key, requests.c.route)
    )
    found: dict[str, list[int]] = {}
    for place, query in enumerate((served, complained)):
        for row in connection.execute(query):
            found.setdefault(row.key, [0, 0, 0, 0])[2 * place + (not row.learner)] += int(row.n)
    return {key: Exposure(*counts) for key, counts in found.items()}


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
