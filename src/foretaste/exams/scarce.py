"""Scores on scarce items, coarsened: the Ladder and Thresholdout say something new only when it is news.

Fresh items for every look do not stop tuning to a generator, and some families have few items. What a researcher is
told of those goes through one of the two. Both are immutable and keep their state in the ledger.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from foretaste.errors import LedgerError
from foretaste.ledger import Ledger


class Release(NamedTuple):
    """What is told about one submission."""

    score: float | None
    """None: nothing is told any more (Thresholdout's budget is spent)."""
    news: bool
    """True if the score says something that was not known before."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Release a score only if it beats the best so far by more than noise; else repeat the best.

    With `step` eta: a new best must exceed the old by eta and is rounded to a multiple of eta.
    Parameter-free (`step` None): it must exceed the old by s / sqrt(n), s the standard deviation of
    the difference of the two score vectors, and is rounded to a multiple of 1 / n.

    Source: Blum & Hardt 2015 (arXiv 1502.04585), figures 1 and 2, with scores in place of losses.
    """

    step: float | None = None
    best: float | None = None
    """The best score told so far; None before the first."""
    best_scores: tuple[float, ...] = ()
    """The item scores behind it (parameter-free only)."""
    submissions: int = 0

    def submit(self, scores: ArrayLike) -> tuple[Release, Ladder]:
        """Take the n item scores in [0, 1] of one submission, always on the same items in the same order.

        Raises: ValueError for no scores or, in the parameter-free form, another number of them.
        """
        values = np.asarray(scores, dtype=float)
        n = len(values)
        if n == 0 or (self.best_scores and n != len(self.best_scores)):
            raise ValueError(
                f"the Ladder needs the same items at every submission: {n}, {len(self.best_scores)} before"
            )
        score = float(values.mean())
        grain = 1 / n if self.step is None else self.step
        margin = grain
        if self.step is None:
            margin = (
                float(np.std(values - self.best_scores, ddof=1)) / math.sqrt(n) if self.best_scores and n > 1 else 0.0
            )
        following = replace(self, submissions=self.submissions + 1)
        if self.best is not None and score <= self.best + margin:
            return Release(self.best, False), following
        told = round(score / grain) * grain
        kept = tuple(values.tolist()) if self.step is None else ()
        return Release(told, True), replace(following, best=told, best_scores=kept)

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain values for the ledger."""
        return {**asdict(self), "best_scores": list(self.best_scores)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Ladder:
        """Read a state written by `to_json`."""
        return cls(**{**values, "best_scores": tuple(values["best_scores"])})


def ladder_step(n: int, submissions: int) -> float:
    """Return the step eta = (log(k n) / n)^(1/3) that balances the Ladder's two errors for k submissions on n items."""
    return (math.log(submissions * n) / n) ** (1 / 3)


def ladder_bound(n: int, submissions: int, step: float, delta: float = 0.05) -> float:
    """Return how far the best released score may be from the best true one, with probability 1 - delta.

    At every submission, |released - max_i true_i| <= epsilon + step, with
    exp(-2 epsilon^2 n + (1/step + 2) ln(4 k / step) + 1) = delta.

    Source: Blum & Hardt 2015, theorem 3.1.
    """
    exponent = (1 / step + 2) * math.log(4 * submissions / step) + 1 + math.log(1 / delta)
    return math.sqrt(exponent / (2 * n)) + step


LEAST_THRESHOLD = 0.04
_EARLIER_SIGMA = 0.001
"""Default of earlier versions: a tenth of one item of a hundred, so that rounding an answer told the sealed score."""


def sigma_for(items: int, answers: int) -> float:
    """Return the scale of noise with which `answers` answers do not tell a score on `items` items to the item.

    The mean of k answers about one submission is off by a standard deviation of sigma sqrt(2 / k). With sigma =
    sqrt(k / 2) / items that is one item, so even the whole budget spent on one submission leaves the score open.
    Each answer changes what is known of one item by a factor of at most exp(1 / (items sigma)).

    Source: the Laplace mechanism and its composition, Dwork et al. 2015 (1506.02629), section 2 and lemma 23.
    """
    return math.sqrt(max(1, answers) / 2) / items


# Thresholdout --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Thresholdout:
    """Answer with the public score unless the sealed one differs by more than a noisy threshold.

    The noise is drawn from a secret and a counter, so the state is small, a stored state continues
    exactly, and nobody without the secret can subtract it.

    Source: Dwork et al. 2015 (arXiv 1506.02629), algorithm Thresholdout.
    """

    secret: str
    threshold: float | None = None
    """T: differences below are not told. None: .04, or 8 sigma if that is more, at the first question."""
    sigma: float | None = None
    """Scale of the Laplace noise (4 sigma on the comparison, 2 sigma on T, sigma on the answer). None: `sigma_for` the
    number of sealed items and the budget, at the first question."""
    budget: int = 20
    """Times that the sealed score may be told; 0: nothing more is said."""
    draws: int = 0
    """Noise values drawn so far."""
    noisy_threshold: float | None = None

    @classmethod
    def for_tolerance(
        cls, secret: str, tolerance: float, *, queries: int, budget: int, delta: float = 0.05
    ) -> Thresholdout:
        """Return the setting under which every answer is within `tolerance` of the truth with probability 1 - delta.

        T = 3 tolerance / 4 and sigma = tolerance / (96 ln(4 queries / delta)), given enough sealed items.

        Source: Dwork et al. 2015, theorem 25.
        """
        sigma = tolerance / (96 * math.log(4 * queries / delta))
        return cls(secret=secret, threshold=0.75 * tolerance, sigma=sigma, budget=budget)

    def ask(self, public: ArrayLike, sealed: ArrayLike) -> tuple[Release, Thresholdout]:
        """Take a submission's item scores in [0, 1] on the public and on the sealed items.

        Raises: ValueError for empty scores.
        """
        public_N, sealed_N = np.asarray(public, dtype=float), np.asarray(sealed, dtype=float)
        if public_N.size == 0 or sealed_N.size == 0:
            raise ValueError("Thresholdout needs scores on public and on sealed items")
        if self.budget < 1:
            return Release(None, False), self
        state = self._settled(sealed_N.size)
        threshold = state.threshold or 0.0
        if state.noisy_threshold is None:
            noise, state = state._noise(2)
            state = replace(state, noisy_threshold=threshold + noise)
        shown, hidden = float(public_N.mean()), float(sealed_N.mean())
        comparison, state = state._noise(4)
        if abs(hidden - shown) <= (state.noisy_threshold or 0.0) + comparison:
            return Release(shown, False), state
        answer, state = state._noise(1)
        renewed, state = state._noise(2)
        state = replace(state, budget=state.budget - 1, noisy_threshold=threshold + renewed)
        return Release(min(1.0, max(0.0, hidden + answer)), True), state

    def _settled(self, items: int) -> Thresholdout:
        """Return the state with the noise and the threshold that were left to the number of items."""
        sigma = sigma_for(items, self.budget) if self.sigma is None else self.sigma
        threshold = max(LEAST_THRESHOLD, 8 * sigma) if self.threshold is None else self.threshold
        return replace(self, sigma=sigma, threshold=threshold)

    def _noise(self, scale: int) -> tuple[float, Thresholdout]:
        """Draw from Laplace(scale * sigma)."""
        digest = hashlib.blake2b(f"thresholdout:{self.draws}".encode(), key=self.secret.encode()[:64]).digest()
        uniform = ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) / 2**52 - 0.5  # 52 bits: never 0.5 itself
        noise = -math.copysign(math.log1p(-2 * abs(uniform)), uniform) * scale * (self.sigma or 0.0)
        return noise, replace(self, draws=self.draws + 1)

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain values for the ledger, without the secret."""
        return {key: value for key, value in asdict(self).items() if key != "secret"}

    @classmethod
    def from_json(cls, values: dict[str, Any], *, secret: str) -> Thresholdout:
        """Read a state written by `to_json`.

        One of an earlier version, whose noise did not follow the number of items, takes up noise that does.
        """
        if values.get("sigma") == _EARLIER_SIGMA:
            values = {**values, "sigma": None, "threshold": None, "noisy_threshold": None}
        return cls(secret=secret, **values)


# Their state in the ledger ------------------------------------------------------------------------


def stored_state(ledger: Ledger, paper: str, key: str) -> dict[str, Any] | None:
    """Return the latest stored state of a mechanism (`key` names its family), or None before the first.

    Raises: LedgerError if the stored record is not one that `store_state` wrote.
    """
    latest, values = -1, None
    for info in ledger.runs("exam"):
        for record in ledger.records(info.id, "release"):
            payload = record.payload
            if "state" not in payload:
                raise LedgerError(f"Record {record.seq} of run {record.run} holds no release state")
            if record.seq > latest and payload["paper"] == paper and payload["key"] == key:
                latest, values = record.seq, payload["state"]
    return values


def store_state(ledger: Ledger, run: str, paper: str, key: str, release: Release, state: Ladder | Thresholdout) -> None:
    """Append what was released and the state after it."""
    told = {"score": release.score, "news": release.news}
    ledger.append(run, "release", {"paper": paper, "key": key, "released": told, "state": state.to_json()})
