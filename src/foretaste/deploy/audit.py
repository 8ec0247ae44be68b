"""The audit log: who changed what, in a chain of keyed hashes that shows any later change.

hash(n) = HMAC-SHA256(key, hash(n - 1) + canonical JSON of entry n). Who can write to the database but does not
have the key can neither change an entry nor add one; who has both can rewrite the whole chain, and is found out by
a head that was kept elsewhere (`foretaste audit head`). Next: `state.py`, whose every change is an entry here.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.tables import GENESIS, events, head, state
from foretaste.errors import DeployError
from foretaste.strict_json import to_json

KEY_VARIABLE = "FORETASTE_AUDIT_KEY"
KEY_FILE = "audit.key"


class Entry(NamedTuple):
    """One line of the audit log."""

    seq: int
    created: str
    """UTC, ISO 8601."""
    kind: str
    actor: str
    """`person:<name>`, `key:<id>`, `server`, `stages`, `training`."""
    payload: dict[str, Any]
    hash: str


class Head(NamedTuple):
    """The last entry's place and hash: enough to prove later that nothing before it was changed."""

    seq: int
    hash: str


def load_key(folder: Path, *, create: bool) -> bytes:
    """Return the chain's key: of the environment variable FORETASTE_AUDIT_KEY, else of `<folder>/audit.key`.

    Raises: DeployError if there is none and `create` is false, or it is too short to keep anything safe.
    """
    given = os.environ.get(KEY_VARIABLE)
    if given:
        key = given.encode()
    else:
        file = folder / KEY_FILE
        if not file.exists():
            if not create:
                raise DeployError(f"No audit key: {str(file)!r} is missing and {KEY_VARIABLE} is not set")
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as opened:
                opened.write(secrets.token_hex(32))
        key = file.read_text(encoding="utf-8").strip().encode()
    if len(key) < 32:
        raise DeployError(f"The audit key has {len(key)} characters; accepted: 32 or more random ones")
    return key


def append(connection: Connection, key: bytes, kind: str, actor: str, payload: dict[str, Any]) -> Head:
    """Add one entry behind the head, inside the caller's write transaction."""
    last = read_head(connection, lock=True)
    seq = last.seq + 1
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    text = to_json(payload, sort_keys=True, separators=(",", ":"))
    made = _hash(key, last.hash, seq, created, kind, actor, text)
    connection.execute(
        events.insert().values(seq=seq, created=created, kind=kind, actor=actor, payload=text, hash=made)
    )
    connection.execute(head.update().values(seq=seq, hash=made))
    return Head(seq, made)


def read_head(connection: Connection, *, lock: bool = False) -> Head:
    """Read the head; `lock` keeps other writers out until the transaction ends."""
    query = sa.select(head.c.seq, head.c.hash)
    row = connection.execute(query.with_for_update() if lock else query).one()
    return Head(int(row.seq), str(row.hash))


def entries(connection: Connection, *, newest: int | None = None) -> Iterator[Entry]:
    """Yield the entries in order, or only the `newest` ones."""
    query = sa.select(events).order_by(events.c.seq)
    if newest is not None:
        last = connection.scalar(sa.select(sa.func.max(events.c.seq))) or 0
        query = query.where(events.c.seq > last - newest)
    for row in connection.execute(query):
        yield Entry(row.seq, row.created, row.kind, row.actor, json.loads(row.payload), row.hash)


def verify(connection: Connection, key: bytes, *, kept: Head | None = None) -> Head:
    """Check the whole chain, that the state is what the entries say, and a head that was kept elsewhere.

    Raises: DeployError naming the first entry that was changed, removed or put in.
    """
    previous, expected = GENESIS, 1
    told: dict[str, str] = {}
    for row in connection.execute(sa.select(events).order_by(events.c.seq)):
        if row.seq != expected:
            raise DeployError(f"Audit log: entry {expected} is missing. Trust nothing after it; restore a copy.")
        previous = _hash(key, previous, row.seq, row.created, row.kind, row.actor, row.payload)
        if not hmac.compare_digest(previous, row.hash):
            raise DeployError(
                f"Audit log: entry {row.seq} ({row.kind} by {row.actor}, {row.created}) was changed after it was "
                "written, or written with another key. Trust nothing from it on; restore a copy."
            )
        if kept is not None and row.seq == kept.seq and not hmac.compare_digest(previous, kept.hash):
            raise DeployError(f"Audit log: up to entry {row.seq} it is not the log whose head was kept: rewritten.")
        for name, value in json.loads(row.payload).get("changes", {}).items():
            told[name] = json.dumps(value, sort_keys=True)
        expected += 1
    last = read_head(connection)
    if (expected - 1, previous) != last:
        raise DeployError(
            f"Audit log: it ends at entry {expected - 1}, its head says {last.seq}: entries were removed from its "
            "end, or the head was changed. Restore a copy."
        )
    if kept is not None and kept.seq > last.seq:
        raise DeployError(f"Audit log: it ends at entry {last.seq}, but the head that was kept is entry {kept.seq}.")
    for row in connection.execute(sa.select(state.c.name, state.c.value)):
        if told.get(row.name) != json.dumps(json.loads(row.value), sort_keys=True):
            raise DeployError(
                f"Audit log: the state's {row.name!r} is {row.value}, but the log says {told.get(row.name, 'nothing')}:"
                " it was changed outside the log. Set it again: foretaste deploy status"
            )
    return last


def _hash(key: bytes, previous: str, seq: int, created: str, kind: str, actor: str, payload: str) -> str:
    line = json.dumps([seq, created, kind, actor, payload], separators=(",", ":"))
    return hmac.new(key, (previous + line).encode(), hashlib.sha256).hexdigest()
