"""The kill switch: a file, a command or a signal takes the learner out of everything, even while all else hangs.

Two threads of their own do it, without the event loop, the store or the network: one looks for the file, one waits
for SIGUSR1. Users go on getting the incumbent's answers. Only a person lifts it: `foretaste deploy kill --lift`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretaste.deploy.operations.lock import held
from foretaste.errors import DeployError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
SIGNAL = signal.SIGUSR1
KILL_FILE = "KILL"
PID_FILE = "server.pid"
LONGEST_SILENCE_SECONDS = 5.0
"""Without a look for the file, before the switch counts as broken."""


def block_signal() -> None:
    """Keep the signal from every thread of this process but the one that waits for it; call before starting threads."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})


class KillSwitch:
    """Watches for a reason to take the learner out; `on_kill` is called from the watching thread until it succeeds."""

    def __init__(self, file: Path, on_kill: Callable[[str], None], *, with_signal: bool) -> None:
        self.file = file
        self.killed = stands(file)
        self.unrecorded = f"{file.name} is there" if self.killed else ""
        """Why the learner was taken out, while the audit log does not know it yet."""
        self._on_kill = on_kill
        self._undone = ""  # the reason of a kill that has not been carried out whole yet
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch_file, name="foretaste-kill-file", daemon=True)]
        if with_signal:
            self._threads.append(threading.Thread(target=self._watch_signal, name="foretaste-kill-signal", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def fault(self) -> str:
        """Why the switch may not work; empty if it does."""
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead and not self._stop.is_set():
            return f"{', '.join(dead)} ended"
        silent = time.monotonic() - self._looked
        if silent > LONGEST_SILENCE_SECONDS and not self._stop.is_set():
            return f"nobody has looked for {self.file.name} for {silent:.0f} s"
        return "a kill could not be carried out whole yet" if self._undone else ""

    def kill(self, reason: str, *, recorded: bool = False) -> None:
        """Take the learner out; from any thread. `recorded`: the audit log knows already."""
        with self._lock:
            if self.killed:
                return
            self.killed, self.unrecorded = True, "" if recorded else reason
        logger.critical("Kill switch: %s. The learner is out; the incumbent answers.", reason)
        self._carry_out(reason)
        with contextlib.suppress(OSError):  # so that a restart stays killed; a full disk must not stop the kill
            make_file(self.file)

    def lift(self) -> bool:
        """Let the learner in again, if nothing stands at the file's name; a person's decision was recorded before."""
        with self._lock:
            self.killed = stands(self.file)
            if not self.killed:
                self._undone = ""
        return not self.killed

    def close(self) -> None:
        """End the thread that looks for the file."""
        self._stop.set()

    def _carry_out(self, reason: str) -> None:
        try:
            self._on_kill(reason)
        except Exception as error:  # whatever failed, what can be ended is tried again at the next look
            logger.critical("Kill switch: not everything could be ended, trying again (%s)", type(error).__name__)
            self._undone = reason
        else:
            self._undone = ""

    def _watch_file(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self._looked = time.monotonic()
                if self.killed and self._undone:
                    self._carry_out(self._undone)
                if not self.killed and stands(self.file):
                    self.kill(f"{self.file.name} is there")
            except BaseException as error:  # nothing may end this thread: it is what people rely on
                logger.critical("Kill switch: a look for %s failed (%s)", self.file.name, type(error).__name__)

    def _watch_signal(self) -> None:
        while not self._stop.is_set():
            try:
                if signal.sigtimedwait({SIGNAL}, 1.0) is not None:
                    self.kill(f"the signal {SIGNAL.name} came")
            except BaseException as error:
                logger.critical("Kill switch: waiting for %s failed (%s)", SIGNAL.name, type(error).__name__)
                self._stop.wait(1.0)


def stands(file: Path) -> bool:
    """Return whether anything stands at a name: a file, a folder, a link to nowhere, whatever may be read of it.

    A name that cannot be looked up (a disk that fails, a folder that was closed) counts as killed: nobody can know.
    """
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def make_file(file: Path) -> None:
    """Have something stand at a name; a link there is not followed.

    Raises: OSError if nothing stands there and no file can be made.
    """
    if not stands(file):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def take_away(file: Path) -> str:
    """Remove what stands at the switch's name; return in words what it was, empty if nothing was there.

    A folder with something in it is renamed, so that nothing of it is lost.
    Raises: DeployError if it cannot be removed.
    """
    try:
        found = file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        raise DeployError(
            f"{str(file)!r} cannot be looked up ({error}), so it counts as killed. Make its folder readable, then lift "
            "again"
        ) from error
    try:
        if not stat.S_ISDIR(found.st_mode):
            file.unlink()
            return "a link" if stat.S_ISLNK(found.st_mode) else "a file"
        if not any(file.iterdir()):
            file.rmdir()
            return "an empty folder"
        aside = file.with_name(f"{file.name}.lifted-{time.strftime('%Y%m%dT%H%M%S')}")
        file.rename(aside)
    except OSError as error:
        raise DeployError(
            f"{str(file)!r} cannot be removed ({error.strerror}), so the learner stays out. Remove it yourself, then: "
            "foretaste deploy kill --lift"
        ) from error
    return f"a folder that was not empty; it is {aside.name} now"


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
        make_file(file)
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
    """Return the process id in a file if that process runs and, where there is a lock beside it, holds that lock."""
    try:
        pid = int(file.read_text(encoding="utf-8"))
        with contextlib.suppress(PermissionError):  # somebody else's process
            os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return None if held(file.parent) is False else pid
