"""The server's side of the training process: start it where learning is on, start it again if it dies, end it.

The two share nothing but the store and the folder of checkpoints, so a training that dies or hangs touches no request.
A process that gives no sign of life (`training.beat`) is ended and started again. What learning is doing is read from
the store here, and told at /healthz, at /metrics, on the admin's page and in the log.
"""

from __future__ import annotations

import logging
import threading
import time
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from foretaste.deploy import processes, training_process
from foretaste.deploy.database import reading
from foretaste.deploy.deployment import Deployment
from foretaste.deploy.files import read_json
from foretaste.deploy.learner_client import ProcessLearner
from foretaste.deploy.settings import files_folder
from foretaste.deploy.training import keeping, status

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 30.0
"""From one start of the process to the next; twice as long after each quick end, up to `LONGEST_PAUSE_SECONDS`."""
LONGEST_PAUSE_SECONDS = 600.0
FIRST_BEAT_SECONDS = 600.0
"""In which a new process must give its first sign of life: it imports and loads before."""


class Beat(NamedTuple):
    """The last sign of life of a process."""

    told: float
    """Time of the file, by whatever clock."""
    seen: float
    """When it was first seen to stand there; monotonic."""
    first: bool
    """Nothing has been heard of this process yet."""


class Training:
    """The process that learns; called from the supervisor's threads, ended from anywhere."""

    def __init__(self, deployment: Deployment) -> None:
        """Start nothing yet."""
        self.restarts = 0
        self.trouble = ""
        """What is wrong with the process; empty while it runs, or should not."""
        self._deployment = deployment
        self._files = files_folder(deployment.config, deployment.folder)
        self._process: BaseProcess | None = None
        self._started = 0.0
        self._pause = PAUSE_SECONDS
        self._beat: Beat | None = None
        self._alarm_at: float | None = None
        self._born = time.time()
        self._lock = threading.Lock()
        self._closed = False
        deployment.on_killed.append(lambda _: self.end())

    @property
    def process_id(self) -> int | None:
        """Of the training's process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def keep_going(self) -> None:
        """Start the process if it should run and does not; end it if it should not, or if it hangs."""
        deployment = self._deployment
        wanted = (
            deployment.config.training.enabled
            and isinstance(deployment.learner, ProcessLearner)
            and deployment.state.may_learn
            and not deployment.killed
        )
        if not wanted:
            self.trouble = ""
            self.end()
            return
        with self._lock:
            process = self._process
            if self._closed:
                return
            if process is not None and process.is_alive():
                self._end_if_it_hangs(process)
                return
            if process is not None and not self._may_start_again(process):
                return
            arguments = (deployment.config, str(deployment.folder))
            self._process = processes.start(training_process.run, arguments, "foretaste-training")
            self._started = time.monotonic()
            self._beat = None

    def _may_start_again(self, process: BaseProcess) -> bool:
        """Say once that the process died; return whether the pause after its start is over."""
        if not self.trouble:
            self.trouble = f"its process ended with code {process.exitcode}; it is started again"
            logger.error("Learning on the job: %s", self.trouble)
        lived = time.monotonic() - self._started
        if lived < self._pause:
            return False
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS) if lived < 2 * self._pause else PAUSE_SECONDS
        self.restarts += 1
        return True

    def _end_if_it_hangs(self, process: BaseProcess) -> None:
        """End a process without a sign of life: stopped, stuck, or in a step without end."""
        file, now = self._files / training_process.BEAT_FILE, time.monotonic()
        try:
            told = file.stat().st_mtime
        except OSError:
            told = 0.0
        if self._beat is None:  # the file may be of the process before
            self._beat = Beat(told, now, first=True)
        elif told != self._beat.told:
            self._beat, self.trouble = Beat(told, now, first=False), ""
        limit = FIRST_BEAT_SECONDS if self._beat.first else self._deployment.config.training.stalled_seconds
        if now - self._beat.seen > limit:
            self.trouble = f"its process gave no sign of life for {limit:g} seconds; it is ended and started again"
            logger.error("Learning on the job: %s", self.trouble)
            process.kill()
            process.join(5.0)

    def look(self) -> None:
        """Read what learning says of itself, and say a new alarm in the log; blocks on the database."""
        deployment = self._deployment
        with reading(deployment.engine) as connection:
            told = status.read(connection)
        found = status.summary(told, deployment.state, enabled=deployment.config.training.enabled, trouble=self.trouble)
        deployment.learning = found | {"restarts": self.restarts}
        alarm = found["alarm"]
        at = alarm.get("at") if alarm else None
        if at is not None and at != self._alarm_at:
            if self._alarm_at is not None or at > self._born:  # one from before this server was said then
                deployment.metrics.training_alarms.labels(alarm["name"], alarm["response"]).inc()
            logger.error("Learning on the job raised an alarm: %s", found["alarm_words"])
            self._alarm_at = at

    def tidy(self) -> None:
        """Remove published checkpoints that nothing needs; in the thread that takes new ones up, and no other."""
        deployment = self._deployment
        training = deployment.config.training
        progress = read_json(self._files / training_process.PROGRESS_FILE)
        told, folder = deployment.learning, self._files / training.folder
        loaded = [one.path for one in (deployment.learner, deployment.candidate) if one is not None]
        kept = [folder / progress[name] for name in ("newest", "best") if progress.get(name)]
        with reading(deployment.engine) as connection:
            removed = keeping.remove_old(
                connection,
                folder,
                deployment.state,
                keep=training.keep,
                ids=(told.get("best"), told.get("accepted")),
                paths=[*loaded, *map(str, kept)],
            )
        if removed:
            deployment.record("checkpoints_removed", "server", keeping.described(removed))

    def end(self) -> None:
        """End the process at once; what it has not published is learned again from the store."""
        process = self._process
        if process is not None and process.is_alive():
            process.kill()

    def close(self) -> None:
        """End the process for good."""
        with self._lock:
            self._closed = True
        self.end()
        if self._process is not None:
            self._process.join(5.0)
