"""What the evidence of a stage says: each check is a success, a failure or inconclusive, with its figure in words.

Every test of error rates here may be looked at after every request (anytime-valid): a breach that is declared once
is a breach with confidence 1 - delta, however often one looked. `stages.py` turns findings into a decision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, logsumexp, xlog1py, xlogy
from scipy.stats import beta

from foretaste.deploy.takeover import Threshold
from foretaste.exams.sequential import confidence_sequence

if TYPE_CHECKING:
    from foretaste.deploy.stage_config import StageConfig

BLOCK = 25
"""Judged answers between two places where the test of a change starts anew."""


class Verdict(StrEnum):
    """What one check says."""

    SUCCESS = "success"
    FAILURE = "failure"
    INCONCLUSIVE = "inconclusive"


class Finding(NamedTuple):
    """One check of an analysis."""

    check: str
    """Its name, e.g. "served error"."""
    verdict: Verdict
    reason: str
    """The figure it rests on, in words."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the store knows about one checkpoint in its present stage; every count since that stage began."""

    checkpoint: str
    """Content hash of the weights that the counts are about."""
    requests: int = 0
    """Requests that arrived."""
    learner_answers: int = 0
    """Of these, requests that the learner answered, shown or not."""
    served: int = 0
    """Requests whose user got the learner's answer."""
    served_judged: int = 0
    served_correct: int = 0
    served_outcomes: tuple[bool, ...] = ()
    """The judged served answers in the order they were served: lets a change be seen early. Empty: counts alone."""
    threshold: Threshold | None = None
    """The checkpoint's own calibration."""
    old_tasks: Finding | None = None
    """What the gate of old tasks says (`old_tasks.py`); None: not held against them yet."""
    harm: float = 0.0
    """Harm attributed to served answers, in the units of the harm rule or critic."""
    alarms: tuple[str, ...] = ()
    """Alarms of the training of these weights (`alarms.py`)."""


def log_e_above(wrong: ArrayLike, n: ArrayLike, rate: float) -> NDArray[np.float64]:
    """Return ln E of "the error is at most `rate`" after n judged answers; vectorised over counts.

        E = integral over q from rate to 1 of (q / rate)^w ((1 - q) / (1 - rate))^(n - w) dq / (1 - rate)

    Each q above the rate makes a supermartingale under every error up to it, so P(E >= 1/delta at any n) <= delta.

    Source: mixture of likelihood ratios, Robbins 1970; Ville 1939.
    """
    w, total = np.asarray(wrong, dtype=float), np.asarray(n, dtype=float)
    tail = beta.logsf(rate, w + 1, total - w + 1)
    return betaln(w + 1, total - w + 1) + tail - math.log1p(-rate) - xlogy(w, rate) - xlog1py(total - w, -rate)


def log_e_change(correct: Sequence[bool], rate: float) -> float:
    """Return ln E of "the error has been at most `rate` all along", quick to see that it rose recently.

    A test starts anew every `BLOCK` answers; E = sum_k E_k / (k (k + 1)) over the starts k = 1, 2 ..., tests that
    have not started standing at 1. A mixture of e-values is one, so P(E >= 1/delta at any time) <= delta.

    Source: mixture over change points as in Shin, Ramdas & Rinaldo 2203.03532, with weights that sum to 1.
    """
    wrong = np.concatenate([[0], np.cumsum(~np.asarray(correct, dtype=np.bool_))])
    n = len(correct)
    starts = np.arange(0, max(n, 1), BLOCK)
    k = np.arange(1, len(starts) + 1)
    log_e = log_e_above(wrong[n] - wrong[starts], n - starts, rate)
    waiting = -math.log(len(starts) + 1)  # sum over later k of 1 / (k (k + 1))
    return float(np.asarray(logsumexp([*(log_e - np.log(k * (k + 1))), waiting])))


def analyse(evidence: Evidence, config: StageConfig, *, serving: bool) -> list[Finding]:
    """Return the findings that matter: to enter a canary (`serving` False), or to go on from a canary or live."""
    found = [harm(evidence, config.harm_budget), alarms(evidence)]
    if serving:
        served = served_error(evidence, config.alpha, config.delta, config.minimum_judged)
        return [*found, served, *withdrawn(evidence)]
    old = evidence.old_tasks or Finding("old tasks", Verdict.INCONCLUSIVE, "not held against the old tasks yet")
    return [*found, coverage(evidence, config.minimum_coverage), takeover(evidence), old]


def served_error(evidence: Evidence, alpha: float, delta: float, minimum_judged: int) -> Finding:
    """Say whether what is served keeps the promise P(wrong) <= alpha.

    Failure: the error is above alpha with confidence 1 - delta at any time. Success: enough answers are judged and
    their error is at most alpha. Inconclusive: neither.
    """
    n, right = evidence.served_judged, evidence.served_correct
    wrong = n - right
    if n == 0:
        return Finding("served error", Verdict.INCONCLUSIVE, "none of the served answers has been judged")
    outcomes = evidence.served_outcomes
    log_e = log_e_change(outcomes, alpha) if outcomes else float(log_e_above(wrong, n, alpha))
    low, high = confidence_sequence(wrong, n, delta)
    figure = f"{wrong} of {n} served answers wrong, {wrong / n:.1%} [{low:.1%}, {high:.1%}], promised {alpha:.0%}"
    if log_e >= -math.log(delta):
        return Finding("served error", Verdict.FAILURE, figure)
    if n < minimum_judged:
        return Finding("served error", Verdict.INCONCLUSIVE, f"{figure}; {minimum_judged - n} more have to be judged")
    return Finding("served error", Verdict.SUCCESS if wrong <= alpha * n else Verdict.INCONCLUSIVE, figure)


def takeover(evidence: Evidence) -> Finding:
    """Say whether the checkpoint has a threshold of its own."""
    threshold = evidence.threshold
    if threshold is None:
        return Finding("takeover", Verdict.INCONCLUSIVE, "this checkpoint has not been calibrated")
    verdict = Verdict.SUCCESS if threshold.tau is not None else Verdict.INCONCLUSIVE
    return Finding("takeover", verdict, threshold.reason)


def withdrawn(evidence: Evidence) -> list[Finding]:
    """Return a failure if a later calibration found that no threshold keeps the promise any more."""
    threshold = evidence.threshold
    if threshold is None or threshold.tau is not None or threshold.needed is not None:
        return []
    return [Finding("takeover", Verdict.FAILURE, threshold.reason)]


def coverage(evidence: Evidence, minimum: float) -> Finding:
    """Say whether the learner really answered its share of the requests: a shadow that never ran proves nothing."""
    if evidence.requests == 0:
        return Finding("coverage", Verdict.INCONCLUSIVE, "no request has arrived")
    share = evidence.learner_answers / evidence.requests
    figure = f"the learner answered {evidence.learner_answers} of {evidence.requests} requests, {share:.0%}"
    if share < minimum:
        return Finding("coverage", Verdict.INCONCLUSIVE, f"{figure}, {minimum:.0%} are needed")
    return Finding("coverage", Verdict.SUCCESS, figure)


def harm(evidence: Evidence, budget: float) -> Finding:
    """Say whether the harm done by served answers is within the budget of the stage."""
    figure = f"harm {evidence.harm:.3g} of a budget of {budget:.3g}"
    return Finding("harm", Verdict.FAILURE if evidence.harm > budget else Verdict.SUCCESS, figure)


def alarms(evidence: Evidence) -> Finding:
    """Say whether the training of these weights raised an alarm: then they are not promoted."""
    if evidence.alarms:
        return Finding("alarms", Verdict.INCONCLUSIVE, "; ".join(evidence.alarms))
    return Finding("alarms", Verdict.SUCCESS, "training raised no alarm")
