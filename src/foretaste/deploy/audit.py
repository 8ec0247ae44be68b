"""The audit log: who changed what, in a chain of keyed hashes that shows any later change.

hash(n) = HMAC-SHA256(key, hash(n - 1) + canonical JSON of entry n). Who can write to the database but does not
have the key can neither change an entry nor add one; who has both can rewrite the whole chain, and is found out by
a head that was kept elsewhere (`foretaste audit head`). Next: `state.py`, whose every change is an entry here.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.files import private_folder, write_private
from foretaste.deploy.integrity.log_reader import LogReader, canonical
from foretaste.deploy.tables import events, head, keys, state
from foretaste.errors import DeployError
from foretaste.hash_chain import Head, link
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
                raise DeployError(
                    f"No audit key: {str(file)!r} is missing and {KEY_VARIABLE} is not set. The log cannot be "
                    "checked or continued without the key that it was written with. Put that key back from a copy. If "
                    "it is lost, keep the old store as a record and begin a new one: set store.url to another folder"
                )
            _make_key(file)
        try:
            key = file.read_text(encoding="utf-8").strip().encode()
        except (OSError, UnicodeDecodeError) as error:
            raise DeployError(
                f"The audit key {str(file)!r} cannot be read ({type(error).__name__}). Put it back from a copy, "
                "readable by its owner"
            ) from error
    if len(key) < 32:
        raise DeployError(f"The audit key has {len(key)} characters; accepted: 32 or more random ones")
    return key


def _make_key(file: Path) -> None:
    """Write a new key whole or not at all; of several processes that try, the first one's holds."""
    private_folder(file.parent)
    scratch = file.with_name(f"{file.name}.{os.getpid()}.new")
    write_private(scratch, secrets.token_hex(32))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(scratch, file)
    finally:
        scratch.unlink()


def append(connection: Connection, key: bytes, kind: str, actor: str, payload: dict[str, Any]) -> Head:
    """Add one entry behind the head, inside the caller's write transaction."""
    last = read_head(connection, lock=True)
    seq = last.seq + 1
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    text = to_json(payload, sort_keys=True, separators=(",", ":"))
    made = link(last.hash, [seq, created, kind, actor, text], key)
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


def verify(connection: Connection, key: bytes, *, kept: Head | Sequence[Head] | None = None) -> Head:
    """Check the whole chain, that state and keys are what the entries say, and heads that were kept elsewhere.

    Raises: DeployError naming the first entry that was changed, removed or put in.
    """
    return verified(connection, key, kept=kept).head


def verified(connection: Connection, key: bytes, *, kept: Head | Sequence[Head] | None = None) -> LogReader:
    """Check as `verify` does, and return what the log says."""
    reader = read_chain(connection, key, kept=kept)
    told = [*state_differences(connection, reader), *key_differences(connection, reader)]
    if told:
        raise DeployError(f"Audit log: {told[0]}. Set the tables back to what the log says: foretaste audit repair")
    return reader


def read_chain(connection: Connection, key: bytes, *, kept: Head | Sequence[Head] | None = None) -> LogReader:
    """Check the chain itself, its head and kept heads; return what it says.

    Raises: DeployError naming the first entry that was changed, removed or put in.
    """
    heads = [] if kept is None else [kept] if isinstance(kept, Head) else list(kept)
    wanted: dict[int, set[str]] = {}
    for one in heads:
        wanted.setdefault(one.seq, set()).add(one.hash)
    reader = LogReader()
    for row in connection.execute(sa.select(events).order_by(events.c.seq)):
        reader.take(row, key)
        if wanted.get(row.seq, {reader.head.hash}) != {reader.head.hash}:
            raise DeployError(f"Audit log: up to entry {row.seq} it is not the log whose head was kept: rewritten.")
    last = read_head(connection)
    if reader.head != last:
        raise DeployError(
            f"Audit log: it ends at entry {reader.head.seq}, its head says {last.seq}: entries were removed from its "
            "end, or the head was changed. Restore a copy."
        )
    newest = max(wanted, default=0)
    if newest > last.seq:
        raise DeployError(f"Audit log: it ends at entry {last.seq}, but the head that was kept is entry {newest}.")
    return reader


def state_differences(connection: Connection, reader: LogReader) -> list[str]:
    """Return where the table of the state is not what the log says, in words."""
    found = {row.name: row.value for row in connection.execute(sa.select(state.c.name, state.c.value))}
    told: list[str] = []
    for name, value in found.items():
        if reader.state.get(name) != _canonical(value):
            logged = reader.state.get(name, "nothing")
            told.append(f"the state's {name!r} is {value}, but the log says {logged}: it was changed outside the log")
    missing = [name for name in reader.state if name not in found]
    return [*told, *(f"the state's {name!r} is missing: it was deleted outside the log" for name in missing)]


def key_differences(connection: Connection, reader: LogReader) -> list[str]:
    """Return where the table of keys is not what the log says, in words."""
    told: list[str] = []
    found = {row.id: row for row in connection.execute(sa.select(keys))}
    for identity, row in found.items():
        logged = reader.keys.get(identity)
        if logged is None:
            told.append(f"the {row.scope} key {identity} ({row.name}) was put in outside the log")
        elif (logged.scope, logged.name) != (row.scope, row.name):
            told.append(
                f"the key {identity} is {row.name!r} of scope {row.scope}, but the log says {logged.name!r} of scope "
                f"{logged.scope}"
            )
        elif logged.hash is not None and logged.hash != row.hash:
            told.append(f"the key {identity} ({row.name}) holds another secret's hash than the log")
        elif (logged.revoked is None) != (row.revoked is None):
            now, before = ("revoked", "valid") if row.revoked is not None else ("valid", "revoked")
            told.append(f"the key {identity} ({row.name}) is {now}, but the log says {before}")
    return [*told, *(f"the key {one} was deleted outside the log" for one in reader.keys if one not in found)]


def _canonical(text: str) -> str:
    try:
        return canonical(json.loads(text))
    except ValueError:
        return text
