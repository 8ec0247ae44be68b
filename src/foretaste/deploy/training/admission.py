"""What feedback may teach: caps for each key and each text, and keys that contradict the stated judges set aside.

Users are not judges. A few who send the same wrong correction again and again would teach it within a few steps. So:

    a key whose feedback contradicts the stated judges far more often than other keys' does is set aside, and named
    one key gives at most `training.key_share` of a step, and corrections of one text at most `training.text_share`
    a correction that the verifier finds wrong is not learned

The stated judges are the verifier and, through the comparator, the incumbent. What is set aside is judged by them
alone. Where all users share one key nothing tells them apart but the text; then `held_back.py` is what contains harm.
Next: `experiences.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import sqlalchemy as sa
from scipy.stats import binom
from sqlalchemy.engine import Connection

from foretaste.deploy.judging import Comparator, Verifier, plain_text
from foretaste.deploy.reading import messages_text
from foretaste.deploy.settings import TrainingConfig
from foretaste.deploy.store import requests_seen
from foretaste.deploy.tables import answers, feedback, requests

WINDOW = 2000
"""Newest requests from which keys are compared."""
FEWEST = 10
"""Requests of a key, known to the stated judges, before it is compared with others."""
FLOOR = 0.05
"""Share of contradictions that is never too many: the incumbent errs too."""


class Word(NamedTuple):
    """What a user said about one request."""

    key: str
    correction: str | None
    """The right answer that was given; None: a score alone."""


@dataclass(slots=True)
class Admission:
    """Decides which feedback enters a step; `look` before, `begin_step` for each step."""

    config: TrainingConfig
    compare: Comparator | None
    verify: Verifier | None
    correct_from: float
    suspects: dict[str, str] = field(default_factory=dict)
    """Keys that are set aside, with the reason."""
    keys: int = 1
    """Keys that asked anything in the window."""
    texts: dict[str, float] = field(default_factory=dict)
    """Share of the window's answers of the incumbent that each text is."""
    _by_key: Counter[str] = field(default_factory=Counter)
    _by_text: Counter[str] = field(default_factory=Counter)

    def look(self, connection: Connection, fresh_from: int) -> None:
        """Compare keys anew over the newest requests after `fresh_from`."""
        seen, told = _window(connection, max(fresh_from, requests_seen(connection) - WINDOW))
        self.keys = max(1, len({row.key for row in seen}))
        texts = [plain_text(row.text) for row in seen if row.text is not None]
        self.texts = {text: count / len(texts) for text, count in Counter(texts).items()}
        known: Counter[str] = Counter(row.key for row in seen if self._known(row))
        against: Counter[str] = Counter()
        contradicted: set[str] = set()
        references = {row.id: row for row in seen}
        for row in told:
            reference = references.get(row.request)
            if reference is not None and row.request not in contradicted and self._contradicts(row, reference):
                contradicted.add(row.request)
                against[row.key] += 1
        self.suspects = suspects(known, against, self.config.suspect_chance)

    def begin_step(self) -> None:
        """Count caps anew."""
        self._by_key.clear()
        self._by_text.clear()

    def refuse(self, word: Word, question: str) -> str:
        """Return why a user's word does not enter this step, or "" and count it; `question` is the request's body."""
        if word.key in self.suspects:
            return "suspect_key"
        if word.correction is not None and self.verify is not None:
            score = self.verify(messages_text(question), word.correction)
            if score is not None and score < self.correct_from:
                return "verifier_disagrees"
        if self._by_key[word.key] >= self._most(max(self.config.key_share, 1 / self.keys)):
            return "key_cap"
        text = None if word.correction is None else plain_text(word.correction)
        if text is not None and self._by_text[text] >= self._most(max(self.config.text_share, self.texts.get(text, 0))):
            return "text_cap"
        self._by_key[word.key] += 1
        if text is not None:
            self._by_text[text] += 1
        return ""

    def _most(self, share: float) -> int:
        return max(1, int(share * self.config.every))

    def _known(self, row: sa.Row) -> bool:
        """Return whether the stated judges can say anything about a request."""
        return self.verify is not None or (self.compare is not None and row.text is not None)

    def _contradicts(self, told: sa.Row, reference: sa.Row) -> bool:
        """Return whether one feedback says something else than the stated judges."""
        if told.kind == "correction" and told.text is not None:
            if self.verify is not None:
                score = self.verify(messages_text(reference.body), told.text)
            else:
                score = self.compare(told.text, reference.text) if self.compare and reference.text else None
            return score is not None and score < self.correct_from
        if told.score is None or self.compare is None or reference.text is None:
            return False
        said_right = told.score >= self.correct_from
        if reference.learner is None:  # about the incumbent's own answer, which stands for itself
            return not said_right
        agreed = self.compare(reference.learner, reference.text)
        return agreed is not None and (agreed >= self.correct_from) != said_right


def suspects(known: Counter[str], against: Counter[str], chance: float) -> dict[str, str]:
    """Return keys whose feedback contradicts the stated judges far more often than that of the other keys.

    `known` counts each key's requests that the judges know, `against` those that it contradicted. A key is compared
    with twice the median share of the others, at least `FLOOR`: a one-sided binomial test, Bonferroni over the keys.
    Fewer than two other keys say nothing.
    """
    tested = [key for key, count in known.items() if count >= FEWEST]
    found: dict[str, str] = {}
    for key in tested:
        others = [against[other] / known[other] for other in tested if other != key]
        if len(others) < 2:
            continue
        usual = min(0.5, max(FLOOR, 2 * median(others)))
        if binom.sf(against[key] - 1, known[key], usual) <= chance / len(tested):
            share = f"{against[key]} of {known[key]} requests"
            found[key] = (
                f"it contradicts the stated judges on {share}; the other keys on {median(others):.0%} of theirs"
            )
    return found


def _window(connection: Connection, after: int) -> tuple[list[sa.Row], list[sa.Row]]:
    """Return (requests with the incumbent's and, where it was served, the learner's answer), (their feedback)."""
    theirs, ours = answers.alias("theirs"), answers.alias("ours")
    query = (
        sa.select(requests.c.id, requests.c.key, requests.c.body, theirs.c.text, ours.c.text.label("learner"))
        .outerjoin(theirs, sa.and_(theirs.c.request == requests.c.id, theirs.c.role != "learner"))
        .outerjoin(ours, sa.and_(ours.c.request == requests.c.id, ours.c.role == "learner", ours.c.served))
        .where(requests.c.number > after)
    )
    told = (
        sa.select(feedback.c.request, feedback.c.kind, feedback.c.score, feedback.c.text, requests.c.key)
        .join(requests, requests.c.id == feedback.c.request)
        .where(requests.c.number > after)
        .order_by(feedback.c.number)
    )
    return list(connection.execute(query)), list(connection.execute(told))
