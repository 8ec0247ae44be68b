"""Which requests the learner may answer: a threshold on its value function, with a guarantee.

    serve the learner's answer if V >= tau, else the incumbent's
    P(wrong | V >= tau) <= alpha, with confidence 1 - delta over the answers that tau was chosen from

The threshold is chosen by Learn-then-Test (Angelopoulos et al. 2110.01052) with exact binomial p-values along a
fixed sequence from strict to lax; the idea of an upper bound on a risk, met by construction, is Bates et al.
2101.02703. What it rests on, and where it does not hold: docs/deploy-decisions.md. Next: `stages.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from foretaste.deploy.stage_config import FIRST_LOOK
from foretaste.errors import ConfigError
from foretaste.records import Action

STARTS = 3
"""Places along the sequence where testing may begin, each with an equal part of delta."""
GROWTH = 1.12
"""Each candidate of the default grid serves about this many times the answers of the one before."""
LOOK_GROWTH = 1.5
"""A calibration after the first waits until all answers kept are so many times those judged before the last."""
MOST_LOOKS = 3
"""Calibrations of one checkpoint without a threshold after which a newer one is worth more."""
_MOST_FACTOR = 64.0
"""Beyond this many times the answers there are, "n more needed" is not worth stating."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which value on the learner answers, and what is known about it."""

    tau: float | None
    """Serve where V >= tau; None: serve nothing."""
    served_share: float
    """Share of the calibration answers with V >= tau: what takeover of random traffic to expect."""
    error_bound: float
    """Upper bound of P(wrong | V >= tau) at confidence 1 - delta; at most alpha where tau is given, else 1."""
    n: int
    """Judged answers it was chosen from."""
    needed: int | None
    """Further judged answers until a threshold can be expected, if the shares of wrong answers stay as they are: an
    estimate, 0 where tau is given. None: none would do, the learner has to become better first."""
    reason: str
    """All of this in words."""

    def serves(self, value: float) -> bool:
        """Return whether an answer of this value may be given."""
        return self.tau is not None and value >= self.tau


NOTHING = Threshold(None, 0.0, 1.0, 0, None, "no answer has been judged yet")
"""What holds before the first calibration."""


class Candidate(NamedTuple):
    """One threshold of the sequence with the answers it would have served."""

    tau: float
    served: int
    wrong: int


class Judged(NamedTuple):
    """A learner's answer that somebody judged, drawn without regard to its value (shadow, or the audited share)."""

    checkpoint: str
    """Content hash of the weights that answered: other weights have another value function."""
    value: float
    correct: bool


def confidence_of(action: Action, read: Literal["request", "answer"] = "answer") -> float:
    """Return the value that decides: V before the first token ("request"), or before the last ("answer").

    The last token ends the answer, so the value before it has seen the whole answer; the first value has seen the
    request alone, and lets a server defer without waiting for the learner.

    Raises: ConfigError for an action without values (an endpoint's, or a policy without a critic).
    """
    if not action.values:
        raise ConfigError(
            "An answer without values cannot be weighed: it came from a policy without a value function. Accepted: "
            "answers of an actor-critic. Deploy a checkpoint that `foretaste train` wrote with algorithm.name = ppo"
        )
    return float(action.values[0 if read == "request" else -1])


def choose_threshold(
    values: Sequence[float],
    correct: Sequence[bool],
    *,
    alpha: float,
    delta: float,
    grid: Sequence[float] | None = None,
) -> Threshold:
    """Return the laxest tau for which "more than alpha of what is served is wrong" can be ruled out.

    Candidates are tested from strict to lax at level delta in all: each of `STARTS` places of the sequence brings an
    equal part of delta, which goes on to the next candidate as long as candidates are rejected and is lost at the
    first that is not (the fallback procedure, Wiens & Dmitrienko 2005). The p-value of a candidate that would serve
    n answers, w of them wrong, is exact: P(Binomial(n, alpha) <= w).

    `grid` holds thresholds fixed without a look at these answers; None takes them from the answers' own values. The
    guarantee is exact with a given grid, and without one if what is served does not get worse as tau rises.

    Units: `values` finite, higher is surer; alpha and delta are probabilities.
    Raises: ConfigError for alpha or delta outside (0, 1), unequal lengths, or a value that is no number.
    Source: Learn-then-Test, 2110.01052, section 2 and appendix on fixed-sequence testing with several starts.
    """
    values_N, wrong_N = _checked(values, correct, alpha, delta)
    n = len(values_N)
    if n == 0:
        return Threshold(None, 0.0, 1.0, 0, least_answers(alpha, delta), NOTHING.reason)
    starts = STARTS if n >= 2 * least_answers(alpha, delta / STARTS) else 1
    least = least_answers(alpha, delta / starts)
    if n < least:
        missing = least - n
        reason = f"{n} judged answers are too few for any threshold: {missing} more are needed even if all were right"
        return Threshold(None, 0.0, 1.0, n, missing, reason)
    candidates = _candidates(values_N, wrong_N, least, grid)
    found = _laxest(candidates, alpha, delta, starts)
    if found is None:
        return _none_yet(candidates, n, alpha, delta / STARTS)
    best, level = found
    bound = error_bound(best.wrong, best.served, level)
    share = best.served / n
    reason = (
        f"V >= {best.tau:.4g} serves {share:.0%}: {best.wrong} of {best.served} judged answers wrong, at most "
        f"{bound:.2%} with confidence {1 - delta:.0%}"
    )
    return Threshold(best.tau, share, bound, n, 0, reason)


def calibrate(answers: Iterable[Judged], checkpoint: str, *, alpha: float, delta: float, look: int = 1) -> Threshold:
    """Choose the threshold of one checkpoint from its own judged answers, at its `look`-th calibration (from 1).

    Every look at growing data is another chance to be wrong, so look k has delta / (k (k + 1)), which sums to delta.

    Raises: ConfigError as `choose_threshold`, and for a look below 1.
    """
    if look < 1:
        raise ConfigError(f"Calibration number {look} does not exist; accepted: 1 for the first of a checkpoint, 2 ...")
    own = [answer for answer in answers if answer.checkpoint == checkpoint]
    part = delta / (look * (look + 1))
    return choose_threshold([a.value for a in own], [a.correct for a in own], alpha=alpha, delta=part)


def renewed(before: Threshold | None, now: Threshold) -> Threshold:
    """Return the threshold that holds after another look at the same checkpoint.

    An earlier one stays where the new look merely lacks evidence (its part of delta is smaller); it falls where the
    answers show that no threshold keeps the promise.
    """
    stays = before is not None and before.tau is not None and now.tau is None and now.needed is not None
    return before if stays and before is not None else now


def look_due(judged: int, new: int) -> bool:
    """Return whether a checkpoint may be calibrated (again): `judged` answers are kept, `new` of them judged since.

    `judged` counts all that are kept, however few of the newest a threshold is then chosen from. Where none is ever
    deleted, each calibration has `LOOK_GROWTH` times the answers of the one before; where old ones are, they go on.
    """
    return judged >= FIRST_LOOK and LOOK_GROWTH * new >= (LOOK_GROWTH - 1) * judged


def promising(values: Sequence[float], correct: Sequence[bool], *, alpha: float) -> bool:
    """Return whether a checkpoint may yet get a threshold: its surest quarter is not plainly worse than alpha.

    Saves waiting for a whole calibration of weights that have learned nothing. It promises nothing, and a checkpoint
    that passes is calibrated like any other.
    """
    surest = sorted(zip(values, correct, strict=True), key=lambda pair: -pair[0])[: max(1, len(values) // 4)]
    wrong = sum(not right for _, right in surest)
    return len(values) < 32 or bool(binom.sf(wrong - 1, len(surest), alpha) > 0.01)


def worth_waiting(threshold: Threshold, looks: int) -> bool:
    """Return whether a checkpoint without a threshold should go on collecting answers, rather than a newer one.

    It should if at most twice as many further answers would do, and it has not been looked at `MOST_LOOKS` times.
    """
    return threshold.needed is not None and threshold.needed <= 2 * threshold.n and looks < MOST_LOOKS


def least_answers(alpha: float, delta: float) -> int:
    """Return the fewest answers that could rule out an error above alpha: all right, (1 - alpha)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


def error_bound(wrong: int, served: int, delta: float) -> float:
    """Return the exact upper bound of an error rate at confidence 1 - delta (Clopper & Pearson 1934, one-sided)."""
    return 1.0 if wrong >= served else float(beta.ppf(1 - delta, wrong + 1, served - wrong))


def _checked(
    values: Sequence[float], correct: Sequence[bool], alpha: float, delta: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    for name, number in (("alpha", alpha), ("delta", delta)):
        if not 0 < number < 1:
            raise ConfigError(f"{name} = {number} cannot be used; accepted: between 0 and 1, for example 0.05")
    values_N, correct_N = np.asarray(values, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    if values_N.shape != correct_N.shape:
        raise ConfigError(
            f"{len(values_N)} values and {len(correct_N)} judgements: every value needs its own judgement"
        )
    if not np.isfinite(values_N).all():
        raise ConfigError("A value is not finite, so it cannot be compared with a threshold; leave that answer out")
    return values_N, ~correct_N


def _candidates(
    values_N: NDArray[np.float64], wrong_N: NDArray[np.bool_], least: int, grid: Sequence[float] | None
) -> list[Candidate]:
    """Return thresholds, strictest first, that serve at least `least` answers; equal values stay together."""
    order = np.argsort(-values_N, kind="stable")
    sorted_N, wrong_total_N = values_N[order], np.cumsum(wrong_N[order])
    if grid is None:
        count = 1 + max(0, math.floor(math.log(len(values_N) / least) / math.log(GROWTH)))
        ranks = [*(min(len(values_N), math.ceil(least * GROWTH**k)) for k in range(count)), len(values_N)]
        taus = [float(sorted_N[rank - 1]) for rank in ranks]
    else:
        taus = [float(tau) for tau in grid]
    found: list[Candidate] = []
    for tau in sorted(set(taus), reverse=True):
        served = int(np.searchsorted(-sorted_N, -tau, side="right"))
        if served >= least:
            found.append(Candidate(tau, served, int(wrong_total_N[served - 1])))
    return found


def _laxest(candidates: Sequence[Candidate], alpha: float, delta: float, starts: int) -> tuple[Candidate, float] | None:
    """Return the last rejected candidate and the level it was rejected at, by the fallback procedure."""
    begins = {round(start * len(candidates) / starts) for start in range(starts)}
    _, served_K, wrong_K = (np.array(column) for column in zip(*candidates, strict=True)) if candidates else ([],) * 3
    p_values = np.asarray(binom.cdf(wrong_K, served_K, alpha))
    found: tuple[Candidate, float] | None = None
    level = 0.0
    for index, candidate in enumerate(candidates):
        level += delta / len(begins) if index in begins else 0.0
        if p_values[index] <= level:
            found = (candidate, level)
        else:
            level = 0.0
    return found


def _none_yet(candidates: Sequence[Candidate], n: int, alpha: float, level: float) -> Threshold:
    """Say how far away the nearest threshold is."""
    if not candidates:
        return Threshold(None, 0.0, 1.0, n, None, "no threshold of the given grid serves enough answers to be tested")
    factors = _factors(candidates, alpha, level)
    best = min(candidates, key=lambda one: one.wrong / one.served)
    at_best = f"at its surest, {best.wrong} of {best.served} judged answers were wrong"
    if not len(factors):
        reason = f"no threshold keeps the error at {alpha:.0%}: {at_best}; the learner has to become better first"
        return Threshold(None, 0.0, 1.0, n, None, reason)
    needed = max(1, math.ceil((min(factors) - 1) * n))
    reason = f"not enough evidence for an error of {alpha:.0%} yet: {at_best}; about {needed} more judged answers"
    return Threshold(None, 0.0, 1.0, n, needed, reason)


def _factors(candidates: Sequence[Candidate], alpha: float, level: float) -> NDArray[np.float64]:
    """Return how many times the answers there are would do for some candidate, at its present share of wrong ones."""
    candidates = sorted(candidates, key=lambda one: one.wrong / one.served)[:8]
    factors = np.geomspace(1.0, _MOST_FACTOR, 100)
    served_KF = np.floor(np.outer([one.served for one in candidates], factors))
    wrong_KF = np.ceil(np.outer([one.wrong for one in candidates], factors))
    return factors[(binom.cdf(wrong_KF, served_KF, alpha) <= level).any(axis=0)]
