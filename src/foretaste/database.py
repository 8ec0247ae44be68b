"""What the ledger and a deployment's store share: connections, transactions, and errors that name the next step.

SQLite (write-ahead log, full synchronisation) by default, PostgreSQL by URL. A `DatabaseKind` says what the database
is called in messages and which error they are raised as. Next: `ledger_database.py` and `deploy/database.py`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from foretaste.errors import ForetasteError

NextSteps = tuple[tuple[tuple[str, ...], str], ...]
"""Words of a driver's message, and what to do about it; the first that fits counts."""

_turns: WeakKeyDictionary[Engine, threading.Lock] = WeakKeyDictionary()
"""One lock for each engine that writes to SQLite, see `_taking_turns`."""


@dataclass(frozen=True, slots=True)
class DatabaseKind:
    """One use of a database."""

    noun: str
    """What messages call it, e.g. "ledger"."""
    file_name: str
    """Of the SQLite file in a folder."""
    error: type[ForetasteError]
    bad_url: str
    """What is said of text that looks like a URL and is none."""
    missing: str
    """Next step where the file is missing and must not be made."""
    next_steps: NextSteps
    private: bool = False
    """Files and folders are made for their owner alone, and space that is freed can be given back."""

    def url_of(self, url_or_folder: str | Path) -> URL:
        """Return the database URL of a folder, an SQLite file, or a URL given as text.

        Raises: the kind's error for text that looks like a URL and is none.
        """
        if isinstance(url_or_folder, str) and "://" in url_or_folder:
            try:
                return make_url(url_or_folder)
            except exc.ArgumentError as error:
                raise self.error(self.bad_url) from error
        path = Path(url_or_folder).expanduser()
        file = path if path.is_file() or path.suffix in (".sqlite", ".db") else path / self.file_name
        return URL.create("sqlite", database=str(file))

    def make_engine(self, url: URL, *, create: bool, wait_seconds: float) -> Engine:
        """Return an engine with its connections set up; folders are made as needed.

        Raises: the kind's error if the folder cannot be made, the file is missing (`create=False`), or the database
        driver is not installed.
        """
        arguments: dict[str, Any] = {}
        if url.get_backend_name() == "sqlite":
            arguments = {"connect_args": {"timeout": wait_seconds}}
            self._prepare_file(url, create=create)
        try:
            engine = sa.create_engine(url, **arguments)
        except (ImportError, exc.ArgumentError) as error:
            raise self.error(
                f"No database driver for {shown(url)} ({error}). SQLite needs none; "
                "for PostgreSQL: pip install 'foretaste[postgresql]' and a URL that starts with postgresql+psycopg://"
            ) from error
        if engine.dialect.name == "sqlite":
            _turns[engine] = threading.Lock()
            if self.private:
                event.listen(engine, "connect", _give_space_back)
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """One write transaction: the write lock is taken first, everything is committed or nothing."""
        with (
            _taking_turns(engine),
            self.translated(engine),
            engine.connect().execution_options(foretaste_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """One read transaction; on SQLite it never blocks a writer."""
        with self.translated(engine), engine.connect() as connection:
            yield connection

    @contextmanager
    def translated(self, engine: Engine) -> Iterator[None]:
        """Turn database errors into the kind's error with the next step."""
        try:
            yield
        except exc.SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().rstrip("?.")
            step = self._next_step(cause.lower())
            raise self.error(f"{self.noun.capitalize()} {shown(engine.url)}: {cause}. {step}") from error

    def _next_step(self, cause: str) -> str:
        for words, step in self.next_steps:
            if any(word in cause for word in words):
                return step
        return "Check the database with its own tools; what was acknowledged before is kept."

    def _prepare_file(self, url: URL, *, create: bool) -> None:
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            return
        file = Path(url.database)
        if not create and not file.exists():
            raise self.error(f"No {self.noun} at {str(file)!r}. {self.missing}")
        try:
            _make_folder(file.parent, 0o700 if self.private else 0o777)
        except OSError as error:
            raise self.error(
                f"Cannot make the folder {str(file.parent)!r} for the {self.noun}: {error.strerror}. "
                "Name a folder you can write to."
            ) from error
        if file.is_dir():
            raise self.error(f"{str(file)!r} is a folder where the {self.noun}'s file should be. Name another folder.")
        if self.private:
            self._keep_private(file)

    def _keep_private(self, file: Path) -> None:
        """Have the file and its write-ahead log readable by their owner alone; SQLite gives the log the file's mode."""
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
            for one in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
                if one.exists() and one.stat().st_uid == os.getuid():
                    one.chmod(0o600)
        except OSError as error:
            raise self.error(
                f"Cannot write the {self.noun} {str(file)!r}: {error.strerror}. {self._next_step('permission')}"
            ) from error


def shown(url: URL) -> str:
    """Return the file's path, or the URL without its password."""
    is_file = url.get_backend_name() == "sqlite" and url.database
    return repr(url.database) if is_file else url.render_as_string(hide_password=True)


@contextmanager
def _taking_turns(engine: Engine) -> Iterator[None]:
    """Let the threads of one process write to SQLite in turn.

    SQLite itself has no queue: who waits looks again every tenth of a second, so on a slow disk a thread that writes
    without pause keeps all others out until their patience ends.
    """
    turn = _turns.get(engine)
    if turn is None:
        yield
        return
    with turn:
        yield


def _make_folder(folder: Path, mode: int) -> None:
    """Make a folder and those above it with a mode, less the umask for a mode that is open to all."""
    if folder.exists():
        return
    _make_folder(folder.parent, mode)
    folder.mkdir(mode=mode, exist_ok=True)
    if mode == 0o700:
        folder.chmod(mode)


def _give_space_back(connection: sqlite3.Connection, _: object) -> None:
    """Have a new file keep track of free pages; on one that has tables it does nothing."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


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
