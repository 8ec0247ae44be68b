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
from scipy.special import logsumexp

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
        terms.append(log_part + logsumexp(started_QN, axis=0) - math.log(len(ALTERNATIVES)))
        terms.append(log_part - np.log(k_N + 1.0))
    return np.asarray(logsumexp(np.stack(terms), axis=0))


def alerts_in(shares: ArrayLike) -> tuple[int, ...]:
    """Return the places of the checks at which the share of checks had risen against the check before."""
    return tuple((np.flatnonzero(np.diff(np.asarray(shares, dtype=float)) > 0) + 1).tolist())


def warned(wrong: Sequence[bool], *, alpha: float, usual: float) -> bool:
    """Return whether the early warning stands after these checks.

    It is the CUSUM of ln(likelihood ratio) of twice alpha's odds to the `usual` error rate; it begins at `WARNING`.

    Source: Page 1954.
    """
    low = min(max(usual, alpha / 5), 0.8 * alpha)
    high = SUSPECTED * alpha / (1 - alpha + SUSPECTED * alpha)
    up, down = math.log(high / low), math.log1p(-high) - math.log1p(-low)
    level, stands = 0.0, False
    for one in wrong:
        level = max(0.0, level + (up if one else down))
        stands = level > 0 if stands else level > WARNING
    return stands


def check_share(
    wrong: Sequence[bool], *, average: float, served: int, alpha: float, usual: float, also: bool = False
) -> float:
    """Return the share of the next served answers to check, in the live stage.

    `average` is the stated share, `served` the answers served live so far; `wrong` says of each check among them
    whether a judge called it wrong. `usual`: the error that the calibration found. `also`: another sign of change asks for more checks (complaints, inputs).
    Over any length of service no more than `average` x served + `CREDIT` answers are checked on purpose.
    """
    if not average:
        return 0.0
    suspicious = also or warned(wrong, alpha=alpha, usual=usual)
    if suspicious and len(wrong) <= average * served + CREDIT:
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
