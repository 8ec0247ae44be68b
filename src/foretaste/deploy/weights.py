"""Which weights are loaded: those that the state names, and newer ones that are to be tried.

The state is what holds. Whoever changed it (a person, a breach, a restart), the next look brings the learner to it.
Called from the supervisor's thread; what concerns the event loop's own objects is handed to the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import sqlalchemy as sa

from foretaste.deploy import promotion
from foretaste.deploy.database import reading
from foretaste.deploy.deployment import Deployment
from foretaste.deploy.learner import Learner, LearnerUnavailable
from foretaste.deploy.learner_client import ProcessLearner
from foretaste.deploy.tables import checkpoints

logger = logging.getLogger(__name__)

LONGEST_SECONDS = 600.0
"""That a thread waits for the event loop."""


class Loop:
    """The server's event loop, as other threads use it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop, and wait for it."""
        future = self.begin(work)
        try:
            return future.result(LONGEST_SECONDS)
        except BaseException:
            with contextlib.suppress(Exception):
                future.cancel()
            raise

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function in the loop, and wait for it."""

        async def call() -> Any:
            return function()

        return self.wait(call())


class Weights:
    """Keeps the learner, and a candidate beside it, at what the state names."""

    def __init__(self, deployment: Deployment, loop: Loop) -> None:
        self._deployment, self._loop = deployment, loop
        self._unfit = 0
        """Number of the newest checkpoint that could not be loaded: it is not tried for ever."""

    def take_up_newest(self, learner: Learner, held_back: str = "") -> None:
        """Try the newest checkpoint of training: in shadow in place of the present one, else beside it.

        What is being tried stays while it is worth waiting for (`stages.gives_way`), unless a person names another;
        `held_back` says what keeps it in shadow whatever its threshold.
        """
        deployment, present = self._deployment, self._deployment.state
        with reading(deployment.engine) as connection:
            newest = connection.execute(sa.select(checkpoints).order_by(checkpoints.c.number.desc()).limit(1)).first()
        known = (present.checkpoint, present.candidate, present.accepted)
        if newest is None or newest.id in known or newest.number <= max(present.taken_up, self._unfit):
            return
        by_person = "by" in json.loads(newest.note or "{}")
        tried = present if present.stage == "shadow" else promotion.as_candidate(present)
        if not by_person and tried.checkpoint is not None and not promotion.gives_way(deployment, tried, held_back):
            return
        taken = {"taken_up": newest.number}
        if present.stage != "shadow":
            values = {
                "candidate": newest.id,
                "candidate_path": newest.path,
                "candidate_since": deployment.requests_seen(),
            }
            changes = {**promotion.NO_CANDIDATE, **values, **taken}
            deployment.change("candidate", promotion.ACTOR, changes, "training made it", decided_from=present)
            return
        try:
            identity = self._loop.wait(learner.load(newest.path))
        except (LearnerUnavailable, TimeoutError):
            self._unfit = newest.number
            raise
        changes = promotion.fresh_checkpoint(identity, newest.path, deployment.requests_seen()) | taken
        deployment.change("checkpoint", promotion.ACTOR, changes, "training made it", decided_from=present)

    def follow(self, learner: Learner) -> bool:
        """Have the weights answer that the state names; return whether they do.

        Where the state names none, or their folder holds others by now, what is loaded begins in shadow.
        """
        deployment, present = self._deployment, self._deployment.state
        identity, path = learner.checkpoint, learner.path
        if identity == present.checkpoint or identity is None:
            return identity is not None
        if present.checkpoint is not None and present.checkpoint_path is not None:
            path = present.checkpoint_path
            try:
                identity = self._loop.wait(learner.load(path))
            except (LearnerUnavailable, TimeoutError) as error:
                logger.error("The learner is out: the weights that the state names cannot be loaded (%s)", error)
                return False
            if identity == present.checkpoint:
                return True
        changes = promotion.fresh_checkpoint(identity, path, deployment.requests_seen())
        deployment.change("checkpoint", promotion.ACTOR, changes, "loaded", decided_from=present)
        return True

    def keep_candidate(self) -> None:
        """Have a second learner run while the state names a candidate, with its weights; end any other."""
        deployment, present = self._deployment, self._deployment.state
        candidate = deployment.candidate
        if candidate is not None and candidate.path == present.candidate_path:
            other = candidate.checkpoint not in (None, present.candidate) and "its folder holds other weights"
            if reason := candidate.fault or other:
                present = deployment.change("candidate", promotion.ACTOR, promotion.NO_CANDIDATE, reason)
        if candidate is not None and (candidate.ended or candidate.path != present.candidate_path):
            deployment.candidate = None
            self._loop.wait(candidate.close())
        path = present.candidate_path
        if deployment.candidate is not None or path is None:
            return
        made = deployment.candidate = self._loop.call(lambda: self._second(path))
        if deployment.killed:  # the kill switch may not have seen it
            made.kill()

    def _second(self, path: str) -> Learner:
        deployment = self._deployment
        if isinstance(deployment.learner, ProcessLearner):
            return ProcessLearner(deployment.config.learner, path)
        return deployment.scripted(path)
