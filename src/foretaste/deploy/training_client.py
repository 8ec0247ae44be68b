"""The server's side of the training process: start it where learning is on, start it again if it dies, end it.

The two share nothing but the store and the folder of checkpoints, so a training that dies or hangs touches no request.
"""

from __future__ import annotations

import logging
import threading
import time
from multiprocessing.process import BaseProcess

from foretaste.deploy import processes, training_process
from foretaste.deploy.deployment import Deployment
from foretaste.deploy.learner_client import ProcessLearner

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 30.0
"""Before a training that died is started again."""


class Training:
    """The process that learns; called from the supervisor's thread, ended from anywhere."""

    def __init__(self, deployment: Deployment) -> None:
        """Start nothing yet."""
        self.restarts = 0
        self._deployment = deployment
        self._process: BaseProcess | None = None
        self._started = 0.0
        self._lock = threading.Lock()
        self._closed = False
        deployment.on_killed.append(lambda _: self.end())

    @property
    def process_id(self) -> int | None:
        """Of the training's process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def keep_going(self) -> None:
        """Start the process if it should run and does not; end it if it should not."""
        deployment = self._deployment
        wanted = (
            deployment.config.training.enabled
            and isinstance(deployment.learner, ProcessLearner)
            and deployment.state.may_learn
            and not deployment.killed
        )
        if not wanted:
            self.end()
            return
        with self._lock:
            process = self._process
            if self._closed or (process is not None and process.is_alive()):
                return
            if process is not None:
                if time.monotonic() - self._started < PAUSE_SECONDS:
                    return
                self.restarts += 1
                logger.error("The training's process ended with code %s; it is started again", process.exitcode)
            arguments = (deployment.config, str(deployment.folder))
            self._process = processes.start(training_process.run, arguments, "foretaste-training")
            self._started = time.monotonic()

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
