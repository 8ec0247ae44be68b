"""A deployment's store without its server: what the command line does. A running server notices within a second."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from foretaste.deploy import audit, keys, operator, settings, state
from foretaste.deploy.database import reading, writing
from foretaste.deploy.integrity.log_reader import follow
from foretaste.deploy.integrity.opening import Opened, open_store
from foretaste.deploy.kill import PID_FILE, running, take_away
from foretaste.deploy.operations.forgetting import Forgotten, forget
from foretaste.deploy.operations.lock import ServerLock
from foretaste.deploy.operations.retention import compact
from foretaste.deploy.settings import DeployConfig, files_folder
from foretaste.deploy.state import State
from foretaste.deploy.store import add_checkpoint
from foretaste.deploy.tables import answers, feedback, requests
from foretaste.deploy.training import status as learning
from foretaste.errors import DeployError, unknown
from foretaste.strict_json import to_json

CAPS: dict[str, Any] = {
    "share_ceiling": float,
    "tokens_per_day": int,
    "harm_budget": float,
    "may_serve": bool,
    "may_shadow": bool,
    "may_learn": bool,
}
"""What `foretaste deploy cap` sets, and its type."""


class Offline:
    """An open store, with the key of its audit log; use `Offline.open`."""

    def __init__(self, config: DeployConfig, folder: Path, opened: Opened, *, checked: bool = True) -> None:
        self.config, self.folder, self.opened = config, folder, opened
        self.engine, self.key = opened.engine, opened.key
        self.actor = f"person:{_person()}"
        self._checked = checked

    @classmethod
    def open(cls, path: Path, *, check: bool = True) -> Offline:
        """Open the deployment whose settings are in `path`; a new store is made if there is none.

        `check=False` opens also a store that was edited outside its log.
        Raises: ConfigError or DeployError.
        """
        config, folder = settings.load(path), path.parent.resolve()
        return cls(config, folder, open_store(config, folder, check=check), checked=check)

    def __enter__(self) -> Offline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._checked and error is None:
                with reading(self.engine) as connection:
                    self.opened.heads.keep(follow(connection, self.key).head)
        finally:
            self.engine.dispose()

    def act(self, name: str) -> State:
        """Hold, release, promote, roll back, record a kill, resume or pause learning."""
        return operator.act_on_store(self.engine, self.key, self.config, name, self.actor)

    def lift(self) -> str:
        """Take away whatever stands at the kill file's name and let the learner in again; say what stood there.

        Raises: DeployError if it cannot be removed; the learner stays out then.
        """
        found = take_away(self.folder / self.config.server.kill_file)
        state.change(self.engine, self.key, "lift", self.actor, {"killed": False}, "a person lifted the kill switch")
        return found

    def forget(self, owner: str) -> Forgotten:
        """Delete everything of one user, audited."""
        return forget(self.engine, self.key, owner, actor=self.actor)

    def compact(self) -> tuple[int, int]:
        """Rewrite an SQLite store without its free space; return its bytes before and after.

        Raises: DeployError while a server runs.
        """
        lock = ServerLock(files_folder(self.config, self.folder))
        try:
            return compact(self.engine)
        finally:
            lock.release()

    def cap(self, name: str, text: str) -> Any:
        """Set a cap or permission.

        Raises: DeployError for an unknown name or a value of another kind.
        """
        if name not in CAPS:
            raise DeployError(unknown("cap", name, CAPS))
        kind = CAPS[name]
        words = {"true": True, "yes": True, "false": False, "no": False}
        try:
            value = words[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            accepted = "true or false" if kind is bool else "a number"
            raise DeployError(f"{name} = {text!r} cannot be used; accepted: {accepted}") from error
        state.change(self.engine, self.key, "cap", self.actor, {name: value}, "a person set it")
        return value

    def try_checkpoint(self, folder: Path) -> str:
        """Write down a checkpoint to be tried in shadow; return its content id.

        Raises: ModelError if the folder is no checkpoint, or a weight in it is not finite.
        """
        from foretaste.models import checkpoint

        card = checkpoint.read(folder)
        checkpoint.check_finite(folder)
        identity = checkpoint.content_id(folder)
        with writing(self.engine) as connection:
            parent = card.parents[0] if card.parents else None
            add_checkpoint(connection, identity, str(folder.resolve()), parent, {"by": self.actor})
            audit.append(connection, self.key, "try", self.actor, {"checkpoint": identity, "path": str(folder)})
        return identity

    def all_keys(self) -> list[keys.Key]:
        """Return all keys."""
        with reading(self.engine) as connection:
            return keys.listed(connection, self.key)

    def create_key(self, name: str, scope: str) -> tuple[keys.Key, str]:
        """Make a key; return it with its secret."""
        with writing(self.engine) as connection:
            return keys.create(connection, self.key, name, scope, actor=self.actor)

    def revoke_key(self, identity: str) -> keys.Key:
        """Make a key useless."""
        with writing(self.engine) as connection:
            return keys.revoke(connection, self.key, identity, actor=self.actor)

    def status(self) -> list[str]:
        """Return lines that say what the deployment does now."""
        from foretaste.deploy.evidence import volunteers  # the mathematics behind these take a second to load
        from foretaste.deploy.figures import of_store

        now = state.load(self.engine, self.key)
        with reading(self.engine) as connection:
            found = of_store(connection, self.config.takeover.correct_from)
            volunteered = volunteers(connection, self.config, now)
        pid = running(files_folder(self.config, self.folder) / PID_FILE)
        served, silent = (_words_of(found[name]) for name in ("served", "silent"))
        reason = (now.threshold or {}).get("reason", "not calibrated yet")
        flags = [word for word, on in (("KILLED", now.killed), ("held", now.held)) if on]
        off = [name for name in ("may_serve", "may_shadow", "may_learn") if not getattr(now, name)]
        share = found["served_share"]
        return [
            ", ".join([f"{self.config.name}: {'no server runs' if pid is None else 'running'}", *flags]),
            f"stage        {now.stage}, share {now.share:.0%} (ceiling {now.share_ceiling:.0%})",
            f"checkpoint   {(now.checkpoint or 'none')[:12]}; accepted {(now.accepted or 'none')[:12]}; "
            f"candidate {(now.candidate or 'none')[:12]}",
            f"threshold    {reason}",
            f"requests     {found['requests']}; the learner answered "
            f"{'not measured' if share is None else f'{share:.1%}'} of the newest {found['window']}",
            f"success      served {served}; silent {silent}",
            f"caps         {now.tokens_per_day} tokens a day, harm budget {now.harm_budget:g}"
            + (f"; not permitted: {', '.join(off)}" if off else ""),
            *self.learning(),
            *volunteered.lines(),
        ]

    def learning(self) -> list[str]:
        """Return lines that say what learning on the job does, and its last alarm."""
        now = state.load(self.engine, self.key)
        with reading(self.engine) as connection:
            told = learning.read(connection)
        running_now = running(files_folder(self.config, self.folder) / PID_FILE) is not None
        found = learning.summary(told, now, enabled=self.config.training.enabled)
        return learning.lines(found, now=time.time(), running=running_now)

    def export(self, path: Path) -> int:
        """Write all requests with their answers and feedback as JSON lines; return how many.

        The file holds prompts and answers; the owner alone may read it.
        Raises: DeployError if the file is there already or cannot be written.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise DeployError(f"Cannot write {str(path)!r}: {error.strerror}. Name another file") from error
        count = 0
        with os.fdopen(descriptor, "w", encoding="utf-8") as file, reading(self.engine) as connection:
            last, rows = 0, True
            while rows:
                query = sa.select(requests).where(requests.c.number > last).order_by(requests.c.number).limit(500)
                rows = list(connection.execute(query))
                ids = [row.id for row in rows]
                related = {
                    name: _by_request(connection, table, ids)
                    for name, table in (("answers", answers), ("feedback", feedback))
                }
                for row in rows:
                    more = {name: found.get(row.id, []) for name, found in related.items()}
                    file.write(to_json({**row._asdict(), **more}) + "\n")
                    last, count = row.number, count + 1
        return count


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def _by_request(connection: Any, table: sa.Table, ids: list[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(sa.select(table).where(table.c.request.in_(ids)).order_by(table.c.number)):
        found.setdefault(row.request, []).append(row._asdict())
    return found


def _words_of(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not measured"
    return f"{found['mean']:.1%} [{found['low']:.1%}, {found['high']:.1%}] of {found['n']}"
