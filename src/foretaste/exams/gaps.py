"""What another wording, a perturbation or a sealed item costs: differences of scores, with their intervals. Pure.

Shapes: N scores, I base items, R registers. `statistics.py` has the means that these are made of.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from foretaste.exams.statistics import Estimate, check_level, cluster_sums, clustered_mean

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
    check_level(level)
    sums_o, original_N = cluster_sums(original, clusters)
    sums_p, perturbed_N = cluster_sums(perturbed, clusters)
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
    check_level(level)
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
