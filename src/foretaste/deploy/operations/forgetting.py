"""Delete what one user has sent and got: requests, answers, feedback and corrections, in short transactions.

The audit log keeps a digest of the requests' ids and counts, so that the deletion itself can be shown; nothing in it is
text. What cannot be deleted here is said: trained weights, copies of the store, the log's name of the key.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from foretaste.deploy import audit, keys
from foretaste.deploy.database import reading, writing
from foretaste.deploy.integrity.digests import write_digests
from foretaste.deploy.keys import Key
from foretaste.deploy.operations.retention import PAUSE_SECONDS, Deleted, delete_in, give_back
from foretaste.deploy.tables import answers, checkpoints, digests, feedback, judgements, requests
from foretaste.errors import DeployError, unknown

PORTION = 200
"""Requests of one transaction."""


class Forgotten(NamedTuple):
    """What was deleted of one user, and where it may still be."""

    keys: tuple[Key, ...]
    deleted: Deleted
    checkpoints: tuple[str, ...]
    """Content ids of weights that training made since the user's first request that was there."""


def forget(engine: Engine, audit_key: bytes, owner: str, *, actor: str) -> Forgotten:
    """Delete everything of the keys with this id or name; a secret key itself is taken too.

    Raises: DeployError if no key is known by it.
    """
    with reading(engine) as connection:
        known = keys.listed(connection, audit_key)
        hashes = keys.valid_by_hash(connection, audit_key)
    by_secret = hashes.get(keys.hash_of(owner))
    found = tuple(one for one in known if owner in (one.id, one.name) or one == by_secret)
    if not found:
        raise DeployError(unknown("key or owner", owner, {name for one in known for name in (one.id, one.name)}))
    ids = [one.id for one in found]
    with reading(engine) as connection:
        first = connection.scalar(sa.select(sa.func.min(requests.c.created)).where(requests.c.key.in_(ids)))
        made = sa.select(checkpoints.c.id).where(checkpoints.c.created >= (time.time() if first is None else first))
        trained = tuple(dict.fromkeys(connection.scalars(made.order_by(checkpoints.c.number))))
    total = Deleted(0, 0, 0, 0)
    while True:
        with writing(engine) as connection:
            gone, digest = _portion(connection, ids)
            if any(gone):
                payload: dict[str, Any] = {"keys": ids, "requests": digest, "deleted": gone.by_table()}
                audit.append(connection, audit_key, "forgotten", actor, payload)
        if not any(gone):
            break
        total = Deleted(*(sum(pair) for pair in zip(total, gone, strict=True)))
        time.sleep(PAUSE_SECONDS)
    give_back(engine)
    return Forgotten(found, total, trained)


def _portion(connection: Connection, ids: list[str]) -> tuple[Deleted, str]:
    """Delete some of the requests of these keys with all that belongs to them; return counts and the ids' digest."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")  # what was there is overwritten, not only unlinked
    query = sa.select(requests.c.id).where(requests.c.key.in_(ids)).order_by(requests.c.number).limit(PORTION)
    found = list(connection.scalars(query))
    numbers = list(connection.scalars(sa.select(answers.c.number).where(answers.c.request.in_(found))))
    chained = sa.select(digests.c.answer).where(digests.c.answer.in_(numbers)).distinct()
    write_digests(connection, list(connection.scalars(chained)), gone=True)
    said = feedback.delete().where(sa.or_(feedback.c.request.in_(found), feedback.c.key.in_(ids)))
    gone = Deleted(
        requests=delete_in(connection, requests.c.id, found),
        answers=delete_in(connection, answers.c.number, numbers),
        feedback=connection.execute(said).rowcount,
        judgements=delete_in(connection, judgements.c.answer, numbers),
    )
    return gone, hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()
