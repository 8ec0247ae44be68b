"""The promise in one place: at most alpha of what the learner serves is wrong, with confidence 1 - delta.

It says which requests count (random checks), who judges them, when, and how delta is spent. It also says what is not
promised. `docs/deploy-decisions.md` says the same in prose. Next: `calibration.py`, `watch.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.deploy.settings import DeployConfig, FirstJudge, SecondJudge
from foretaste.deploy.takeover import least_answers

FALL_PART = 0.1
"""Part of delta for false alarms that goes to withdrawing a threshold at a later look; the watch has the rest."""


@dataclass(frozen=True, slots=True)
class Promise:
    """At most `alpha` of the served answers are wrong by the stated judges, with confidence 1 - `delta`, for ever."""

    alpha: float
    delta: float
    """Chance of a false threshold ever, over all checkpoints and looks; and, apart from it, of a false step back."""
    check_share: float
    """Share of a live learner's answers that are checked on average, drawn by the request's id alone."""
    judge: FirstJudge | None
    """Who judges the checks; None: nobody, so nothing is promised and nothing is served."""
    second_judge: SecondJudge | None
    """Who judges a share of the checks again; None: nobody, so errors that the first judge shares stay unseen."""
    second_share: float
    """Share of the checks that the second judge is asked about, drawn by the request's id alone."""
    maturity_seconds: float
    """A check counts from so long after its request on, however and whenever it was judged."""
    maturity_requests: int
    """It also waits for so many further requests."""
    words: tuple[str, ...]
    """Whose word is taken as the first judge's, the first that has said anything."""
    truth: bool
    """The first judge knows the truth (a verifier, a person); False: it can be wrong itself, as an incumbent can."""

    @property
    def kept(self) -> bool:
        """Whether anything is promised."""
        return self.judge is not None and (self.check_share > 0)

    def statement(self) -> str:
        """Return the promise as a sentence."""
        if not self.kept:
            return "Nothing is promised, and nothing is served: no judge is stated that sees the random checks."
        ground = "are wrong" if self.truth or self.second_judge else "differ from what the judge calls right"
        judges = self.judge if self.second_judge is None else f"{self.judge} and {self.second_judge}"
        return (
            f"At most {self.alpha:.3g} of the answers that the learner serves {ground}, judged by {judges} on random "
            f"checks. Confidence {1 - self.delta:.3g}, over all checkpoints and looks together."
        )

    def reservations(self, *, feedback_seconds: float | None = None) -> tuple[str, ...]:
        """Return what is not promised, each as a sentence; `feedback_seconds`: how late the judge may be."""
        found: list[str] = []
        if self.judge is None:
            found.append("No judge: feedback that users volunteer never starts anything, so nothing is ever served.")
        if self.check_share == 0 and self.judge is not None:
            found.append("No checks are drawn once live (check_share = 0): a change would never be noticed.")
        if self.judge is not None and not self.truth and self.second_judge is None:
            found.append(
                "No second judge: the incumbent's own errors, and those that the learner shares with it, are not "
                "seen. This is a promise of agreement with the incumbent, no promise of truth."
            )
        if feedback_seconds is not None and feedback_seconds > self.maturity_seconds:
            found.append(
                f"The judge may take {feedback_seconds:g} s, a check counts after {self.maturity_seconds:g} s: what "
                "is unknown by then counts as wrong. The promise holds, but less, or nothing, is served."
            )
        found.append(
            "An average over what is served, not over each kind of request; after the world has changed it holds "
            "again only once the watch has stepped back (see the times above)."
        )
        return tuple(found)


def promise_of(config: DeployConfig) -> Promise:
    """Return what a deployment with these settings promises."""
    takeover = config.takeover
    judge = first_judge(config)
    second = None if takeover.second_judge in ("none", judge) else takeover.second_judge
    return Promise(
        alpha=config.stages.alpha,
        delta=config.stages.delta,
        check_share=takeover.check_share,
        judge=judge,
        second_judge=second,
        second_share=takeover.second_share,
        maturity_seconds=takeover.maturity_seconds,
        maturity_requests=takeover.maturity_requests,
        words=_words(judge, second, named=takeover.judge != "auto"),
        truth=judge in ("verifier", "person") or (judge == "comparator" and config.incumbent.kind == "person"),
    )


def _words(judge: FirstJudge | None, second: SecondJudge | None, *, named: bool) -> tuple[str, ...]:
    """Return whose word counts as the first judge's; where none is named, a verifier's before the comparator's."""
    if judge is None:
        return ()
    if named or judge == "person":
        return (judge,)
    return tuple(one for one in ("verifier", "comparator") if one != second)


def first_judge(config: DeployConfig) -> FirstJudge | None:
    """Return who judges the checks: the one that is named, else the verifier, else the comparator, else nobody."""
    takeover = config.takeover
    if takeover.judge != "auto":
        return takeover.judge
    if takeover.verifier is not None and takeover.second_judge != "verifier":
        return "verifier"
    return None if takeover.comparator == "none" else "comparator"


def trial_delta(delta: float, trial: int) -> float:
    """Return the part of delta that trial number `trial` (from 1) has: delta / (c (c + 1)), which sums to delta.

    A trial is one checkpoint's time of calibration. A rollback begins another one; no number comes twice.
    """
    return delta / (max(1, trial) * (max(1, trial) + 1))


def watch_delta(delta: float, trial: int) -> float:
    """Return the chance that the watch of a trial ever steps back falsely."""
    return (1 - FALL_PART) * trial_delta(delta, trial)


def least_checks(promise: Promise) -> int:
    """Return the fewest checks, all right, before the first checkpoint can be given a threshold at its first look."""
    level = trial_delta(promise.delta, 1) / 2
    if promise.second_judge is None:
        return least_answers(promise.alpha, level)
    # Both bounds share alpha; half each is near the best where the second judge sees few of the checks.
    each = least_answers(promise.alpha / 2, level / 2)
    return max(each, round(each / max(promise.second_share, 1e-9)))
