"""API keys: random, shown once, kept as their SHA-256, with a scope. The audit log says which there are.

`user` keys may ask and give feedback on their own answers; `person` keys answer for a human incumbent and judge
checks; `admin` keys see the deployment and may hold, roll back and kill it. A key never has two scopes. Next:
`gatekeeper.py`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Literal, NamedTuple, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy import audit
from foretaste.deploy.integrity.log_reader import follow
from foretaste.deploy.tables import keys
from foretaste.errors import DeployError, unknown

Scope = Literal["user", "person", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
PREFIX = "ft-"
_NAME = re.compile(r"[\w .@-]{1,64}")


class Key(NamedTuple):
    """What is known of a key; never the key itself."""

    id: str
    name: str
    scope: str
    created: float
    """Seconds since 1970."""
    revoked: float | None = None


def hash_of(secret: str) -> str:
    """Return what is stored of a key. It is random and long, so a plain hash cannot be searched through."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def create(connection: Connection, audit_key: bytes, name: str, scope: str, *, actor: str) -> tuple[Key, str]:
    """Make a key inside the caller's write transaction; return it with its secret, which nothing can show again.

    Raises: DeployError for an unknown scope or a name of other characters.
    """
    if scope not in SCOPES:
        raise DeployError(unknown("scope", scope, SCOPES))
    if not _NAME.fullmatch(name):
        raise DeployError(f"The key's name {name!r} cannot be used; accepted: 1 to 64 letters, digits, blanks, . _ @ -")
    secret = PREFIX + secrets.token_urlsafe(32)
    made = Key(secrets.token_hex(4), name, scope, time.time())
    connection.execute(
        keys.insert().values(id=made.id, name=name, scope=scope, hash=hash_of(secret), created=made.created)
    )
    logged = {"id": made.id, "name": name, "scope": scope, "hash": hash_of(secret)}
    audit.append(connection, audit_key, "key_created", actor, logged)
    return made, secret


def revoke(connection: Connection, audit_key: bytes, identity: str, *, actor: str) -> Key:
    """Make a key useless from the server's next look at the keys on.

    Raises: DeployError if there is no such key, or it was revoked before.
    """
    known = {key.id: key for key in listed(connection, audit_key)}
    if identity not in known:
        raise DeployError(unknown("key", identity, known))
    if known[identity].revoked is not None:
        raise DeployError(f"The key {identity} was revoked before. All keys: foretaste deploy key list")
    connection.execute(keys.update().where(keys.c.id == identity).values(revoked=time.time()))
    audit.append(connection, audit_key, "key_revoked", actor, {"id": identity})
    return known[identity]


def listed(connection: Connection, audit_key: bytes) -> list[Key]:
    """Return all keys that the log knows, oldest first; rows that were only put into the table are not among them."""
    logged = follow(connection, audit_key).keys.values()
    return [Key(one.id, one.name, one.scope, one.created, one.revoked) for one in logged]


def valid_by_hash(connection: Connection, audit_key: bytes) -> dict[str, Key]:
    """Return the keys that are not revoked, by hash: name, scope, hash and revocation as the log has them."""
    logged = [one for one in follow(connection, audit_key).keys.values() if one.revoked is None]
    return {one.hash: Key(one.id, one.name, one.scope, one.created) for one in logged if one.hash is not None}


def adopt(connection: Connection, audit_key: bytes) -> None:
    """Take the hashes of keys into the log that were made when it held none; it trusts the table, once."""
    without = {one.id: one for one in follow(connection, audit_key).keys.values() if one.hash is None}
    rows = connection.execute(sa.select(keys).where(keys.c.id.in_(list(without))))
    hashes = {row.id: row.hash for row in rows if row.scope == without[row.id].scope}
    if hashes:
        audit.append(connection, audit_key, "keys_adopted", "server", {"hashes": hashes})
