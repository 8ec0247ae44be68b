"""A real PostgreSQL server, for the tests of the ledger and of the deployment's store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa


class PostgresServer:
    """A server of our own, on a socket in `folder`, as a user that is not root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, _programs()
        self.url = f"postgresql+psycopg://test@/postgres?host={folder}"
        self._as_user: list[Any] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            self._as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
            os.chown(folder, 65534, 65534)
        environment = {**os.environ, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        self._options: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL, "cwd": folder}
        make = [self.programs / "initdb", "-D", folder / "data", "-U", "test", "--auth=trust", "-E", "UTF8"]
        subprocess.run([*self._as_user, *make, "--no-sync"], check=True, **self._options)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers. What a killed one left behind may keep it waiting."""
        arguments = ["-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        command = [*self._as_user, self.programs / "postgres", *arguments]
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        end = time.monotonic() + 60
        self._server = subprocess.Popen(command, stderr=subprocess.DEVNULL, **self._options)
        while time.monotonic() < end:
            if self._server.poll() is not None:
                self._server = subprocess.Popen(command, stderr=subprocess.DEVNULL, **self._options)
            try:
                engine.connect().close()
                return
            except sa.exc.OperationalError:
                time.sleep(0.05)
        raise AssertionError("PostgreSQL did not start within a minute")

    def kill(self) -> None:
        """End it as a crash would."""
        self._server.send_signal(signal.SIGKILL)
        self._server.wait(10)

    def close(self) -> None:
        """End it in good order."""
        self._server.terminate()
        self._server.wait(10)


def _programs() -> Path:
    """Return the folder of a PostgreSQL server's programs; a test that needs one fails without it."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if versions:
        return versions[-1].parent
    pytest.fail("No PostgreSQL found, and the databases are tested on a real one. Install it: make database")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    # Not below pytest's own folder: every other pytest that starts closes that to all but its owner, also to a server.
    with tempfile.TemporaryDirectory(prefix="foretaste-pg-") as folder:
        server = PostgresServer(Path(folder))
        yield server
        server.close()
