"""Resume points: everything that a run needs to go on exactly as if it had never stopped.

One file, `state/trainer.pt`, replaced atomically: master weights, optimiser moments, running
statistics, and the step. Items, sampling streams and shuffles are keyed by the step (`tasks.py`), so
there is no further random state to keep.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from foretaste.config import TrainConfig
from foretaste.errors import RunError
from foretaste.rl.sources import training_sources

LOCK_FILE = "running.lock"
"""In a run's folder: held as long as a process is at the run (`locks.py`)."""
PARTS = ("updater", "learner", "gate", "curriculum", "reference", "progressed")
"""What a resume point holds; `train.py` writes and restores them."""


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
    items_before: list[str | None] = field(default_factory=list)
    """Digests of the held-out items (`identity.digest`); empty in runs of older versions."""
    stored_steps: list[int] = field(default_factory=list)
    """Steps whose episodes are on disk for the replay; empty in runs of older versions."""
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
        with temporary.open("r+b") as file:  # Windows syncs only what is open for writing
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


def load_state(folder: Path, config: TrainConfig, *, run: str) -> dict[str, Any]:
    """Read the resume point in `folder`, with every part that a run needs (`PARTS`).

    A part that an older version did not write yet is filled in where the config leaves no doubt what it was.

    Raises: RunError if there is none, it cannot be read, or a part is missing that the run has learned to need.
    """
    file = folder / "trainer.pt"
    if not file.is_file():
        raise RunError(
            f"Run {run} has no resume point at {file}: it ended before the first one was written. Start it again."
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage in many exception types
        raise RunError(f"The resume point {file} of run {run} cannot be read: {error}") from error
    if not isinstance(state, dict):
        raise RunError(f"The resume point {file} of run {run} holds a {type(state).__name__}. {_accepted(run)}")
    needs = _needs(config)
    unused = [name for name in PARTS if name not in state and needs.get(name) == ""]
    if lost := [name for name in PARTS if name not in state and name not in unused]:
        why = "; ".join(needs[name] for name in lost if name in needs)
        raise RunError(
            f"The resume point {file} of run {run} has no {' and no '.join(map(repr, lost))}, which this run needs"
            f"{f' ({why})' if why else ''}. Found: {', '.join(sorted(map(str, state))) or 'nothing'}. {_accepted(run)}"
        )
    return {**state, **dict.fromkeys(unused)}


def check_episodes(lost: Sequence[Path], config: TrainConfig, *, run: str) -> str | None:
    """Return a note on episode files that are gone, or None if all are there.

    Raises: RunError if the run learns from stored episodes: without them it would end elsewhere.
    """
    if not lost:
        return None
    names = ", ".join(str(file) for file in lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
    replay = config.replay
    learns = replay.critic_episodes or replay.actor_episodes or replay.policy_passes or replay.success_episodes
    if learns or config.algorithm.name == "auto":
        raise RunError(
            f"Run {run} learns from stored episodes, and these are missing or damaged: {names}. Without them it would "
            f"end with another result. Restore them, then: foretaste train --resume {run}; or start the run again."
        )
    return f"stored episodes are missing or damaged, which this run does not learn from: {names}"


@contextmanager
def restoring(part: str, *, run: str) -> Iterator[None]:
    """Say which part of a resume point it is that does not fit the code that restores it.

    Raises: RunError in place of what restoring raised.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        found = f"no {error} in it" if isinstance(error, KeyError) else str(error)
        raise RunError(
            f"The part {part!r} of the resume point of run {run} cannot be restored: {found}. {_accepted(run)}"
        ) from error


def _needs(config: TrainConfig) -> dict[str, str]:
    """Return why a run needs a part that not every run reads; "": it does not, and goes on alike without it."""
    sources, gate, kl = len(training_sources(config)), config.gate.max_probability, config.algorithm.kl_coefficient
    return {
        "curriculum": f"it draws from {sources} sources" if sources > 1 else "",
        "gate": f"gate.max_probability = {gate:g}" if gate else "",
        "reference": f"algorithm.kl_coefficient = {kl:g}" if kl else "",
    }


def _accepted(run: str) -> str:
    return (
        f"Accepted: {', '.join(PARTS)}, as this version writes them. Go on with the version that wrote it (the "
        f"ledger names it in the first status record of run {run}), or start the run again."
    )
