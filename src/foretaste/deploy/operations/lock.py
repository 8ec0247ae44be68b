"""One server a store: a lock on a file of the deployment's folder, and one in PostgreSQL for servers elsewhere.

The operating system lets go of both when their process ends, however it ends. Which process holds the file's is
written in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from foretaste.deploy.files import private_folder
from foretaste.errors import DeployError

LOCK_FILE = "server.lock"
WAIT_SECONDS = 0.5
"""Who only looks whether a server runs holds the lock for an instant."""
NUMBER = 4710322
"""Of PostgreSQL's advisory lock, in the store's database."""


class ServerLock:
    """Held from before a server opens its store until it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the file's lock.

        Raises: DeployError if another server holds it, with its process id.
        """
        private_folder(folder)
        self._file = folder / LOCK_FILE
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._connection: Connection | None = None
        try:
            os.fchmod(self._descriptor, 0o600)
            end = time.monotonic() + WAIT_SECONDS
            while not _take(self._descriptor, fcntl.LOCK_EX):
                if time.monotonic() > end:
                    raise DeployError(_taken(folder, _read(self._file)))
                time.sleep(0.02)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
        except BaseException:
            os.close(self._descriptor)
            raise

    def take_database(self, engine: Engine) -> None:
        """Take the lock of a PostgreSQL store; an SQLite one is told apart by its folder.

        Raises: DeployError if a server on another machine or in another folder holds it.
        """
        if engine.dialect.name != "postgresql":
            return
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        name = f"foretaste {socket.gethostname()[:30]}:{os.getpid()}"
        connection.execute(sa.text("SELECT set_config('application_name', :name, false)"), {"name": name})
        if not connection.scalar(sa.text("SELECT pg_try_advisory_lock(:number)"), {"number": NUMBER}):
            holder = connection.scalar(sa.text(_HOLDER), {"number": NUMBER})
            connection.close()
            raise DeployError(_taken(None, str(holder or "another machine")))
        self._connection = connection

    def keep(self, engine: Engine) -> None:
        """Take PostgreSQL's lock again if its connection was lost: the database lets go of it then.

        Raises: DeployError if another server was quicker, or the database does not answer.
        """
        if engine.dialect.name != "postgresql":
            return
        if self._connection is not None:
            try:
                self._connection.scalar(sa.text("SELECT 1"))
                return
            except exc.SQLAlchemyError:
                self._let_go()
        try:
            self.take_database(engine)
        except exc.SQLAlchemyError as error:
            raise DeployError(f"The store's lock cannot be taken: {type(error).__name__}") from error

    def release(self) -> None:
        """Let another server begin; may be called twice."""
        self._let_go()
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(exc.SQLAlchemyError):
                connection.invalidate()  # closes it: one that goes back to the pool would keep the lock
                connection.close()


def held(folder: Path) -> bool | None:
    """Return whether a server holds the folder's lock; None where there is no lock, as with an older foretaste."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return not _take(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: Path) -> str:
    with contextlib.suppress(OSError):
        return f"process {file.read_text(encoding='utf-8').strip() or 'unknown'}"
    return "process unknown"


def _taken(folder: Path | None, holder: str) -> str:
    where = "this PostgreSQL store" if folder is None else f"the store in {str(folder)!r}"
    return (
        f"A server runs already on {where}: {holder}. One server decides for a store; a second one would count rates "
        "apart and decide against it. See what it does: foretaste deploy status. End it first, or give this one a "
        "store of its own: store.url in its settings"
    )


_HOLDER = """
SELECT a.application_name || ' (database process ' || a.pid || ', from ' || coalesce(host(a.client_addr), 'here') || ')'
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objid = :number
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
