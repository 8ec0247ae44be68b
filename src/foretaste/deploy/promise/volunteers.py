"""Feedback that nobody asked for: it may stop things (more checks, no promotion), and never start any.

Who speaks up chooses what to speak about, so no rate can be learned from it. It never calibrates, and is no evidence of
a breach. Each key counts for little, and one whose word contradicts the stated judge's is named and counts no longer.
Pure functions; the same ones may weigh corrections. Next: `watch.py`, whose share of checks complaints can raise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from foretaste.deploy.promise.sequential import log_e_of

PRAISED = 0.3
"""Share of the wrong answers it gets that an honest key may praise."""
CONTRADICTED = 0.7
"""Share of its votes that may contradict the judge where a key is honest: who only speaks up to complain is often
alone with it."""
NAMED = 0.01
"""Chance of naming any honest key ever."""
MOST_COMPLAINTS = 3
"""Complaints of one key that count."""
PROVEN = 0.001
"""Chance of a false warning by complaints that fall on learner and incumbent alike."""


class Vote(NamedTuple):
    """What a key said of one answer of the learner that it was served and that a stated judge has judged."""

    key: str
    praise: bool | None
    """None: nothing. Silence counts: whoever praises half of the wrong answers it gets is no honest voice."""
    right: bool
    """By the stated judge."""


class Exposure(NamedTuple):
    """What one key was served, and what it complained about, in the same period."""

    learner: int
    """Answers of the learner that it was served."""
    incumbent: int
    about_learner: int
    """Complaints about them."""
    about_incumbent: int


NONE_SERVED = Exposure(0, 0, 0, 0)


class Volunteers(NamedTuple):
    """What feedback that nobody asked for says; it starts nothing."""

    ignored: dict[str, str]
    """Keys that count no longer, with the reason."""
    warning: str
    """More complaints about the learner than about the incumbent, or ""."""
    exposure: Exposure = NONE_SERVED
    """Answers and complaints of all keys that count, together."""

    @property
    def about_learner(self) -> float | None:
        """Share of the learner's answers that were complained about; None: it was not served."""
        return self.exposure.about_learner / self.exposure.learner if self.exposure.learner else None

    @property
    def about_incumbent(self) -> float | None:
        """Share of the incumbent's answers that were complained about; None: it was not served."""
        return self.exposure.about_incumbent / self.exposure.incumbent if self.exposure.incumbent else None

    def summary(self) -> dict[str, Any]:
        """Return what people are shown."""
        shares = {"about_learner": self.about_learner, "about_incumbent": self.about_incumbent}
        return {**self._asdict(), "exposure": self.exposure._asdict(), **shares}

    def lines(self) -> list[str]:
        """Return the lines of `foretaste deploy status`."""
        one = self.exposure
        said = [
            f"complaints   about {one.about_learner} of {one.learner} answers of the learner, {one.about_incumbent} of "
            f"{one.incumbent} of the incumbent" + (f"; warning: {self.warning}" if self.warning else "")
        ]
        return said + [f"not counted  feedback of key {key}: {why}" for key, why in sorted(self.ignored.items())]


class KeyRecord(NamedTuple):
    """How a key's votes compare with the stated judge's words."""

    praised: int
    """Of the answers that the judge calls wrong, those that the key praised."""
    wrong: int
    contradicted: int
    """Of its votes, those that say the opposite of the judge."""
    votes: int


def records_of(votes: Iterable[Vote]) -> dict[str, KeyRecord]:
    """Return each key's record."""
    found: dict[str, KeyRecord] = {}
    for key, praise, right in votes:
        praised, wrong, contradicted, spoken = found.get(key, KeyRecord(0, 0, 0, 0))
        found[key] = KeyRecord(
            praised + (praise is True and not right),
            wrong + (not right),
            contradicted + (praise is not None and praise is not right),
            spoken + (praise is not None),
        )
    return found


def not_counted(records: Mapping[str, KeyRecord]) -> dict[str, str]:
    """Return the keys whose word no longer counts, each with the reason in words.

    Two tests a key: it praises more than `PRAISED` of the wrong answers it gets, or contradicts the judge in more than
    `CONTRADICTED` of its votes. E-values, so that one may look after every vote; the chance of naming any honest key,
    of all there are, is at most `NAMED`.
    """
    limit = math.log(2 * max(1, len(records)) / NAMED)
    found: dict[str, str] = {}
    for key, record in records.items():
        if log_e_of(record.praised, record.wrong, PRAISED) >= limit:
            found[key] = f"praised {record.praised} of {record.wrong} answers that the judge calls wrong"
        elif log_e_of(record.contradicted, record.votes, CONTRADICTED) >= limit:
            found[key] = f"contradicted the judge in {record.contradicted} of {record.votes} votes"
    return found


def total(exposures: Mapping[str, Exposure], ignored: Iterable[str] = ()) -> Exposure:
    """Return the sum over all keys that count."""
    counted = [one for key, one in exposures.items() if key not in set(ignored)]
    return Exposure(*map(sum, zip(*counted, strict=True))) if counted else NONE_SERVED


def complaint_warning(exposures: Mapping[str, Exposure], ignored: Iterable[str] = ()) -> str:
    """Return the warning that users complain more often about the learner than about the incumbent, or "".

    Each key is its own baseline: of its complaints, as many are due to the learner as its share of the key's answers.
    A key that was served by one of the two alone says nothing. `MOST_COMPLAINTS` of a key count.
    """
    leave_out = set(ignored)
    about_learner = complaints = 0
    expected = 0.0
    for key, one in exposures.items():
        if key in leave_out or not one.learner or not one.incumbent:
            continue
        total = one.about_learner + one.about_incumbent
        counted = min(total, MOST_COMPLAINTS)
        if not counted:
            continue
        about_learner += round(counted * one.about_learner / total)
        complaints += counted
        expected += counted * one.learner / (one.learner + one.incumbent)
    rate = expected / complaints if complaints else 1.0
    if not 0 < rate < 1 or log_e_of(about_learner, complaints, rate) < -math.log(PROVEN):
        return ""
    return f"{about_learner} of {complaints} complaints are about the learner, {expected:.1f} were to be expected"
