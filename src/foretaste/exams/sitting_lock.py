"""One process at a time goes on with a sitting: a lock that the system lets go when the process dies.

Two processes would ask the same items twice, and write two verdicts for one look.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretaste.errors import ConfigError


@contextmanager
def going_on(runs_folder: Path, run: str) -> Iterator[None]:
    """Hold a sitting for this process. Raises: ConfigError if another one holds it."""
    file = runs_folder / run / "sitting.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.seek(0)
            holder = opened.read().strip() or "unknown"
            raise ConfigError(
                f"The sitting {run} is going on elsewhere (process {holder}): nothing was asked here. Wait until it "
                f"ends, or stop it; then go on with: foretaste exam --resume {run}"
            ) from None
        opened.truncate(0)
        opened.write(str(os.getpid()))
        opened.flush()
        yield
