"""What the gate has cost so far, said with a bound that may be looked at after every step.

    Losses     while the gate stops: is more than the allowed share of the stopped episodes a lost success?
    Prospect   while it is off: would it lose less than that share, if it stopped again?

`gate.GateKeeper` turns the gate off and on by them. Pure arithmetic: no episodes, no model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ALPHA = 0.05
"""Chance that a gate which loses no more than it may is ever turned off, and that one which loses more comes back."""
_BETS = (np.arange(20) + 0.5) / 20
"""Stakes between 0 and 1 whose wealth is averaged; any fixed choice is valid, this one favours none."""


class Losses:
    """A lower bound of the share of stopped episodes that would have succeeded, valid after every episode at once.

    A success that survived its gates with weight W stands for W - 1 that were stopped. So with n stopped episodes and
    successes of weights W_i, under "each step loses at most a share L of what it stops" the wealth

        mean over bets u of (1 - u)^n product_i (1 + u (W_i - 1) / L)

    exceeds 1 / ALPHA at any time with a chance of at most ALPHA: every episode multiplies it by 1 + (u / L)(lost - L
    stopped), whose mean is at most 1. The bound is the largest L for which it does.

    Source: Ville 1939; betting on a bounded mean, Waudby-Smith & Ramdas 2010.09686.
    """

    def __init__(self) -> None:
        self.stopped = 0
        self.lost: list[float] = []
        """W - 1 of the successes that met a gate."""

    def add(self, stopped: int, lost: list[float]) -> None:
        """Fold in a step's stopped episodes, and the W - 1 of its successes (those that met no gate add nothing)."""
        self.stopped += stopped
        self.lost += [one for one in lost if one > 0]

    def above(self, share: float) -> bool:
        """Return whether it is certain, at 1 - ALPHA, that more than this share is lost."""
        if not self.lost:
            return False
        if share <= 0:
            return True
        logs = self.stopped * np.log1p(-_BETS) + np.log1p(np.outer(_BETS, self.lost) / share).sum(axis=1)
        return _log_mean_exp(logs) >= -math.log(ALPHA)

    @property
    def low(self) -> float:
        """The lower bound; 0 where nothing was lost."""
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self.above(middle) else (low, middle)
        return low

    def state(self) -> list[Any]:
        """Return what `load` restores."""
        return [self.stopped, list(self.lost)]

    def load(self, state: list[Any]) -> None:
        """Restore a state returned by `state`."""
        self.stopped, self.lost = int(state[0]), list(state[1])


class Prospect:
    """Evidence that a gate would lose less than a share `limit` of what it stopped, from episodes played to their end.

    Such an episode shows both: the chance p with which its gates would have stopped it, and whether it succeeded. Under
    "the gate would lose `limit` or more" each multiplies the wealth by 1 + u p (limit - success) / (1 - limit), whose
    mean is at most 1.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.logs = np.zeros(len(_BETS))

    def add(self, probability: float, success: float) -> None:
        """Fold in an episode: the chance that the gate would have stopped it, and its success (0 to 1)."""
        if self.limit < 1:
            self.logs += np.log1p(_BETS * probability * (self.limit - success) / (1 - self.limit))

    @property
    def good(self) -> bool:
        """Whether the gate may stop again."""
        return _log_mean_exp(self.logs) >= -math.log(ALPHA)

    def state(self) -> list[float]:
        """Return what `load` restores."""
        return self.logs.tolist()

    def load(self, state: list[float]) -> None:
        """Restore a state returned by `state`."""
        self.logs = np.array(state, dtype=np.float64)


def _log_mean_exp(logs: np.ndarray) -> float:
    largest = float(logs.max())
    return largest + math.log(float(np.exp(logs - largest).mean()))
