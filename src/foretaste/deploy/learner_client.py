"""The server's side of the learner's process: ask it, notice when it dies, start it again.

Waiting answers are bounded apart for users and for silent answers; what comes beyond is refused at once, so that
nothing ever queues behind a learner that is too slow. Next: `learner_process.py` for the other side.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
import time
from multiprocessing.process import BaseProcess
from typing import Any

from foretaste.deploy import learner_process, processes
from foretaste.deploy.learner import LearnerUnavailable, Messages
from foretaste.deploy.learner_process import Answered, Ask, Cancel, Failed, Load, Loaded, Stop
from foretaste.deploy.records import LearnerAnswer
from foretaste.deploy.settings import LearnerConfig

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LOAD_SECONDS = 300.0


class ProcessLearner:
    """An actor-critic in a process of its own; use from one event loop, `kill` from anywhere."""

    def __init__(self, config: LearnerConfig, path: str) -> None:
        """Start the process; it loads `path` while requests already pass through."""
        self.checkpoint: str | None = None
        self.restarts = 0
        self.path = path
        """Of the weights that answer; a process that died begins with them again."""
        self.fault = ""
        """Why the last weights could not be loaded; empty if they could."""
        self._config = config
        self._jobs = itertools.count()
        self._waiting: dict[int, tuple[asyncio.Future[LearnerAnswer], bool]] = {}
        self._counts = {True: 0, False: 0}
        self._loads: dict[str, asyncio.Future[str]] = {}
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._process: BaseProcess | None = None
        self._pipe: Any = None  # a Connection; on Windows it is another class
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._keep_alive, name="foretaste-learner", daemon=True).start()

    @property
    def process_id(self) -> int | None:
        """Of the learner's process, while there is one."""
        return self._process.pid if self._process is not None and self._process.is_alive() else None

    @property
    def ended(self) -> bool:
        """True once it was closed or killed."""
        return self._closing

    async def answer(self, messages: Messages, *, seed: int, urgent: bool, deadline_seconds: float) -> LearnerAnswer:
        """Have the process answer one chat.

        Raises: LearnerUnavailable ("loading", "busy", "deadline", "died", "too_long", "killed" ...).
        """
        if self.checkpoint is None:
            raise LearnerUnavailable("killed" if self._closing else "loading")
        if self._counts[urgent] >= (self._config.queue if urgent else self._config.shadow_queue):
            raise LearnerUnavailable("busy")
        job = next(self._jobs)
        future: asyncio.Future[LearnerAnswer] = self._loop.create_future()
        self._waiting[job] = (future, urgent)
        self._counts[urgent] += 1
        try:
            self._outbox.put(Ask(job, [(one["role"], one["content"]) for one in messages], seed, urgent))
            async with asyncio.timeout(deadline_seconds):
                return await future
        except TimeoutError as error:
            self._outbox.put(Cancel(job))
            raise LearnerUnavailable("deadline") from error
        except asyncio.CancelledError:
            self._outbox.put(Cancel(job))
            raise
        finally:
            self._counts[urgent] -= 1
            self._waiting.pop(job, None)

    async def load(self, path: str) -> str:
        """Have the process take up other weights; requests go on with the old ones until then.

        Raises: LearnerUnavailable if they cannot be loaded, and for a process that has ended for good.
        """
        if self._closing:
            raise LearnerUnavailable("killed")
        future = self._loads.get(path)
        if future is None:
            future = self._loads[path] = self._loop.create_future()
            self._outbox.put(Load(path))
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise LearnerUnavailable("loading took too long") from error
        finally:
            self._loads.pop(path, None)

    async def close(self) -> None:
        """End the process in order."""
        self._closing, self.checkpoint = True, None
        self._outbox.put(Stop())
        process = self._process
        if process is not None:
            await asyncio.to_thread(process.join, 3.0)
            self.kill()
            await asyncio.to_thread(process.join, 3.0)

    def kill(self) -> None:
        """End the process at once, and for good."""
        self._closing, self.checkpoint = True, None
        if self._process is not None and self._process.is_alive():
            self._process.kill()

    def _keep_alive(self) -> None:
        """Start the process, read what it says, and start it again when it dies; a thread of its own."""
        pause = FIRST_PAUSE_SECONDS
        while not self._closing:
            started = time.monotonic()
            ours, theirs = processes.context().Pipe()
            arguments = (theirs, self._config, self.path)
            process = processes.start(learner_process.run, arguments, "foretaste-learner")
            theirs.close()
            self._process, self._pipe, self._outbox = process, ours, queue.SimpleQueue()
            # Sending blocks while the process does not read: never in the event loop.
            threading.Thread(target=_send_all, args=(ours, self._outbox), daemon=True).start()
            if self._closing:  # killed while it was being started
                process.kill()
            self._read(ours)
            self._outbox.put(None)
            process.join(5.0)
            self.checkpoint = None
            self._tell(self._fail_all, "died")
            if self._closing:
                return
            self.restarts += 1
            pause = FIRST_PAUSE_SECONDS if time.monotonic() - started > LONGEST_PAUSE_SECONDS else pause
            logger.error("The learner's process ended with code %s; it is started again", process.exitcode)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _read(self, pipe: Any) -> None:
        try:
            while True:
                self._tell(self._handle, pipe.recv())
        except (EOFError, OSError, TypeError):  # TypeError: closed by us amid a read
            return

    def _tell(self, function: Any, *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the event loop is gone
            self._closing = True

    def _handle(self, message: Answered | Failed | Loaded) -> None:
        if isinstance(message, Loaded):
            self._loaded(message)
            return
        future, _ = self._waiting.get(message.job, (None, False))
        if future is None or future.done():
            return
        if isinstance(message, Answered):
            future.set_result(message.answer)
        else:
            future.set_exception(LearnerUnavailable(message.reason))

    def _loaded(self, message: Loaded) -> None:
        future = self._loads.get(message.path)
        if message.checkpoint is None:
            self.fault = message.reason
            logger.error("The weights in %s cannot be loaded: %s", message.path, message.reason)
            if future is not None and not future.done():
                future.set_exception(LearnerUnavailable(message.reason))
            return
        if not self._closing:
            self.checkpoint, self.path, self.fault = message.checkpoint, message.path, ""
        if future is not None and not future.done():
            future.set_result(message.checkpoint)

    def _fail_all(self, reason: str) -> None:
        for future, _ in list(self._waiting.values()):
            if not future.done():
                future.set_exception(LearnerUnavailable(reason))
        for load in list(self._loads.values()):
            if not load.done():
                load.set_exception(LearnerUnavailable(reason))


def _send_all(pipe: Any, outbox: queue.SimpleQueue[Any]) -> None:
    """Send what is put into the outbox until None comes or the process is gone."""
    try:
        while (message := outbox.get()) is not None:
            pipe.send(message)
    except (OSError, ValueError):
        return
