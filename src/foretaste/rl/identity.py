"""What a run's items come from, so that nobody continues it, or compares before with after, on something else.

Written down when a run starts: the class that was handed to `train`, and a digest of every data set's file. `digest`
names a held-out item by what the policy is shown of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretaste.config import EnvConfig, TrainConfig
from foretaste.envs.parameters import split_id
from foretaste.errors import ConfigError, RunError
from foretaste.records import Episode
from foretaste.rl.sources import held_out_sources, training_sources

_DATASET = "dataset:"


def identity(config: TrainConfig, env: Callable[[], Any] | None) -> dict[str, Any]:
    """Return where a run's items come from, as JSON: the class handed over (or None), names, and files' digests."""
    sources = () if env is not None else (*training_sources(config), *held_out_sources(config))
    names = {split_id(source.env)[0] for source in sources}
    files = sorted(name.removeprefix(_DATASET) for name in names if name.startswith(_DATASET))
    digests = {file: file_digest(Path(file)) for file in files}
    if env is not None:
        names = {str(getattr(env, "name", "")), str(getattr(env, "__qualname__", ""))}
    # A class may be named in the settings and handed over later, as `module:Class` or by the name it is registered by.
    called = sorted({name.rpartition(":")[2] for name in names} - {""})
    return {"env_class": _class_name(env), "names": called, "files": digests}


def named(config: TrainConfig, env: Callable[[], Any] | None) -> TrainConfig:
    """Return the config with the name of the class handed over, where `env.id` was left at its default."""
    name = getattr(env, "name", None) or getattr(env, "__name__", None)
    if not isinstance(name, str) or config.env.id != EnvConfig().id:
        return config
    return replace(config, env=replace(config.env, id=name))


def same_items(recorded: Mapping[str, Any] | None, now: Mapping[str, Any], run: str) -> None:
    """Check that a resumed run continues on the items that it was started with.

    `recorded` is None for a run of an older version, which wrote none of this down.

    Raises: ConfigError if the class that was handed over is missing, or one is handed over where there was none;
    RunError if a data set's file is another.
    """
    if recorded is None:
        return
    before, given = recorded.get("env_class"), now["env_class"]
    if before is not None and given is None:
        raise ConfigError(
            f"Run {run} was started with the environment class {before}, which was handed to train() and is in no "
            f"setting. Continue it from Python: foretaste.train(resume={run!r}, env={before.rpartition('.')[2]})"
        )
    if before is None and given is not None and not {*now["names"]} & {*recorded["names"]}:
        raise ConfigError(
            f"Run {run} was started with the environment of its settings, and env={given} takes its place. Leave env "
            "out, or start a new run"
        )
    for file, digest in recorded.get("files", {}).items():
        if now["files"].get(file) != digest:
            raise RunError(
                f"The data set {file} is not the one that run {run} was started with (SHA-256 {digest[:12]}), so "
                "success before and after would be of different questions. Restore the file and resume again, or "
                "start a new run."
            )


def digest(episode: Episode) -> str | None:
    """Return a short hash of an item as its policy first saw it; None for an episode that failed before."""
    if not episode.turns:
        return None
    return hashlib.sha256(episode.turns[0].observation.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; "missing" where there is none, which loading it says better."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "missing"


def _class_name(env: Callable[[], Any] | None) -> str | None:
    if env is None:
        return None
    made = env if hasattr(env, "__qualname__") else type(env)
    return f"{made.__module__}.{made.__qualname__}"
