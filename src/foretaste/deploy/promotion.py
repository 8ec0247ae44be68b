"""Thresholds and stages of a running deployment: evidence from the store in, audited changes of the state out.

The mathematics are in `takeover.py` and `stages.py`; this module only carries their decisions out. The checkpoint
that answers users has a stage; where it is in canary or live and a newer one is tried, that one is in shadow beside
it, and takes its place when it has shown what a shadow must show. Next: `supervisor.py`, which calls this.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from foretaste.deploy import evidence as store_evidence
from foretaste.deploy import stages, store, takeover
from foretaste.deploy.analysis import Finding
from foretaste.deploy.database import reading
from foretaste.deploy.deployment import Deployment
from foretaste.deploy.promise.calibration import CALIBRATION, recalibrated, standing
from foretaste.deploy.promise.statement import Promise, promise_of
from foretaste.deploy.promise.volunteers import Volunteers
from foretaste.deploy.promise.watch import check_share, inputs_shifted
from foretaste.deploy.stage_config import StageConfig
from foretaste.deploy.stages import Decision, Stage
from foretaste.deploy.state import State

__all__ = ["CALIBRATION"]

ACTOR = "stages"


@dataclass(frozen=True, slots=True)
class Seen:
    """The last decision about one checkpoint, for the admin page."""

    kind: str
    reason: str
    findings: tuple[Finding, ...]


def stage_config(deployment: Deployment, state: State) -> StageConfig:
    """Return the rules of promotion with the caps that hold now."""
    caps = {"share_ceiling": state.share_ceiling, "harm_budget": state.harm_budget}
    return replace(deployment.config.stages, **caps)


def calibrated(deployment: Deployment, state: State) -> State | None:
    """Choose the threshold of the checkpoint in `state` anew if it is due; return the state with it, else None."""
    stage = deployment.config.stages
    assert state.checkpoint is not None
    with reading(deployment.engine) as connection:
        promise, mature = _promise(deployment, connection)
        count = store_evidence.judged_count(
            connection, state.checkpoint, promise, mature, fresh_from=state.fresh_from, after=state.looked
        )
        if not takeover.look_due(count.kept, count.new):
            return None
        judged = _checks_of(deployment, connection, state, promise, mature)
    return recalibrated(state, judged, last=count.last, alpha=stage.alpha, delta=stage.delta)


def _promise(deployment: Deployment, connection: Connection) -> tuple[Promise, store_evidence.Mature]:
    promise = promise_of(deployment.config)
    now = getattr(deployment, "now", time.time)()
    return promise, store_evidence.Mature.of(connection, promise, now)


def _checks_of(
    deployment: Deployment, connection: Connection, state: State, promise: Promise, mature: store_evidence.Mature
) -> list[takeover.Judged]:
    config = deployment.config.takeover
    return store_evidence.judged_answers(
        connection,
        state.checkpoint or "",
        promise,
        mature,
        fresh_from=state.fresh_from,
        newest=config.newest,
        value=config.value,
        correct_from=config.correct_from,
    )


def decision(deployment: Deployment, state: State, old_tasks: Finding | None) -> Decision:
    """Return what the evidence about the checkpoint in `state` calls for."""
    with reading(deployment.engine) as connection:
        found = store_evidence.gather(
            connection,
            state,
            *_promise(deployment, connection),
            correct_from=deployment.config.takeover.correct_from,
            threshold=standing(state),
            old_tasks=old_tasks,
            complaints=deployment.volunteers.warning,
        )
    return stages.decide(stage_of(state), found, stage_config(deployment, state))


def volunteers_of(deployment: Deployment, state: State) -> Volunteers:
    """Return what users volunteered; the supervisor has it shown, and weighs its warning."""
    with reading(deployment.engine) as connection:
        return store_evidence.volunteers(connection, deployment.config, state)


def next_check_share(deployment: Deployment, state: State) -> float:
    """Return the share of a live learner's answers to check from now on (`promise/watch.py`)."""
    config = deployment.config.takeover
    after, threshold = max(state.watched_from, state.fresh_from), standing(state)
    if state.stage != "live" or threshold is None:
        return config.check_share
    with reading(deployment.engine) as connection:
        promise, mature = _promise(deployment, connection)
        checks = store_evidence.served_checks(
            connection, state.checkpoint or "", promise, mature, after=after, correct_from=config.correct_from
        )
        served = store_evidence.served_live(connection, state.checkpoint or "", after=after)
        seen = store_evidence.reach(connection, state, value=config.value)
    shifted = inputs_shifted(seen.reached, seen.arrived, threshold.served_share, threshold.n)
    return check_share(
        checks.wrong[checks.live].tolist(),
        average=config.check_share,
        served=served,
        alpha=deployment.config.stages.alpha,
        usual=threshold.observed,
        also=shifted or bool(deployment.volunteers.warning),
    )


def gives_way(deployment: Deployment, state: State, held_back: str = "") -> str:
    """Return why newer weights may take the place of those in `state`, which are in shadow, or "" (`stages.py`)."""
    alpha = deployment.config.stages.alpha
    with reading(deployment.engine) as connection:
        promise, mature = _promise(deployment, connection)
        judged = _checks_of(deployment, connection, state, promise, mature)
        alarms = store.alarms_of(connection, state.checkpoint or "")
    if promise.judge is None:
        return "nobody judges, so none of them will ever get a threshold"
    held_back = "; ".join(one for one in (held_back, *alarms) if one)
    return stages.gives_way(judged, standing(state), looks=state.looks, alpha=alpha, held_back=held_back)


def stage_of(state: State) -> Stage:
    """Return the state's stage as `stages.py` knows it."""
    name: Any = state.stage
    return Stage(name, state.checkpoint or "", state.share, state.since, state.step, state.failures, state.accepted)


def as_candidate(state: State) -> State:
    """Return the state as it would be with the candidate alone: in shadow since it began to answer silently."""
    return replace(
        state,
        stage="shadow",
        share=0.0,
        step=0,
        since=state.candidate_since,
        checkpoint=state.candidate,
        checkpoint_path=state.candidate_path,
        looks=state.candidate_looks,
        looked=state.candidate_looked,
        trial=state.candidate_trial,
        threshold=state.candidate_threshold,
        tau=None if state.candidate_threshold is None else state.candidate_threshold["tau"],
        fresh_from=max(state.fresh_from, 0),
    )


def changes_of(state: State, decided: Decision, seen: int) -> dict[str, Any]:
    """Return the changes of the state that a promotion or rollback brings; `seen` requests have arrived by now."""
    after = decided.stage
    changes: dict[str, Any] = {
        "stage": after.name,
        "share": after.share,
        "step": after.step,
        "failures": after.failures,
        "since": seen,
    }
    if decided.kind == "rollback":
        # What was judged before the breach says nothing about the world after it.
        # No looks yet: the next one begins a new trial with a part of delta of its own.
        changes |= {"tau": None, "threshold": None, "looks": 0, "fresh_from": seen, "watched_from": seen}
        if after.checkpoint != state.checkpoint:
            changes |= {"checkpoint": after.checkpoint, "checkpoint_path": state.accepted_path}
    elif state.stage == "shadow":
        changes |= {"watched_from": seen}
    elif after.name == "live":
        changes |= {"accepted": state.checkpoint, "accepted_path": state.checkpoint_path}
    return changes


def fresh_checkpoint(identity: str, path: str, seen: int) -> dict[str, Any]:
    """Return the changes of the state by which new weights begin: in shadow, without a threshold."""
    return {
        "checkpoint": identity,
        "checkpoint_path": path,
        "stage": "shadow",
        "share": 0.0,
        "step": 0,
        "since": seen,
        "tau": None,
        "threshold": None,
        "looks": 0,
        "looked": 0,
        "trial": 0,
        **NO_CANDIDATE,
    }


NO_CANDIDATE: dict[str, Any] = {
    "candidate": None,
    "candidate_path": None,
    "candidate_since": 0,
    "candidate_looks": 0,
    "candidate_looked": 0,
    "candidate_trial": 0,
    "candidate_threshold": None,
}
