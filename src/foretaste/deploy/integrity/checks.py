"""Hold every table of the store against the audit log: what `foretaste audit verify` does, and a server every minute.

`count` writes into the log what is there (rows, counters, the head of the judgements' digests), so that tables that
were emptied and scores that were edited are found later. Next: `opening.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy import audit
from foretaste.deploy.integrity import digests
from foretaste.deploy.integrity.log_reader import LogReader, follow
from foretaste.deploy.tables import answers, checkpoints, feedback, judgements, meta, requests
from foretaste.hash_chain import Head

COUNTED = (requests, answers, feedback, judgements, checkpoints)
MOST = 20
"""Differences that are named; further ones are counted."""


def count(connection: Connection, key: bytes) -> bool:
    """Write into the log what the store holds, unless that is there already; return whether an entry was added."""
    reader = follow(connection, key)
    rows = {table.name: _rows(connection, table) for table in COUNTED}
    counters = _counters(connection)
    head = digests.read_head(connection)
    if (rows, counters, head) == (reader.rows, reader.counters, reader.digests) or not (any(rows.values()) or head.seq):
        return False
    payload: dict[str, Any] = {"rows": rows, "counters": counters, "digests": list(head)}
    audit.append(connection, key, "counted", "server", payload)
    return True


def adopt_judgements(connection: Connection, key: bytes) -> None:
    """Begin the chain of judgements of a store that had none, with the scores that it holds; it trusts them, once."""
    if digests.read_head(connection).seq or follow(connection, key).digests.seq:
        return
    judged = sa.or_(answers.c.score.is_not(None), answers.c.number.in_(sa.select(judgements.c.answer)))
    digests.write_digests(connection, sorted(connection.scalars(sa.select(answers.c.number).where(judged))))


def quick_differences(connection: Connection, reader: LogReader) -> list[str]:
    """Return, in words, where state, keys, rows and counters are not what the log says."""
    found = [*audit.state_differences(connection, reader), *audit.key_differences(connection, reader)]
    for table in COUNTED:
        least, there = reader.rows.get(table.name, 0), _rows(connection, table)
        if there < least:
            found.append(f"{table.name} holds {there} rows, but at least {least} by the log: rows were deleted")
    counters = _counters(connection)
    for name, least in reader.counters.items():
        if counters.get(name, 0) < least:
            found.append(f"the counter {name!r} was set back to {counters.get(name, 0)}; it was {least}")
    planted = [row.id for row in connection.execute(sa.select(checkpoints)) if row.id not in reader.checkpoints]
    found += [f"the checkpoint {one[:12]} was put in outside the log" for one in planted]
    return found


def differences(connection: Connection, key: bytes, heads: Sequence[Head] = ()) -> list[str]:
    """Return, in words, everything in the store that is not what the log says.

    Raises: DeployError for a log that was itself changed, or is not the one whose heads were kept.
    """
    reader = audit.read_chain(connection, key, kept=heads)
    found = quick_differences(connection, reader)
    more = digests.differences(connection, reader.digests, reader.deleted_before)
    for place, one in enumerate(more):
        if place < MOST:
            found.append(one)
        elif place == MOST:
            found.append("and more judgements")
    return found


def _rows(connection: Connection, table: sa.Table) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def _counters(connection: Connection) -> dict[str, int]:
    query = sa.select(meta.c.name, meta.c.value).where(meta.c.name != "version")
    return {row.name: int(row.value) for row in connection.execute(query) if row.value.isdigit()}
