"""Open a deployment's database, and what it says when something fails.

Connections and transactions are in `foretaste/database.py`, the tables in `tables.py`. Next: `store.py`.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from foretaste.database import DatabaseKind, shown
from foretaste.deploy import tables
from foretaste.deploy.operations.copies import copy_file
from foretaste.errors import DeployError

logger = logging.getLogger(__name__)

STORE = DatabaseKind(
    noun="store",
    file_name="deploy.sqlite",
    error=DeployError,
    bad_url=(
        "store.url cannot be read. Accepted: a folder, or a URL such as sqlite:////var/lib/foretaste.sqlite "
        "or postgresql+psycopg://user:password@host/database"
    ),
    missing="It is made by the first: foretaste serve deploy.toml",
    next_steps=(
        (("locked",), "Another process is writing, or hangs while writing; wait or end it."),
        (("disk is full", "no space", "disk i/o"), "Free disk space; what was acknowledged before is safe."),
        (("not a database", "malformed"), "The file is no store, or is damaged; restore a copy."),
        (("readonly", "read-only", "permission"), "Check that you may write to the file and its folder."),
        (("unable to open",), "Check that the folder exists and that you may write to it."),
        (("connect", "refused", "password", "does not exist"), "Check the URL and that the database server runs."),
    ),
    private=True,
)
writing, reading = STORE.writing, STORE.reading
_LOCK = 4710321  # of PostgreSQL: two processes that open a new store at once would both create its tables


def open_engine(url_or_folder: str | Path, *, create: bool = True, wait_seconds: float = 10.0) -> Engine:
    """Return an engine for a folder (`<folder>/deploy.sqlite`), a file, or a URL, its tables up to date.

    Raises: DeployError if it cannot be opened, is missing (`create=False`), or was written by a newer foretaste.
    """
    engine = STORE.make_engine(STORE.url_of(url_or_folder), create=create, wait_seconds=wait_seconds)
    try:
        if engine.dialect.name == "sqlite":
            copy_before_migration(engine)
        with writing(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            tables.migrate(connection)
    except ValueError as error:
        engine.dispose()
        raise DeployError(f"The store {shown(engine.url)} cannot be used: {error}") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def copy_before_migration(engine: Engine) -> Path | None:
    """Copy an SQLite store that a migration is about to change; return the copy, or None where nothing will change.

    It lies beside the store as `deploy.sqlite.version-3`, of the version that it holds.
    Raises: DeployError if it cannot be written; nothing was migrated then.
    """
    with reading(engine) as connection:
        version = tables.version_of(connection)
    file = engine.url.database
    if not 0 < version < len(tables.MIGRATIONS) + 1 or not file or file == ":memory:":
        return None
    copy = Path(f"{file}.version-{version}")
    if not copy.exists():
        try:
            copy_file(Path(file), copy)
        except (OSError, sqlite3.Error) as error:
            raise DeployError(
                f"The store {file!r} is of version {version} and was not brought up to date, since no copy of it could "
                f"be written to {str(copy)!r}: {error}. Free disk space, then start again"
            ) from error
        logger.warning("The store was of version %d; a copy from before its migration is kept: %s", version, copy)
    return copy
