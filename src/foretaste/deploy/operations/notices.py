"""Settings that have no effect, or cannot work: what `foretaste deploy check` and the start of a server say.

Nothing is started, made or migrated for it. A setting counts as written where deploy.toml names it. Each notice says
what is so and the next step.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sa

from foretaste.deploy import tables
from foretaste.deploy.database import STORE, reading
from foretaste.deploy.integrity.kept_heads import KeptHeads
from foretaste.deploy.kill import stands
from foretaste.deploy.runtime.stand_in import names_of
from foretaste.deploy.settings import DeployConfig, files_folder, store_url
from foretaste.deploy.state import State
from foretaste.errors import DeployError

PROBE_SECONDS = 2.0
"""That the incumbent has to answer."""


class Notice(NamedTuple):
    """One thing to know about the settings."""

    about: str
    """The setting, or what it concerns."""
    text: str
    next_step: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.about}: {self.text}. {self.next_step}"


def notices(config: DeployConfig, folder: Path, text: str, *, probe: bool = True) -> list[Notice]:
    """Return everything to know about settings whose file holds `text` and lies in `folder`.

    `probe`: also ask whether the incumbent can be reached.
    """
    written = set(_leaves(tomllib.loads(text)))
    found = [*_of_learner(config, folder), *_unused(config, written), *_of_server(config, folder)]
    found += _of_store(config, folder, written)
    if probe:
        found += _of_incumbent(config)
    return found


def _of_learner(config: DeployConfig, folder: Path) -> Iterator[Notice]:
    learner = config.learner
    has_learner = learner.checkpoint is not None or learner.scripted is not None
    if learner.checkpoint is not None:
        path = folder / learner.checkpoint
        if not path.is_dir():
            step = "Name a folder that `foretaste train` wrote, or take the setting out"
            yield Notice("learner.checkpoint", f"there is no folder {str(path)!r}", step)
        elif not (path / "config.json").exists() and not any(path.glob("*.safetensors")):
            step = "Name the folder `checkpoint` of a run"
            yield Notice("learner.checkpoint", f"{str(path)!r} holds no checkpoint", step)
    if config.training.enabled and learner.checkpoint is None:
        what = "a scripted learner learns nothing" if learner.scripted else "there is no learner"
        step = "Set learner.checkpoint, or training.enabled = false"
        yield Notice("training.enabled", f"{what}, so no training is started", step)
    if config.training.enabled and config.takeover.comparator == "none" and config.takeover.verifier is None:
        step = "Set takeover.comparator or takeover.verifier"
        yield Notice("training.enabled", "nothing judges answers but feedback, so there is little to learn from", step)
    if not has_learner:
        step = "Set it to the folder of a checkpoint (docs/deploy.md says how to make the first one)"
        yield Notice("learner.checkpoint", "it is not set: requests only pass through, nothing is taken over", step)
    for name, path in (("old_tasks.file", config.old_tasks.file),):
        if path is not None and not (folder / path).is_file():
            yield Notice(name, f"there is no file {str(folder / path)!r}", "Name a file of JSON lines")


def _unused(config: DeployConfig, written: set[str]) -> Iterator[Notice]:
    """Yield settings that are written down, differ from their defaults, and are read by nothing as things stand."""
    scripted, nobody = config.learner.scripted is not None, not (config.learner.checkpoint or config.learner.scripted)
    groups = [
        (config.incumbent.kind == "person", "incumbent", _OF_ENDPOINT, 'incumbent.kind = "person"'),
        (config.incumbent.kind == "openai", "incumbent", ("person_timeout_seconds",), 'incumbent.kind = "openai"'),
        (scripted, "learner", _OF_PROCESS, "the learner is scripted"),
        (nobody, "learner", None, "there is no learner"),
        (nobody, "takeover", None, "there is no learner"),
        (nobody, "old_tasks", None, "there is no learner"),
        (nobody, "exam", None, "there is no learner"),
        (nobody, "harm", None, "there is no learner"),
        (not config.training.enabled, "training", None, "training.enabled is false"),
        (config.exam.paper is None, "exam", ("threads",), "exam.paper is not set"),
        (config.old_tasks.file is None, "old_tasks", ("margin", "delta"), "old_tasks.file is not set"),
        (config.harm.rule is None, "harm", ("refuse_from",), "harm.rule is not set"),
    ]
    told: set[str] = set()
    for holds, section, names, why in groups:
        part = getattr(config, section)
        for field in dataclasses.fields(part) if holds else ():
            full = f"{section}.{field.name}"
            if full in told or full not in written or (names is not None and field.name not in names):
                continue
            if getattr(part, field.name) != getattr(type(part)(), field.name):
                told.add(full)
                yield Notice(full, f"it has no effect, since {why}", "Take it out, or set what it needs")


_OF_ENDPOINT = (
    "url",
    "model",
    "api_key_env",
    "connect_timeout_seconds",
    "read_timeout_seconds",
    "attempts",
    "max_connections",
)
_OF_PROCESS = ("device", "threads", "temperature", "max_new_tokens", "max_context", "concurrent", "queue")


def _of_server(config: DeployConfig, folder: Path) -> Iterator[Notice]:
    host = config.server.host
    if not _is_loopback(host) and getattr(config.server, "certfile", None) is None:
        step = "Put TLS in front of it and let only that reach it, or listen on 127.0.0.1"
        yield Notice("server.host", f"{host} is reached from other machines, with keys and prompts in plain text", step)
    if stands(folder / config.server.kill_file):
        step = "Let the learner in again: foretaste deploy kill --lift"
        yield Notice("server.kill_file", f"{config.server.kill_file} is there, so the learner is out", step)
    heads, files = KeptHeads(config.audit, folder), files_folder(config, folder).resolve()
    if heads.folder is None:
        step = "Set it to a folder outside the store's"
        yield Notice("audit.heads", "no head of the log is kept: one whose end was cut off is not found out", step)
    elif heads.folder.resolve().is_relative_to(files) and files != folder.resolve():
        step = "Set it to a folder that the store's keeper cannot write"
        yield Notice("audit.heads", "it lies in the store's own folder, and goes with it", step)
    elif heads.folder.exists() and not heads.ready():
        yield Notice("audit.heads", f"{str(heads.folder)!r} cannot be written", "Let the server's user write there")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _of_store(config: DeployConfig, folder: Path, written: set[str]) -> list[Notice]:
    """Return where the settings name what only the store's state decides; a store that is not there decides nothing."""
    url = STORE.url_of(store_url(config, folder))
    if url.get_backend_name() == "sqlite" and not (url.database and os.path.exists(url.database)):
        return []
    try:
        engine = STORE.make_engine(url, create=False, wait_seconds=2.0)
    except DeployError as error:
        return [Notice("store.url", str(error), "The server cannot start")]
    try:
        with reading(engine) as connection:
            version, newest = tables.version_of(connection), len(tables.MIGRATIONS) + 1
            if version == 0:
                return []
            if version != newest:
                text = f"the store is of version {version}, this foretaste's is {newest}"
                how = "The next start migrates it; SQLite is copied before" if version < newest else "Upgrade it"
                return [Notice("store.url", text, how)]
            found = {row.name: json.loads(row.value) for row in connection.execute(sa.select(tables.state))}
            last = connection.scalar(sa.select(sa.func.max(tables.checkpoints.c.number))) or 0
    except (DeployError, ValueError) as error:
        return [Notice("store.url", str(error), "The server cannot start before that is mended")]
    finally:
        engine.dispose()
    state = State(**{name: value for name, value in found.items() if name in State.__dataclass_fields__})
    return [*_against_state(config, folder, written, state), *_untried(config, state, last)]


def _against_state(config: DeployConfig, folder: Path, written: set[str], state: State) -> Iterator[Notice]:
    settings = {
        "caps.tokens_per_day": config.caps.tokens_per_day,
        "stages.share_ceiling": config.stages.share_ceiling,
        "stages.harm_budget": config.stages.harm_budget,
    }
    for full, value in settings.items():
        name = full.split(".")[1]
        now = getattr(state, name)
        if full in written and value != now:
            step = f"To change it: foretaste deploy cap {name} {value}"
            yield Notice(full, f"{value} has no effect: it was a first value, the store holds {now}", step)
    path = config.learner.checkpoint
    if path is not None and state.checkpoint is not None and state.checkpoint_path is not None:
        own = (folder / path).resolve()
        if own != (folder / state.checkpoint_path).resolve():
            text = f"it has no effect: the store names the weights {state.checkpoint[:12]} in {state.checkpoint_path!r}"
            yield Notice("learner.checkpoint", text, f"To have others tried: foretaste deploy try {path}")
    if state.killed:
        yield Notice("killed", "the learner is out of everything", "Let it in again: foretaste deploy kill --lift")


def _untried(config: DeployConfig, state: State, last: int) -> list[Notice]:
    if last <= state.taken_up or config.learner.checkpoint or config.learner.scripted:
        return []
    text = "a checkpoint waits to be tried, but there is no learner to try it"
    return [Notice("learner.checkpoint", text, "Set learner.checkpoint, then start the server again")]


def _of_incumbent(config: DeployConfig) -> list[Notice]:
    incumbent = config.incumbent
    if incumbent.kind != "openai":
        return []
    headers: dict[str, str] = {}
    if incumbent.api_key_env is not None:
        secret = os.environ.get(incumbent.api_key_env)
        if not secret:
            text = f"the environment variable {incumbent.api_key_env} is not set"
            return [Notice("incumbent.api_key_env", text, "Set it where the server is started")]
        bearer = incumbent.api_key_header.lower() == "authorization"
        headers[incumbent.api_key_header] = f"Bearer {secret}" if bearer else secret
    base, _, query = incumbent.url.partition("?")
    url = f"{base.rstrip('/')}/models{'?' + query if query else ''}"
    try:
        told = httpx.get(url, headers=headers, timeout=PROBE_SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        text = f"{incumbent.url} cannot be reached ({type(error).__name__}: {error})"
        return [Notice("incumbent.url", text, "Start it, or correct the address; until then every request fails")]
    if told.status_code in (401, 403):
        where = incumbent.api_key_env or "incumbent.api_key_env, which is not set"
        return [Notice("incumbent.url", f"it refuses the key ({told.status_code})", f"Check {where}")]
    named = incumbent.models or incumbent.model or (told.status_code == 200 and names_of(told.content))
    if not named and (config.learner.checkpoint or config.learner.scripted):
        step = "Name those that the learner stands in for: incumbent.models"
        return [Notice("incumbent.models", "the incumbent lists no models, so the learner answers nobody", step)]
    return []


def _leaves(values: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield before + name
