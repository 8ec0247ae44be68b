"""What a run says of itself: its provenance when it starts, its figures when it ends. `train.py` calls both."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.config import TrainConfig
from foretaste.errors import RunError
from foretaste.records import Checkpoint, RunSummary
from foretaste.rl.held_out import HeldOut
from foretaste.rl.resume import Progressed
from foretaste.rl.sources import title
from foretaste.statistics import exact_interval, newcombe_difference, paired_difference_interval


def provenance(config: TrainConfig, resuming: bool, run: str) -> dict[str, Any]:
    """What a reader needs to repeat the run, beside the config: versions, machine, command."""
    versions = {name: version(name) for name in ("foretaste", "torch", "transformers", "gymnasium", "numpy")}
    again = f"foretaste train --resume {run}" if resuming else "foretaste train run.toml, with the config of this page"
    return {"command": again, "versions": versions, "python": platform.python_version(), "cores": os.cpu_count()}


def summarize(
    config: TrainConfig, run: str, folder: Path, done: Progressed, checkpoint: Checkpoint, after: HeldOut
) -> RunSummary:
    """Return the figures that the table, `summary.json` and the report show.

    Raises: RunError if no held-out item was judged both before and after training.
    """
    pairs = _judged_twice(done.success_before, after.success)
    if not pairs:
        raise RunError("no held-out item could be judged: the environment failed on every one")
    same = [pair for pair, alike in zip(pairs, _alike(done, after), strict=True) if alike]
    notes = list(done.notes)
    if len(same) < len(pairs):
        notes.append(_other_items(len(pairs) - len(same), len(pairs)))
    before_N, after_N = np.array(same or pairs, dtype=bool).T
    count = len(before_N)
    first, last = exact_interval(int(before_N.sum()), count), exact_interval(int(after_N.sum()), count)
    # Different questions are never paired: without a common one the two are independent samples.
    gain = (
        paired_difference_interval(before_N, after_N)
        if same
        else newcombe_difference(int(before_N.sum()), count, int(after_N.sum()), count)
    )
    calibration = after.calibration
    return RunSummary(
        run=run,
        env=title(config),
        model=config.model.name,
        success_before=first.mean,
        success_after=last.mean,
        success_before_interval=(first.low, first.high),
        success_after_interval=(last.low, last.high),
        gain=last.mean - first.mean,
        gain_interval=(gain.low, gain.high),
        n_items=count,
        episodes=done.episodes,
        sampled_tokens=done.sampled_tokens,
        wall_seconds=done.wall_seconds,
        value_calibration_error=calibration["ece"] if calibration else None,
        value_calibration_floor=calibration["ece_floor"] if calibration else None,
        value_auc=calibration["auc"]["50"] if calibration else None,
        checkpoint=checkpoint.id,
        checkpoint_path=checkpoint.path,
        report=str(folder / "report.html"),
        notes=tuple(notes),
        seconds={part: round(seconds, 3) for part, seconds in done.seconds.items()},
    )


def _alike(done: Progressed, after: HeldOut) -> list[bool]:
    """Return, of each item judged twice, whether it was the same question both times; unknown counts as the same."""
    known = done.items_before or [None] * len(after.items)
    return [
        first is None or last is None or first == last
        for first, last, *judged in zip(known, after.items, done.success_before, after.success, strict=True)
        if None not in judged
    ]


def _other_items(others: int, of: int) -> str:
    """Say that items were other questions after training than before."""
    what = "these were left out" if others < of else "the gain's interval is that of two independent samples"
    return (
        f"{others} of {of} held-out items showed another question after training than before, so {what}. The "
        "environment does not repeat its items, or it was changed: foretaste envs check says which"
    )


def _judged_twice(before: Sequence[float | None], after: Sequence[float | None]) -> list[tuple[bool, bool]]:
    return [
        (first >= 1.0, last >= 1.0)
        for first, last in zip(before, after, strict=True)
        if first is not None and last is not None
    ]
