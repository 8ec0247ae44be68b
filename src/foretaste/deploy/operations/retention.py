"""Delete old records in portions, so that feedback never waits for it, and give their space back.

Each portion is a short transaction with its own entry in the audit log, which counts what is gone. SQLite files that
were made by this version give the space back to the disk at once; older ones, with `foretaste deploy compact`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from foretaste.deploy import audit
from foretaste.deploy.database import reading, writing
from foretaste.deploy.tables import answers, feedback, judgements, requests
from foretaste.errors import DeployError

FIRST, MOST = 200, 5_000
"""Requests of the first portion, and of the largest."""
PORTION_SECONDS = 0.05
"""What a portion should take; the next one's size follows it."""
PAUSE_SECONDS = 0.02
"""Between portions, so that whoever waits to write comes first."""
PAGES = 2_000
"""That are given back in one transaction."""


class Deleted(NamedTuple):
    """Rows that one portion has deleted, by table."""

    requests: int
    answers: int
    feedback: int
    judgements: int

    def by_table(self) -> dict[str, int]:
        """Return them by the tables' names, as the log counts them."""
        tables = (requests, answers, feedback, judgements)
        return {table.name: count for table, count in zip(tables, self, strict=True)}


def retain(engine: Engine, key: bytes, before: float, *, stop: threading.Event | None = None) -> int:
    """Delete requests, answers and feedback from before a time (seconds since 1970); return how many requests."""
    size, total = FIRST, 0
    while stop is None or not stop.is_set():
        began = time.monotonic()
        with writing(engine) as connection:
            found = list(connection.scalars(_oldest(requests.c.id, requests.c.created, before, size)))
            gone = _delete_old(connection, found, before, size)
            if any(gone):
                deleted = {"requests_deleted": gone.requests, "deleted": gone.by_table(), "before": before}
                audit.append(connection, key, "retention", "server", deleted)
        total += gone.requests
        if not any(gone):
            break
        spent = time.monotonic() - began
        size = max(20, min(MOST, int(size * min(2.0, PORTION_SECONDS / max(spent, 1e-4)))))
        time.sleep(PAUSE_SECONDS)
    if total:
        give_back(engine, stop=stop)
    return total


def _oldest(column: Any, created: Any, before: float, size: int) -> Any:
    return sa.select(column).where(created < before).order_by(created).limit(size)


def _delete_old(connection: Connection, ids: Sequence[str], before: float, size: int) -> Deleted:
    """Delete these requests, and answers and feedback that are themselves old: what came late stays longer.

    What judges say goes with the answer that it is about.
    """
    old, told = (
        list(connection.scalars(_oldest(table.c.number, table.c.created, before, 2 * size)))
        for table in (answers, feedback)
    )
    return Deleted(
        requests=delete_in(connection, requests.c.id, list(ids)),
        answers=delete_in(connection, answers.c.number, old),
        feedback=delete_in(connection, feedback.c.number, told),
        judgements=delete_in(connection, judgements.c.answer, old),
    )


def delete_in(connection: Connection, column: sa.Column[Any], values: list[Any]) -> int:
    """Delete the rows whose `column` holds one of these values, a few hundred at a time; return how many."""
    total = 0
    for start in range(0, len(values), 400):
        total += connection.execute(sa.delete(column.table).where(column.in_(values[start : start + 400]))).rowcount
    return total


def give_back(engine: Engine, *, stop: threading.Event | None = None) -> None:
    """Give free pages of an SQLite file back to the disk, some at a time; other databases do that themselves."""
    if engine.dialect.name != "sqlite":
        return
    while stop is None or not stop.is_set():
        with writing(engine) as connection:
            free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0)
            kept_track = connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() == 2
            if free == 0 or not kept_track:
                break
            raw: Any = connection.connection.driver_connection
            raw.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()  # it works for as long as rows are asked for
        time.sleep(PAUSE_SECONDS)
    with reading(engine) as connection:
        connection.rollback()  # a checkpoint needs a connection without a transaction
        raw = connection.connection.driver_connection
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def compact(engine: Engine) -> tuple[int, int]:
    """Rewrite an SQLite file without its free pages, and have it keep track of them; return its bytes before and after.

    Nobody else can write meanwhile. Raises: DeployError for another database, or where there is no space.
    """
    if engine.dialect.name != "sqlite":
        raise DeployError("Only SQLite stores are compacted; PostgreSQL does it by itself (autovacuum)")
    sizes: list[int] = []
    with reading(engine) as connection:
        connection.rollback()
        raw: Any = connection.connection.driver_connection
        sizes.append(_bytes(raw))
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
        try:
            raw.execute("VACUUM")
        except Exception as error:
            raise DeployError(
                f"The store could not be compacted: {error}. It needs as much free space again"
            ) from error
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        sizes.append(_bytes(raw))
    return sizes[0], sizes[1]


def _bytes(raw: Any) -> int:
    return int(raw.execute("PRAGMA page_count").fetchone()[0]) * int(raw.execute("PRAGMA page_size").fetchone()[0])
