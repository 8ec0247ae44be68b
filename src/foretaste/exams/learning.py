"""How fast something was learned, and what it did to everything else: pure functions of curves.

Sample efficiency is read on a log axis, because the tenth thousand of episodes is worth less than
the first; a threshold that was never reached is *censored*, not left out and not made up.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import CensoredData, ecdf


class Curve(NamedTuple):
    """One seed's learning curve."""

    samples: Sequence[float]
    """Episodes or tokens so far at each measured point, increasing."""
    success: Sequence[float]


class SamplesToThreshold(NamedTuple):
    """Samples until a success was reached, over several seeds."""

    median: float | None
    """None: fewer than half of the seeds reached it, as far as they were followed."""
    low: float | None
    high: float | None
    """Interval of the median; None where the seeds do not bound it on that side."""
    reached: int
    seeds: int
    followed: float
    """The longest that any seed was followed: "more than this" where the median is None."""


def first_reached(curve: Curve, threshold: float, *, confirmations: int = 1) -> float | None:
    """Return the samples at the first of `confirmations` consecutive points at or above `threshold`.

    Nothing is interpolated between points: the figure is one that was measured. None: not reached.
    """
    _check_curve(curve)
    above = np.asarray(curve.success) >= threshold
    for start in range(len(above) - confirmations + 1):
        if above[start : start + confirmations].all():
            return float(curve.samples[start])
    return None


def samples_to_threshold(
    curves: Sequence[Curve], threshold: float, *, confirmations: int = 1, level: float = 0.95
) -> SamplesToThreshold:
    """Return the median samples to `threshold`: where the Kaplan-Meier survival curve falls to one half.

    A seed that never reached it is censored at its last point: it counts as "longer than this". The
    interval runs between the times at which the survival curve's own limits fall to one half.

    Raises: ValueError for no curves or a curve whose samples do not increase.
    Source: Kaplan & Meier 1958; Brookmeyer & Crowley 1982 with log-log limits.
    """
    if not curves:
        raise ValueError("samples_to_threshold needs at least one curve")
    times = [first_reached(curve, threshold, confirmations=confirmations) for curve in curves]
    reached = [time for time in times if time is not None]
    censored = [float(curve.samples[-1]) for curve, time in zip(curves, times, strict=True) if time is None]
    followed = max(float(curve.samples[-1]) for curve in curves)
    if not reached:
        return SamplesToThreshold(None, None, None, 0, len(curves), followed)
    survival = ecdf(CensoredData(uncensored=reached, right=censored)).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # undefined where survival is 0 or 1: filled in below
        limits = survival.confidence_interval(level, method="log-log")
    times_K = np.asarray(survival.quantiles)
    low = _first_at_most_half(times_K, np.nan_to_num(limits.low.probabilities, nan=0.0))
    high = _first_at_most_half(times_K, np.nan_to_num(limits.high.probabilities, nan=1.0))
    median = _first_at_most_half(times_K, np.asarray(survival.probabilities))
    return SamplesToThreshold(median, low, high, len(reached), len(curves), followed)


def _first_at_most_half(times_K: NDArray[Any], survival_K: NDArray[Any]) -> float | None:
    found = np.flatnonzero(survival_K <= 0.5 + 1e-12)
    return float(times_K[found[0]]) if len(found) else None


def area_under_log_curve(curve: Curve, *, low: float | None = None, high: float | None = None) -> float:
    """Return the mean success over log samples between `low` and `high`, by the trapezoid rule.

    area = 1 / (ln high - ln low) * integral of success(x) d ln x: in [0, 1], equal weight to every
    doubling of samples. Compare learners only over the same `low` and `high` (default: the curve's own
    ends). Points at 0 samples have no logarithm and are left out.

    Raises: ValueError for fewer than two points with samples > 0, or a range that the curve does not cover.
    """
    _check_curve(curve)
    samples_P, success_P = np.asarray(curve.samples, dtype=float), np.asarray(curve.success, dtype=float)
    samples_P, success_P = samples_P[samples_P > 0], success_P[samples_P > 0]
    if len(samples_P) < 2:
        raise ValueError("an area needs at least two points with samples > 0")
    start = float(samples_P[0]) if low is None else low
    end = float(samples_P[-1]) if high is None else high
    if not samples_P[0] <= start < end <= samples_P[-1]:
        raise ValueError(f"the curve covers {samples_P[0]:g} to {samples_P[-1]:g} samples, not {start:g} to {end:g}")
    log_P = np.log(samples_P)
    inside = (samples_P > start) & (samples_P < end)
    x = np.concatenate([[math.log(start)], log_P[inside], [math.log(end)]])
    return float(np.trapezoid(np.interp(x, log_P, success_P), x) / (x[-1] - x[0]))


class Transfer(NamedTuple):
    """What learning T tasks in turn did to each; None where the needed scores were not measured."""

    average: float | None
    """ACC: mean_j R[T-1, j], after the last task."""
    backward: float | None
    """BWT: mean_{j < T-1} (R[T-1, j] - R[j, j]); negative: forgetting."""
    forward: float | None
    """FWT: mean_{j >= 1} (R[j-1, j] - untrained[j]): what earlier tasks gave to later ones."""
    max_forgetting: float | None
    """max_{j < T-1} (max_{i < T-1} R[i, j] - R[T-1, j])."""


def transfer(scores: ArrayLike, untrained: ArrayLike | None = None) -> Transfer:
    """Return transfer and forgetting of R = `scores`, T x T: R[i, j] is the score on task j after learning task i.

    `untrained` holds T scores before any learning. Scores not measured are NaN.

    Raises: ValueError unless R is square.
    Source: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840); forgetting: Chaudhry et al. 2018 (arXiv 1801.10112).
    """
    scores_TT = np.asarray(scores, dtype=float)
    if scores_TT.ndim != 2 or scores_TT.shape[0] != scores_TT.shape[1] or len(scores_TT) == 0:
        raise ValueError(f"scores must be T x T, got shape {scores_TT.shape}")
    last = len(scores_TT) - 1
    before_T = None if untrained is None else np.asarray(untrained, dtype=float)
    if before_T is not None and before_T.shape != (last + 1,):
        raise ValueError(f"untrained must hold {last + 1} scores, got shape {before_T.shape}")
    final_T, own_T = scores_TT[last], np.diagonal(scores_TT)
    forward = None if before_T is None else _mean(np.diagonal(scores_TT, offset=1) - before_T[1:])
    forgetting = scores_TT[:last, :last].max(axis=0) - final_T[:last] if last else np.array([])
    worst = float(forgetting.max()) if len(forgetting) and not np.isnan(forgetting).any() else None
    return Transfer(_mean(final_T), _mean(final_T[:last] - own_T[:last]), forward, worst)


def _mean(values: NDArray[Any]) -> float | None:
    return None if len(values) == 0 or np.isnan(values).any() else float(values.mean())


def _check_curve(curve: Curve) -> None:
    if len(curve.samples) != len(curve.success) or len(curve.samples) == 0:
        raise ValueError(f"a curve needs one success per point: {len(curve.samples)} and {len(curve.success)}")
    if not (np.diff(curve.samples) > 0).all():
        raise ValueError("the samples of a curve must increase")
