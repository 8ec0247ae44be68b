"""Everything of one running deployment, put together: store, writer, incumbent, learner, state, kill switch.

Nothing here decides anything. `chat.py` answers requests with it, `supervisor.py` looks after it, `server.py` gives
it a network address.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from foretaste.deploy import audit, keys, state
from foretaste.deploy.database import reading, writing
from foretaste.deploy.evidence import learner_tokens_since
from foretaste.deploy.files import write_private
from foretaste.deploy.gatekeeper import Gatekeeper
from foretaste.deploy.harm import harm_rule
from foretaste.deploy.integrity import checks
from foretaste.deploy.integrity.log_reader import follow
from foretaste.deploy.integrity.opening import open_store
from foretaste.deploy.judging import comparator, load_function, verifier
from foretaste.deploy.kill import PID_FILE, KillSwitch
from foretaste.deploy.learner import Learner, LearnerUnavailable, ScriptedLearner
from foretaste.deploy.learner_client import ProcessLearner
from foretaste.deploy.metrics import Metrics
from foretaste.deploy.network.connections import Connections
from foretaste.deploy.network.request_settings import Names
from foretaste.deploy.operations.lock import ServerLock
from foretaste.deploy.people import PeopleQueue
from foretaste.deploy.promise.volunteers import Volunteers
from foretaste.deploy.runtime.attendance import Attendance
from foretaste.deploy.runtime.stand_in import StandIn
from foretaste.deploy.settings import DeployConfig, files_folder
from foretaste.deploy.shadow import Judges, Shadow
from foretaste.deploy.state import State
from foretaste.deploy.store import requests_seen
from foretaste.deploy.upstream import Upstream
from foretaste.deploy.writer import Writer
from foretaste.errors import DeployError
from foretaste.strict_json import to_json

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0
SHARED = frozenset({"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "top_p", "seed", "user"})


class Deployment:
    """The parts of a server; `start` and `stop` run in its event loop."""

    def __init__(self, config: DeployConfig, folder: Path, *, learner: Learner | None = None) -> None:
        """Open the store; `learner` takes the place of the configured one.

        Raises: ConfigError or DeployError, before anything was started.
        """
        self.config, self.folder = config, folder
        self.files = files_folder(config, folder)
        self.harm = harm_rule(config.harm)
        self.compare, self.verify = comparator(config.takeover.comparator), verifier(config.takeover.verifier)
        scripted = config.learner.scripted
        self._script = load_function(scripted, "learner.scripted") if scripted else None
        self.upstream = Upstream(config.incumbent) if config.incumbent.kind == "openai" else None
        self.lock = ServerLock(self.files)
        try:
            self.engine, self.audit_key, self.heads = open_store(config, folder)
            self.lock.take_database(self.engine)
            self.state: State = state.load(self.engine, self.audit_key)
        except BaseException:
            self.lock.release()
            raise
        self.tampered: tuple[str, ...] = ()
        """Where the store is not what the audit log says, as of the last look."""
        self.metrics = Metrics()
        self.gatekeeper = Gatekeeper(requests_per_minute=config.server.requests_per_minute, metrics=self.metrics)
        self.people: PeopleQueue | None = None
        self.learner = learner
        self.candidate: Learner | None = None
        """Newer weights that answer silently in place of the learner."""
        self.stand_in = StandIn(config.incumbent, self.upstream)
        self.attendance = Attendance(self._probe)
        self.connections = Connections(config.server)
        self.setting_names = Names()
        self.learning: dict[str, Any] = {}
        """What learning on the job is doing (`training/status.py`); empty before the first look."""
        self.changing = threading.Lock()
        """Held while `state` is replaced, so that none is replaced by an older one."""
        self.check_share = config.takeover.check_share
        """Share of a live learner's answers that are checked now (`promise/watch.py`); the supervisor sets it."""
        self.volunteers = Volunteers({}, "")
        """What users volunteered, as of the last look: it may stop things, never start them."""
        self.on_killed: list[Any] = []
        """Called, from the kill switch's thread, with the reason."""
        self._began = (time.time(), time.monotonic())
        self._tokens = (0, 0)  # day, tokens of that day
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, *, with_signal: bool = False) -> None:
        """Start the writer, the connections, the learner and the kill switch."""
        config = self.config
        self._loop = asyncio.get_running_loop()
        with reading(self.engine) as connection:
            self.gatekeeper.keys = keys.valid_by_hash(connection, self.audit_key)
            day_began = self.now() // DAY_SECONDS * DAY_SECONDS
            self._tokens = (int(day_began // DAY_SECONDS), learner_tokens_since(connection, day_began))
        self.writer = Writer(
            self.engine,
            queue=config.store.queue,
            queue_bytes=config.store.queue_bytes,
            flush_seconds=config.store.flush_seconds,
            compare=self.compare,
            judging=bool(self.learner or config.learner.checkpoint or self._script),
            correct_from=config.takeover.correct_from,
        )
        self.shadow = Shadow(
            self.writer,
            self.metrics,
            Judges(self.harm, self.verify),
            most=config.learner.shadow_queue,
            deadline_seconds=config.learner.shadow_deadline_seconds,
        )
        if self.upstream is not None:
            await self.upstream.__aenter__()
        else:
            self.people = PeopleQueue(timeout_seconds=config.incumbent.person_timeout_seconds)
        self.switch = KillSwitch(self.folder / config.server.kill_file, self._on_kill, with_signal=with_signal)
        if self.state.killed:
            self.switch.kill("the state says so", recorded=True)
        if not self.killed:
            self.start_learner()
        elif self.learner is not None:
            self.learner.kill()
        if self.learner is not None:
            await self.stand_in.begin()
        write_private(self.files / PID_FILE, str(os.getpid()))

    async def stop(self) -> None:
        """Write what waits, and end everything that was started."""
        self.switch.close()
        await self.attendance.close()
        await self.stand_in.close()
        await self.shadow.close()
        for one in (self.learner, self.candidate):
            if one is not None:
                await one.close()
        if self.upstream is not None:
            await self.upstream.__aexit__(None, None, None)
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        """Write down what the store holds, take the process id away, and let another server begin."""
        try:
            self.count()
            self.keep_head()
        except DeployError as error:  # a database that is gone must not keep the server from ending
            logger.error("The store's counts could not be logged at the end: %s", error)
        file = self.files / PID_FILE
        with contextlib.suppress(OSError):
            if file.read_text(encoding="utf-8") == str(os.getpid()):  # never somebody else's
                file.unlink()
        self.lock.release()
        self.engine.dispose()

    def count(self) -> None:
        """Write into the audit log what the store holds, if it has changed; blocks on the database."""
        with writing(self.engine) as connection:
            checks.count(connection, self.audit_key)

    def keep_head(self) -> None:
        """Keep the log's head in its second place; blocks on the database."""
        with reading(self.engine) as connection:
            self.heads.keep(follow(connection, self.audit_key).head)

    def start_learner(self) -> None:
        """Start the configured learner anew, or let a scripted one in again; in the event loop."""
        if isinstance(self.learner, ScriptedLearner):
            self.learner.killed = False
            return
        path = self.state.checkpoint_path or self.config.learner.checkpoint
        if self._script is not None:
            self.learner = ScriptedLearner(self._script)
        elif path is not None:
            self.learner = ProcessLearner(self.config.learner, str((self.folder / path).resolve()))

    async def _probe(self) -> bool:
        """Ask the learner something small, as for a user; return whether it answered within the deadline."""
        learner, deadline = self.learner, self.config.learner.deadline_seconds
        if learner is None or learner.checkpoint is None:
            return False
        ends = time.monotonic() + deadline
        messages = [{"role": "user", "content": "1"}]
        try:
            found = await learner.answer(messages, seed=0, urgent=True, deadline_seconds=deadline)
        except LearnerUnavailable as error:
            return str(error) in ("failed", "too_long")  # it has answered, if only that it cannot
        self.spend(found.completion_tokens)
        _, in_time = await self.shadow.examined(messages, found, urgent=True, seconds=ends - time.monotonic())
        return in_time

    def scripted(self, name: str) -> ScriptedLearner:
        """Return a second scripted learner of another name, where the first one is scripted."""
        assert isinstance(self.learner, ScriptedLearner)
        made = ScriptedLearner(self.learner.function, seconds=self.learner.seconds)
        made.checkpoint = name
        return made

    @property
    def killed(self) -> bool:
        """True while the kill switch is on, or the state says so."""
        return self.switch.killed

    def may_shadow(self) -> bool:
        """Return whether the learner may answer silently now."""
        if self.killed or self.state.killed or not self.state.may_shadow:
            return False
        return self.tokens_today() < self.state.tokens_per_day

    def now(self) -> float:
        """Return the seconds since 1970, unmoved by jumps of the wall clock since the start."""
        wall, monotonic = self._began
        return wall + time.monotonic() - monotonic

    def tokens_today(self) -> int:
        """Return what the learner has generated today (UTC)."""
        self.spend(self.shadow.tokens)
        self.shadow.tokens = 0
        return self._tokens[1]

    def spend(self, tokens: int) -> None:
        """Count tokens of the learner towards today's cap."""
        day = int(self.now() // DAY_SECONDS)
        before = self._tokens[1] if day == self._tokens[0] else 0
        self._tokens = (day, before + tokens)
        if tokens:
            self.metrics.learner_tokens.inc(tokens)

    def outgoing(self, body: bytes, request: dict[str, Any], *, plain: bool = False) -> bytes:
        """Return what the incumbent is sent: the client's bytes, unless the configuration names a model.

        `plain` asks for one whole answer in place of a stream, for a check.
        """
        model = self.config.incumbent.model
        if model is None and not plain:
            return body
        wanted = {name: value for name, value in request.items() if not plain or name in SHARED}
        return to_json(wanted if model is None else {**wanted, "model": model}).encode()

    def change(
        self, kind: str, actor: str, changes: dict[str, Any], reason: str, *, decided_from: State | None = None
    ) -> State:
        """Change the state, audited; blocks on the database, so not in the event loop."""
        with self.changing:
            if kind.endswith("calibrated"):  # what it was read from is in the log before what follows from it
                self.count()
            self.state = state.change(
                self.engine, self.audit_key, kind, actor, changes, reason, decided_from=decided_from
            )
            return self.state

    def requests_seen(self) -> int:
        """Return how many requests were ever written down; blocks on the database."""
        with reading(self.engine) as connection:
            return requests_seen(connection)

    def record(self, kind: str, actor: str, payload: dict[str, Any]) -> None:
        """Write an audit entry that changes nothing; blocks on the database."""
        with writing(self.engine) as connection:
            audit.append(connection, self.audit_key, kind, actor, payload)

    def _on_kill(self, reason: str) -> None:
        """Take the learner out, from the kill switch's own thread, without waiting for anything."""
        failed: list[Exception] = []
        acts = [one.kill for one in (self.learner, self.candidate) if one is not None]
        for act in (*acts, *(partial(act, reason) for act in self.on_killed)):
            try:
                act()
            except Exception as error:  # what else can be ended is ended first
                failed.append(error)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.shadow.drop)
        if failed:
            raise failed[0]


def make_first_keys(deployment: Deployment) -> dict[str, str]:
    """Make an admin's and a user's key for a store that has no key at all; return the secrets by scope."""
    made: dict[str, str] = {}
    with writing(deployment.engine) as connection:
        if keys.listed(connection, deployment.audit_key):
            return made
        for scope in ("admin", "user"):
            _, secret = keys.create(connection, deployment.audit_key, f"first {scope}", scope, actor="server")
            made[scope] = secret
    return made


def describe(error: Exception) -> str:
    """Return an error's text for a log: of our own errors the message, of others the kind alone (it may hold text)."""
    return str(error) if isinstance(error, DeployError) else type(error).__name__
