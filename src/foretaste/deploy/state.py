"""The state of a deployment: stage, share, threshold, caps, permissions. Rows in the store, changed by audited events.

Nothing here is code that a learner could touch or a setting that a restart could undo. Whatever limits the learner
(caps, permissions, hold) is loosened by people only: `change` refuses an automatic actor that tries, or that moves on
while a person holds the stage, and writes the attempt down. Next: `routing.py` for what the state permits.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from foretaste.deploy import audit
from foretaste.deploy.database import reading, writing
from foretaste.deploy.integrity.log_reader import follow
from foretaste.deploy.settings import DeployConfig
from foretaste.deploy.tables import state as rows
from foretaste.errors import DeployError, unknown
from foretaste.strict_json import to_json

STAGES = ("shadow", "canary", "live")


@dataclass(frozen=True, slots=True)
class State:
    """What the learner may do now."""

    stage: str = "shadow"
    share: float = 0.0
    """Share of requests that the learner may answer where V is high enough."""
    since: int = 0
    """Requests that had been seen when this stage, or this share, began."""
    step: int = 0
    """Place among `stages.canary_shares`."""
    failures: int = 0
    """Breaches in a row."""
    tau: float | None = None
    """The learner answers where V is at least this; None: nowhere."""
    threshold: dict[str, Any] | None = None
    """What the last calibration found (`takeover.Threshold`); None: none yet."""
    looks: int = 0
    """Calibrations of the current checkpoint so far."""
    looked: int = 0
    """Number of the newest request that the last of them read; it waits for so many newer ones."""
    trial: int = 0
    """Number of the current checkpoint's trial: its part of delta (`promise/calibration.py`); 0: it has had no look."""
    trials: int = 0
    """Trials that ever began; never set back."""
    watched_from: int = 0
    """Requests that had been seen when the current checkpoint was let out of the shadow: the watch begins there."""
    fresh_from: int = 0
    """Requests up to this number tell nothing about the present world: a breach came after them."""
    checkpoint: str | None = None
    """Content id of the weights that answer."""
    checkpoint_path: str | None = None
    accepted: str | None = None
    """The last checkpoint that went live without a breach: where a rollback goes."""
    accepted_path: str | None = None
    candidate: str | None = None
    """Newer weights that answer silently, while the checkpoint above goes on answering users."""
    candidate_path: str | None = None
    candidate_since: int = 0
    candidate_looks: int = 0
    candidate_looked: int = 0
    candidate_trial: int = 0
    candidate_threshold: dict[str, Any] | None = None
    taken_up: int = 0
    """Number of the newest checkpoint that was tried; what was left behind is not taken up again after a restart."""
    held: bool = False
    """A person stopped all promotion; what is served stays."""
    killed: bool = False
    """The learner is out of everything until a person lifts this."""
    may_serve: bool = True
    may_shadow: bool = True
    """May read requests and answer silently."""
    may_learn: bool = True
    share_ceiling: float = 1.0
    tokens_per_day: int = 2_000_000
    harm_budget: float = 0.0


NAMES = tuple(field.name for field in dataclasses.fields(State))
_RAISED_BY_PEOPLE = ("share_ceiling", "tokens_per_day", "harm_budget")
_GRANTED_BY_PEOPLE = {"may_serve": True, "may_shadow": True, "may_learn": True, "held": False, "killed": False}


def is_person(actor: str) -> bool:
    """Return whether an actor is a person (at the command line, or by an admin key) and not part of the server."""
    return actor.startswith(("person:", "key:"))


def read(connection: Connection, key: bytes | None = None) -> State:
    """Return the state: with the audit log's key as the log has it, else as the table has it.

    The table is a copy for reading; whoever acts on the state gives the key. A store without any has the defaults.
    """
    if key is None:
        texts = {row.name: row.value for row in connection.execute(sa.select(rows.c.name, rows.c.value))}
    else:
        texts = follow(connection, key).state
    return State(**{name: json.loads(text) for name, text in texts.items() if name in NAMES})


def load(engine: Engine, key: bytes | None = None) -> State:
    """Return the state in a transaction of its own, as `read` does."""
    with reading(engine) as connection:
        return read(connection, key)


def begin(engine: Engine, key: bytes, config: DeployConfig, *, heads: str | None = None) -> State:
    """Write the first state of a new deployment; an old one keeps what it has, whatever the settings now say.

    `heads`: where the log's heads are kept from the first one on.
    """
    with writing(engine) as connection:
        if audit.read_head(connection, lock=True).seq > 0 or connection.scalar(sa.select(rows.c.name).limit(1)):
            return read(connection, key)
        first = State(
            share_ceiling=config.stages.share_ceiling,
            harm_budget=config.stages.harm_budget,
            tokens_per_day=config.caps.tokens_per_day,
        )
        more = {} if heads is None else {"heads": heads}
        _write(connection, key, "deployment_began", "server", dataclasses.asdict(first), "first start", **more)
        return first


def change(
    engine: Engine,
    key: bytes,
    kind: str,
    actor: str,
    changes: dict[str, Any],
    reason: str,
    *,
    decided_from: State | None = None,
) -> State:
    """Change the state and write down who did it and why, in one transaction.

    `decided_from` is the state that led to the change: if stage or checkpoint are others by now, nothing is done.

    Raises: DeployError for a name or value that cannot be, for a change that is out of date, and where an automatic
    actor loosens what only people may; that attempt is audited too.
    """
    for name in changes:
        if name not in NAMES:
            raise DeployError(unknown("part of the state", name, NAMES))
    with writing(engine) as connection:
        audit.read_head(connection, lock=True)
        before = read(connection, key)
        if decided_from is not None and _place(before) != _place(decided_from):
            raise DeployError(
                f"The change {kind!r} ({', '.join(changes)}) was decided in {_words(decided_from)}, but by now it is "
                f"{_words(before)}. Nothing was changed; it is decided anew from there"
            )
        after = dataclasses.replace(before, **json.loads(json.dumps(changes)))
        _check(after)
        loosened = [] if is_person(actor) else _loosened(before, changes)
        if not loosened:
            changed = {name: value for name, value in changes.items() if value != getattr(before, name)}
            _write(connection, key, kind, actor, changed, reason)
            return after
        refused = {"refused": {name: changes[name] for name in loosened}, "reason": reason}
        audit.append(connection, key, f"{kind}_refused", actor, refused)
    what = "caps and permissions" + (", and what a person holds," if before.held else "")
    raise DeployError(f"{actor} may not loosen {', '.join(loosened)}: {what} are raised by people only")


def _place(state: State) -> tuple[Any, ...]:
    """Return what makes a decision one about this state: whoever moves a deployment changes a part of it."""
    return state.stage, state.step, state.since, state.checkpoint


def _words(state: State) -> str:
    return f"{state.stage} since request {state.since} with checkpoint {(state.checkpoint or 'none')[:12]}"


def _loosened(before: State, changes: dict[str, Any]) -> list[str]:
    raised = [name for name in _RAISED_BY_PEOPLE if name in changes and changes[name] > getattr(before, name)]
    granted = [
        name for name, loose in _GRANTED_BY_PEOPLE.items() if changes.get(name) is loose != getattr(before, name)
    ]
    ceiling = min(before.share_ceiling, float(changes.get("share_ceiling", before.share_ceiling)))
    most = before.share if before.held else max(ceiling, before.share)
    above = ["share"] if changes.get("share", 0.0) > most else []
    return raised + granted + above + (_moved_up(before, changes) if before.held else [])


def _moved_up(before: State, changes: dict[str, Any]) -> list[str]:
    """Return what would let more, or other weights than the accepted ones, answer users."""
    stage, checkpoint = (changes.get(name, getattr(before, name)) for name in ("stage", "checkpoint"))
    higher = ["stage"] if STAGES.index(stage) > STAGES.index(before.stage) else []
    other = stage != "shadow" and checkpoint not in (before.checkpoint, before.accepted)
    return [*higher, "checkpoint"] if other else higher


def _check(state: State) -> None:
    if state.stage not in STAGES:
        raise DeployError(unknown("stage", state.stage, STAGES))
    for name in ("share", "share_ceiling"):
        if not 0 <= getattr(state, name) <= 1:
            raise DeployError(f"{name} = {getattr(state, name)} cannot be used; accepted: 0 to 1")
    for name in ("tokens_per_day", "harm_budget"):
        if getattr(state, name) < 0:
            raise DeployError(f"{name} = {getattr(state, name)} cannot be used; accepted: 0 or more")


def _write(
    connection: Connection, key: bytes, kind: str, actor: str, changes: dict[str, Any], reason: str, **more: Any
) -> None:
    entry = audit.append(connection, key, kind, actor, {"changes": changes, "reason": reason, **more})
    for name, value in changes.items():
        text = to_json(value)
        done = connection.execute(rows.update().where(rows.c.name == name).values(value=text, event=entry.seq))
        if done.rowcount == 0:
            connection.execute(rows.insert().values(name=name, value=text, event=entry.seq))
