"""Looks after a running deployment, in a thread of its own: changes from outside, thresholds, stages, retention.

A failure here (the database is gone, say) is logged and tried again; requests go on meanwhile. Everything that
concerns the event loop's own objects is handed to the loop. Next: `promotion.py`, `weights.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from foretaste.deploy import audit, keys, promotion, state, store
from foretaste.deploy.analysis import Finding
from foretaste.deploy.database import reading, writing
from foretaste.deploy.deployment import Deployment, describe
from foretaste.deploy.examination import Examination
from foretaste.deploy.gatekeeper import AUDIT_SECONDS
from foretaste.deploy.learner import Learner, LearnerUnavailable
from foretaste.deploy.old_items import OldItems
from foretaste.deploy.promotion import Seen
from foretaste.deploy.stages import Decision
from foretaste.deploy.state import State
from foretaste.deploy.training_client import Training
from foretaste.deploy.weights import Loop, Weights
from foretaste.errors import ForetasteError

logger = logging.getLogger(__name__)

SYNC_SECONDS = 0.5
"""How soon a change at the command line reaches the server."""
RETENTION_SECONDS = 3600.0


class Supervisor:
    """Start it once the deployment has started; `close` before the deployment stops."""

    def __init__(self, deployment: Deployment, loop: asyncio.AbstractEventLoop, training: Training) -> None:
        self.seen: dict[str, Seen] = {}
        """The last decision about each checkpoint: `current` and `candidate`."""
        self._deployment, self._loop, self._training = deployment, Loop(loop), training
        self._weights = Weights(deployment, self._loop)
        self._old = OldItems.load(deployment.config.old_tasks, deployment.folder, deployment.compare)
        self._exam = Examination.of(deployment.config.exam, deployment.folder, deployment.files)
        if self._exam:
            deployment.on_killed.append(lambda _, exam=self._exam: exam.stop())
        self._head = -1
        self._stop = threading.Event()
        self._due: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="foretaste-supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and an exam that is being sat."""
        self._stop.set()
        if self._exam:
            self._exam.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        config = self._deployment.config
        jobs: list[tuple[str, float, Callable[[], None]]] = [
            ("sync", 0.0, self.sync),
            ("look", config.takeover.every_seconds, self.look),
            ("refusals", AUDIT_SECONDS, self.audit_refusals),
            ("retention", RETENTION_SECONDS, self.retain),
        ]
        while not self._stop.wait(min(SYNC_SECONDS, config.takeover.every_seconds)):
            for name, seconds, job in jobs:
                if time.monotonic() < self._due.get(name, 0.0):
                    continue
                self._due[name] = time.monotonic() + seconds
                try:
                    job()
                except (ForetasteError, LearnerUnavailable, TimeoutError) as error:
                    logger.error("Supervisor (%s): %s", name, describe(error))
                except Exception as error:  # the thread must outlive a fault, and a text may be in its message
                    logger.error("Supervisor (%s): %s", name, type(error).__name__)

    # What was changed from outside --------------------------------------------------------------

    def sync(self) -> None:
        """Take over what the command line or another process has changed in the store."""
        deployment = self._deployment
        if deployment.killed and not deployment.state.killed and deployment.switch.unrecorded:
            reason = deployment.switch.unrecorded
            deployment.change("killed", "server", {"killed": True}, reason)
            deployment.switch.unrecorded = ""
        with reading(deployment.engine) as connection:
            head = audit.read_head(connection).seq
            if head == self._head:
                return
            found = state.read(connection)
            valid = keys.valid_by_hash(connection)
        self._head = head
        was_killed, deployment.state = deployment.state.killed, found
        deployment.gatekeeper.keys = valid
        if found.killed:
            deployment.switch.kill("the state says so", recorded=True)
        elif was_killed and deployment.killed and deployment.switch.lift():
            self._loop.call(deployment.start_learner)

    def audit_refusals(self) -> None:
        """Write down how often requests were refused, by reason and key."""
        taken, self._deployment.gatekeeper.refusals = self._deployment.gatekeeper.refusals, {}
        if taken:
            counts = [{"reason": reason, "key": key, "count": count} for (reason, key), count in sorted(taken.items())]
            self._deployment.record("refused", "server", {"refusals": counts})

    def retain(self) -> None:
        """Delete what is older than the retention."""
        before = self._deployment.now() - 86_400 * self._deployment.config.store.retention_days
        with writing(self._deployment.engine) as connection:
            deleted = store.delete_older(connection, before)
        if deleted:
            self._deployment.record("retention", "server", {"requests_deleted": deleted, "before": before})

    # Thresholds and stages ----------------------------------------------------------------------

    def look(self) -> None:
        """Take up new weights, choose thresholds anew, and move between stages as the evidence says."""
        deployment = self._deployment
        learner = deployment.learner
        if deployment.killed or learner is None or learner.checkpoint is None:
            return
        self._training.keep_going()
        self._weights.take_up_newest(learner)
        if self._weights.follow(learner):
            self._look_at_current(learner)
        self._weights.keep_candidate()
        if deployment.state.candidate is not None and deployment.candidate is not None:
            self._look_at_candidate(learner)

    def _look_at_current(self, learner: Learner) -> None:
        deployment = self._deployment
        found = promotion.calibrated(deployment, deployment.state)
        if found is not None:
            changes = {"tau": found.tau, "threshold": found.threshold, "looks": found.looks}
            deployment.change("calibrated", promotion.ACTOR, changes, str((found.threshold or {}).get("reason", "")))
        present = deployment.state
        old = self._held_against_old(learner, present.checkpoint) if present.stage == "shadow" else None
        decided = self._examined(promotion.decision(deployment, present, old), present)
        self.seen["current"] = Seen(decided.kind, decided.reason, decided.findings)
        if decided.kind == "rollback" or (decided.kind == "promote" and not present.held):
            self._carry_out(learner, decided)
        elif decided.stage.share < present.share:
            deployment.change("capped", promotion.ACTOR, {"share": decided.stage.share}, decided.reason)

    def _look_at_candidate(self, learner: Learner) -> None:
        deployment, candidate = self._deployment, self._deployment.candidate
        assert candidate is not None
        present = promotion.as_candidate(deployment.state)
        found = promotion.calibrated(deployment, present)
        if found is not None:
            changes = {"candidate_threshold": found.threshold, "candidate_looks": found.looks}
            reason = str((found.threshold or {}).get("reason", ""))
            deployment.change("candidate_calibrated", promotion.ACTOR, changes, reason)
            present = promotion.as_candidate(deployment.state)
        old = self._held_against_old(candidate, present.checkpoint)
        decided = self._examined(promotion.decision(deployment, present, old), present)
        self.seen["candidate"] = Seen(decided.kind, decided.reason, decided.findings)
        if decided.kind != "promote" or deployment.state.held or present.checkpoint_path is None:
            return
        identity = self._loop.wait(learner.load(present.checkpoint_path))
        moved = promotion.changes_of(present, decided, self._requests())
        kept = {name: getattr(present, name) for name in ("tau", "threshold", "looks")}
        changes = {**promotion.NO_CANDIDATE, **kept, **moved}
        changes |= {"checkpoint": identity, "checkpoint_path": present.checkpoint_path}
        deployment.change("promote", promotion.ACTOR, changes, decided.reason)
        self._weights.keep_candidate()

    def _carry_out(self, learner: Learner, decided: Decision) -> None:
        deployment = self._deployment
        changes = promotion.changes_of(deployment.state, decided, self._requests())
        # The state first: from then on nothing is served that the threshold was not chosen for.
        deployment.change(decided.kind, promotion.ACTOR, changes, decided.reason)
        self._weights.follow(learner)

    def _examined(self, decided: Decision, present: State) -> Decision:
        if self._exam is None or present.checkpoint_path is None:
            return decided
        return self._exam.held_against(decided, promotion.stage_of(present), present.checkpoint_path)

    def _held_against_old(self, learner: Learner, checkpoint: str | None) -> Finding | None:
        if self._old is None:
            return OldItems.NOTHING
        old = self._old
        return self._loop.wait(old.finding(learner, checkpoint or "", self._deployment.state.accepted))

    def _requests(self) -> int:
        with reading(self._deployment.engine) as connection:
            return store.requests_seen(connection)
