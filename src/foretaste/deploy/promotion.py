"""Thresholds and stages of a running deployment: evidence from the store in, audited changes of the state out.

The mathematics are in `takeover.py` and `stages.py`; this module only carries their decisions out. The checkpoint
that answers users has a stage; where it is in canary or live and a newer one is tried, that one is in shadow beside
it, and takes its place when it has shown what a shadow must show. Next: `supervisor.py`, which calls this.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any

from foretaste.deploy import evidence as store_evidence
from foretaste.deploy import stages, takeover
from foretaste.deploy.analysis import Finding
from foretaste.deploy.database import reading
from foretaste.deploy.deployment import Deployment
from foretaste.deploy.stage_config import StageConfig
from foretaste.deploy.stages import Decision, Stage
from foretaste.deploy.state import State
from foretaste.deploy.takeover import Threshold

ACTOR = "stages"
CALIBRATION = ("tau", "threshold", "looks", "looked")
"""What a calibration changes in the state; a candidate has the same, without `tau`, which is in its threshold."""


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
    config, stage = deployment.config.takeover, deployment.config.stages
    assert state.checkpoint is not None
    with reading(deployment.engine) as connection:
        count = store_evidence.judged_count(
            connection, state.checkpoint, fresh_from=state.fresh_from, after=state.looked
        )
        if not takeover.look_due(count.kept, count.new):
            return None
        judged = store_evidence.judged_answers(
            connection,
            state.checkpoint,
            fresh_from=state.fresh_from,
            newest=config.newest,
            value=config.value,
            correct_from=config.correct_from,
        )
    look = state.looks + 1
    now = takeover.calibrate(judged, state.checkpoint, alpha=stage.alpha, delta=stage.delta, look=look)
    found = takeover.renewed(Threshold(**state.threshold) if state.threshold else None, now)
    return replace(state, tau=found.tau, threshold=dataclasses.asdict(found), looks=look, looked=count.last)


def decision(deployment: Deployment, state: State, old_tasks: Finding | None) -> Decision:
    """Return what the evidence about the checkpoint in `state` calls for."""
    with reading(deployment.engine) as connection:
        found = store_evidence.gather(
            connection,
            state,
            correct_from=deployment.config.takeover.correct_from,
            threshold=Threshold(**state.threshold) if state.threshold else None,
            old_tasks=old_tasks,
        )
    return stages.decide(stage_of(state), found, stage_config(deployment, state))


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
        changes |= {"tau": None, "threshold": None, "looks": 0, "fresh_from": seen}
        if after.checkpoint != state.checkpoint:
            changes |= {"checkpoint": after.checkpoint, "checkpoint_path": state.accepted_path}
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
        **NO_CANDIDATE,
    }


NO_CANDIDATE: dict[str, Any] = {
    "candidate": None,
    "candidate_path": None,
    "candidate_since": 0,
    "candidate_looks": 0,
    "candidate_looked": 0,
    "candidate_threshold": None,
}
