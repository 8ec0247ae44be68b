"""Intervals for proportions, and measures of how well a value function predicts outcomes.

Pure functions of NumPy arrays; every one names its source. What exams need beyond these (registers,
sequential tests) is in `exams/statistics.py`. Shapes: N items, episodes or states.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import scipy  # its parts are imported as they are first used: an exam of an endpoint begins without them
from numpy.typing import ArrayLike, NDArray

from foretaste.records import Interval

# Intervals ----------------------------------------------------------------------------------------


def exact_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the proportion `successes / n` with its exact interval.

    Its coverage is at least `level` for every true proportion; with n = 0 nothing is known: mean NaN, [0, 1].

    Raises: ValueError unless 0 <= successes <= n and 0 < level < 1.
    Source: Clopper & Pearson 1934, in its beta-quantile form.
    """
    _check_counts(successes, n, level)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0, level)
    tail = (1 - level) / 2
    low = float(scipy.stats.beta.ppf(tail, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(scipy.stats.beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return Interval(successes / n, low, high, n, level)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the proportion with its score interval: narrower than the exact one, right on average.

    Raises: ValueError unless 0 <= successes <= n and 0 < level < 1.
    Source: Wilson 1927; Newcombe 1998 (Statistics in Medicine 17:857), method 3.
    """
    _check_counts(successes, n, level)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0, level)
    z = float(scipy.stats.norm.ppf((1 + level) / 2))
    p = successes / n
    centre = p + z**2 / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    low = 0.0 if successes == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + spread) / scale)
    return Interval(p, low, high, n, level)


def newcombe_difference(
    successes_before: int, n_before: int, successes_after: int, n_after: int, level: float = 0.95
) -> Interval:
    """Return after - before for two independent samples; `n` is the smaller sample's size.

    Raises: ValueError for impossible counts or an empty sample.
    Source: Newcombe 1998 (Statistics in Medicine 17:873), method 10: two Wilson intervals combined.
    """
    before = wilson_interval(successes_before, n_before, level)
    after = wilson_interval(successes_after, n_after, level)
    if before.n == 0 or after.n == 0:
        raise ValueError("a difference needs at least one item on each side")
    difference = after.mean - before.mean
    low = difference - math.hypot(after.mean - after.low, before.high - before.mean)
    high = difference + math.hypot(after.high - after.mean, before.mean - before.low)
    return Interval(difference, low, high, min(n_before, n_after), level)


def paired_difference_interval(before: ArrayLike, after: ArrayLike, level: float = 0.95) -> Interval:
    """Return mean(after) - mean(before) for 0/1 outcomes on the same N items, in the same order.

    The score interval: every difference d that a score test of "the true difference is d" does not
    reject. It needs no large sample, and stays inside [-1, 1].

    Raises: ValueError for unequal lengths, no items, or outcomes other than 0 and 1.
    Source: Tango 1998 (Statistics in Medicine 17:891), section 3.
    """
    before_N, after_N = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if before_N.shape != after_N.shape or before_N.ndim != 1:
        raise ValueError(f"outcomes must be paired: {before_N.shape} before, {after_N.shape} after")
    if len(before_N) == 0:
        raise ValueError("a difference needs at least one item")
    if not np.isin([before_N, after_N], (0.0, 1.0)).all():
        raise ValueError("outcomes must be 0 or 1")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    n = len(before_N)
    gained = int(np.sum((before_N == 0) & (after_N == 1)))
    lost = int(np.sum((before_N == 1) & (after_N == 0)))
    z = float(scipy.stats.norm.ppf((1 + level) / 2))
    difference = (gained - lost) / n

    def score(d: float) -> float:
        """The score statistic, falling in d, of "the true difference is d"; its null variance is estimated under d."""
        a = 2 * n
        b = -gained - lost + (2 * n - gained + lost) * d
        c = -lost * d * (1 - d)
        lost_rate = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * lost_rate + d * (1 - d))
        excess = gained - lost - n * d
        if variance <= 1e-12:  # no item may change: any excess is impossible, none is certain
            return 0.0 if abs(excess) < 1e-9 else math.copysign(math.inf, excess)
        return excess / math.sqrt(variance)

    def crossing(target: float, left: float, right: float) -> float:
        return cast(
            float, scipy.optimize.brentq(lambda d: max(-1e6, min(1e6, score(d) - target)), left, right, xtol=1e-10)
        )

    low = -1.0 if difference <= -1 else crossing(z, -1.0, difference)
    high = 1.0 if difference >= 1 else crossing(-z, difference, 1.0)
    return Interval(difference, low, high, n, level)


# Value functions ----------------------------------------------------------------------------------


class ReliabilityBin(NamedTuple):
    """States whose value lies in [low, high): if values are calibrated, `mean_value` equals `mean_outcome`."""

    low: float
    high: float
    n: int
    mean_value: float | None
    """None in an empty bin."""
    mean_outcome: float | None


def reliability_bins(values: ArrayLike, outcomes: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Sort N values in [0, 1] into equal bins and average the outcomes in each (the last bin includes 1).

    Values outside [0, 1] count in the first or last bin.

    Raises: ValueError for unequal lengths.
    Source: Murphy & Winkler 1977; DeGroot & Fienberg 1983.
    """
    values_N, outcomes_N = _paired(values, outcomes)
    index_N = np.clip((values_N * bins).astype(int), 0, bins - 1)
    result: list[ReliabilityBin] = []
    for i in range(bins):
        here_N = index_N == i
        n = int(here_N.sum())
        mean_value = float(values_N[here_N].mean()) if n else None
        mean_outcome = float(outcomes_N[here_N].mean()) if n else None
        result.append(ReliabilityBin(i / bins, (i + 1) / bins, n, mean_value, mean_outcome))
    return result


def expected_calibration_error(values: ArrayLike, outcomes: ArrayLike, bins: int = 10) -> float | None:
    """Return the mean over N of |mean value - mean outcome| of each one's bin; None without data.

    Source: Naeini, Cooper & Hauskrecht 2015.
    """
    total, error = 0, 0.0
    for part in reliability_bins(values, outcomes, bins):
        if part.mean_value is not None and part.mean_outcome is not None:
            total += part.n
            error += part.n * abs(part.mean_value - part.mean_outcome)
    return error / total if total else None


def calibration_floor(
    values: ArrayLike, clusters: Sequence[Hashable], bins: int = 10, *, draws: int = 1000
) -> float | None:
    """Return the `expected_calibration_error` that a perfectly calibrated V would show, on average; None without data.

    With few outcomes it is far from 0: the outcomes of a bin scatter about their mean. All values of a cluster (an
    episode) share one outcome. In each bin that outcome is drawn with the mean value that the cluster has there.

    Raises: ValueError unless there is one cluster for each value.
    Source: consistency resampling, Broecker & Smith 2007 (Weather and Forecasting 22:651), for clustered outcomes.
    """
    values_N = np.clip(np.asarray(values, dtype=float), 0.0, 1.0)
    if len(values_N) != len(clusters):
        raise ValueError(f"expected one cluster per value: {len(clusters)} clusters, {len(values_N)} values")
    if len(values_N) == 0:
        return None
    numbers: dict[Hashable, int] = {}
    cluster_N = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    index_N = np.clip((values_N * bins).astype(int), 0, bins - 1)
    rng, total = np.random.default_rng(0), 0.0
    for i in range(bins):
        here_N = index_N == i
        counts_C = np.bincount(cluster_N[here_N])
        sums_C = np.bincount(cluster_N[here_N], weights=values_N[here_N])
        counts_C, sums_C = counts_C[counts_C > 0], sums_C[counts_C > 0]
        if len(counts_C):
            outcomes_DC = rng.random((draws, len(counts_C))) < sums_C / counts_C
            total += float(np.abs(outcomes_DC @ counts_C - sums_C.sum()).mean())
    return total / len(values_N)


def brier(values: ArrayLike, outcomes: ArrayLike) -> float | None:
    """Return the mean squared difference of value and outcome; None without data. Source: Brier 1950."""
    values_N, outcomes_N = _paired(values, outcomes)
    return float(np.mean((values_N - outcomes_N) ** 2)) if len(values_N) else None


def auc(values: ArrayLike, outcomes: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Return P(value of a success > value of a failure), ties counted half; None unless both occur.

    An outcome above one half counts as a success. A pair counts by the product of its `weights` (above 0).

    Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    values_N, outcomes_N = _paired(values, outcomes)
    success_N = outcomes_N > 0.5
    wins, losses = int(success_N.sum()), int((~success_N).sum())
    if wins == 0 or losses == 0:
        return None
    weights_N = np.ones(len(values_N)) if weights is None else np.asarray(weights, dtype=np.float64)
    if (weights_N != 1).any():
        won, lost = values_N[success_N][:, None], values_N[~success_N]
        higher = weights_N[success_N] @ ((won > lost) + 0.5 * (won == lost)) @ weights_N[~success_N]
        return float(higher / (weights_N[success_N].sum() * weights_N[~success_N].sum()))
    rank_sum = float(scipy.stats.rankdata(values_N)[success_N].sum())
    return (rank_sum - wins * (wins + 1) / 2) / (wins * losses)


def explained_variance(values: ArrayLike, returns: ArrayLike) -> float | None:
    """Return 1 - Var(return - value) / Var(return), pooled over all N; None if returns do not vary.

    1: perfect up to a constant; 0: no better than a constant; below 0: worse. Pool over batches before
    calling: a batch with nearly equal returns gives meaningless figures.
    """
    values_N, returns_N = _paired(values, returns)
    if len(returns_N) == 0:
        return None
    variance = float(np.var(returns_N))
    if variance <= 1e-12 * max(1.0, float(np.mean(returns_N**2))):
        return None
    return 1.0 - float(np.var(returns_N - values_N)) / variance


def _paired(left: ArrayLike, right: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    left_N, right_N = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    if left_N.shape != right_N.shape or left_N.ndim != 1:
        raise ValueError(f"expected two equally long lists of numbers, got shapes {left_N.shape} and {right_N.shape}")
    return left_N, right_N


def _check_counts(successes: int, n: int, level: float) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, got {successes} of {n}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
