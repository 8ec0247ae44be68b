"""Resume points: everything that a run needs to go on exactly as if it had never stopped.

One file, `state/trainer.pt`, replaced atomically: master weights, optimiser moments, running
statistics, and the step. Items, sampling streams and shuffles are keyed by the step (`tasks.py`), so
there is no further random state to keep.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from foretaste.errors import RunError


@dataclass
class Progressed:
    """How far a run has come, and its running totals."""

    step: int = 0
    """Updates done."""
    episodes: int = 0
    sampled_tokens: int = 0
    wall_seconds: float = 0.0
    first_entropy: float | None = None
    good_points: int = 0
    """Newest points of the learning curve in a row that reached `held_out.enough`."""
    success_before: list[float | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by part of the run."""

    def add(self, part: str, seconds: float) -> None:
        """Add to the seconds of a part."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds


def save_state(folder: Path, state: dict[str, Any], *, run: str) -> None:
    """Replace the resume point in `folder`.

    Raises: RunError if the disk is full or not writable; the resume point before stays as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "trainer.pt.writing"
    try:
        torch.save(state, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(folder / "trainer.pt")
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "PytorchStreamWriter" in str(error)
        reason = "no space is left on the disk" if full else str(error)
        raise RunError(
            f"Cannot write the resume point of run {run} to {folder}: {reason}. What was learned up to the "
            f"resume point before is kept; make room, then: foretaste train --resume {run}"
        ) from error


def load_state(folder: Path, *, run: str) -> dict[str, Any]:
    """Read the resume point in `folder`.

    Raises: RunError if there is none or it cannot be read.
    """
    file = folder / "trainer.pt"
    if not file.is_file():
        raise RunError(
            f"Run {run} has no resume point at {file}: it ended before the first one was written. Start it again."
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage in many exception types
        raise RunError(f"The resume point {file} of run {run} cannot be read: {error}") from error
