"""The audit log's head, kept in a second place: a file a day in a folder outside the store's, or the system's log too.

Who cuts the log's tail and sets state and head back must do the same to every line here, or is found out without a
key. For a place that the store's administrator cannot reach, set `audit.heads` to a folder of another machine.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
from pathlib import Path

from foretaste.deploy.files import private_folder
from foretaste.deploy.settings import AuditConfig
from foretaste.errors import DeployError
from foretaste.hash_chain import Head

logger = logging.getLogger(__name__)

_LINE = re.compile(r"(\S+) (\d+):([0-9a-f]{64})")


class KeptHeads:
    """Where one deployment's heads are kept."""

    def __init__(self, config: AuditConfig, folder: Path) -> None:
        """`folder` is that of the settings."""
        self.folder = folder / config.heads if config.heads else None
        self._syslog = config.syslog
        self._last: Head | None = None
        self.fault = ""
        """Why the last head could not be kept; empty if it was."""

    def ready(self) -> bool:
        """Return whether heads can be kept in the folder; it is made if there is none."""
        if self.folder is None:
            return False
        try:
            private_folder(self.folder)
        except OSError:
            return False
        return os.access(self.folder, os.W_OK)

    def keep(self, head: Head) -> None:
        """Write a head down unless it is the last one kept; a place that cannot be written is told in the log."""
        if head == self._last or head.seq == 0:
            return
        now = datetime.datetime.now(datetime.UTC)
        try:
            if self.folder is not None:
                private_folder(self.folder)
                _append(self.folder / f"heads-{now:%Y-%m-%d}.log", f"{now:%Y-%m-%dT%H:%M:%SZ} {head.seq}:{head.hash}\n")
            if self._syslog:
                _to_syslog(f"audit head {head.seq}:{head.hash}")
        except OSError as error:
            if not self.fault:
                logger.error("The audit log's head cannot be kept in %s: %s", self.folder, error.strerror)
            self.fault = error.strerror or "unknown"
            return
        self._last, self.fault = head, ""

    def read(self) -> list[Head]:
        """Return all heads that were kept, oldest first; a last line that was cut by a crash is passed over.

        Raises: DeployError for a line that is none.
        """
        found: list[Head] = []
        for file in sorted(self.folder.glob("heads-*.log")) if self.folder else []:
            text = file.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines(keepends=True):
                match = _LINE.fullmatch(line.rstrip("\n"))
                if match is not None:
                    found.append(Head(int(match[2]), match[3]))
                elif line.endswith("\n"):
                    raise DeployError(f"{str(file)!r} holds a line that is no kept head: somebody has edited it")
        return found

    def put_aside(self) -> None:
        """Rename what was kept so far, so that other heads can be kept from now on; nothing is deleted."""
        now = datetime.datetime.now(datetime.UTC)
        for file in list(self.folder.glob("heads-*.log")) if self.folder else []:
            file.rename(file.with_suffix(f".until-{now:%Y%m%dT%H%M%SZ}"))


def _append(file: Path, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_syslog(text: str) -> None:
    import syslog

    syslog.openlog("foretaste", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_NOTICE, text)
