"""Looks after a running deployment, in threads of its own: changes from outside; thresholds, stages, retention.

What comes from outside has a thread for itself, so that a kill or a rollback waits for no weights that are loaded.
So has the training's process, so that a stopped one is noticed whatever is being loaded or examined.

A failure here (the database is gone, say) is logged and tried again; requests go on meanwhile. Everything that
concerns the event loop's own objects is handed to the loop. Next: `promotion.py`, `weights.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from foretaste.deploy import audit, keys, promotion, state
from foretaste.deploy.analysis import Finding, Verdict
from foretaste.deploy.database import reading
from foretaste.deploy.deployment import Deployment, describe
from foretaste.deploy.examination import NAME as EXAM
from foretaste.deploy.examination import Examination
from foretaste.deploy.gatekeeper import AUDIT_SECONDS
from foretaste.deploy.integrity import checks
from foretaste.deploy.integrity.log_reader import follow
from foretaste.deploy.learner import Learner, LearnerUnavailable
from foretaste.deploy.old_items import NAME as OLD_TASKS
from foretaste.deploy.old_items import OldItems
from foretaste.deploy.operations import retention
from foretaste.deploy.promotion import Seen
from foretaste.deploy.stages import Decision
from foretaste.deploy.state import State
from foretaste.deploy.training_client import Training
from foretaste.deploy.weights import Loop, Weights
from foretaste.errors import ForetasteError
from foretaste.hash_chain import Head

logger = logging.getLogger(__name__)

SYNC_SECONDS = 0.5
"""How soon a change at the command line reaches the server."""
TRAINING_SECONDS = 1.0
"""How soon a training process that died, or an alarm of it, is noticed."""
RETENTION_SECONDS = 3600.0
LOCK_SECONDS = 5.0
TIDY_SECONDS = 60.0


class Job(NamedTuple):
    """What is done again and again."""

    name: str
    seconds: float
    """From one beginning to the next, at least."""
    work: Callable[[], None]


class Supervisor:
    """Start it once the deployment has started; `close` before the deployment stops."""

    def __init__(self, deployment: Deployment, loop: asyncio.AbstractEventLoop, training: Training) -> None:
        self.seen: dict[str, Seen] = {}
        """The last decision about each checkpoint: `current` and `candidate`."""
        self._deployment, self._loop, self._training = deployment, Loop(loop), training
        self._weights = Weights(deployment, self._loop)
        config = deployment.config
        self._old = OldItems.load(config, deployment.folder, deployment.files, deployment.compare)
        self._asking: Future[None] | None = None
        """The old items that are being answered."""
        self._exam = Examination.of(config.exam, deployment.folder, deployment.files)
        if self._exam:
            deployment.on_killed.append(lambda _, exam=self._exam: exam.stop())
        self._head: Head | None = None
        self._stop = threading.Event()
        self._due: dict[str, float] = {}
        jobs: list[Job] = [
            Job("look", config.takeover.every_seconds, self.look),
            Job("refusals", AUDIT_SECONDS, self.audit_refusals),
            Job("records", AUDIT_SECONDS, self.check_records),
            Job("lock", LOCK_SECONDS, self.keep_lock),
            Job("checkpoints", TIDY_SECONDS, self._training.tidy),
        ]
        apart = [Job("retention", RETENTION_SECONDS, self.retain)]
        self._threads = [
            threading.Thread(target=self._run, args=arguments, name=f"foretaste-{arguments[0].name}", daemon=True)
            for arguments in (
                [Job("sync", 0.0, self.sync)],
                [Job("training", TRAINING_SECONDS, self.train)],
                jobs,
                apart,
            )
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads, and an exam that is being sat."""
        self._stop.set()
        if self._exam:
            self._exam.close()
        if self._asking is not None:
            self._asking.cancel()
        for thread in self._threads:
            thread.join(5.0)

    def _run(self, *jobs: Job) -> None:
        while not self._stop.wait(min(SYNC_SECONDS, self._deployment.config.takeover.every_seconds)):
            for name, seconds, work in jobs:
                if time.monotonic() < self._due.get(name, 0.0):
                    continue
                self._due[name] = time.monotonic() + seconds
                try:
                    work()
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
        with deployment.changing, reading(deployment.engine) as connection:
            head = audit.read_head(connection)
            if head == self._head:
                return
            found = state.read(connection, deployment.audit_key)
            valid = keys.valid_by_hash(connection, deployment.audit_key)
            deployment.heads.keep(follow(connection, deployment.audit_key).head)
            self._head = head
            was_killed, deployment.state = deployment.state.killed, found
        deployment.gatekeeper.keys = valid
        if found.killed:
            deployment.switch.kill("the state says so", recorded=True)
        elif was_killed and deployment.killed and deployment.switch.lift():
            self._loop.call(deployment.start_learner)

    def audit_refusals(self) -> None:
        """Write down how often requests were refused, by reason and key."""
        gatekeeper = self._deployment.gatekeeper
        taken = gatekeeper.take_refusals()
        if taken:
            counts = [{"reason": reason, "key": key, "count": count} for (reason, key), count in sorted(taken.items())]
            try:
                self._deployment.record("refused", "server", {"refusals": counts})
            except ForetasteError:
                gatekeeper.put_back(taken)
                raise

    def retain(self) -> None:
        """Delete what is older than the retention, in a thread that nothing else waits for."""
        deployment = self._deployment
        before = deployment.now() - 86_400 * deployment.config.store.retention_days
        retention.retain(deployment.engine, deployment.audit_key, before, stop=self._stop)

    def check_records(self) -> None:
        """Write into the log what the store holds, and tell where it is not what the log says."""
        deployment = self._deployment
        deployment.count()
        with reading(deployment.engine) as connection:
            found = tuple(checks.quick_differences(connection, follow(connection, deployment.audit_key)))
        for one in found:
            if one not in deployment.tampered:
                logger.critical("The store was changed outside the log: %s. See: foretaste audit verify", one)
        deployment.tampered = found

    def keep_lock(self) -> None:
        """Take the store's lock again where a database server has lost it with its connection."""
        self._deployment.lock.keep(self._deployment.engine)

    def train(self) -> None:
        """Have the training's process run where it should, and take over what it says; a thread of its own."""
        learner = self._deployment.learner
        if learner is not None and (learner.checkpoint is not None or self._training.process_id is not None):
            self._training.keep_going()  # the learner's weights come first: users wait for them
        self._training.look()

    # Thresholds and stages ----------------------------------------------------------------------

    def look(self) -> None:
        """Take up new weights, choose thresholds anew, and move between stages as the evidence says."""
        deployment = self._deployment
        learner = deployment.learner
        if deployment.killed or learner is None or learner.checkpoint is None:
            return
        if not self._owes_answers(learner):
            self._weights.take_up_newest(learner, self._held_back())
        if self._weights.follow(learner):
            self._look_at_current(learner)
        self._weights.keep_candidate()
        if deployment.state.candidate is not None and deployment.candidate is not None:
            self._look_at_candidate(learner)
        self._ask_old_items(learner)

    def _look_at_current(self, learner: Learner) -> None:
        deployment, present = self._deployment, self._deployment.state
        found = promotion.calibrated(deployment, present)
        if found is not None:
            changes = {name: getattr(found, name) for name in promotion.CALIBRATION} | {"trials": found.trials}
            present = self._change("calibrated", changes, str((found.threshold or {}).get("reason", "")), present)
        old = self._held_against_old(present, present) if present.stage == "shadow" else None
        deployment.volunteers = promotion.volunteers_of(deployment, present)
        deployment.check_share = promotion.next_check_share(deployment, present)
        decided = self._examined(promotion.decision(deployment, present, old), present)
        self.seen["current"] = Seen(decided.kind, decided.reason, decided.findings)
        share = decided.stage.share
        if decided.kind == "rollback" or (decided.kind == "promote" and not present.held):
            # The state first: from then on nothing is served that the threshold was not chosen for.
            changes = promotion.changes_of(present, decided, self._deployment.requests_seen())
            self._change(decided.kind, changes, decided.reason, present)
            self._weights.follow(learner)
        elif share < present.share or (share > present.share and not present.held):
            self._change("capped", {"share": share}, decided.reason, present)

    def _look_at_candidate(self, learner: Learner) -> None:
        deployment, now = self._deployment, self._deployment.state
        present = promotion.as_candidate(now)
        found = promotion.calibrated(deployment, present)
        if found is not None:
            changes = {f"candidate_{name}": getattr(found, name) for name in promotion.CALIBRATION if name != "tau"}
            changes |= {"trials": found.trials}
            now = self._change("candidate_calibrated", changes, str((found.threshold or {}).get("reason", "")), now)
            present = promotion.as_candidate(now)
        old = self._held_against_old(present, now)
        decided = self._examined(promotion.decision(deployment, present, old), present)
        self.seen["candidate"] = Seen(decided.kind, decided.reason, decided.findings)
        if decided.kind != "promote" or now.held or present.checkpoint_path is None:
            return
        identity = self._loop.wait(learner.load(present.checkpoint_path))
        if identity != present.checkpoint:
            self._change("candidate", promotion.NO_CANDIDATE, "its folder holds other weights", now)
            return
        moved = promotion.changes_of(present, decided, self._deployment.requests_seen())
        kept = {name: getattr(present, name) for name in promotion.CALIBRATION}
        changes = {**promotion.NO_CANDIDATE, **kept, **moved}
        changes |= {"checkpoint": present.checkpoint, "checkpoint_path": present.checkpoint_path}
        self._change("promote", changes, decided.reason, now)
        self._weights.keep_candidate()

    def _change(self, kind: str, changes: dict[str, Any], reason: str, decided_from: State) -> State:
        return self._deployment.change(kind, promotion.ACTOR, changes, reason, decided_from=decided_from)

    def _held_back(self) -> str:
        """Return what keeps the weights that are tried in shadow for good: old tasks or the exam, having spoken."""
        now = self._deployment.state
        name, checkpoint = ("current", now.checkpoint) if now.stage == "shadow" else ("candidate", now.candidate)
        seen = self.seen.get(name)
        answering = self._old is not None and checkpoint is not None and self._old.missing(checkpoint) > 0
        if seen is None or answering or (self._exam is not None and self._exam.sitting):
            return ""
        gates = [one for one in seen.findings if one.check in (OLD_TASKS, EXAM)]
        return "; ".join(f"{one.check}: {one.reason}" for one in gates if one.verdict is not Verdict.SUCCESS)

    def _examined(self, decided: Decision, present: State) -> Decision:
        if self._exam is None or present.checkpoint_path is None:
            return decided
        return self._exam.held_against(decided, promotion.stage_of(present), present.checkpoint_path)

    # Old tasks ----------------------------------------------------------------------------------

    def _ask_old_items(self, learner: Learner) -> None:
        """Have those weights answer the old items, beside everything else, that have not: the accepted ones first."""
        present = self._deployment.state
        if self._old is None:
            return
        self._old.save(present.accepted, present.checkpoint, present.candidate)
        if self._asking is not None:
            if not self._asking.done():
                return
            if error := self._asking.exception():
                logger.error("Supervisor (old items): %s", type(error).__name__)
        loaded = {one.checkpoint: one for one in (self._deployment.candidate, learner) if one is not None}
        for checkpoint in (present.accepted, present.checkpoint, present.candidate):
            if checkpoint is not None and checkpoint in loaded and self._old.missing(checkpoint):
                self._asking = self._loop.begin(self._old.ask(loaded[checkpoint]))
                return

    def _owes_answers(self, learner: Learner) -> bool:
        """Return whether the weights that answer are the accepted ones, and have still to be asked the old items."""
        loaded = learner.checkpoint
        if self._old is None or loaded is None or loaded != self._deployment.state.accepted:
            return False
        return self._old.due(loaded)

    def _held_against_old(self, tried: State, present: State) -> Finding:
        return OldItems.NOTHING if self._old is None else self._old.finding(tried.checkpoint or "", present.accepted)
