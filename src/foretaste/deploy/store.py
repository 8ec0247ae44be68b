"""Read and write a deployment's store: exchanges, answers, feedback. What was acknowledged is on disk.

The functions take a connection of the caller's transaction, so that the writer's thread commits many at once.
`judge` decides what an answer was worth when a second answer or somebody's feedback arrives. Next: `writer.py`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy import reading
from foretaste.deploy.integrity.digests import write_digests
from foretaste.deploy.judging import Comparator
from foretaste.deploy.records import Accepted, Answer, Exchange, Feedback, LateAnswer, Verdict
from foretaste.deploy.tables import (
    JUDGEMENTS,
    REQUESTS,
    answers,
    checkpoints,
    feedback,
    judgements,
    keys,
    meta,
    requests,
)
from foretaste.errors import DeployError
from foretaste.strict_json import to_json

CHUNK = 400
"""Ids in one query."""
MOST_FEEDBACK = 20
"""Feedbacks that one response may get."""
UNDECIDED = "undecided"
"""In place of a judge: a person could not tell. It is nobody's word, and its score means nothing."""


class FeedbackRefused(DeployError):
    """A feedback that is not taken; `status` is the HTTP status to answer with, `code` names the reason."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def write_exchanges(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """Write requests with the answers that came with them."""
    rows: list[dict[str, Any]] = []
    answered: list[dict[str, Any]] = []
    before = _take_numbers(connection, REQUESTS, len(exchanges))
    for place, one in enumerate(exchanges, 1):
        upstream_id = None
        for answer in one.answers:
            row, identity = _answer_row(one.id, answer, one.created)
            upstream_id = upstream_id or identity
            answered.append(row)
        rows.append(
            {
                "number": before + place,
                "id": one.id,
                "upstream_id": upstream_id,
                "key": one.key,
                "created": one.created,
                "stage": one.stage,
                "drawn": one.drawn,
                "sampled": one.sampled,
                "check_share": one.check_share,
                "second": one.second,
                "route": one.route,
                "reason": one.reason[:64],
                "stream": one.stream,
                "status": one.status,
                "seconds": one.seconds,
                "body": storable(one.body.decode("utf-8", "replace")),
            }
        )
    if rows:
        connection.execute(requests.insert(), rows)
    if answered:
        connection.execute(answers.insert(), answered)


def write_late(connection: Connection, late: Sequence[LateAnswer]) -> None:
    """Write answers that came after the user's."""
    rows = [_answer_row(one.request, one.answer, time.time())[0] for one in late]
    if rows:
        connection.execute(answers.insert(), rows)


def write_verdicts(connection: Connection, verdicts: Sequence[Verdict]) -> None:
    """Write what the verifier says of answers; agreement with the incumbent gives way to it, a user's word does not."""
    for one in verdicts:
        query = sa.select(answers.c.number, answers.c.judge).where(
            answers.c.request == one.request, answers.c.role == "learner"
        )
        rows = list(connection.execute(query.order_by(answers.c.number)))
        # Of several (a candidate answers too) it is about the one that came with the request, the first.
        write_judgements(connection, [Judgement(row.number, "verifier", one.score) for row in rows[:1]])
        number = next((row.number for row in rows if row.judge in (None, "comparator")), None)
        if number is not None:
            set_score(connection, number, one.score, "verifier")


class Judgement(NamedTuple):
    """What a stated judge says of one answer."""

    answer: int
    judge: str
    """comparator, verifier or person; `UNDECIDED` for a person who could not tell."""
    score: float


def write_judgements(connection: Connection, found: Sequence[Judgement]) -> int:
    """Write down what stated judges say; of each judge the first word about an answer holds. Return how many are new.

    Nothing that a user volunteers gets here, and nothing here is ever taken back.
    """
    new = 0
    for start in range(0, len(found), CHUNK):
        chunk = found[start : start + CHUNK]
        known = judged_by(connection, [one.answer for one in chunk])
        rows = {(one.answer, one.judge): one for one in chunk if (one.answer, one.judge) not in known}
        if rows:
            now = time.time()
            connection.execute(judgements.insert(), [{**one._asdict(), "created": now} for one in rows.values()])
            write_digests(connection, sorted({number for number, _ in rows}))
        new += len(rows)
    return new


def judged_by(connection: Connection, numbers: Sequence[int]) -> set[tuple[int, str]]:
    """Return which of these answers, a few hundred at most, each stated judge has judged."""
    query = sa.select(judgements.c.answer, judgements.c.judge).where(judgements.c.answer.in_(numbers))
    return {(int(row.answer), str(row.judge)) for row in connection.execute(query)}


def judge(connection: Connection, ids: Iterable[str], compare: Comparator | None, *, correct_from: float) -> int:
    """Judge the learner's unjudged answers to these requests; return how many were judged.

    A correction that came before the answer judges it; else it is compared with the incumbent's answer, and what a
    user has said of that one counts as if it had come afterwards (`write_feedback`).
    """
    wanted, judged = list(dict.fromkeys(ids)), 0
    columns = [answers.c[name] for name in ("number", "request", "role", "served", "text", "score", "judge")]
    for start in range(0, len(wanted) if compare else 0, CHUNK):
        chunk = wanted[start : start + CHUNK]
        by_request: dict[str, list[Any]] = {}
        query = sa.select(*columns).where(answers.c.request.in_(chunk))
        for row in connection.execute(query.order_by(answers.c.number)):
            by_request.setdefault(row.request, []).append(row)
        corrections = corrections_of(connection, chunk)
        _compare_all(connection, by_request.values(), compare)
        for request, rows in by_request.items():
            for row in rows:
                if compare is None or row.role != "learner" or row.text is None or row.judge not in (None, "verifier"):
                    continue
                found = _first_judgement(row, rows, corrections.get(request), compare, correct_from)
                if found is not None:
                    set_score(connection, row.number, *found)
                    judged += 1
    return judged


def _compare_all(connection: Connection, exchanges: Iterable[Sequence[Any]], compare: Comparator | None) -> None:
    """Write down the comparator's word on each answer of the learner, whatever users have said of it or of the other's.

    A word that users say against the incumbent's answer takes nothing back here: hard requests would vanish with it.
    """
    pairs: list[tuple[Any, str]] = []
    for rows in exchanges:
        other = next((one.text for one in rows if one.role != "learner" and one.text is not None), None)
        if other is not None:
            pairs += [(row, other) for row in rows if row.role == "learner" and row.text is not None]
    known = judged_by(connection, [row.number for row, _ in pairs])
    found: list[Judgement] = []
    for row, other in pairs:
        score = compare(row.text, other) if compare and (row.number, "comparator") not in known else None
        if score is not None:
            found.append(Judgement(row.number, "comparator", score))
    write_judgements(connection, found)


def _first_judgement(
    row: Any, rows: Sequence[Any], correction: str | None, compare: Comparator, correct_from: float
) -> tuple[float, str] | None:
    """Return score and judge of a learner's answer that has none yet, or a verifier's; None to leave it as it is."""
    score = None if correction is None else compare(row.text, correction)
    if score is not None:
        return score, "user"
    other = next((one for one in rows if one.role != "learner" and one.text is not None), None)
    score = None if other is None or row.score is not None else compare(row.text, other.text)
    if other is None or score is None:
        return None
    verdict = _carried_over(score, other.score, correct_from) if other.served else _UNCHANGED
    if verdict is _UNCHANGED:
        return score, "comparator"
    return None if verdict is None else (verdict, "user")


def corrections_of(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Return the newest correction of each of these requests that has one."""
    query = sa.select(feedback.c.request, feedback.c.text).where(
        feedback.c.request.in_(ids), feedback.c.kind == "correction", feedback.c.text.is_not(None)
    )
    return {row.request: row.text for row in connection.execute(query.order_by(feedback.c.number))}


def set_score(connection: Connection, number: int, score: float | None, judge_name: str | None) -> None:
    """Write a judgement; the newest holds, and takes the next place in the order of judgements."""
    place = None if score is None else _take_numbers(connection, JUDGEMENTS, 1) + 1
    values = {"score": score, "judge": judge_name, "judged": place}
    connection.execute(answers.update().where(answers.c.number == number).values(**values))
    write_digests(connection, [number])


def write_feedback(
    connection: Connection, given: Feedback, compare: Comparator | None, *, correct_from: float
) -> Accepted:
    """Write one feedback and what it says about the answers.

    A score is about the answer that the user got. If that was the incumbent's, the learner's silent answer takes
    the score over where the two agree, and loses its judgement where the incumbent was wrong and they differ.
    A correction judges every answer by comparison.

    Raises: FeedbackRefused for an id that this key never got, an ambiguous one, or the same feedback again.
    """
    request = _find(connection, given)
    count = sa.select(sa.func.count()).select_from(feedback).where(feedback.c.request == request)
    if connection.scalar(count.where(feedback.c.digest == given.digest)):
        raise FeedbackRefused(409, "feedback_replayed", "This feedback was given before; it counts once.")
    if (connection.scalar(count) or 0) >= MOST_FEEDBACK:
        raise FeedbackRefused(409, "too_much_feedback", f"A response takes at most {MOST_FEEDBACK} feedbacks.")
    connection.execute(
        feedback.insert().values(
            request=request,
            key=given.key,
            created=time.time(),
            kind=given.kind,
            score=given.score,
            text=storable(given.text),
            digest=given.digest,
        )
    )
    rows = list(connection.execute(sa.select(answers).where(answers.c.request == request).order_by(answers.c.number)))
    served = next((row.role for row in rows if row.served), "nobody")
    for row in rows:
        score = _score(row, served, given, compare, correct_from)
        if score is not _UNCHANGED:
            set_score(connection, row.number, score, None if score is None else "user")
    return Accepted(request, served)


_UNCHANGED: Any = object()


def _score(row: Any, served: str, given: Feedback, compare: Comparator | None, correct_from: float) -> Any:
    """Return the new score of one answer, None to take its judgement back, or `_UNCHANGED`."""
    if given.kind == "correction":
        if compare is None or row.text is None or given.text is None:
            return _UNCHANGED
        found = compare(row.text, given.text)
        return _UNCHANGED if found is None else found
    if row.served:
        return given.score
    if row.role != "learner" or served == "learner" or row.judge != "comparator":
        return _UNCHANGED
    return _carried_over(row.score, given.score, correct_from)


def _carried_over(agreement: float, score: float | None, correct_from: float) -> Any:
    """Return what a score of the answer that was given makes of the score of one that agrees with it so far."""
    if score is None:
        return _UNCHANGED
    if agreement >= correct_from:
        return score
    return None if score < correct_from else _UNCHANGED


def _find(connection: Connection, given: Feedback) -> str:
    """Return the id of the request that a key may speak about: one of its own, or of a key of the same name."""
    named = sa.select(keys.c.name).where(keys.c.id == given.key).scalar_subquery()
    of_owner = sa.select(keys.c.id).where(keys.c.name == named, keys.c.scope == "user")
    query = sa.select(requests.c.id).where(sa.or_(requests.c.key == given.key, requests.c.key.in_(of_owner)))
    own = connection.scalar(query.where(requests.c.id == given.response))
    if own is not None:
        return str(own)
    found = list(connection.scalars(query.where(requests.c.upstream_id == given.response).limit(2)))
    if len(found) > 1:
        raise FeedbackRefused(
            409,
            "ambiguous_response_id",
            "Several answers of the incumbent carry this id; use the one in the response's header x-foretaste-id.",
        )
    if not found:
        raise FeedbackRefused(404, "unknown_response_id", "This key has received no response with this id.")
    return str(found[0])


def _answer_row(request: str, answer: Answer, created: float) -> tuple[dict[str, Any], str | None]:
    """Return the row of an answer, and the id in its body."""
    found = reading.NOTHING
    if answer.raw is not None:
        found = reading.read(answer.raw, answer.content_type, answer.content_encoding)
    learner = answer.learner
    text = learner.text if learner else answer.text if answer.text is not None else found.text
    row = {
        "request": request,
        "role": answer.role,
        "served": answer.served,
        "created": created,
        "text": storable(text),
        "checkpoint": learner.checkpoint if learner else None,
        "value": _number(learner.value) if learner else None,
        "answer_value": _number(learner.answer_value) if learner else None,
        "prompt_tokens": learner.prompt_tokens if learner else found.prompt_tokens,
        "completion_tokens": learner.completion_tokens if learner else found.completion_tokens,
        "seconds": answer.seconds,
        "harm": answer.harm,
        "score": answer.verdict,
        "judge": None if answer.verdict is None else "verifier",
        "trace": to_json(learner.trace, separators=(",", ":")) if learner and learner.trace else None,
    }
    return row, storable(found.id)


def _number(value: float) -> float | None:
    """Return V, or None for one that is not finite: databases differ in what they make of NaN."""
    return value if math.isfinite(value) else None


def number_judged(connection: Connection, ids: Sequence[str]) -> None:
    """Give answers that a verifier judged at once their place in the order of judgements."""
    for start in range(0, len(ids), CHUNK):
        query = sa.select(answers.c.number, answers.c.role, answers.c.score, answers.c.judge).where(
            answers.c.request.in_(ids[start : start + CHUNK]), answers.c.score.is_not(None), answers.c.judged.is_(None)
        )
        rows = list(connection.execute(query.order_by(answers.c.number)))
        verified = [row for row in rows if row.role == "learner" and row.judge == "verifier"]
        write_judgements(connection, [Judgement(row.number, "verifier", row.score) for row in verified])
        numbers = [row.number for row in rows]
        before = _take_numbers(connection, JUDGEMENTS, len(numbers))
        for place, number in enumerate(numbers, before + 1):
            connection.execute(answers.update().where(answers.c.number == number).values(judged=place))
        write_digests(connection, numbers)


def requests_seen(connection: Connection) -> int:
    """Return how many requests the deployment has ever written down; deletion of old ones changes nothing."""
    return _last_number(connection, REQUESTS)


def judgements_made(connection: Connection) -> int:
    """Return the place of the last judgement, counted as `requests_seen` counts."""
    return _last_number(connection, JUDGEMENTS)


def _last_number(connection: Connection, counter: str) -> int:
    return int(connection.scalar(sa.select(meta.c.value).where(meta.c.name == counter)) or 0)


def _take_numbers(connection: Connection, counter: str, count: int) -> int:
    """Take the next `count` numbers; return the one before them."""
    if count == 0:
        return _last_number(connection, counter)
    row = meta.c.name == counter
    before = int(connection.scalar(sa.select(meta.c.value).where(row).with_for_update()) or 0)
    connection.execute(meta.update().where(row).values(value=str(before + count)))
    return before


def add_checkpoint(connection: Connection, identity: str, path: str, parent: str | None, note: dict[str, Any]) -> None:
    """Write down a checkpoint that training made, for the server to take up."""
    connection.execute(
        checkpoints.insert().values(id=identity, path=path, parent=parent, created=time.time(), note=to_json(note))
    )


def add_alarms(connection: Connection, parent: str, alarms: Sequence[str], *, kept: str | None = None) -> None:
    """Write alarms of training down against the checkpoints that it made from `parent`: those after `kept`, or all."""
    newest = connection.scalar(sa.select(sa.func.max(checkpoints.c.number)).where(checkpoints.c.id == kept)) or 0
    made = sa.select(checkpoints).where(checkpoints.c.parent == parent, checkpoints.c.number > newest)
    for row in list(connection.execute(made)):
        note = to_json({**json.loads(row.note), "alarms": list(alarms)})
        connection.execute(checkpoints.update().where(checkpoints.c.number == row.number).values(note=note))


def alarms_of(connection: Connection, checkpoint: str) -> tuple[str, ...]:
    """Return the alarms that training raised about a checkpoint; none for one that was not made on the job."""
    query = sa.select(checkpoints.c.note).where(checkpoints.c.id == checkpoint).order_by(checkpoints.c.number.desc())
    note = connection.scalar(query.limit(1))
    return tuple(json.loads(note).get("alarms", ())) if note else ()


def storable(text: str | None) -> str | None:
    """Return text that every database takes: without NUL characters and lone surrogates."""
    if text is None:
        return None
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
