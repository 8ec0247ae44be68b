"""The kill switch: a file, a command or a signal takes the learner out of everything, even while all else hangs.

Two threads of their own do it, without the event loop, the store or the network: one looks for the file, one waits
for SIGUSR1. Users go on getting the incumbent's answers. Only a person lifts it: `foretaste deploy kill --lift`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretaste.errors import DeployError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
SIGNAL = signal.SIGUSR1
KILL_FILE = "KILL"
PID_FILE = "server.pid"


def block_signal() -> None:
    """Keep the signal from every thread of this process but the one that waits for it; call before starting threads."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})


class KillSwitch:
    """Watches for a reason to take the learner out; `on_kill` is called once, from the watching thread."""

    def __init__(self, file: Path, on_kill: Callable[[str], None], *, with_signal: bool) -> None:
        self.file = file
        self.killed = file.exists()
        self.unrecorded = f"the file {file.name} exists" if self.killed else ""
        """Why the learner was taken out, while the audit log does not know it yet."""
        self._on_kill = on_kill
        self._lock = threading.Lock()
        self._stop = threading.Event()
        threading.Thread(target=self._watch_file, name="foretaste-kill-file", daemon=True).start()
        if with_signal:
            threading.Thread(target=self._watch_signal, name="foretaste-kill-signal", daemon=True).start()

    def kill(self, reason: str, *, recorded: bool = False) -> None:
        """Take the learner out; from any thread. `recorded`: the audit log knows already."""
        with self._lock:
            if self.killed:
                return
            self.killed, self.unrecorded = True, "" if recorded else reason
        logger.critical("Kill switch: %s. The learner is out; the incumbent answers.", reason)
        self._on_kill(reason)
        with contextlib.suppress(OSError):  # so that a restart stays killed; a full disk must not stop the kill
            self.file.touch()

    def lift(self) -> bool:
        """Let the learner in again, if the file is gone; a person's decision was recorded before."""
        with self._lock:
            self.killed = self.file.exists()
        return not self.killed

    def close(self) -> None:
        """End the thread that looks for the file."""
        self._stop.set()

    def _watch_file(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            if not self.killed and self.file.exists():
                self.kill(f"the file {self.file.name} exists")

    def _watch_signal(self) -> None:
        while not self._stop.is_set():
            if signal.sigtimedwait({SIGNAL}, 1.0) is not None:
                self.kill(f"the signal {SIGNAL.name} came")


def pull(config: Path) -> str:
    """Take the learner out by file and by signal, without store or network; say what was done.

    Reads of the settings only what it needs, so that nothing else in them can stand in the way.
    Raises: DeployError if neither could be done.
    """
    try:
        values: dict[str, Any] = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    folder = config.parent.resolve()
    file = folder / str(values.get("server", {}).get("kill_file", KILL_FILE))
    url = str(values.get("store", {}).get("url", "deployment"))
    done: list[str] = []
    with contextlib.suppress(OSError):  # a full disk must not stop the signal
        file.touch()
        done.append(f"the file {file.name} is there")
    pid = running(folder / ("deployment" if "://" in url else url) / PID_FILE)
    if pid is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, SIGNAL)
            done.append(f"the server ({pid}) has been told")
    if not done:
        raise DeployError(f"Neither could {str(file)!r} be made nor does a server run; end its process yourself")
    return f"Killed: {', '.join(done)}. Lift it with: foretaste deploy kill --lift"


def running(file: Path) -> int | None:
    """Return the process id in a file if that process runs."""
    try:
        pid = int(file.read_text(encoding="utf-8"))
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid
