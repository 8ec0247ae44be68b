"""Open a deployment's store with its audit key, and refuse one whose log, state or key is not what it was.

A new store gets a key; an old one is never given another silently. `repair` is what a person does once the cause is
known. Next: `checks.py`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from foretaste.deploy import audit, keys, state
from foretaste.deploy.database import open_engine, reading, writing
from foretaste.deploy.files import private_folder, tighten
from foretaste.deploy.integrity import checks
from foretaste.deploy.integrity.kept_heads import KeptHeads
from foretaste.deploy.integrity.log_reader import LoggedKey, LogReader, follow
from foretaste.deploy.settings import DeployConfig, files_folder, store_url
from foretaste.deploy.tables import events
from foretaste.deploy.tables import keys as key_rows
from foretaste.deploy.tables import state as state_rows
from foretaste.errors import DeployError

logger = logging.getLogger(__name__)

KNOW = "See what was changed: foretaste audit verify. Then restore a copy of the store"
RESTORED = "If you restored a copy on purpose, or know who changed it: foretaste audit repair"


class Opened(NamedTuple):
    """An open store."""

    engine: Engine
    key: bytes
    """Of its audit log."""
    heads: KeptHeads


def open_store(config: DeployConfig, folder: Path, *, check: bool = True) -> Opened:
    """Open the store of a deployment whose settings lie in `folder`; a new one is made if there is none.

    `check=False` opens also what was edited, for commands that look or repair.
    Raises: DeployError if it cannot be opened, its key is missing or another one, or log or state were edited.
    """
    files = files_folder(config, folder)
    private_folder(files)
    engine = open_engine(store_url(config, folder))
    try:
        if files.resolve() != folder.resolve() and (opened := tighten(files)):
            logger.warning("%d files and folders below %s were open to others; now they are not", len(opened), files)
        with reading(engine) as connection:
            in_use = _in_use(connection)
            key = audit.load_key(files, create=not in_use)
        heads = KeptHeads(config.audit, folder)
        if check:
            with reading(engine) as connection:
                _refuse_edited(connection, key, heads, config)
        if check or not in_use:
            state.begin(engine, key, config, heads=config.audit.heads if heads.ready() else None)
        if check:
            _keep_on(engine, key, config, heads)
    except BaseException:
        engine.dispose()
        raise
    return Opened(engine, key, heads)


def _in_use(connection: Connection) -> bool:
    """Return whether anything was ever logged, or would have been."""
    if audit.read_head(connection).seq > 0:
        return True
    return any(connection.execute(sa.select(table).limit(1)).first() for table in (events, state_rows, key_rows))


def _refuse_edited(connection: Connection, key: bytes, heads: KeptHeads, config: DeployConfig) -> None:
    try:
        kept = heads.read()
        reader = audit.read_chain(connection, key, kept=kept)
    except DeployError as error:
        raise DeployError(f"{error} {KNOW}. {RESTORED}") from error
    if not kept and reader.head.seq > 1 and reader.heads is not None and reader.heads == config.audit.heads:
        raise DeployError(
            f"The heads of the audit log were kept in {str(heads.folder)!r}, and are gone. Without them nobody can see "
            f"whether the end of the log was cut off. Put the folder back, or go on without: foretaste audit repair"
        )
    if edited := audit.state_differences(connection, reader):
        raise DeployError(f"Nothing was started: {edited[0]}. {RESTORED}")
    for one in audit.key_differences(connection, reader):
        logger.error("Keys: %s. It has no effect. Set the table back: foretaste audit repair", one)


def _keep_on(engine: Engine, key: bytes, config: DeployConfig, heads: KeptHeads) -> None:
    """Bring what an older foretaste wrote under the log, and keep its head from now on."""
    with reading(engine) as connection:
        heads.keep(audit.read_head(connection))
    with writing(engine) as connection:
        reader = follow(connection, key)
        keys.adopt(connection, key)
        checks.adopt_judgements(connection, key)
        if config.audit.heads and not heads.fault and reader.heads != config.audit.heads:
            audit.append(connection, key, "heads_kept", "server", {"heads": config.audit.heads})


def repair(opened: Opened, actor: str) -> list[str]:
    """Set the tables of state and keys back to what the log says; begin to keep heads anew where they disagree.

    A person does it who knows what happened; it is an entry of the log. Returns what was done, in words.
    Raises: DeployError for a log whose own entries were changed: only a copy helps then.
    """
    done: list[str] = []
    with writing(opened.engine) as connection:
        reader = audit.read_chain(connection, opened.key)
        done += [f"set back: {one}" for one in audit.state_differences(connection, reader)]
        done += [f"set back: {one}" for one in audit.key_differences(connection, reader)]
        _write_state(connection, reader)
        _write_keys(connection, reader)
        try:
            kept = opened.heads.read()
            audit.read_chain(connection, opened.key, kept=kept)
            anew = not kept and reader.heads is not None
        except DeployError as error:
            done.append(f"heads are kept anew: {error}")
            anew = True
        if anew:
            opened.heads.put_aside()
        if done or anew:
            audit.append(connection, opened.key, "repaired", actor, {"done": done or ["heads are kept anew"]})
    with reading(opened.engine) as connection:
        opened.heads.keep(audit.read_head(connection))
    return done or (["heads are kept anew"] if anew else [])


def _write_state(connection: Connection, reader: LogReader) -> None:
    connection.execute(state_rows.delete())
    rows = [{"name": name, "value": value, "event": reader.head.seq} for name, value in reader.state.items()]
    if rows:
        connection.execute(state_rows.insert(), rows)


def _write_keys(connection: Connection, reader: LogReader) -> None:
    hashes = {row.id: row.hash for row in connection.execute(sa.select(key_rows))}
    connection.execute(key_rows.delete())
    rows = [_row(one, hashes) for one in reader.keys.values()]
    if rows:
        connection.execute(key_rows.insert(), rows)


def _row(one: LoggedKey, hashes: dict[str, str]) -> dict[str, Any]:
    return {**one._asdict(), "hash": one.hash or hashes.get(one.id) or f"unknown-{one.id}"}
