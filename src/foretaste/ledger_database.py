"""The database below `ledger.py`: tables, connections, locking, and errors that name the next step.

SQLite (write-ahead log, full synchronisation) by default; PostgreSQL by URL. Rows of
`foretaste_records` can only be added: triggers refuse UPDATE and DELETE. The chain's head is one
row of `foretaste_head`, locked by each writer, so that processes append one after another.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from foretaste.errors import LedgerError

SCHEMA_VERSION = 1
"""Raised when tables change so that an older foretaste could not read them."""
GENESIS = "0" * 64
"""The hash before the first record."""
FILE_NAME = "ledger.sqlite"

metadata = sa.MetaData()

meta = sa.Table(
    "foretaste_meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
head = sa.Table(
    "foretaste_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
records = sa.Table(
    "foretaste_records",
    metadata,
    # Plain INTEGER on SQLite makes seq the row id itself, so that reading in order needs no index.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("run", sa.String(128), nullable=False),
    sa.Column("step", sa.BigInteger, nullable=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index("foretaste_records_by_run", "run", "kind", "seq"),
    sa.Index("foretaste_records_by_kind", "kind", "seq"),
)

for _operation in ("UPDATE", "DELETE"):
    event.listen(
        records,
        "after_create",
        sa.DDL(
            f"CREATE TRIGGER foretaste_no_{_operation.lower()} BEFORE {_operation} ON foretaste_records "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )
for _statement in (
    "CREATE OR REPLACE FUNCTION foretaste_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$",
    "CREATE TRIGGER foretaste_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON foretaste_records "
    "FOR EACH STATEMENT EXECUTE FUNCTION foretaste_append_only()",
):
    event.listen(records, "after_create", sa.DDL(_statement).execute_if(dialect="postgresql"))


def url_of(url_or_folder: str | Path) -> URL:
    """Return the database URL of a folder, an SQLite file, or a URL given as text.

    Raises: LedgerError for text that looks like a URL and is none.
    """
    if isinstance(url_or_folder, str) and ("://" in url_or_folder):
        try:
            return make_url(url_or_folder)
        except exc.ArgumentError as error:
            raise LedgerError(
                "This ledger URL cannot be read. Accepted: a folder, or a URL such as sqlite:///runs/ledger.sqlite "
                "or postgresql+psycopg://user:password@host/database"
            ) from error
    path = Path(url_or_folder).expanduser()
    file = path if path.is_file() or path.suffix in (".sqlite", ".db") else path / FILE_NAME
    return URL.create("sqlite", database=str(file))


def make_engine(url: URL, *, create: bool, wait_seconds: float) -> Engine:
    """Return an engine whose connections are set up for a ledger; folders are made as needed.

    Raises: LedgerError if the folder cannot be made, the file is missing (`create=False`), or the
    database driver is not installed.
    """
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        arguments = {"connect_args": {"timeout": wait_seconds}}
        _prepare_file(url, create=create)
    try:
        engine = sa.create_engine(url, **arguments)
    except (ImportError, exc.ArgumentError) as error:
        raise LedgerError(
            f"No database driver for {_shown(url)} ({error}). SQLite needs none; "
            "for PostgreSQL: pip install 'foretaste[postgresql]' and a URL that starts with postgresql+psycopg://"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def create_or_check(engine: Engine) -> None:
    """Create the tables of a new ledger, or check that an existing database is one we can read.

    Raises: LedgerError for a file that is no ledger, or one written by a newer foretaste.
    """
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            # Two processes that open a new ledger at once would both try to create its tables.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(4710320)"))
        tables = sa.inspect(connection).get_table_names()
        if meta.name not in tables:
            if tables and engine.dialect.name == "sqlite":
                raise LedgerError(
                    f"{_shown(engine.url)} is a database but not a foretaste ledger (its tables: "
                    f"{', '.join(tables[:5])}). Name another file or folder; nothing was changed."
                )
            metadata.create_all(connection)
            connection.execute(meta.insert().values(name="schema_version", value=str(SCHEMA_VERSION)))
            connection.execute(head.insert().values(id=1, seq=0, hash=GENESIS))
            return
        written = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema_version"))
    if written is None or not written.isdigit():
        raise LedgerError(f"{_shown(engine.url)} has no readable schema version ({written!r}); it is damaged.")
    if int(written) > SCHEMA_VERSION:
        raise LedgerError(
            f"{_shown(engine.url)} has ledger schema {written}; this foretaste reads up to {SCHEMA_VERSION}. "
            "Upgrade foretaste: pip install --upgrade foretaste"
        )


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction: the write lock is taken first, everything is committed or nothing."""
    with (
        translated(engine),
        engine.connect().execution_options(foretaste_write=True) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One read transaction; on SQLite it never blocks a writer."""
    with translated(engine), engine.connect() as connection:
        yield connection


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn database errors into LedgerError with the next step."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().rstrip("?.")
        raise LedgerError(f"Ledger {_shown(engine.url)}: {cause}. {_next_step(cause)}") from error


def _next_step(cause: str) -> str:
    text = cause.lower()
    for words, step in (
        (
            ("locked",),
            "Another process is writing, or hangs while writing. Wait or end it, then run the command again.",
        ),
        (
            ("disk is full", "no space", "disk i/o"),
            "This record was not written; everything before it is safe. Free disk space, then continue the run.",
        ),
        (
            ("not a database", "malformed"),
            "The file is not a ledger, or is damaged. Name another file, or restore a copy.",
        ),
        (("readonly", "read-only", "permission"), "Check that you may write to the file and its folder."),
        (("unable to open",), "Check that the folder exists and that you may write to it."),
        (
            ("connect", "refused", "password", "does not exist"),
            "Check the URL, the database name and that the server runs.",
        ),
        (("append-only",), "Records are never changed; append a new one instead."),
    ):
        if any(word in text for word in words):
            return step
    return "Check the database with its own tools; what was acknowledged before is kept."


def _prepare_file(url: URL, *, create: bool) -> None:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        return
    file = Path(url.database)
    if not create and not file.exists():
        raise LedgerError(f"No ledger at {str(file)!r}. Name the folder that holds {FILE_NAME}, e.g. runs")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"Cannot make the folder {str(file.parent)!r} for the ledger: {error.strerror}. "
            "Name a folder you can write to."
        ) from error
    if file.is_dir():
        raise LedgerError(f"{str(file)!r} is a folder where the ledger's file should be. Name another folder.")


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, never implicitly
    # Switching a new file to the write-ahead log is not covered by SQLite's own waiting for locks.
    for attempt in range(200):
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
                connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == 199:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("foretaste_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _shown(url: URL) -> str:
    """Return the file's path, or the URL without its password."""
    is_file = url.get_backend_name() == "sqlite" and url.database
    return repr(url.database) if is_file else url.render_as_string(hide_password=True)
