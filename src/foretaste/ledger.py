"""The ledger: an append-only, hash-chained log of every run, in SQLite or PostgreSQL.

    ledger = Ledger.open("runs")
    run = ledger.start_run("train", "maze", config)
    ledger.append(run, "metrics", {"train/success": 0.25}, step=1)

What `append` has returned from is on disk, and survives a killed process. Nothing is updated or
deleted: a run that is resumed from an earlier step says so with a `resume` record, and `records`
then leaves out what the abandoned attempt had written after that step.

Each record's hash covers the one before: hash = SHA-256(previous hash + canonical JSON of seq, run,
step, kind, created, payload). `verify` finds the first record that was changed, removed or put in.
Somebody who can rewrite the whole file can rewrite the chain as well: to prove that a ledger was not
rewritten, keep `head()` somewhere else. The tables and connections are in `ledger_database.py`.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from foretaste import ledger_database as database
from foretaste.errors import LedgerError, unknown
from foretaste.hash_chain import GENESIS, Head, link


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the ledger."""

    seq: int
    """Place in the ledger, from 1, without gaps, over all runs."""
    run: str
    step: int | None
    """Training step it belongs to; None for records of the run as a whole."""
    kind: str
    """run, status, metrics, episode, checkpoint, resume, held_out, calibration, summary, warning ..."""
    payload: dict[str, Any]
    created: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run without reading all its records."""

    id: str
    kind: str
    """train, exam, study ..."""
    name: str
    created: str
    """UTC, ISO 8601."""
    status: str
    """The last status written: started, finished, interrupted, failed ..."""
    config: dict[str, Any]


_RESTORE = "Do not trust what comes after it; restore a copy of the ledger."


class Ledger:
    """An open ledger. Several processes and threads may append to the same one."""

    def __init__(self, engine: Engine) -> None:
        """Use `Ledger.open`."""
        self._engine = engine
        self._process = os.getpid()
        self._known: set[str] = set()

    @classmethod
    def open(cls, url_or_folder: str | Path, *, create: bool = True, wait_seconds: float = 30.0) -> Ledger:
        """Open the ledger of a folder (`<folder>/ledger.sqlite`), a file, or any SQLAlchemy URL.

        `create=False` refuses to make a new one, for commands that only read. `wait_seconds` is how
        long SQLite waits for other writers.

        Raises: LedgerError if it cannot be opened, is no ledger, or was written by a newer foretaste.
        """
        engine = database.make_engine(database.url_of(url_or_folder), create=create, wait_seconds=wait_seconds)
        try:
            database.create_or_check(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    @property
    def url(self) -> str:
        """The database URL, without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections; the ledger may not be used afterwards."""
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Writing ----------------------------------------------------------------------------------

    def start_run(self, kind: str, name: str, config: dict[str, Any]) -> str:
        """Begin a run and return its id, such as "extract-1122-0143-7f3a"."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
        row = ("run", {"kind": kind, "name": name, "config": config}, None)
        with database.writing(self._own_engine()) as connection:
            _head(connection, lock=True)
            taken = set(connection.scalars(sa.select(database.records.c.run).where(database.records.c.kind == "run")))
            run = _new_id(slug)
            while run in taken:
                run = _new_id(slug)
            _append(connection, run, [row])
        self._known.add(run)
        return run

    def append(self, run: str, kind: str, payload: dict[str, Any], *, step: int | None = None) -> None:
        """Append one record; it is on disk when this returns.

        Raises: LedgerError for an unknown run, a payload that is no JSON, or a database that fails.
        """
        self.append_many(run, [(kind, payload, step)])

    def append_many(self, run: str, rows: Iterable[tuple[str, dict[str, Any], int | None]]) -> None:
        """Append (kind, payload, step) rows in one transaction: all of them or none."""
        rows = list(rows)
        if run not in self._known:
            found = self.run(run).id
            if found != run:
                raise LedgerError(f"append needs a run's whole id, not {run!r}. Did you mean {found!r}?")
        with database.writing(self._own_engine()) as connection:
            _append(connection, run, rows)

    # Reading ----------------------------------------------------------------------------------

    def records(self, run: str, kind: str | None = None) -> list[Record]:
        """Return the run's live records in the order they were written.

        Where the run was resumed, records of the abandoned attempt with a later step are left out.
        """
        if run not in self._known:
            run = self.run(run).id
        table = database.records
        query = sa.select(table).where(table.c.run == run).order_by(table.c.seq)
        if kind is not None:
            query = query.where(table.c.kind.in_([kind, "resume"]))
        with database.reading(self._own_engine()) as connection:
            rows = [_record(row) for row in connection.execute(query)]
        return [record for record in _live(rows) if kind is None or record.kind == kind]

    def runs(self, kind: str | None = None) -> list[RunInfo]:
        """Return all runs, oldest first, or those of one kind."""
        table = database.records
        query = sa.select(table).where(table.c.kind.in_(["run", "status"])).order_by(table.c.seq)
        found: dict[str, RunInfo] = {}
        with database.reading(self._own_engine()) as connection:
            for record in map(_record, connection.execute(query)):
                payload = record.payload
                if record.kind == "run":
                    found[record.run] = RunInfo(
                        record.run, payload["kind"], payload["name"], record.created, "started", payload["config"]
                    )
                elif record.run in found:
                    info, status = found[record.run], str(payload.get("status", "started"))
                    found[record.run] = RunInfo(info.id, info.kind, info.name, info.created, status, info.config)
        self._known.update(found)
        return [info for info in found.values() if kind is None or info.kind == kind]

    def run(self, run: str, *, kind: str | None = None) -> RunInfo:
        """Return one run by its id, a unique beginning of it, or "latest": of all runs, or of those of one kind.

        Raises: LedgerError for an unknown or ambiguous id, with the nearest one there is, or for a run of another kind.
        """
        every = self.runs()
        runs = [info for info in every if kind is None or info.kind == kind]
        other = next((info for info in every if info.id == run), None)
        if other is not None and kind is not None and other.kind != kind:
            raise LedgerError(f"{run!r} is a run of kind {other.kind!r}; accepted here: one of kind {kind!r}")
        if not runs:
            what = "run" if kind is None or not every else f"run of kind {kind!r}"
            raise LedgerError(f"The ledger {self.url} holds no {what} yet. Start one: foretaste {kind or 'train'}")
        if run == "latest":
            return runs[-1]
        exact = [info for info in runs if info.id == run]
        matching = exact or ([info for info in runs if info.id.startswith(run)] if run else [])
        if len(matching) == 1:
            return matching[0]
        if matching:
            names = ", ".join(info.id for info in matching[-8:])
            raise LedgerError(f"Run {run!r} is ambiguous: {len(matching)} runs begin so. The latest: {names}")
        newest = [info.id for info in runs[-20:]]
        raise LedgerError(unknown("run", run, newest if len(runs) <= 20 else [info.id for info in runs]))

    def head(self) -> Head:
        """Return the last record's place and hash."""
        with database.reading(self._own_engine()) as connection:
            return _head(connection)

    def verify(self) -> None:
        """Check the whole chain.

        Raises: LedgerError naming the first record that was changed, removed or put in.
        """
        table = database.records
        with database.reading(self._own_engine()) as connection:
            end, previous, expected = _head(connection), GENESIS, 1
            query = sa.select(table).where(table.c.seq <= end.seq).order_by(table.c.seq)
            with connection.execution_options(yield_per=500).execute(query) as rows:
                for row in rows:
                    if row.seq != expected:
                        raise LedgerError(f"Ledger {self.url}: record {expected} is missing. {_RESTORE}")
                    previous = _hash(previous, row.seq, row.run, row.step, row.kind, row.created, row.payload)
                    if previous != row.hash:
                        raise LedgerError(
                            f"Ledger {self.url}: record {row.seq} ({row.kind} of run {row.run}, step {row.step}) "
                            f"was changed after it was written. {_RESTORE}"
                        )
                    expected += 1
            if (expected - 1, previous) != end:
                raise LedgerError(
                    f"Ledger {self.url}: it ends at record {expected - 1}, its head says {end.seq}: records "
                    f"were removed from its end, or the head was changed. {_RESTORE}"
                )
            # The newest record is read before the head, so that a writer in between cannot be blamed.
            newest = connection.scalar(sa.select(sa.func.max(table.c.seq))) or 0
            if newest > _head(connection).seq:
                raise LedgerError(
                    f"Ledger {self.url}: record {newest} was put in from outside, behind the chain's head."
                )

    def _own_engine(self) -> Engine:
        """Return the engine, with fresh connections in a forked child: they must not be shared."""
        if os.getpid() != self._process:
            self._engine.dispose(close=False)
            self._process = os.getpid()
        return self._engine


def _new_id(slug: str) -> str:
    return f"{slug}-{datetime.datetime.now(datetime.UTC):%m%d-%H%M}-{secrets.token_hex(2)}"


def _append(connection: Connection, run: str, rows: list[tuple[str, dict[str, Any], int | None]]) -> None:
    """Add rows behind the head, inside the caller's write transaction."""
    seq, previous = _head(connection, lock=True)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    values: list[dict[str, Any]] = []
    for kind, payload, step in rows:
        seq += 1
        step = None if step is None else int(step)
        text = _canonical(payload, kind)
        previous = _hash(previous, seq, run, step, kind, created, text)
        values.append(
            {"seq": seq, "run": run, "step": step, "kind": kind, "payload": text, "created": created, "hash": previous}
        )
    if values:
        connection.execute(database.records.insert(), values)
        connection.execute(database.head.update().values(seq=seq, hash=previous))


def _head(connection: Connection, *, lock: bool = False) -> Head:
    """Read the head; `lock` keeps other writers out until the transaction ends (SQLite's begin did so already)."""
    query = sa.select(database.head.c.seq, database.head.c.hash)
    row = connection.execute(query.with_for_update() if lock else query).one()
    return Head(int(row.seq), str(row.hash))


def _hash(previous: str, seq: int, run: str, step: int | None, kind: str, created: str, payload: str) -> str:
    return link(previous, [seq, run, step, kind, created, payload])


def _canonical(payload: dict[str, Any], kind: str) -> str:
    """Return sorted, ASCII-only JSON (any text survives any database); NaN and infinities are kept."""
    if not isinstance(payload, dict):
        raise LedgerError(f"The payload of a {kind!r} record must be a dict, not {type(payload).__name__}")
    try:
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"The payload of a {kind!r} record cannot be written as JSON: {error}. "
            "Accepted: dicts with text keys, lists, numbers (NumPy's too), text, booleans, None."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")


def _record(row: Any) -> Record:
    try:
        payload = json.loads(row.payload)
    except ValueError as error:
        raise LedgerError(
            f"Record {row.seq} ({row.kind} of run {row.run}) is damaged: {error}. Restore a copy of the ledger."
        ) from error
    return Record(row.seq, row.run, row.step, row.kind, payload, row.created)


def _live(rows: list[Record]) -> list[Record]:
    """Leave out what an abandoned attempt wrote after the step from which the run was resumed."""
    live: list[Record] = []
    for record in rows:
        if record.kind == "resume":
            last_kept = int(record.payload["from_step"])
            live = [kept for kept in live if kept.step is None or kept.step <= last_kept]
        live.append(record)
    return live
