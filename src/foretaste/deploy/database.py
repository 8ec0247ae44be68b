"""Open a deployment's database: connections, transactions, and errors that name the next step.

SQLite (write-ahead log, full synchronisation) by default, PostgreSQL by URL: the connections are the ledger's
(`ledger_database.py`), the tables those of `tables.py`. Next: `store.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from foretaste import ledger_database
from foretaste.deploy import tables
from foretaste.errors import DeployError, LedgerError

FILE_NAME = "deploy.sqlite"
_LOCK = 4710321  # of PostgreSQL: two processes that open a new store at once would both create its tables


def open_engine(url_or_folder: str | Path, *, create: bool = True, wait_seconds: float = 10.0) -> Engine:
    """Return an engine for a folder (`<folder>/deploy.sqlite`), a file, or a URL, its tables up to date.

    Raises: DeployError if it cannot be opened, is missing (`create=False`), or was written by a newer foretaste.
    """
    url = _url_of(url_or_folder)
    if url.get_backend_name() == "sqlite" and not create and url.database and not Path(url.database).exists():
        raise DeployError(f"No store at {url.database!r}. It is made by the first: foretaste serve deploy.toml")
    try:
        engine = ledger_database.make_engine(url, create=create, wait_seconds=wait_seconds)
    except LedgerError as error:
        raise DeployError(str(error).replace("ledger", "store")) from error
    try:
        with writing(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            tables.migrate(connection)
    except ValueError as error:
        engine.dispose()
        raise DeployError(f"The store {shown(engine)} cannot be used: {error}") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction: the write lock is taken first, everything is committed or nothing."""
    with (
        _translated(engine),
        engine.connect().execution_options(foretaste_write=True) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One read transaction; on SQLite it never blocks a writer."""
    with _translated(engine), engine.connect() as connection:
        yield connection


def shown(engine: Engine) -> str:
    """Return the file's path, or the URL without its password."""
    url = engine.url
    is_file = url.get_backend_name() == "sqlite" and url.database
    return repr(url.database) if is_file else url.render_as_string(hide_password=True)


def _url_of(url_or_folder: str | Path) -> URL:
    if isinstance(url_or_folder, str) and "://" in url_or_folder:
        try:
            return make_url(url_or_folder)
        except exc.ArgumentError as error:
            raise DeployError(
                "store.url cannot be read. Accepted: a folder, or a URL such as sqlite:////var/lib/foretaste.sqlite "
                "or postgresql+psycopg://user:password@host/database"
            ) from error
    path = Path(url_or_folder).expanduser()
    return URL.create("sqlite", database=str(path if path.suffix in (".sqlite", ".db") else path / FILE_NAME))


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    """Turn database errors into DeployError with the next step."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().rstrip("?.")
        raise DeployError(f"Store {shown(engine)}: {cause}. {_next_step(cause.lower())}") from error


def _next_step(cause: str) -> str:
    steps = {
        ("locked",): "Another process is writing, or hangs while writing; wait or end it.",
        ("disk is full", "no space", "disk i/o"): "Free disk space; what was acknowledged before is safe.",
        ("not a database", "malformed"): "The file is no store, or is damaged; restore a copy.",
        ("readonly", "read-only", "permission"): "Check that you may write to the file and its folder.",
        ("unable to open",): "Check that the folder exists and that you may write to it.",
        ("connect", "refused", "password", "does not exist"): "Check the URL and that the database server runs.",
    }
    for words, step in steps.items():
        if any(word in cause for word in words):
            return step
    return "Check the database with its own tools; what was acknowledged before is kept."
