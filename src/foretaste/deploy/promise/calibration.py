"""The next threshold of a checkpoint: one more look at its checks, with its own part of delta.

A server (`promotion.py`) and a simulated one (`simulation/`) both call this. Next: `takeover.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

from foretaste.deploy.promise.statement import FALL_PART, trial_delta
from foretaste.deploy.state import State
from foretaste.deploy.takeover import Judged, Threshold, calibrate, renewed

CALIBRATION = ("tau", "threshold", "looks", "looked", "trial")
"""What a look changes in the state beside `trials`; a candidate has the same, without `tau`, which is in its
threshold."""


def standing(state: State) -> Threshold | None:
    """Return the threshold that the state holds."""
    return Threshold(**state.threshold) if state.threshold else None


def recalibrated(state: State, answers: Sequence[Judged], *, last: int, alpha: float, delta: float) -> State:
    """Return the state after one more look at the mature checks of its checkpoint; `last`: the newest one's number.

    The first look of a checkpoint, and the first after a rollback, begins a trial: the deployment's next number,
    which no rollback gives back. So the parts of delta of all trials and looks together never exceed delta.
    """
    assert state.checkpoint is not None
    trial = state.trial if state.looks and state.trial else state.trials + 1
    look, before = state.looks + 1, standing(state)
    part = trial_delta(delta, trial)
    now = calibrate(
        answers,
        state.checkpoint,
        alpha=alpha,
        delta=part,
        look=look,
        standing=None if before is None else before.tau,
        fall_delta=FALL_PART * part,
    )
    found = renewed(before, now)
    return replace(
        state,
        tau=found.tau,
        threshold=dataclasses.asdict(found),
        looks=look,
        looked=last,
        trial=trial,
        trials=max(state.trials, trial),
    )
