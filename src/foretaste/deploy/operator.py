"""What a person may do to a deployment: move its stages, kill it, let it learn. Each is an audited change of state.

The command line does it on the store directly, so it needs no running server; the admin's page through the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine

from foretaste.deploy import state as states
from foretaste.deploy.database import reading
from foretaste.deploy.settings import DeployConfig
from foretaste.deploy.state import State
from foretaste.deploy.store import requests_seen
from foretaste.errors import DeployError, unknown

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment

ACTIONS = ("hold", "release", "promote", "rollback", "kill", "resume_learning", "pause_learning")


def act(deployment: Deployment, name: str, actor: str) -> State:
    """Do what a person asks for in a running server."""
    changes, reason = changes_for(name, deployment.state, deployment.config, deployment.requests_seen())
    return deployment.change(name, actor, changes, reason)


def act_on_store(engine: Engine, key: bytes, config: DeployConfig, name: str, actor: str) -> State:
    """Do what a person asks for on the store; a running server takes it over within a second."""
    changes, reason = changes_for(name, states.load(engine, key), config, _seen(engine))
    return states.change(engine, key, name, actor, changes, reason)


def changes_for(name: str, state: State, config: DeployConfig, seen: int) -> tuple[dict[str, Any], str]:
    """Return what an action changes, and how it is written down; `seen` requests have arrived by now.

    Raises: DeployError where there is nothing to do it to.
    """
    if name == "hold":
        return {"held": True}, "a person holds the stage"
    if name == "release":
        return {"held": False}, "a person lets the stages move again"
    if name == "kill":
        return {"killed": True}, "a person pulled the kill switch"
    if name == "resume_learning":
        return {"may_learn": True}, "a person lets learning on the job continue"
    if name == "pause_learning":
        return {"may_learn": False}, "a person pauses learning on the job"
    if name == "rollback":
        return _rollback(state, seen), "a person rolled back"
    if name == "promote":
        return _promotion(state, config, seen), "a person promoted"
    raise DeployError(unknown("action", name, ACTIONS))


def _rollback(state: State, seen: int) -> dict[str, Any]:
    """Back to shadow, with the last accepted checkpoint where there is another one; held until a person releases."""
    changes: dict[str, Any] = {"stage": "shadow", "share": 0.0, "step": 0, "since": seen, "held": True}
    changes |= {"tau": None, "threshold": None, "looks": 0, "fresh_from": seen, "watched_from": seen}
    if state.accepted and state.accepted != state.checkpoint:
        changes |= {"checkpoint": state.accepted, "checkpoint_path": state.accepted_path}
    return changes


def _promotion(state: State, config: DeployConfig, seen: int) -> dict[str, Any]:
    if state.checkpoint is None:
        raise DeployError("There is no checkpoint to promote: the learner has loaded none yet")
    shares = config.stages.canary_shares
    if state.stage == "live":
        raise DeployError("It is live already; its share follows share_ceiling: foretaste deploy cap --help")
    step = state.step + 1 if state.stage == "canary" else 0
    if step >= len(shares):
        live = {"stage": "live", "share": min(1.0, state.share_ceiling), "since": seen, "failures": 0}
        return live | {"accepted": state.checkpoint, "accepted_path": state.checkpoint_path}
    begins = {"watched_from": seen} if state.stage == "shadow" else {}
    return {"stage": "canary", "share": min(shares[step], state.share_ceiling), "step": step, "since": seen} | begins


def _seen(engine: Engine) -> int:
    with reading(engine) as connection:
        return requests_seen(connection)
