"""A chain of what every judged answer was when it was judged, so that a score that is edited later shows.

The chain needs no key, since its head is written into the audit log (`count`), which has one. It holds digests alone,
no text. Next: `checks.py`, which compares it with the answers that are there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.tables import JUDGEMENTS, answers, digests, meta
from foretaste.hash_chain import GENESIS, Head, link

COLUMNS = ("number", "request", "role", "served", "checkpoint", "value", "answer_value", "harm", "score", "judge")
"""Of an answer: what thresholds and stages are decided from."""
GONE = "gone"
CHUNK = 400


def write_digests(connection: Connection, numbers: Sequence[int], *, gone: bool = False) -> None:
    """Add what these answers are now to the chain, inside the caller's write transaction; `gone`: they are deleted."""
    if not numbers:
        return
    connection.execute(sa.select(meta.c.value).where(meta.c.name == JUDGEMENTS).with_for_update())  # one after another
    seq, previous = read_head(connection)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(numbers), CHUNK):
        query = sa.select(answers).where(answers.c.number.in_(numbers[start : start + CHUNK]))
        for row in connection.execute(query.order_by(answers.c.number)):
            seq += 1
            digest = GONE if gone else digest_of(row)
            previous = link(previous, [seq, row.number, row.created, digest])
            one = {"number": seq, "answer": row.number, "created": row.created, "digest": digest, "hash": previous}
            rows.append(one)
    if rows:
        connection.execute(digests.insert(), rows)


def read_head(connection: Connection) -> Head:
    """Return the last digest's place and hash."""
    row = connection.execute(sa.select(digests).order_by(digests.c.number.desc()).limit(1)).first()
    return Head(0, GENESIS) if row is None else Head(row.number, row.hash)


def digest_of(row: Any) -> str:
    """Return the digest of an answer's row."""
    return hashlib.sha256(json.dumps([getattr(row, name) for name in COLUMNS]).encode()).hexdigest()


def differences(connection: Connection, logged: Head, deleted_before: float) -> Iterator[str]:
    """Yield, in words, where answers are not what they were when they were judged.

    `logged` is the head that the audit log holds; answers from before `deleted_before` may be missing.
    """
    last: dict[int, tuple[str, float]] = {}
    seq, previous = 0, GENESIS
    for row in connection.execute(sa.select(digests).order_by(digests.c.number)):
        seq, previous = seq + 1, link(previous, [row.number, row.answer, row.created, row.digest])
        if (row.number, row.hash) != (seq, previous):
            yield f"the judgement {seq} was removed or changed (digest of answer {row.answer})"
            return
        if seq == logged.seq and previous != logged.hash:
            yield f"the judgements up to {seq} are not those whose digest is in the log"
            return
        last[row.answer] = (row.digest, row.created)
    if seq < logged.seq:
        yield f"{logged.seq - seq} of {logged.seq} judgements were removed (the last that is there is {seq})"
        return
    for row in connection.execute(sa.select(answers).where(answers.c.score.is_not(None))):
        digest, _ = last.pop(row.number, (None, 0.0))
        if digest is None:
            yield f"answer {row.number} (request {row.request}) has a score of {row.score} that nobody gave"
        elif digest != digest_of(row):
            yield f"answer {row.number} (request {row.request}) was changed after it was judged; it says {row.score}"
    for start in range(0, len(last), CHUNK):
        numbers = list(last)[start : start + CHUNK]
        there = {row.number: row for row in connection.execute(sa.select(answers).where(answers.c.number.in_(numbers)))}
        for number in numbers:
            digest, created = last[number]
            if number in there and digest != digest_of(there[number]):
                yield f"answer {number} lost its judgement outside the log"
            elif number not in there and digest != GONE and created >= deleted_before:
                yield f"answer {number}, which was judged, is gone; neither retention nor anybody has deleted it"
