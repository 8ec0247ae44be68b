"""What the evidence of a stage says: each check is a success, a failure or inconclusive, with its figure in words.

Every test of error rates here may be looked at after every request (anytime-valid): a breach that is declared once
is a breach with confidence 1 - delta, however often one looked. `stages.py` turns findings into a decision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from foretaste.deploy.promise.sequential import log_e_above
from foretaste.deploy.promise.statement import watch_delta
from foretaste.deploy.promise.watch import BLOCK, log_e_path
from foretaste.deploy.takeover import Threshold

if TYPE_CHECKING:
    from foretaste.deploy.stage_config import StageConfig

__all__ = ["BLOCK", "Evidence", "Finding", "Verdict", "analyse", "log_e_above", "log_e_change", "served_error"]


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
    """Of these, random checks that a stated judge has judged."""
    served_correct: int = 0
    served_unknown: int = 0
    """Mature checks of served answers that nobody has judged: as wrong for a promotion, as right for a breach."""
    served_outcomes: tuple[bool, ...] = ()
    """Random checks since this trial was first served, in the order of the requests; unknown ones count as right.
    They let a change be seen early. Empty: counts alone."""
    alerts: tuple[int, ...] = ()
    """Places among `served_outcomes` at which checks had become more frequent."""
    second_outcomes: tuple[bool, ...] = ()
    """Of the checks that the second judge was asked about: whether neither judge calls the answer wrong."""
    trial: int = 1
    """Number of the trial (`promise/calibration.py`): it has its own part of delta."""
    complaints: str = ""
    """A warning that users complain more about the learner than about the incumbent; it only pauses promotion."""
    threshold: Threshold | None = None
    """The checkpoint's own calibration."""
    old_tasks: Finding | None = None
    """What the gate of old tasks says (`old_tasks.py`); None: not held against them yet."""
    harm: float = 0.0
    """Harm attributed to served answers, in the units of the harm rule or critic."""
    alarms: tuple[str, ...] = ()
    """Alarms of the training of these weights (`alarms.py`)."""


def log_e_change(correct: Sequence[bool], rate: float, alerts: Sequence[int] = ()) -> float:
    """Return the largest ln E so far of "the error has been at most `rate` all along" (`promise/watch.py`).

    The largest over all checks so far, not the last: P(it ever reaches ln(1/delta)) <= delta. A judgement that comes
    late and says "wrong" changes the past, and the evidence of then counts as it would have then.
    """
    outcomes = bytes(correct)
    # Right answers only lower E: the largest so far is of a wrong one. So most looks find it in the cache.
    until = outcomes.rfind(b"\0") + 1
    return _largest_log_e(outcomes[:until], rate, tuple(place for place in alerts if place < until))


@lru_cache(maxsize=256)
def _largest_log_e(outcomes: bytes, rate: float, alerts: tuple[int, ...]) -> float:
    return float(log_e_path(np.frombuffer(outcomes, dtype=np.uint8) == 0, rate, alerts).max(initial=0.0))


def analyse(evidence: Evidence, config: StageConfig, *, serving: bool) -> list[Finding]:
    """Return the findings that matter: to enter a canary (`serving` False), or to go on from a canary or live."""
    found = [harm(evidence, config.harm_budget), alarms(evidence), *complaints(evidence)]
    if serving:
        served = served_error(evidence, config.alpha, config.delta, config.minimum_judged)
        return [*found, served, *withdrawn(evidence)]
    old = evidence.old_tasks or Finding("old tasks", Verdict.INCONCLUSIVE, "not held against the old tasks yet")
    return [*found, coverage(evidence, config.minimum_coverage), takeover(evidence), old]


def served_error(evidence: Evidence, alpha: float, delta: float, minimum_judged: int) -> Finding:
    """Say whether what is served keeps the promise P(wrong) <= alpha, by the random checks that stated judges judged.

    Failure: the error is above alpha with confidence 1 - delta, over all trials and at any time. Success: enough
    answers are judged and their error is at most alpha, unknown ones counted as wrong. Inconclusive: neither.
    """
    n, right = evidence.served_judged, evidence.served_correct
    wrong = n - right
    if n == 0:
        return Finding("served error", Verdict.INCONCLUSIVE, "none of the served answers has been judged")
    low, high = interval(wrong, n, delta)
    figure = f"{wrong} of {n} served answers wrong, {wrong / n:.1%} [{low:.1%}, {high:.1%}], promised {alpha:.0%}"
    if _log_e_served(evidence, alpha) >= -math.log(watch_delta(delta, evidence.trial)):
        return Finding("served error", Verdict.FAILURE, figure)
    if n < minimum_judged:
        return Finding("served error", Verdict.INCONCLUSIVE, f"{figure}; {minimum_judged - n} more have to be judged")
    unknown = evidence.served_unknown
    if unknown:
        figure = f"{figure}; {unknown} checks are unknown, which count as wrong"
    kept = wrong + unknown <= alpha * (n + unknown)
    return Finding("served error", Verdict.SUCCESS if kept else Verdict.INCONCLUSIVE, figure)


@lru_cache(maxsize=4096)
def interval(wrong: int, n: int, delta: float) -> tuple[float, float]:
    """Return `exams.sequential.confidence_sequence` of one pair of counts, in plain floats: every look asks for it."""
    right, mean = n - wrong, wrong / n
    limit = -math.log(delta) - (math.lgamma(wrong + 1) + math.lgamma(right + 1) - math.lgamma(n + 2))

    def end(outside: float) -> float:
        inside = mean
        for _ in range(50):
            middle = (inside + outside) / 2
            log_e = (-wrong * math.log(middle) if wrong else 0.0) - (right * math.log1p(-middle) if right else 0.0)
            inside, outside = (middle, outside) if log_e < limit else (inside, middle)
        return outside

    return 0.0 if wrong == 0 else end(0.0), 1.0 if right == 0 else end(1.0)


def _log_e_served(evidence: Evidence, alpha: float) -> float:
    """Return ln E that the promise is broken: by the first judge on all checks, or by both on the second's share.

    Two e-values whose mean is one: under the promise, answers that either judge calls wrong are at most alpha.
    """
    if evidence.served_outcomes:
        first = log_e_change(evidence.served_outcomes, alpha, evidence.alerts)
    else:
        first = float(log_e_above(evidence.served_judged - evidence.served_correct, evidence.served_judged, alpha))
    if not evidence.second_outcomes:
        return first
    return float(np.logaddexp(first, log_e_change(evidence.second_outcomes, alpha)) - math.log(2))


def complaints(evidence: Evidence) -> list[Finding]:
    """Return a pause of promotion where users complain more about the learner; complaints alone never step back."""
    if not evidence.complaints:
        return []
    return [Finding("complaints", Verdict.INCONCLUSIVE, evidence.complaints)]


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
