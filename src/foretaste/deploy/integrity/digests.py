"""A chain of what every judged answer was when it was judged, so that a score that is edited later shows.

A digest covers an answer's own row and what the stated judges say of it (`deploy_judgements`). The chain needs no key,
since its head is written into the audit log (`count`), which has one. It holds digests alone, no text. Next:
`checks.py`, which compares it with the answers that are there.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.tables import JUDGEMENTS, answers, digests, judgements, meta
from foretaste.hash_chain import GENESIS, Head, link

COLUMNS = ("number", "request", "role", "served", "checkpoint", "value", "answer_value", "harm", "score", "judge")
"""Of an answer: what thresholds and stages are decided from."""
GONE = "gone"
CHUNK = 400

Said = Sequence[tuple[str, float]]
"""What the stated judges say of one answer: (judge, score), by the judge's name."""


def write_digests(connection: Connection, numbers: Sequence[int], *, gone: bool = False) -> None:
    """Add what these answers are now to the chain, inside the caller's write transaction; `gone`: they are deleted."""
    if not numbers:
        return
    connection.execute(sa.select(meta.c.value).where(meta.c.name == JUDGEMENTS).with_for_update())  # one after another
    seq, previous = read_head(connection)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(numbers), CHUNK):
        chunk = numbers[start : start + CHUNK]
        said = _said_of(connection, judgements.c.answer.in_(chunk))
        for row in connection.execute(_rows.where(answers.c.number.in_(chunk)).order_by(answers.c.number)):
            seq += 1
            digest = GONE if gone else digest_of(row, said[row.number])
            previous = link(previous, [seq, row.number, row.created, digest])
            one = {"number": seq, "answer": row.number, "created": row.created, "digest": digest, "hash": previous}
            rows.append(one)
    if rows:
        connection.execute(digests.insert(), rows)


def read_head(connection: Connection) -> Head:
    """Return the last digest's place and hash."""
    row = connection.execute(sa.select(digests).order_by(digests.c.number.desc()).limit(1)).first()
    return Head(0, GENESIS) if row is None else Head(row.number, row.hash)


def digest_of(row: Any, said: Said) -> str:
    """Return the digest of an answer's row and of what the stated judges say of it."""
    return hashlib.sha256(json.dumps([*(getattr(row, name) for name in COLUMNS), *said]).encode()).hexdigest()


_rows = sa.select(*(answers.c[name] for name in (*COLUMNS, "created")))


def _said_of(connection: Connection, condition: Any) -> defaultdict[int, list[tuple[str, float]]]:
    """Return what the stated judges say, by the answer's number."""
    found: defaultdict[int, list[tuple[str, float]]] = defaultdict(list)
    query = sa.select(judgements).where(condition).order_by(judgements.c.answer, judgements.c.judge)
    for row in connection.execute(query):
        found[row.answer].append((row.judge, row.score))
    return found


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
    said = _said_of(connection, sa.true())
    judged = sa.or_(answers.c.score.is_not(None), answers.c.number.in_(sa.select(judgements.c.answer)))
    for row in connection.execute(_rows.where(judged)):
        digest, _ = last.pop(row.number, (None, 0.0))
        if digest is None:
            words = ", ".join([str(row.score)] if row.score is not None else [judge for judge, _ in said[row.number]])
            yield f"answer {row.number} (request {row.request}) has a score of {words} that nobody gave"
        elif digest != digest_of(row, said[row.number]):
            yield f"answer {row.number} (request {row.request}) was changed after it was judged; it says {row.score}"
    for start in range(0, len(last), CHUNK):
        numbers = list(last)[start : start + CHUNK]
        there = {row.number: row for row in connection.execute(_rows.where(answers.c.number.in_(numbers)))}
        for number in numbers:
            digest, created = last[number]
            # SQLite gives the number of a newest row that was deleted again: then another answer has it.
            found = there.get(number) if number in there and there[number].created == created else None
            if found is not None and digest != digest_of(found, ()):
                yield f"answer {number} lost its judgement outside the log"
            elif found is None and digest != GONE and created >= deleted_before:
                yield f"answer {number}, which was judged, is gone; neither retention nor anybody has deleted it"
