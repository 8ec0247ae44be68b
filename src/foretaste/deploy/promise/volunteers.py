"""Feedback that nobody asked for: it may stop things (more checks, no promotion), and never start any.

Who speaks up chooses what to speak about, so no rate can be learned from it. It never calibrates, and is no evidence of
a breach. Each key counts for little, and one whose word contradicts the stated judge's is named and counts no longer.
Pure functions; the same ones may weigh corrections. Next: `watch.py`, whose share of checks complaints can raise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from foretaste.deploy.promise.sequential import log_e_above

HONEST = 0.3
"""Share of a judge's right (or wrong) answers that an honest key may call the opposite."""
NAMED = 0.01
"""Chance of naming any honest key ever."""
MOST_COMPLAINTS = 3
"""Complaints of one key that count."""
PROVEN = 0.001
"""Chance of a false warning by complaints that fall on learner and incumbent alike."""


class Vote(NamedTuple):
    """What a key said of one answer of the learner, where a stated judge has judged that answer too."""

    key: str
    praise: bool
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


class Volunteers(NamedTuple):
    """What feedback that nobody asked for says; it starts nothing."""

    ignored: dict[str, str]
    """Keys that count no longer, with the reason."""
    warning: str
    """More complaints about the learner than about the incumbent, or ""."""


class KeyRecord(NamedTuple):
    """How a key's votes compare with the stated judge's words."""

    wrong_praised: int
    wrong: int
    right_reported: int
    right: int


def records_of(votes: Iterable[Vote]) -> dict[str, KeyRecord]:
    """Return each key's record."""
    found: dict[str, KeyRecord] = {}
    for key, praise, right in votes:
        a, b, c, d = found.get(key, KeyRecord(0, 0, 0, 0))
        found[key] = KeyRecord(a, b, c + (not praise), d + 1) if right else KeyRecord(a + praise, b + 1, c, d)
    return found


def not_counted(records: Mapping[str, KeyRecord]) -> dict[str, str]:
    """Return the keys whose word no longer counts, each with the reason in words.

    Two tests a key, of "it contradicts the judge in at most `HONEST` of the cases": about wrong answers and about right
    ones, since whoever praises everything agrees with the judge wherever the learner is right. E-values, so that one
    may look after every vote; the chance of naming any honest key, of all there are, is at most `NAMED`.
    """
    limit = math.log(2 * max(1, len(records)) / NAMED)
    found: dict[str, str] = {}
    for key, record in records.items():
        if float(log_e_above(record.wrong_praised, record.wrong, HONEST)) >= limit:
            found[key] = f"praised {record.wrong_praised} of {record.wrong} answers that the judge calls wrong"
        elif float(log_e_above(record.right_reported, record.right, HONEST)) >= limit:
            found[key] = f"reported {record.right_reported} of {record.right} answers that the judge calls right"
    return found


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
    if not 0 < rate < 1 or float(log_e_above(about_learner, complaints, rate)) < -math.log(PROVEN):
        return ""
    return f"{about_learner} of {complaints} complaints are about the learner, {expected:.1f} were to be expected"
