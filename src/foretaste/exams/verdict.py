"""PASS, FAIL or INCONCLUSIVE: the verdict of a sitting, which may be looked at after every item.

Base items are the independent units. They come in an order drawn from the secret, so that whichever
prefix has been asked is a fair sample of the paper. An item that failed with an error is no evidence:
PASS must hold with every such item counted as wrong, FAIL with every one counted as right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from foretaste.exams.sequential import Outcome, SequentialExam

Metric = Literal["accuracy", "worst_register", "all_registers"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the exam says, and what it rests on."""

    outcome: Outcome
    metric: str
    threshold: float
    alpha: float
    """Chance of a wrong verdict that this look may spend."""
    n: int
    """Base items it rests on."""
    mean: float | None
    """The metric over those items, errors left out."""
    low: float
    high: float
    """Bounds of the metric that hold at any time with probability 1 - alpha on each side."""
    more_needed: int | None
    """Base items until a verdict if scores and errors stay as they are; 0: certain; None: no number would do."""
    errors: int
    """Base items with a wording that failed."""
    comparison: bool = False
    """True if the items were those of an earlier sitting: nobody passes on items that may have been seen."""

    def as_comparison(self) -> Verdict:
        """Return the same figures without PASS or FAIL."""
        return replace(self, outcome=Outcome.INCONCLUSIVE, more_needed=None, comparison=True)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Verdict:
        """Read what `to_json` wrote."""
        return cls(**{**values, "outcome": Outcome(values["outcome"])})

    def sentence(self) -> str:
        """Return the verdict in one line."""
        if self.comparison:
            return "NO VERDICT (the items of an earlier sitting, for comparison only)"
        if self.outcome is Outcome.INCONCLUSIVE:
            if self.mean is None:
                failed = f": all {self.n} ended in an error" if self.n else ""
                return f"INCONCLUSIVE: no item could be judged{failed}"
            if self.more_needed is not None:
                return f"INCONCLUSIVE (needs {self.more_needed} more)"
            failed = f" while {self.errors} of {self.n} end in an error" if self.errors else ""
            return f"INCONCLUSIVE (no number of further items would do{failed})"
        return self.outcome.value


@dataclass(frozen=True, slots=True)
class _Pair:
    """The same scores with errors counted as wrong, and as right."""

    worst: SequentialExam
    best: SequentialExam

    def after(self, low: float, high: float) -> _Pair:
        worst = self.worst.after(low)
        same = self.worst == self.best and low == high
        return _Pair(worst, worst if same else self.best.after(high))


class Judge:
    """Takes base items one after another and holds the verdict so far.

    accuracy: a base item scores the mean over its wordings. all_registers: 1 if right in all.
    worst_register: every wording has a sequence of its own; PASS needs all of them above the
    threshold at alpha (an intersection of hypotheses needs no correction), FAIL one of them below at
    alpha / R (Bonferroni over the R wordings).
    """

    def __init__(self, metric: Metric, threshold: float, alpha: float, registers: int = 1) -> None:
        """`registers` is the number of wordings that the paper uses."""
        self.metric, self.threshold, self.alpha = metric, threshold, alpha
        self.registers = max(1, registers)
        self._sums: dict[str, list[float]] = {}
        self._pass: dict[str, _Pair] = {}
        self._fail: dict[str, _Pair] = {}
        self.n = self.errors = 0

    def add(self, scores: Mapping[str, float | None]) -> None:
        """Take one base item: wording -> 1, 0, or None for an error."""
        self.n += 1
        self.errors += any(score is None for score in scores.values())
        known = [score for score in scores.values() if score is not None]
        worst = [score or 0.0 for score in scores.values()]
        best = [1.0 if score is None else score for score in scores.values()]
        if self.metric == "worst_register":
            for name, low, high in zip(scores, worst, best, strict=True):
                self._put(name, low, high, scores[name])
        elif self.metric == "all_registers":
            self._put("", min(worst), min(best), min(known) if len(known) == len(scores) else None)
        else:
            mean = sum(known) / len(known) if known else None
            self._put("", sum(worst) / len(worst), sum(best) / len(best), mean)

    def _put(self, name: str, low: float, high: float, shown: float | None) -> None:
        start = SequentialExam(self.threshold, self.alpha)
        self._pass[name] = self._pass.get(name, _Pair(start, start)).after(low, high)
        if self.metric == "worst_register" and self.registers > 1:
            strict = SequentialExam(self.threshold, self.alpha / self.registers)
            self._fail[name] = self._fail.get(name, _Pair(strict, strict)).after(low, high)
        else:
            self._fail[name] = self._pass[name]
        if shown is not None:
            self._sums.setdefault(name, []).append(shown)

    @property
    def certain(self) -> bool:
        """True once further items cannot change the verdict."""
        return self._outcome() is not Outcome.INCONCLUSIVE

    def _outcome(self) -> Outcome:
        whole = len(self._pass) == (self.registers if self.metric == "worst_register" else 1)
        if whole and all(pair.worst.outcome is Outcome.PASS for pair in self._pass.values()):
            return Outcome.PASS
        if any(pair.best.outcome is Outcome.FAIL for pair in self._fail.values()):
            return Outcome.FAIL
        return Outcome.INCONCLUSIVE

    def verdict(self) -> Verdict:
        """Return the verdict so far."""
        outcome = self._outcome()
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        name = min(means, key=lambda key: means[key]) if means else ""
        pair = self._pass.get(name)
        low, high = (pair.worst.low, self._fail[name].best.high) if pair else (0.0, 1.0)
        return Verdict(
            outcome,
            self.metric,
            self.threshold,
            self.alpha,
            self.n,
            means.get(name),
            low,
            high,
            0 if outcome is not Outcome.INCONCLUSIVE else self._more(means),
            self.errors,
        )

    def _more(self, means: dict[str, float]) -> int | None:
        """Further base items until a verdict, if every wording's mean and share of errors stay as they are."""
        if not means:
            return None
        if all(mean > self.threshold for mean in means.values()):
            needed = [_needed(pair.worst, Outcome.PASS) for pair in self._pass.values()]
            known = [count for count in needed if count is not None]
            return max(known) if len(known) == len(needed) else None
        below = (name for name, mean in means.items() if mean < self.threshold)
        needed = [_needed(self._fail[name].best, Outcome.FAIL) for name in below]
        return min((count for count in needed if count is not None), default=None)


def _needed(exam: SequentialExam, wanted: Outcome) -> int | None:
    """Return the further items until an exam says `wanted`, if its mean stays as it is; None: none would do."""
    if exam.outcome is not Outcome.INCONCLUSIVE:
        return 0 if exam.outcome is wanted else None
    mean = exam.successes / exam.n
    leads = mean > exam.threshold if wanted is Outcome.PASS else mean < exam.threshold
    return exam.more_needed if leads else None
