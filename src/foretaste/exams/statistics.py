"""What an exam measures: pure functions of scores, each with its formula and source.

Shapes: N scores, C clusters, I base items, R registers, T tasks. A *cluster* holds all scores of one
base item (its registers, its repeated samples): they are right or wrong together, so they count as
little more than one observation. Plain proportions, calibration and rank measures are in
`foretaste.statistics`; figures that may be looked at after every item in `sequential.py`; learning
curves and transfer in `learning.py`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
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
    sums_C, scores_N = _cluster_sums(scores, clusters)
    return float(np.sqrt(np.sum(sums_C**2)) / len(scores_N))


def clustered_mean(scores: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """Return the mean of N scores with a t interval on C - 1 degrees of freedom.

    The standard error is scaled by sqrt(C / (C - 1)), without which few clusters look too sure. With
    a single cluster nothing is known of the spread: the interval is infinite. For 0/1 scores of fewer
    than a few hundred clusters prefer `clustered_proportion`.

    Source: Miller 2024; small-sample factor and t: Cameron & Miller 2015.
    """
    _check_level(level)
    sums_C, scores_N = _cluster_sums(scores, clusters)
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
    _check_level(level)
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
    _check_level(level)
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


# Split-brain: the same item in other words --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SplitBrain:
    """How much the wording decides, on I base items in R registers."""

    mean: float
    """Accuracy over all items and registers."""
    by_register: dict[str, float]
    worst_register: str
    worst: float
    """Accuracy in the worst register."""
    all_right: float
    """Share of items right in every register."""
    lost: dict[str, float]
    """P(wrong in register r | right in plain), by register; empty if plain was never right."""
    flip_rate: float | None
    """P(wrong when plain is sampled again | right in plain): what chance alone does."""
    net_lost: dict[str, Estimate]
    """`lost` minus `flip_rate`, paired by item: what the wording does beyond chance."""


def split_brain(
    scores: Mapping[str, ArrayLike], plain_again: ArrayLike | None = None, *, plain: str = "plain", level: float = 0.95
) -> SplitBrain:
    """Compare registers on the same items.

    A policy that samples is not the same twice in plain words either; an item right once in plain is
    partly lucky. So the loss in a register is read against fresh samples of the same plain prompt.

    Args:
        scores: register name -> I scores of 0 or 1, items in the same order; `plain` must be there.
        plain_again: I, or I x K, further independent samples of the plain prompts; None: no net figures.

    Raises: ValueError for unequal lengths or a missing plain register.
    """
    if plain not in scores:
        raise ValueError(f"split_brain needs the register {plain!r}; got {', '.join(scores) or 'none'}")
    scores_RI = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    plain_I = scores_RI[plain]
    if any(values.shape != plain_I.shape for values in scores_RI.values()) or len(plain_I) == 0:
        raise ValueError(f"every register needs the same items: { ({k: v.shape for k, v in scores_RI.items()}) }")
    by_register = {name: float(values.mean()) for name, values in scores_RI.items()}
    worst = min(by_register, key=lambda name: by_register[name])
    right_I = plain_I == 1
    lost: dict[str, float] = {}
    net: dict[str, Estimate] = {}
    flip_rate = None
    if right_I.any():
        lost = {name: float(1 - values[right_I].mean()) for name, values in scores_RI.items() if name != plain}
        if plain_again is not None:
            again = np.asarray(plain_again, dtype=float)
            again_I = again.mean(axis=1) if again.ndim == 2 else again
            if again_I.shape != plain_I.shape:
                raise ValueError(f"plain_again must cover the same items: {again_I.shape}, not {plain_I.shape}")
            flip_rate = float(1 - again_I[right_I].mean())
            items = range(int(right_I.sum()))
            net = {name: clustered_mean(again_I[right_I] - scores_RI[name][right_I], items, level) for name in lost}
    everything = np.stack(list(scores_RI.values()))
    return SplitBrain(
        mean=float(everything.mean()),
        by_register=by_register,
        worst_register=worst,
        worst=by_register[worst],
        all_right=float((everything == 1).all(axis=0).mean()),
        lost=lost,
        flip_rate=flip_rate,
        net_lost=net,
    )


# Gaps ---------------------------------------------------------------------------------------------


def perturbation_drop(
    original: ArrayLike, perturbed: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95
) -> Estimate | None:
    """Return 1 - mean(perturbed) / mean(original), paired by item; None if nothing original was right.

    The interval is Fieller's for a ratio r: all r for which mean(perturbed - r original) is compatible
    with 0, errors clustered. It is infinite where the original accuracy could be 0.

    Source: Fieller 1954; the drop itself: Zhu et al. 2023 (arXiv 2306.04528, performance drop rate).
    """
    _check_level(level)
    sums_o, original_N = _cluster_sums(original, clusters)
    sums_p, perturbed_N = _cluster_sums(perturbed, clusters)
    o, p, n, count = float(original_N.mean()), float(perturbed_N.mean()), len(original_N), len(sums_o)
    if o == 0:
        return None
    ratio = p / o
    if count < 2:
        return Estimate(1 - ratio, -math.inf, 1.0, math.inf, n, count, level)
    scale = count / (count - 1) / n**2
    var_o, var_p, cov = (float(x @ y) * scale for x, y in ((sums_o, sums_o), (sums_p, sums_p), (sums_o, sums_p)))
    error = math.sqrt(max(0.0, var_p - 2 * ratio * cov + ratio**2 * var_o)) / o
    z2 = float(scipy.stats.t.ppf((1 + level) / 2, count - 1)) ** 2
    # (p - r o)^2 <= z^2 (var_p - 2 r cov + r^2 var_o), a quadratic in r with leading coefficient:
    lead = o**2 - z2 * var_o
    if lead <= 0:
        return Estimate(1 - ratio, -math.inf, 1.0, error, n, count, level)
    middle = o * p - z2 * cov
    root = math.sqrt(max(0.0, middle**2 - lead * (p**2 - z2 * var_p)))
    low, high = max(0.0, (middle - root) / lead), (middle + root) / lead
    return Estimate(1 - ratio, 1 - high, 1 - low, error, n, count, level)


def public_sealed_gap(
    public: Mapping[Hashable, Sequence[float]], sealed: Mapping[Hashable, Sequence[float]], level: float = 0.95
) -> Estimate:
    """Return public minus sealed accuracy, averaged over the families and levels that both hold.

    Keys are strata, such as (family, level); values are one score in [0, 1] per base item (average an
    item's registers first). Each stratum counts equally: gap = mean_g (public_g - sealed_g), so a
    different mix of families is no gap. The families are taken as given, the items as random. The
    interval adds up, in squares, how far each stratum's exact interval reaches towards and away from
    a gap; it stays honest for few items, and for items that are all right or all wrong.

    Raises: ValueError if no stratum is in both, or a stratum is empty.
    Source: stratified mean, Cochran 1977; limits of a sum from those of its terms, Zou & Donner 2008, with
    exact limits in place of score limits, which fell short of the level by up to a percent.
    """
    _check_level(level)
    shared = [key for key in public if key in sealed]
    if not shared:
        raise ValueError("the public and the sealed paper share no family and level; nothing can be paired")
    sides = [[_exact_limits(side[key], level) for key in shared] for side in (public, sealed)]
    (mean_p, low_p, high_p, n_p), (mean_s, low_s, high_s, n_s) = (np.array(side).T for side in sides)
    count = len(shared)
    gap = float((mean_p - mean_s).mean())
    down = math.sqrt(float(np.sum((mean_p - low_p) ** 2 + (high_s - mean_s) ** 2))) / count
    up = math.sqrt(float(np.sum((high_p - mean_p) ** 2 + (mean_s - low_s) ** 2))) / count
    n = int(n_p.sum() + n_s.sum())
    z = float(scipy.stats.norm.ppf((1 + level) / 2))
    return Estimate(gap, gap - down, gap + up, (up + down) / 2 / z, n, n, level)


def _exact_limits(scores: Sequence[float], level: float) -> tuple[float, float, float, int]:
    """Return mean, low, high and n by Clopper & Pearson's beta quantiles, taken at a fractional count if need be."""
    n = len(scores)
    if n == 0:
        raise ValueError("a family and level without items cannot be compared")
    wins, tail = float(np.sum(scores)), (1 - level) / 2
    low = float(scipy.stats.beta.ppf(tail, wins, n - wins + 1)) if wins > 0 else 0.0
    high = float(scipy.stats.beta.ppf(1 - tail, wins + 1, n - wins)) if wins < n else 1.0
    return wins / n, low, high, n


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


def _cluster_sums(scores: ArrayLike, clusters: Sequence[Hashable]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the C sums of deviations from the mean within each cluster, and the scores as an array."""
    scores_N = np.asarray(scores, dtype=float)
    count, index_N = _cluster_index(scores_N, clusters)
    return np.bincount(index_N, weights=scores_N - scores_N.mean(), minlength=count), scores_N


def _check_tries(correct: int, samples: int, k: int) -> None:
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"expected 0 <= correct <= samples and 1 <= k <= samples, got {correct}, {samples}, k={k}")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
