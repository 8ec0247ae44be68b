"""What the audit log says, entry by entry: the state, the keys, how many rows there must be, what was deleted.

The log is what holds: the tables of state and keys are copies for reading, and a row that nobody logged has no effect.
`follow` checks only what was added since this process last looked. Next: `checks.py`.
"""

from __future__ import annotations

import copy
import datetime
import hmac
import json
import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from foretaste.deploy.tables import events
from foretaste.errors import DeployError
from foretaste.hash_chain import GENESIS, Head, link

BEGINNING = Head(0, GENESIS)


class LoggedKey(NamedTuple):
    """A key as the log has it."""

    id: str
    name: str
    scope: str
    hash: str | None
    """None for a key of a log that did not hold hashes yet and has not been adopted."""
    created: float
    revoked: float | None


@dataclass(slots=True)
class LogReader:
    """What the entries up to `head` say."""

    head: Head = BEGINNING
    state: dict[str, str] = field(default_factory=dict)
    """Canonical JSON by name."""
    keys: dict[str, LoggedKey] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows that each table holds at least."""
    counters: dict[str, int] = field(default_factory=dict)
    """What each counter of `deploy_meta` has reached at least."""
    digests: Head = BEGINNING
    """The last head of the chain of judgements that was written into the log."""
    deleted_before: float = 0.0
    """Records older than this (seconds since 1970) were deleted by retention."""
    heads: str | None = None
    """The setting `audit.heads` under which heads were kept."""
    checkpoints: set[str] = field(default_factory=set)
    """Content ids that training made or a person had tried."""

    def take(self, row: Any, key: bytes) -> None:
        """Check and read one row of `deploy_events`.

        Raises: DeployError naming an entry that is missing or was changed.
        """
        seq, previous = self.head
        if row.seq != seq + 1:
            raise DeployError(f"Audit log: entry {seq + 1} is missing. Trust nothing after it; restore a copy.")
        made = link(previous, [row.seq, row.created, row.kind, row.actor, row.payload], key)
        if not hmac.compare_digest(made, row.hash):
            raise DeployError(
                f"Audit log: entry {row.seq} ({row.kind} by {row.actor}, {row.created}) was changed after it was "
                "written, or written with another key. Trust nothing from it on. If the key was replaced, put the old "
                "one back; else restore a copy of the store."
            )
        self.head = Head(row.seq, made)
        self._read(row.kind, json.loads(row.payload), row.created)

    def _read(self, kind: str, payload: dict[str, Any], created: str) -> None:
        for name, value in payload.get("changes", {}).items():
            self.state[name] = canonical(value)
        self.heads = payload.get("heads", self.heads)
        at = datetime.datetime.fromisoformat(created).timestamp()
        if kind == "key_created":
            made = LoggedKey(payload["id"], payload["name"], payload["scope"], payload.get("hash"), at, None)
            self.keys[made.id] = made
        elif kind == "key_revoked" and payload["id"] in self.keys:
            self.keys[payload["id"]] = self.keys[payload["id"]]._replace(revoked=at)
        elif kind == "keys_adopted":
            for identity, digest in payload["hashes"].items():
                self.keys[identity] = self.keys[identity]._replace(hash=digest)
        elif kind == "counted":
            self.rows = dict(payload["rows"])
            self.counters = dict(payload["counters"])
            self.digests = Head(*payload["digests"])
        elif kind in ("retention", "forgotten"):
            for name, count in payload.get("deleted", {}).items():
                self.rows[name] = self.rows.get(name, 0) - count
            self.deleted_before = max(self.deleted_before, float(payload.get("before", 0.0)))
        elif kind in ("trained", "try"):
            self.checkpoints.add(payload["checkpoint"])


_followed: WeakKeyDictionary[Engine, tuple[bytes, LogReader]] = WeakKeyDictionary()
_following = threading.Lock()


def follow(connection: Connection, key: bytes) -> LogReader:
    """Return what the log says by now, having checked the entries that this process had not seen.

    Call it before the transaction appends anything.
    Raises: DeployError for an entry that was changed, and for a log that has lost entries this process has seen.
    """
    engine = connection.engine
    with _following:
        known = _followed.get(engine)
        reader = copy.deepcopy(known[1]) if known is not None and known[0] == key else LogReader()
    seen = reader.head
    rows = list(connection.execute(sa.select(events).where(events.c.seq >= seen.seq).order_by(events.c.seq)))
    if seen.seq > 0 and (not rows or (rows[0].seq, rows[0].hash) != seen):
        raise DeployError(
            f"Audit log: entry {seen.seq}, which this process has read, is gone or another one. Somebody has changed "
            "the log. End the server, and see: foretaste audit verify"
        )
    for row in rows[1 if seen.seq > 0 else 0 :]:
        reader.take(row, key)
    if not connection.get_execution_options().get("foretaste_write", False):  # what it reads may be taken back yet
        with _following:
            _followed[engine] = (key, reader)
    return reader


def canonical(value: Any) -> str:
    """Return the one text for a value of the state."""
    return json.dumps(value, sort_keys=True)
