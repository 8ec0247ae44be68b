"""Verdicts that may be looked at after every item: confidence sequences and e-values.

An ordinary interval covers at one sample size fixed beforehand; whoever looks after every item and
stops when it suits is wrong far more often than alpha. The sequences here cover at *all* sizes at
once, so an exam may stop as soon as its verdict is certain.

Scores lie in [0, 1], one per independent unit: average an item's registers before giving them in.
The guarantee holds for fractions as for 0 and 1, because x -> (q/p)^x ((1-q)/(1-p))^(1-x) is convex
in x and has mean at most 1 under mean p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, xlog1py, xlogy

PRIOR = (1.0, 1.0)
"""Beta mixture over the alternatives; any fixed choice is valid, this one favours no rate."""
MOST_FURTHER_ITEMS = 1_000_000
"""Beyond this, "n more needed" is not worth stating."""
BETS = 1000
"""Sizes of the bet that `compare_means` mixes."""


class Outcome(StrEnum):
    """What an exam says; also its exit code in continuous integration (see `exit_code`)."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 2 inconclusive."""
        return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}[self.value]


class SequenceInterval(NamedTuple):
    """A confidence sequence's interval after N scores; arrays where counts were arrays."""

    low: Any
    high: Any


def log_e_value(
    successes: ArrayLike, n: ArrayLike, rate: ArrayLike, prior: tuple[float, float] = PRIOR
) -> NDArray[np.float64]:
    """Return ln E of "the mean is `rate`": E = B(a + s, b + n - s) / (B(a, b) rate^s (1 - rate)^(n - s)).

    Under the hypothesis, P(E >= 1/alpha at any n) <= alpha (Ville 1939).

    Source: Beta-mixture martingale, Robbins 1970; Waudby-Smith & Ramdas 2023 for bounded scores.
    """
    s, total, p = (np.asarray(x, dtype=float) for x in (successes, n, rate))
    failures = total - s
    return betaln(prior[0] + s, prior[1] + failures) - betaln(*prior) - xlogy(s, p) - xlog1py(failures, -p)


def confidence_sequence(
    successes: ArrayLike, n: ArrayLike, alpha: float = 0.05, prior: tuple[float, float] = PRIOR
) -> SequenceInterval:
    """Return the rates that `log_e_value` does not reject at 1/alpha; valid at all n simultaneously.

    Vectorised over counts. n = 0 gives [0, 1]. The ends are found by bisection: ln E is convex in the
    rate, with its minimum at s / n.

    Raises: ValueError unless 0 <= successes <= n and 0 < alpha < 1.
    """
    s, total = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(n, dtype=float))
    if ((s < 0) | (s > total)).any() or not 0 < alpha < 1:
        raise ValueError("expected 0 <= successes <= n and 0 < alpha < 1")
    mean = np.divide(s, total, out=np.full(s.shape, 0.5), where=total > 0)
    limit = -math.log(alpha)

    def end(outside: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = mean.copy()
        for _ in range(50):
            middle = (inside + outside) / 2
            accepted = log_e_value(s, total, middle, prior) < limit
            inside, outside = np.where(accepted, middle, inside), np.where(accepted, outside, middle)
        return outside

    low = np.where((s <= 0) | (total <= 0), 0.0, end(np.zeros(s.shape)))
    high = np.where((s >= total) | (total <= 0), 1.0, end(np.ones(s.shape)))
    return SequenceInterval(low[()], high[()])


@dataclass(frozen=True, slots=True)
class SequentialExam:
    """The running state of "is the mean score above `threshold`?". Immutable: `after` returns the next.

    `low` and `high` are the tightest bounds seen so far; their intersection keeps the guarantee:
    P(PASS although the mean is at or below the threshold) <= alpha, and the same for FAIL, however
    often one looks and whenever one stops.
    """

    threshold: float
    alpha: float = 0.05
    successes: float = 0.0
    n: int = 0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 or not 0 < self.alpha < 1:
            raise ValueError(f"threshold {self.threshold} must be in [0, 1] and alpha {self.alpha} in (0, 1)")

    def after(self, score: float) -> SequentialExam:
        """Return the state with one more score in [0, 1]."""
        if not 0 <= score <= 1:
            raise ValueError(f"a score lies in [0, 1], not {score}")
        successes, n = self.successes + score, self.n + 1
        low, high = confidence_sequence(successes, n, self.alpha)
        return replace(self, successes=successes, n=n, low=max(self.low, float(low)), high=min(self.high, float(high)))

    def after_all(self, scores: Iterable[float]) -> SequentialExam:
        """Return the state after several scores, stopping at the first that makes the verdict certain."""
        state = self
        for score in scores:
            if state.outcome is not Outcome.INCONCLUSIVE:
                break
            state = state.after(score)
        return state

    @property
    def outcome(self) -> Outcome:
        """PASS or FAIL once certain; after either, further scores cannot matter."""
        if self.low > self.threshold:
            return Outcome.PASS
        return Outcome.FAIL if self.high < self.threshold else Outcome.INCONCLUSIVE

    @property
    def more_needed(self) -> int | None:
        """Further items until a verdict if the mean stays as it is; 0 if certain, None if none would do.

        An estimate, not a promise: it takes the present mean for the true one.
        """
        if self.outcome is not Outcome.INCONCLUSIVE:
            return 0
        if self.n == 0:
            return None
        mean = self.successes / self.n

        def decided(more: int) -> bool:
            total = self.n + more
            return bool(log_e_value(mean * total, total, self.threshold) >= -math.log(self.alpha))

        return _first_true(decided)


class PairedVerdict(NamedTuple):
    """Which of A and B is better on the same items, at any time."""

    better: str | None
    """"A", "B", or None while undecided."""
    e_value: float
    """Evidence against "equally good"; decided at 1/alpha."""
    a_only: int
    """Items that only A got right."""
    b_only: int
    both_or_neither: int
    more_needed: int | None
    """Further items until decided if the shares stay as they are; None: equal so far."""


def paired_log_e_value(a_only: float, b_only: float, prior: float = 1.0) -> float:
    """Return ln E of "a discordant item is won by either with probability 1/2":

    E = 2^(w + l) B(a + w, a + l) / B(a, a), with w = `a_only`, l = `b_only`.

    Source: Beta-mixture sign test; McNemar 1947 for discordant pairs, Robbins 1970 for the mixture.
    """
    return (a_only + b_only) * math.log(2) + float(betaln(prior + a_only, prior + b_only) - betaln(prior, prior))


def compare_paired(scores: Iterable[tuple[bool, bool]], alpha: float = 0.05) -> PairedVerdict:
    """Compare A and B on pairs (A right, B right) of the same items in order, stopping once decided.

    P(deciding although both are equally good) <= alpha, however often one looks.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), not {alpha}")
    a_only = b_only = same = 0
    limit = -math.log(alpha)
    for a, b in scores:
        a_only, b_only, same = a_only + (a and not b), b_only + (b and not a), same + (a == b)
        if paired_log_e_value(a_only, b_only) >= limit:
            break
    log_e = paired_log_e_value(a_only, b_only)
    e_value = math.exp(min(log_e, 700.0))
    if log_e >= limit:
        return PairedVerdict("A" if a_only > b_only else "B", e_value, a_only, b_only, same, 0)
    n = a_only + b_only + same

    def decided(more: int) -> bool:
        scale = (n + more) / n
        return paired_log_e_value(a_only * scale, b_only * scale) >= limit

    return PairedVerdict(None, e_value, a_only, b_only, same, _first_true(decided) if n else None)


class MeanVerdict(NamedTuple):
    """Whether the mean of B - A is above or below 0, at any time."""

    better: str | None
    """"A", "B", or None while undecided."""
    e_value: float
    """Evidence against a mean of 0; decided at 1/alpha."""
    more_needed: int | None
    """Further differences until decided if they stay as they are; None: not known, or never."""


def compare_means(differences: Iterable[float], alpha: float = 0.05) -> MeanVerdict:
    """Tell the sign of the mean of differences B - A in [-1, 1], taken in order, stopping once decided.

        E = mean over bets b in (-1, 1) of prod_i (1 + b d_i)

    Under a mean of 0, P(deciding at any time) <= alpha. The half of the bets with more wealth names the better one; its
    own mean exceeds 1/alpha then, so P(ever naming one that is not better) <= alpha too. A difference of 0 changes
    nothing. On differences of -1, 0 and 1 alone it is the test of `compare_paired`.

    Raises: ValueError for a difference outside [-1, 1].
    Source: testing by betting on a bounded mean, Waudby-Smith & Ramdas 2010.09686, with a uniform mixture of bets.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), not {alpha}")
    bets = (2 * np.arange(BETS) + 1) / BETS - 1
    wealth = np.zeros(BETS)
    limit = -math.log(alpha)
    n = 0
    for difference in differences:
        if not -1 <= difference <= 1:
            raise ValueError(f"a difference lies in [-1, 1], not {difference}")
        n += 1
        wealth += np.log1p(bets * difference)
        if _log_mean_exp(wealth) >= limit:
            break
    log_e = _log_mean_exp(wealth)
    e_value = math.exp(min(log_e, 700.0))
    if log_e >= limit:
        above = _log_mean_exp(wealth[BETS // 2 :]) > _log_mean_exp(wealth[: BETS // 2])
        return MeanVerdict("B" if above else "A", e_value, 0)
    more = _first_true(lambda more: _log_mean_exp(wealth * ((n + more) / n)) >= limit) if n else None
    return MeanVerdict(None, e_value, more)


def _log_mean_exp(values: NDArray[np.float64]) -> float:
    largest = float(values.max())
    return largest + math.log(float(np.exp(values - largest).mean()))


def _first_true(decided: Callable[[int], bool]) -> int | None:
    """Return the smallest count from 1 for which a rising condition holds, or None up to the limit."""
    if not decided(MOST_FURTHER_ITEMS):
        return None
    low, high = 0, MOST_FURTHER_ITEMS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
