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
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
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
    observed: float = 0.0
    """Share of wrong answers that was seen at tau, by both judges together."""
    refuted: bool = False
    """The judged answers show an error above alpha at the threshold that held before, or, with none, at every one."""

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
    """Wrong by the first judge, or unknown."""
    asked: int = 0
    """Of those served, how many the second judge was asked about."""
    missed: int = 0
    """Of those asked, how many the first judge calls right and the second wrong, or leaves unknown."""


class Judged(NamedTuple):
    """A learner's answer that was drawn to be judged, without regard to its value (shadow, or a random check)."""

    checkpoint: str
    """Content hash of the weights that answered: other weights have another value function."""
    value: float
    correct: bool | None
    """By the first judge; None: still unknown when the check was mature, which counts as wrong."""
    second: bool | None = None
    """By the second judge; None: unknown, or not asked."""
    asked: bool = False
    """Whether the request was drawn for the second judge."""


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
    missed: Sequence[bool | None] | None = None,
) -> Threshold:
    """Return the laxest tau for which "more than alpha of what is served is wrong" can be ruled out.

    Candidates are tested from strict to lax at level delta in all: each of `STARTS` places of the sequence brings an
    equal part of delta, which goes on to the next candidate as long as candidates are rejected and is lost at the
    first that is not (the fallback procedure, Wiens & Dmitrienko 2005). The p-value of a candidate that would serve
    n answers, w of them wrong, is exact: P(Binomial(n, alpha) <= w).

    `missed` brings a second judge: for each answer None where it was not asked, else whether the first judge calls
    the answer right and the second does not. The error is then at most P(wrong by the first) + P(missed), and a
    candidate is rejected at level l where the exact upper bounds of the two, at l/2 each, sum to at most alpha.

    `grid` holds thresholds fixed without a look at these answers; None takes them from the answers' own values. The
    guarantee is exact with a given grid, and without one if what is served does not get worse as tau rises.

    Units: `values` finite, higher is surer; alpha and delta are probabilities.
    Raises: ConfigError for alpha or delta outside (0, 1), unequal lengths, or a value that is no number.
    Source: Learn-then-Test, 2110.01052, section 2 and appendix on fixed-sequence testing with several starts.
    """
    values_N, wrong_N = _checked(values, correct, alpha, delta)
    asked_N, missed_N = _second(missed, len(values_N))
    n = len(values_N)
    if n == 0:
        return Threshold(None, 0.0, 1.0, 0, least_answers(alpha, delta), NOTHING.reason)
    if missed is not None and not asked_N.any():
        reason = f"{n} judged answers, none of which the second judge has been asked about yet"
        return Threshold(None, 0.0, 1.0, n, n, reason)
    starts = STARTS if n >= 2 * least_answers(alpha, delta / STARTS) else 1
    least = least_answers(alpha, delta / starts)
    if n < least:
        missing = least - n
        reason = f"{n} judged answers are too few for any threshold: {missing} more are needed even if all were right"
        return Threshold(None, 0.0, 1.0, n, missing, reason)
    candidates = _candidates(values_N, wrong_N, least, grid, asked_N, missed_N)
    two = missed is not None
    found = _laxest(candidates, alpha, delta, starts, two=two)
    if found is None:
        # Fewer sure answers than can be tested now may be enough once there are more of them.
        smaller = _candidates(values_N, wrong_N, max(1, least // 2), grid, asked_N, missed_N)
        return _none_yet(smaller, n, alpha, delta / STARTS, two=two)
    best, level = found
    bound = float(_upper(best, level, two=two)[0])
    share = best.served / n
    judges = f"; the second judge found {best.missed} of {best.asked} more" if two else ""
    reason = (
        f"V >= {best.tau:.4g} serves {share:.0%}: {best.wrong} of {best.served} judged answers wrong{judges}, at most "
        f"{bound:.2%} with confidence {1 - delta:.0%}"
    )
    return Threshold(best.tau, share, bound, n, 0, reason, _observed(best))


def calibrate(
    answers: Iterable[Judged],
    checkpoint: str,
    *,
    alpha: float,
    delta: float,
    look: int = 1,
    standing: float | None = None,
    fall_delta: float | None = None,
) -> Threshold:
    """Choose the threshold of one checkpoint from its own judged answers, at its `look`-th calibration (from 1).

    Every look at growing data is another chance to be wrong, so look k has delta / (k (k + 1)), which sums to delta.
    An answer that is still unknown counts as wrong. `delta` is the checkpoint's own part of the deployment's
    (`promise/statement.py`). `standing` is the threshold that holds, which is refuted falsely with probability
    `fall_delta` (delta where it is not given) over all looks.

    Raises: ConfigError as `choose_threshold`, and for a look below 1.
    """
    if look < 1:
        raise ConfigError(f"Calibration number {look} does not exist; accepted: 1 for the first of a checkpoint, 2 ...")
    own = [answer for answer in answers if answer.checkpoint == checkpoint]
    part = delta / (look * (look + 1))
    missed = [None if not a.asked else a.correct is True and a.second is not True for a in own]
    found = choose_threshold(
        [a.value for a in own],
        [a.correct is True for a in own],
        alpha=alpha,
        delta=part,
        missed=missed if any(a.asked for a in own) else None,
    )
    if found.tau is not None:
        return found
    level = (delta if fall_delta is None else fall_delta) / (look * (look + 1))
    return replace(found, refuted=_refuted(own, standing, alpha, level))


def _refuted(own: Sequence[Judged], standing: float | None, alpha: float, level: float) -> bool:
    """Return whether the error at the standing threshold (with none: of the surest answers too) is above alpha.

    Here an unknown answer counts as right: nothing falls by what nobody has said.
    """
    if standing is not None:
        kept = [a.correct is False or (a.asked and a.second is False) for a in own if a.value >= standing]
        return bool(kept) and bool(binom.sf(sum(kept) - 1, len(kept), alpha) <= level)
    surest_first = sorted(own, key=lambda a: -a.value)
    wrong_N = np.cumsum([a.correct is False or (a.asked and a.second is False) for a in surest_first])
    served_N = np.arange(1, len(own) + 1)
    enough = served_N >= min(len(own), least_answers(alpha, level))
    return bool(len(own)) and bool((binom.sf(wrong_N - 1, served_N, alpha) <= level)[enough].all())


def renewed(before: Threshold | None, now: Threshold) -> Threshold:
    """Return the threshold that holds after another look at the same checkpoint.

    An earlier one stays where the new look finds none but does not refute it: its own part of delta vouched for it,
    and the watch looks after what is served. It falls where the answers show an error above alpha at it.
    """
    stays = before is not None and before.tau is not None and now.tau is None and not now.refuted
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


def two_judges_rule_out(served: int, wrong: int, asked: int, missed: int, alpha: float, level: float) -> bool:
    """Return whether two judges rule out an error above alpha: their exact bounds, at level / 2 each, sum to it."""
    return bool(_rejected((None, served, wrong, asked, missed), alpha, level, two=True)[0])


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


def _second(missed: Sequence[bool | None] | None, n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether the second judge was asked about each answer, and whether it found what the first missed."""
    if missed is None:
        return np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    if len(missed) != n:
        raise ConfigError(f"{n} values and {len(missed)} words of the second judge: give one for each, or None")
    return np.array([one is not None for one in missed], np.bool_), np.array([one is True for one in missed], np.bool_)


def _candidates(
    values_N: NDArray[np.float64],
    wrong_N: NDArray[np.bool_],
    least: int,
    grid: Sequence[float] | None,
    asked_N: NDArray[np.bool_],
    missed_N: NDArray[np.bool_],
) -> list[Candidate]:
    """Return thresholds, strictest first, that serve at least `least` answers; equal values stay together."""
    order = np.argsort(-values_N, kind="stable")
    sorted_N, wrong_total_N = values_N[order], np.cumsum(wrong_N[order])
    asked_total_N, missed_total_N = np.cumsum(asked_N[order]), np.cumsum(missed_N[order])
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
            totals = (int(column[served - 1]) for column in (wrong_total_N, asked_total_N, missed_total_N))
            found.append(Candidate(tau, served, *totals))
    return found


def _upper(candidate: Any, level: float, *, two: bool) -> NDArray[np.float64]:
    """Return the upper bound of a candidate's error at confidence 1 - level; its counts may be arrays.

    With two judges: the bound of what the first calls wrong plus the bound of what it misses, each at level / 2.
    """
    _, served, wrong, asked, missed = candidate
    if not two:
        return _clopper_pearson(wrong, served, level)
    return _clopper_pearson(wrong, served, level / 2) + _clopper_pearson(missed, asked, level / 2)


def _clopper_pearson(wrong: ArrayLike, n: ArrayLike, level: float) -> NDArray[np.float64]:
    wrong_K, n_K = np.atleast_1d(np.asarray(wrong, dtype=float)), np.atleast_1d(np.asarray(n, dtype=float))
    bound_K = beta.ppf(1 - level, wrong_K + 1, np.maximum(n_K - wrong_K, 1e-9))
    return np.where(wrong_K >= n_K, 1.0, bound_K)


def _rejected(candidate: Any, alpha: float, level: float, *, two: bool) -> NDArray[np.bool_]:
    """Return whether an error above alpha is ruled out at `level`; the candidate's counts may be arrays."""
    if two:
        return _upper(candidate, level, two=True) <= alpha
    return np.asarray(binom.cdf(candidate[2], candidate[1], alpha) <= level)


def _laxest(
    candidates: Sequence[Candidate], alpha: float, delta: float, starts: int, *, two: bool
) -> tuple[Candidate, float] | None:
    """Return the last rejected candidate and the level it was rejected at, by the fallback procedure."""
    # With two judges the laxest candidate, which the second has seen most answers of, has a start of its own.
    last = len(candidates) - 1 if two else len(candidates)
    begins = {round(start * last / max(1, starts - two)) for start in range(starts)}
    if not candidates:
        return None
    columns = [np.array(column) for column in zip(*candidates, strict=True)]
    parts = range(1, len(begins) + 1)  # the level is always so many parts of delta
    rejected = {part: _rejected(columns, alpha, delta * part / len(begins), two=two) for part in parts}
    found: tuple[Candidate, float] | None = None
    part = 0
    for index, candidate in enumerate(candidates):
        part += index in begins
        if part and rejected[part][index]:
            found = (candidate, delta * part / len(begins))
        else:
            part = 0
    return found


def _none_yet(candidates: Sequence[Candidate], n: int, alpha: float, level: float, *, two: bool) -> Threshold:
    """Say how far away the nearest threshold is."""
    if not candidates:
        return Threshold(None, 0.0, 1.0, n, None, "no threshold of the given grid serves enough answers to be tested")
    factors = _factors(candidates, alpha, level, two=two)
    best = min(candidates, key=_observed)
    at_best = f"at its surest, {best.wrong} of {best.served} judged answers were wrong"
    if two:
        at_best += f", and of {best.asked} more {best.missed} by the second judge"
    refuted = all(binom.sf(one.wrong - 1, one.served, alpha) <= level for one in candidates)
    if not len(factors):
        reason = f"no threshold keeps the error at {alpha:.0%}: {at_best}; the learner has to become better first"
        return Threshold(None, 0.0, 1.0, n, None, reason, refuted=refuted)
    needed = max(1, math.ceil((min(factors) - 1) * n))
    reason = f"not enough evidence for an error of {alpha:.0%} yet: {at_best}; about {needed} more judged answers"
    return Threshold(None, 0.0, 1.0, n, needed, reason, refuted=refuted)


def _observed(candidate: Candidate) -> float:
    """Return the share of wrong answers that was seen, by both judges together."""
    return candidate.wrong / candidate.served + (candidate.missed / candidate.asked if candidate.asked else 0.0)


def _factors(candidates: Sequence[Candidate], alpha: float, level: float, *, two: bool) -> NDArray[np.float64]:
    """Return how many times the answers there are would do for some candidate, at its present share of wrong ones."""
    columns = np.array(sorted(candidates, key=_observed)[:8])
    factors = np.geomspace(1.0, _MOST_FACTOR, 100)
    served_KF, asked_KF = (np.floor(np.outer(columns[:, place], factors)) for place in (1, 3))
    wrong_KF, missed_KF = (np.ceil(np.outer(columns[:, place], factors)) for place in (2, 4))
    scaled = (None, served_KF, wrong_KF, asked_KF, missed_KF)
    return factors[_rejected(scaled, alpha, level, two=two).any(axis=0)]
