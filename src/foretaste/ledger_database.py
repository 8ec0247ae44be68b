"""The database below `ledger.py`: its tables, and what a ledger says when something fails.

Connections and transactions are in `database.py`. Rows of
`foretaste_records` can only be added: triggers refuse UPDATE and DELETE. The chain's head is one
row of `foretaste_head`, locked by each writer, so that processes append one after another.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from foretaste.database import DatabaseKind, shown
from foretaste.errors import LedgerError
from foretaste.hash_chain import GENESIS

SCHEMA_VERSION = 1
"""Raised when tables change so that an older foretaste could not read them."""
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


LEDGER = DatabaseKind(
    noun="ledger",
    file_name=FILE_NAME,
    error=LedgerError,
    bad_url=(
        "This ledger URL cannot be read. Accepted: a folder, or a URL such as sqlite:///runs/ledger.sqlite "
        "or postgresql+psycopg://user:password@host/database"
    ),
    missing=f"Name the folder that holds {FILE_NAME}, e.g. runs",
    next_steps=(
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
    ),
)
url_of, make_engine, writing, reading = LEDGER.url_of, LEDGER.make_engine, LEDGER.writing, LEDGER.reading


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
                    f"{shown(engine.url)} is a database but not a foretaste ledger (its tables: "
                    f"{', '.join(tables[:5])}). Name another file or folder; nothing was changed."
                )
            metadata.create_all(connection)
            connection.execute(meta.insert().values(name="schema_version", value=str(SCHEMA_VERSION)))
            connection.execute(head.insert().values(id=1, seq=0, hash=GENESIS))
            return
        written = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema_version"))
    if written is None or not written.isdigit():
        raise LedgerError(f"{shown(engine.url)} has no readable schema version ({written!r}); it is damaged.")
    if int(written) > SCHEMA_VERSION:
        raise LedgerError(
            f"{shown(engine.url)} has ledger schema {written}; this foretaste reads up to {SCHEMA_VERSION}. "
            "Upgrade foretaste: pip install --upgrade foretaste"
        )
