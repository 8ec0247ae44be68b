"""What an exam measures: pure functions of scores, each with its formula and source.

Shapes: N scores, C clusters, I base items, R registers, T tasks. A *cluster* holds all scores of one
base item (its registers, its repeated samples): they are right or wrong together, so they count as
little more than one observation. Plain proportions, calibration and rank measures are in
`foretaste.statistics`; figures that may be looked at after every item in `sequential.py`; learning
curves and transfer in `learning.py`; gaps between wordings and papers in `gaps.py`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from foretaste.records import Episode, EpisodeEnd
from foretaste.statistics import auc, brier, expected_calibration_error


class Estimate(NamedTuple):
    """A mean with its interval; `clusters` independent units stand behind its `n` scores."""

    mean: float
    low: float
    high: float
    standard_error: float
    n: int
    clusters: int
    level: float = 0.95


# Clustered and paired means -----------------------------------------------------------------------


def clustered_standard_error(scores: ArrayLike, clusters: Sequence[Hashable]) -> float:
    """Return sqrt(sum_c (sum_{i in c} (s_i - mean))^2) / N.

    Raises: ValueError for no scores, or not one cluster per score.
    Source: Miller 2024 (arXiv 2411.00640), equation for clustered errors; Liang & Zeger 1986.
    """
    sums_C, scores_N = cluster_sums(scores, clusters)
    return float(np.sqrt(np.sum(sums_C**2)) / len(scores_N))


def clustered_mean(scores: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """Return the mean of N scores with a t interval on C - 1 degrees of freedom.

    The standard error is scaled by sqrt(C / (C - 1)), without which few clusters look too sure. With
    a single cluster nothing is known of the spread: the interval is infinite. For 0/1 scores of fewer
    than a few hundred clusters prefer `clustered_proportion`.

    Source: Miller 2024; small-sample factor and t: Cameron & Miller 2015.
    """
    check_level(level)
    sums_C, scores_N = cluster_sums(scores, clusters)
    n, count = len(scores_N), len(sums_C)
    mean = float(scores_N.mean())
    if count < 2:
        return Estimate(mean, -math.inf, math.inf, math.inf, n, count, level)
    error = float(np.sqrt(np.sum(sums_C**2) * count / (count - 1)) / n)
    reach = float(scipy.stats.t.ppf((1 + level) / 2, count - 1)) * error
    return Estimate(mean, mean - reach, mean + reach, error, n, count, level)


def paired_clustered_difference(
    first: ArrayLike, second: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95
) -> Estimate:
    """Return mean(second - first) on the same N items, clustered: what items share cancels out.

    Source: Miller 2024, section on paired differences.
    """
    first_N, second_N = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first_N.shape != second_N.shape:
        raise ValueError(f"scores must be paired: {first_N.shape} and {second_N.shape}")
    return clustered_mean(second_N - first_N, clusters, level)


# Proportions in small exams -----------------------------------------------------------------------


def beta_binomial_interval(
    successes: int, n: int, level: float = 0.95, prior: tuple[float, float] = (1, 1)
) -> Estimate:
    """Return the posterior mean and equal-tailed interval of a proportion: Beta(a + s, b + n - s).

    Averaged over true proportions drawn from the prior, its coverage is exactly `level`. The guaranteed
    interval for every proportion is `foretaste.statistics.exact_interval`.

    Source: Bowyer, Aitchison & Ivanova 2025 (arXiv 2503.01747): no CLT under a few hundred items.
    """
    check_level(level)
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, got {successes} of {n}")
    posterior = scipy.stats.beta(prior[0] + successes, prior[1] + n - successes)
    low, high = posterior.ppf([(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(posterior.mean()), float(low), float(high), float(posterior.std()), n, n, level)


def clustered_proportion(scores: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """Return the posterior mean and interval of a proportion whose 0/1 scores come in clusters.

    Cluster c has its own success rate, Beta(m d, (1 - m) d); its successes are Beta-binomial. The
    overall rate m is uniform on [0, 1], and so is the correlation within a cluster, 1 / (1 + d). The
    posterior is summed on a grid. With clusters of one it equals `beta_binomial_interval`.

    Source: Bowyer et al. 2025, section 3.2 (the model; the uniform correlation is our choice of prior).
    """
    check_level(level)
    scores_N = np.asarray(scores, dtype=float)
    if not np.isin(scores_N, (0.0, 1.0)).all():
        raise ValueError("clustered_proportion takes scores of 0 and 1; use clustered_mean for others")
    _, index_N = _cluster_index(scores_N, clusters)
    sizes_C = np.bincount(index_N)
    wins_C = np.bincount(index_N, weights=scores_N)
    kinds, counts = np.unique(np.stack([wins_C, sizes_C]), axis=1, return_counts=True)
    rates_M = (np.arange(500) + 0.5) / 500
    correlations_D = (np.arange(40) + 0.5) / 40
    strength_D = 1 / correlations_D - 1
    a_MD, b_MD = np.outer(rates_M, strength_D), np.outer(1 - rates_M, strength_D)
    prior_MD = scipy.special.betaln(a_MD, b_MD)
    log_MD = np.zeros_like(a_MD)
    for (wins, size), count in zip(kinds.T, counts, strict=True):
        log_MD += count * (scipy.special.betaln(a_MD + wins, b_MD + size - wins) - prior_MD)
    weight_M = np.exp(log_MD - log_MD.max()).sum(axis=1)
    weight_M /= weight_M.sum()
    mean = float(rates_M @ weight_M)
    edges, cumulative = np.linspace(0, 1, len(rates_M) + 1), np.concatenate([[0.0], np.cumsum(weight_M)])
    low, high = np.interp([(1 - level) / 2, (1 + level) / 2], cumulative, edges)
    spread = math.sqrt(float((rates_M - mean) ** 2 @ weight_M))
    return Estimate(mean, float(low), float(high), spread, len(scores_N), len(sizes_C), level)


# Several tries at one item ------------------------------------------------------------------------


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """Return the unbiased estimate of P(at least one of k tries is right): 1 - C(n - c, k) / C(n, k).

    Raises: ValueError unless 0 <= correct <= samples and 1 <= k <= samples.
    Source: Chen et al. 2021 (arXiv 2107.03374).
    """
    _check_tries(correct, samples, k)
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def pass_hat_k(correct: int, samples: int, k: int) -> float:
    """Return the unbiased estimate of P(all of k tries are right), pass^k: C(c, k) / C(n, k).

    Raises: ValueError as `pass_at_k`. Source: Yao et al. 2024 (arXiv 2406.12045).
    """
    _check_tries(correct, samples, k)
    return math.comb(correct, k) / math.comb(samples, k)


# Calibration --------------------------------------------------------------------------------------


class TurnCalibration(NamedTuple):
    """How well V at the start of one turn foretells the final success."""

    turn: int
    """From 0; only episodes that reached this turn count, so later turns are of harder episodes."""
    n: int
    mean_value: float
    mean_success: float
    brier: float | None
    calibration_error: float | None
    """Expected calibration error in ten equal bins."""
    auc: float | None


def calibration_by_turn(episodes: Sequence[Episode], *, turns: int | None = None) -> list[TurnCalibration]:
    """Return the calibration of V at each turn's start, over episodes with values and a known success.

    `turns` limits how many; every figure of a turn is over the episodes that reached it.
    """
    known = [e for e in episodes if e.success is not None and e.end != EpisodeEnd.ERROR]
    table: list[TurnCalibration] = []
    for index in range(max((len(e.turns) for e in known), default=0) if turns is None else turns):
        pairs = [
            (e.turns[index].action.values[0], e.success)
            for e in known
            if len(e.turns) > index and e.turns[index].action.values
        ]
        if pairs:
            values, outcomes = np.array(pairs, dtype=float).T
            table.append(
                TurnCalibration(
                    index,
                    len(pairs),
                    float(values.mean()),
                    float(outcomes.mean()),
                    brier(values, outcomes),
                    expected_calibration_error(values, outcomes),
                    auc(values, outcomes),
                )
            )
    return table


# --------------------------------------------------------------------------------------------------


def _cluster_index(scores_N: NDArray[Any], clusters: Sequence[Hashable]) -> tuple[int, NDArray[Any]]:
    """Return the number of clusters and each score's cluster as 0, 1, 2 ..."""
    if scores_N.ndim != 1 or len(scores_N) == 0:
        raise ValueError(f"expected a non-empty list of scores, got shape {scores_N.shape}")
    if len(clusters) != len(scores_N):
        raise ValueError(f"expected one cluster per score: {len(clusters)} clusters, {len(scores_N)} scores")
    numbers: dict[Hashable, int] = {}
    index_N = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    return len(numbers), index_N


def cluster_sums(scores: ArrayLike, clusters: Sequence[Hashable]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the C sums of deviations from the mean within each cluster, and the scores as an array."""
    scores_N = np.asarray(scores, dtype=float)
    count, index_N = _cluster_index(scores_N, clusters)
    return np.bincount(index_N, weights=scores_N - scores_N.mean(), minlength=count), scores_N


def _check_tries(correct: int, samples: int, k: int) -> None:
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"expected 0 <= correct <= samples and 1 <= k <= samples, got {correct}, {samples}, k={k}")


def check_level(level: float) -> None:
    """Raise ValueError unless a level of confidence is between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
