"""Lambda follows the critic: 1 while it tells nothing, down to the configured floor as far as it is right.

A lambda below 1 cuts credit where the next turn's V takes over. With a critic that ranks unfinished episodes well
that is the gain; with one that does not it removes the signal. So the rule is tied to a measurement, made anew in
every step from that step's own episodes, before the critic learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foretaste.records import Episode
from foretaste.rl.diagnostics import PARTS, Judged, judged_values, value_at_part
from foretaste.statistics import auc

CHANCE, GOOD = 0.5, 0.75
"""AUC halfway at which the critic is trusted not at all, and fully."""


class Ranking(NamedTuple):
    """How well V halfway separates later successes from later failures, over several steps."""

    auc: float
    error: float
    """Standard error of `auc`."""


class LambdaAdapter:
    """Pools the AUC halfway over the last `steps` steps and turns it into the lambda between turns.

        trust  = clip((AUC - SE - 0.5) / (0.75 - 0.5), 0, 1)
        lambda = 1 - trust (1 - floor)

    The AUC of each step is weighted by its pairs of a success and a failure, and only pairs of the same step count:
    a policy that gets better from step to step would else look like a critic that ranks. SE is Hanley & McNeil's
    (1982) of each step, combined with the same weights. Before any pair was seen, here or in the run that a critic
    comes from, lambda is 1. With a gate a survivor counts for those that were stopped where it went on.
    """

    def __init__(self, floor: float, steps: int = 8, prior: Sequence[Sequence[float]] = ()) -> None:
        """`prior`: rows of an earlier run, which count as steps before the first, until `steps` of this one have pairs.

        A first success of this run alone would say next to nothing, and would take the place of hundreds of pairs.
        """
        self.floor = floor
        self.steps = steps
        self.prior = prior
        self.seen: list[list[float]] = []  # pairs, pairs won by the success, variance of the step's AUC

    def update(self, episodes: Sequence[Episode], rows: Sequence[Sequence[float]] | None = None) -> float:
        """Fold in a step's episodes (`rows`: their values, see `judged_values`) and return lambda."""
        row = pairs_of(judged_values(episodes, rows), PARTS["50"])
        if row[0]:
            self.seen = [*self.seen, row][-self.steps :]
        return self.value

    @property
    def ranking(self) -> Ranking | None:
        """The pooled AUC; None before any success and failure of the same step."""
        return pooled(self.rows)

    @property
    def rows(self) -> list[list[float]]:
        """What the ranking rests on: the newest rows of the prior and this run."""
        return [list(row) for row in (*self.prior, *self.seen)][-self.steps :]

    @property
    def value(self) -> float:
        """Lambda between turns."""
        found = self.ranking
        if found is None:
            return 1.0
        trust = min(1.0, max(0.0, (found.auc - found.error - CHANCE) / (GOOD - CHANCE)))
        return 1.0 - trust * (1.0 - self.floor)

    def state(self) -> list[list[float]]:
        """Return what `load` restores."""
        return [list(row) for row in self.seen]

    def load(self, state: list[list[float]]) -> None:
        """Restore a state returned by `state`."""
        self.seen = [list(row) for row in state]


def pairs_of(judged: Sequence[Judged], part: float) -> list[float]:
    """Return [pairs, those in which the success has the higher V (ties half), variance of their share].

    V is that at a `part` of an episode's tokens. Unequal weights count as fewer episodes: (sum W)^2 / sum W^2 of each
    outcome (Kish 1965).

    Source: Hanley & McNeil 1982, equations 2 and 3. The share is kept half a pair away from 0 and 1, where the
    formula would claim to be certain.
    """
    won = np.array([one.success >= 1.0 for one in judged], dtype=bool)
    weights = np.array([one.weight for one in judged])
    measured = auc(np.array([value_at_part(one.values, part) for one in judged]), won, weights)
    if measured is None:
        return [0.0, 0.0, 0.0]
    wins, losses = (float(some.sum() ** 2 / (some**2).sum()) for some in (weights[won], weights[~won]))
    pairs = wins * losses
    higher = measured * pairs
    share = min(max(measured, 0.5 / pairs), 1 - 0.5 / pairs)
    q1, q2 = share / (2 - share), 2 * share**2 / (1 + share)
    variance = (share * (1 - share) + (wins - 1) * (q1 - share**2) + (losses - 1) * (q2 - share**2)) / pairs
    return [pairs, higher, max(variance, 0.0)]


def pooled(rows: Sequence[Sequence[float]]) -> Ranking | None:
    """Return the AUC and standard error of rows from `pairs_of`, weighted by pairs; None without any pair."""
    total = sum(row[0] for row in rows)
    if not total:
        return None
    variance = sum((row[0] / total) ** 2 * row[2] for row in rows)
    return Ranking(sum(row[1] for row in rows) / total, float(np.sqrt(variance)))
