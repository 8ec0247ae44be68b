"""Intervals for an effect measured on a few seeds: fixed in number, or looked at after every seed. Pure.

| of | number of seeds fixed | may be looked at after every seed |
|---|---|---|
| mean, normal differences | `t_interval` (Student) | `t_sequence` (mixture over the effect's size) |
| median of any values, censored or not | `median_interval` (order statistics) | `median_sequence` (betting on signs) |
| mean, differences within known bounds | - | `bounded_sequence` (betting) |

An interval of the right column holds at all times at once with its stated probability, so a study may stop
when it has seen enough. That costs width: at five seeds the anytime t is about twice as wide as Student's.
The t intervals are made from the spread of the effects; equal effects show none, and have no such interval.
All are intervals over what differs between seeds: training, and items where each seed has items of its own.
Shapes: n seeds. A *bounded value* is `Bounds(low, high)`: equal ends when it is known, apart when it is censored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import betainc, betaln
from scipy.stats import binom
from scipy.stats import t as student


class Bounds(NamedTuple):
    """A seed's effect: known to lie between `low` and `high`, infinite where nothing is known."""

    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether it was measured exactly."""
        return self.low == self.high


def exactly(value: float) -> Bounds:
    """Return a value that was measured without censoring."""
    return Bounds(value, value)


def median_of(values: Sequence[Bounds]) -> Bounds:
    """Return what is known of the median of n > 0 values; of an even number, the mean of the two in the middle."""
    return Bounds(float(np.median([value.low for value in values])), float(np.median([value.high for value in values])))


def without_spread(values: Sequence[Bounds]) -> bool:
    """Return whether two or more values are all known and, but for rounding, equal."""
    return len(values) > 1 and all(value.known for value in values) and _spread([value.low for value in values]) == 0


class Range(NamedTuple):
    """An estimate (None where it is unknown) and its interval, infinite where nothing is known."""

    estimate: float | None
    low: float
    high: float


UNKNOWN = Range(None, -math.inf, math.inf)


def t_interval(values: Sequence[Bounds], level: float = 0.95) -> Range:
    """Return Student's interval for the mean of n differences, n fixed in advance; infinite if they are all equal.

    With censored values: the lower end for the lowest values they can have, the upper end for the highest.
    """
    return _by_ends(values, lambda x: _student(x, level))


def t_sequence(values: Sequence[Bounds], level: float = 0.95, *, spread: float = 4.0) -> Range:
    """Return the anytime-valid t interval for the mean of normal differences with unknown variance.

    The ratio of marginal likelihoods with a N(0, `spread`) prior on mean / sd and the right Haar prior on sd,
    (1 + n g)^(-1/2) [(1 + t^2/v) / (1 + t^2/(v (1 + n g)))]^((v+1)/2) with v = n - 1, is an e-process of t;
    the interval holds every mean whose e-value is below 1 / (1 - level). It is infinite if the values are all equal.

    Source: Lai 1976; Perez-Ortiz, Lardy, de Heide & Grunwald 2208.07610; Wang & Ramdas 2310.03722.
    """
    return _by_ends(values, lambda x: _mixture_t(x, level, spread))


def median_interval(values: Sequence[Bounds], level: float = 0.95) -> Range:
    """Return the order-statistic interval for the median of n values, n fixed in advance.

    Exact for any distribution; five values can give at most 93.75%, six 96.9%. An end that n cannot give is infinite.

    Source: Thompson 1936; David & Nagaraja 2003, section 7.1.
    """
    n = len(values)
    k = _order(n, level)
    lows, highs = sorted(v.low for v in values), sorted(v.high for v in values)
    if k == 0:
        return Range(_median(values), -math.inf, math.inf)
    return Range(_median(values), lows[k - 1], highs[n - k])


def median_sequence(values: Sequence[Bounds], level: float = 0.95) -> Range:
    """Return the anytime-valid interval for the median: bets, for each candidate, that it is too low or too high.

    If a candidate is the median, each value lies above it with probability at most 1/2, and the wealth
    2^n times the integral over p in (1/2, 1) of 2 p^k (1-p)^(n-k), with k values above, is an e-process.
    Eight values on one side are the fewest that exclude a candidate at level 0.95.

    Source: Ville 1939; Robbins 1970; betting form as in Waudby-Smith & Ramdas 2010.09686.
    """
    n = len(values)
    needed = _signs_needed(n, level)
    if needed is None:
        return Range(_median(values), -math.inf, math.inf)
    # `needed` values above a candidate exclude it: the lower end is the needed-th largest of the lowest values.
    lows, highs = sorted((v.low for v in values), reverse=True), sorted(v.high for v in values)
    return Range(_median(values), lows[needed - 1], highs[needed - 1])


def bounded_sequence(values: Sequence[Bounds], level: float = 0.95, *, low: float = -1.0, high: float = 1.0) -> Range:
    """Return the anytime-valid interval for the mean of values that lie between `low` and `high`.

    Nothing else is assumed of their distribution, so it is wide for few seeds. Each candidate is bet against in
    both directions with a predictable stake; those whose wealth stays below 2 / (1 - level) are kept, and the
    running intersection is returned.

    Raises: ValueError for a value outside the bounds.
    Source: Waudby-Smith & Ramdas 2010.09686, hedged capital process, with their predictable plug-in stakes.
    """
    if any(v.low < low or v.high > high for v in values):
        raise ValueError(f"a value lies outside the stated bounds [{low}, {high}]")
    ends = []
    for x in ([v.low for v in values], [v.high for v in values]):
        ends.append(_betting((np.array(x) - low) / (high - low), 1 - level))
    mean = float(np.mean([v.low for v in values])) if values and all(v.known for v in values) else None
    scale = high - low
    return Range(mean, low + scale * ends[0][0], low + scale * ends[1][1])


def _by_ends(values: Sequence[Bounds], interval: Callable[[np.ndarray], tuple[float, float]]) -> Range:
    """Apply an interval to the lowest and the highest values that are possible."""
    lows, highs = np.array([v.low for v in values]), np.array([v.high for v in values])
    low = interval(lows)[0] if len(lows) and np.isfinite(lows).all() else -math.inf
    high = interval(highs)[1] if len(highs) and np.isfinite(highs).all() else math.inf
    mean = float(lows.mean()) if len(lows) and all(v.known for v in values) else None
    return Range(mean, float(low), float(high))


def _student(x_n: np.ndarray, level: float) -> tuple[float, float]:
    n, spread = len(x_n), _spread(x_n)
    if spread == 0:
        return -math.inf, math.inf
    half = _quantile(n - 1, level) * spread / math.sqrt(n)
    return float(x_n.mean()) - half, float(x_n.mean()) + half


def _mixture_t(x_n: np.ndarray, level: float, g: float) -> tuple[float, float]:
    n, spread = len(x_n), _spread(x_n)
    if spread == 0:
        return -math.inf, math.inf
    v, wide = n - 1, 1 + n * g
    # The e-value reaches 1 / (1 - level) where (1 + t^2/v) / (1 + t^2/(v wide)) = ratio.
    ratio = (math.sqrt(wide) / (1 - level)) ** (2 / (v + 1))
    if ratio >= wide:  # even t = infinity is not enough evidence at this n
        return -math.inf, math.inf
    t = math.sqrt(v * (ratio - 1) / (1 - ratio / wide))
    half = t * spread / math.sqrt(n)
    return float(x_n.mean()) - half, float(x_n.mean()) + half


def _spread(x_n: ArrayLike) -> float:
    """Return the standard deviation; 0 for fewer than two values, and for values that differ by rounding alone."""
    x_n = np.asarray(x_n, dtype=float)
    if len(x_n) < 2:
        return 0.0
    rounding = 1e-12 * max(1.0, float(np.abs(x_n).max()))
    return 0.0 if float(np.ptp(x_n)) <= rounding else float(x_n.std(ddof=1))


def _median(values: Sequence[Bounds]) -> float | None:
    """Return the median if censoring leaves it known."""
    middle = median_of(values) if values else None
    return middle.low if middle and middle.known and math.isfinite(middle.low) else None


@lru_cache(maxsize=1024)
def _quantile(freedom: int, level: float) -> float:
    """Return how many standard errors Student's interval reaches to either side."""
    return float(student.ppf((1 + level) / 2, freedom))


@lru_cache(maxsize=1024)
def _order(n: int, level: float) -> int:
    """Return the largest k with P(Binomial(n, 1/2) < k) <= tail: the k-th smallest value is the lower end."""
    return int(np.sum(binom.cdf(np.arange(n), n, 0.5) <= (1 - level) / 2 + 1e-12))


@lru_cache(maxsize=1024)
def _signs_needed(n: int, level: float) -> int | None:
    """Return how many of n values must lie on one side of a candidate to exclude it; None if n cannot."""
    return next((k for k in range(n // 2 + 1, n + 1) if _sign_wealth(n, k) >= 2 / (1 - level)), None)


def _sign_wealth(n: int, k: int) -> float:
    """Return the wealth of betting on signs after k of n values lay above the candidate."""
    log_integral = betaln(k + 1, n - k + 1) + math.log(max(1e-300, 1 - float(betainc(k + 1, n - k + 1, 0.5))))
    return math.exp((n + 1) * math.log(2) + float(log_integral))


def _betting(x_n: np.ndarray, alpha: float) -> tuple[float, float]:
    """Return the betting confidence sequence's running intersection for the mean of values in [0, 1]."""
    n = len(x_n)
    stakes = np.zeros(n)
    mean_sum, variance_sum = 0.5, 0.25
    for i in range(n):  # the stake at i depends on the values before i alone
        mean, variance = mean_sum / (i + 1), variance_sum / (i + 1)
        stakes[i] = math.sqrt(2 * math.log(2 / alpha) / (variance * (i + 1) * math.log(i + 2)))
        mean_sum += x_n[i]
        mean = mean_sum / (i + 2)
        variance_sum += (x_n[i] - mean) ** 2

    def up(m: float) -> float:
        """Largest log wealth, at any time so far, of betting that the mean is above m; falling in m."""
        capped = np.minimum(stakes, 0.5 / max(m, 1e-12))
        return float(np.max(np.cumsum(np.log1p(capped * (x_n - m))), initial=0.0))

    def down(m: float) -> float:
        capped = np.minimum(stakes, 0.5 / max(1 - m, 1e-12))
        return float(np.max(np.cumsum(np.log1p(-capped * (x_n - m))), initial=0.0))

    target = math.log(2 / alpha)
    low = 0.0 if up(1e-9) < target else float(brentq(lambda m: up(m) - target, 1e-9, 1 - 1e-9))  # type: ignore[arg-type]
    high = 1.0 if down(1 - 1e-9) < target else float(brentq(lambda m: down(m) - target, 1e-9, 1 - 1e-9))  # type: ignore[arg-type]
    return low, high
