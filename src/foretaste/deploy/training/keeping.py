"""Which published checkpoints stay on disk: whatever the state names, the best kept one, and the newest few.

Called from the supervisor's thread alone, which also takes new checkpoints up: nothing is removed between a look at
the state and the loading of what it names. Only folders that learning on the job made are ever removed.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.state import State
from foretaste.deploy.tables import checkpoints

logger = logging.getLogger(__name__)

NAME = re.compile(r"[0-9a-f]{16}")
"""Of a published checkpoint's folder: the beginning of its content id."""
LOST_SECONDS = 3600.0
"""Age of a folder that no record names before it counts as left behind by a process that was killed."""


def remove_old(
    connection: Connection,
    folder: Path,
    state: State,
    *,
    keep: int,
    ids: Iterable[str | None] = (),
    paths: Iterable[str | None] = (),
) -> list[Path]:
    """Remove published checkpoints that nothing needs any more; return the removed folders.

    `folder` is where training writes; `ids` (content ids) and `paths` are needed beside those that the state names.
    """
    query = sa.select(checkpoints.c.id, checkpoints.c.path).order_by(checkpoints.c.number.desc())
    rows = list(connection.execute(query))
    named_paths = (state.checkpoint_path, state.accepted_path, state.candidate_path, *paths)
    needed = {Path(path).resolve() for path in (*named_paths, *(row.path for row in rows[:keep])) if path}
    named = {one[:16] for one in (state.checkpoint, state.accepted, state.candidate, *ids) if one}
    known = {Path(row.path).resolve() for row in rows}
    removed: list[Path] = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        resolved = place.resolve()
        if place.is_symlink() or not NAME.fullmatch(place.name) or place.name in named or resolved in needed:
            continue
        if resolved in known or _age(place) > LOST_SECONDS:
            shutil.rmtree(place, ignore_errors=True)
            removed.append(place)
    return removed


def clear_scratch(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote a checkpoint; only the one writer may call it."""
    for place in [*folder.glob(".new-*"), folder / "new"] if folder.is_dir() else []:
        shutil.rmtree(place, ignore_errors=True)


def _age(place: Path) -> float:
    try:
        return time.time() - place.stat().st_mtime
    except OSError:
        return 0.0


def described(removed: list[Path]) -> dict[str, Any]:
    """Return the audit entry's payload."""
    return {"removed": [one.name for one in removed]}
