"""The watch over what is served: has the error risen above alpha, and how many answers are checked meanwhile?

Evidence is a mixture of tests that start anew, at every `BLOCK`-th check and wherever checks became more frequent.
The share of checks follows a cheaper early warning. While that stands, every served answer is checked, so that the
evidence comes ten times as fast; a lower share in quiet times pays for it. The warning proves nothing and needs no
guarantee: it only says where to look, before the answer that is looked at.

Pure functions of what the checks said, in the order of the requests. Next: `analysis.py`, which calls a breach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 25
"""Checks between two places where the test of a change starts anew, whatever they say."""
ALTERNATIVES = (1.5, 2.2, 4.0, 10.0)
"""Odds of an error that the tests look for, in units of the odds of alpha."""
ALERT_PART = 0.75
"""Part of the mixture that starts where the share of checks rose."""
QUIET = 0.7
"""Share of checks while nothing is suspected, in units of the average share."""
SUSPECTED = 2.0
"""Odds of an error that the early warning looks for, in units of the odds of alpha."""
WARNING = 2.0
"""Nats of its CUSUM at which the early warning begins; it ends at 0."""
CREDIT = 400
"""Checks by which warnings may exceed the average share: the most that a false one can cost."""


def log_e_path(wrong: ArrayLike, rate: float, alerts: Sequence[int] = ()) -> NDArray[np.float64]:
    """Return ln E of "each served answer is wrong with probability at most `rate`", after each check; shape [N].

        E_n = (1 - f) sum_k w_k prod_(i = s_k)^n L_i  +  f sum_j w_j prod_(i = a_j)^n L_i,   w_k = 1 / (k (k + 1))

    s_k: every `BLOCK`-th check; a_j: `alerts`, the places (0 to N - 1) of the checks before which the share of checks
    rose. L: likelihood ratio of an alternative to `rate`, averaged over `ALTERNATIVES`. Tests that have not started
    stand at 1. Every start is fixed before the checks it tests, so E is a supermartingale under every error up to
    `rate`: P(E >= 1/delta at any n) <= delta. Counting an unknown judgement as right only lowers E.

    Source: e-detectors, Shin, Ramdas & Rinaldo 2203.03532, with weights that sum to 1; Ville 1939.
    """
    wrong_N = np.asarray(wrong, dtype=np.bool_)
    n = len(wrong_N)
    if n == 0:
        return np.zeros(0)
    odds = np.asarray(ALTERNATIVES)[:, None]
    q = odds * rate / (1 - rate + odds * rate)
    steps_QN = np.where(wrong_N, np.log(q / rate), np.log1p(-q) - math.log1p(-rate))
    sums_QN = np.cumsum(steps_QN, axis=1)
    places = np.arange(n)
    parts = [(places % BLOCK == 0, math.log1p(-ALERT_PART)), (np.isin(places, list(alerts)), math.log(ALERT_PART))]
    terms: list[NDArray[np.float64]] = []
    for starts_N, log_part in parts:
        k_N = np.cumsum(starts_N)
        log_w_N = np.where(starts_N, -np.log(np.maximum(k_N, 1) * (np.maximum(k_N, 1) + 1.0)), -np.inf)
        before_QN = sums_QN - steps_QN
        started_QN = sums_QN + np.logaddexp.accumulate(log_w_N - before_QN, axis=1)
        terms += [log_part - math.log(len(ALTERNATIVES)) + one_N for one_N in started_QN]
        terms.append(log_part - np.log(k_N + 1.0))
    return np.asarray(np.logaddexp.reduce(np.stack(terms), axis=0))


class Running:
    """`log_e_path` one check at a time, for whoever only needs the newest value: the same figures, far sooner."""

    def __init__(self, rate: float) -> None:
        odds = np.asarray(ALTERNATIVES)
        q = odds * rate / (1 - rate + odds * rate)
        self._wrong, self._right = q / rate, (1 - q) / (1 - rate)
        self._blocks, self._alerts = np.zeros(len(odds)), np.zeros(len(odds))
        self._n = self._block = self._alert = 0

    def add(self, wrong: bool, *, alert: bool = False) -> float:
        """Take one more check, before which checks became more frequent if `alert`; return E (not its logarithm)."""
        if self._n % BLOCK == 0:
            self._block += 1
            self._blocks += 1 / (self._block * (self._block + 1))
        if alert and self._n:
            self._alert += 1
            self._alerts += 1 / (self._alert * (self._alert + 1))
        self._n += 1
        ratio = self._wrong if wrong else self._right
        self._blocks, self._alerts = self._blocks * ratio, self._alerts * ratio
        blocks, alerts = self._blocks.mean() + 1 / (self._block + 1), self._alerts.mean() + 1 / (self._alert + 1)
        return float((1 - ALERT_PART) * blocks + ALERT_PART * alerts)


def alerts_in(shares: ArrayLike) -> tuple[int, ...]:
    """Return the places of the checks at which the share of checks had risen against the check before."""
    return tuple((np.flatnonzero(np.diff(np.asarray(shares, dtype=float)) > 0) + 1).tolist())


def warned(wrong: Sequence[bool], *, alpha: float, usual: float) -> bool:
    """Return whether the early warning stands after these checks.

    It is the CUSUM of ln(likelihood ratio) of twice alpha's odds to the `usual` error rate; it begins at `WARNING`.

    Source: Page 1954.
    """
    up, down = cusum_steps(alpha=alpha, usual=usual)
    sums = np.concatenate([[0.0], np.cumsum(np.where(np.asarray(wrong, dtype=np.bool_), up, down))])
    levels = sums - np.minimum.accumulate(sums)
    return bool(levels[np.flatnonzero(levels == 0)[-1] :].max() > WARNING)


def cusum_steps(*, alpha: float, usual: float) -> tuple[float, float]:
    """Return what a wrong, and a right, answer add to the early warning's CUSUM, in nats."""
    low = min(max(usual, alpha / 5), 0.8 * alpha)
    high = SUSPECTED * alpha / (1 - alpha + SUSPECTED * alpha)
    return math.log(high / low), math.log1p(-high) - math.log1p(-low)


def check_share(
    wrong: Sequence[bool], *, average: float, served: int, alpha: float, usual: float, also: bool = False
) -> float:
    """Return the share of the next served answers to check, in the live stage.

    `average` is the stated share, `served` the answers served live so far; `wrong` says of each check among them
    whether a judge called it wrong. `usual`: the error that the calibration found. `also`: another sign of change asks
    for more checks (complaints, inputs).
    Over any length of service no more than `average` x served + `CREDIT` answers are checked on purpose.
    """
    if not average:
        return 0.0
    suspicious = also or warned(wrong, alpha=alpha, usual=usual)
    return share_when(suspicious, checks=len(wrong), average=average, served=served)


def share_when(suspicious: bool, *, checks: int, average: float, served: int) -> float:
    """Return the share of checks while something is, or is not, suspected, within the budget of `check_share`."""
    if suspicious and checks <= average * served + CREDIT:
        return 1.0
    return QUIET * average


def inputs_shifted(reached: int, arrived: int, share: float, calibrated_on: int) -> bool:
    """Return whether another share of the requests reaches the threshold than did when it was chosen.

    A sign that the inputs have changed: |z| > 4 for two proportions. It raises the share of checks, and proves nothing.
    """
    if arrived < 100 or calibrated_on == 0:
        return False
    pooled = (reached + share * calibrated_on) / (arrived + calibrated_on)
    spread = math.sqrt(max(pooled * (1 - pooled), 1e-12) * (1 / arrived + 1 / calibrated_on))
    return abs(reached / arrived - share) > 4 * spread
