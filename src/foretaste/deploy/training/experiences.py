"""Read from the store what the next step learns: judged answers, and corrections of answers that nobody judged.

Reading continues where the last step stopped: two places, one in the order of judgements and one in the order of
feedback. Held-back requests are never read. Users' words pass through `admission.py` first. Next: `online.py`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from foretaste.deploy.database import reading
from foretaste.deploy.judging import exact
from foretaste.deploy.online import Experience
from foretaste.deploy.reading import messages_text
from foretaste.deploy.routing import plain_chat
from foretaste.deploy.settings import DeployConfig
from foretaste.deploy.store import corrections_of
from foretaste.deploy.tables import answers, feedback, requests
from foretaste.deploy.training.admission import Admission, Word
from foretaste.deploy.training.held_back import held_back
from foretaste.records import Action, Message

if TYPE_CHECKING:
    from foretaste.models.conversation import ChatTemplate


class Places(NamedTuple):
    """How far has been read."""

    judged: int = 0
    """Number of the last judgement."""
    corrected: int = 0
    """Number of the last correction."""


@dataclass(slots=True)
class Reader:
    """Turns what is new in the store into experiences."""

    engine: Engine
    config: DeployConfig
    template: ChatTemplate
    admission: Admission
    left_out: Counter[str] = field(default_factory=Counter)
    """Judgements of the last reading that were not learned from, by reason."""

    def read(self, places: Places) -> tuple[list[Experience], Places]:
        """Return at most `training.every` experiences, oldest first, and how far has been read."""
        self.left_out = Counter()
        self.admission.begin_step()
        found, judged = self._judged(places.judged)
        corrected = places.corrected
        if len(found) < self.config.training.every:
            more, corrected = self._corrected(places.corrected, self.config.training.every - len(found))
            found += more
        return found, Places(judged, corrected)

    def _judged(self, last: int) -> tuple[list[Experience], int]:
        every = self.config.training.every
        query = (
            sa.select(answers, requests.c.key, requests.c.body)
            .join(requests, requests.c.id == answers.c.request)
            .where(answers.c.role == "learner", answers.c.trace.is_not(None))
        )
        found: list[Experience] = []
        while len(found) < every:  # answers that hold nothing to learn are passed over
            with reading(self.engine) as connection:
                rows = list(
                    connection.execute(query.where(answers.c.judged > last).order_by(answers.c.judged).limit(every))
                )
                ids = [row.request for row in rows]
                theirs = self._answers_of_others(connection, ids)
                # Without a comparator a correction judges nothing: `_corrected` reads it.
                told = corrections_of(connection, ids) if self.admission.compare is not None else {}
            if not rows:
                break
            for row in rows[: every - len(found)]:
                last = row.judged
                one = self._experience(row, theirs.get(row.request), told.get(row.request))
                if one is not None:
                    found.append(one)
        return found, last

    def _experience(self, row: Any, other: Any, correction: str | None) -> Experience | None:
        """Return what one judged answer teaches; None if that is nothing."""
        if held_back(row.request, self.config.training.held_back_share):
            return None
        trace: dict[str, Any] = json.loads(row.trace)
        if not trace["tokens"]:
            return None
        if not all(_finite(trace[name]) for name in ("logprobs", "values")):
            self.left_out["not_finite"] += 1
            return None
        score, ignored = row.score, False
        if row.judge == "user" or correction is not None:
            reason = self.admission.refuse(Word(row.key, correction), row.body or "")
            if reason:
                self.left_out[reason] += 1
                score, correction, ignored = self._stated(row, other), None, True
                if score is None:
                    return None
        text = None
        if score < self.config.takeover.correct_from:
            text = correction or self._incumbents(row.text or "", other, ignored=ignored)
        tokens, logprobs, values = (tuple(trace[name]) for name in ("tokens", "logprobs", "values"))
        action = Action(row.text or "", tokens, logprobs, values)
        shown = tuple(self.template.action(text)) if text else None
        return Experience(row.request, row.checkpoint, tuple(trace["prompt"]), action, score, shown)

    def _stated(self, row: Any, other: Any) -> float | None:
        """Return what the stated judges say of the learner's answer, whatever users said."""
        verify, compare = self.admission.verify, self.admission.compare
        score = verify(messages_text(row.body), row.text or "") if verify is not None else None
        if score is None and compare is not None and other is not None and row.text is not None:
            score = compare(row.text, other.text)
        return score

    def _incumbents(self, said: str, other: Any, *, ignored: bool) -> str | None:
        """Return the incumbent's answer if it may be imitated where the learner said `said` and was wrong.

        It may not where somebody judged it wrong (unless that word is `ignored`), nor where it is the learner's own.
        """
        if other is None or not self.config.training.imitate_incumbent or exact(other.text, said):
            return None
        rejected = other.score is not None and other.score < self.config.takeover.correct_from
        return None if rejected and not ignored else other.text

    def _corrected(self, last: int, most: int) -> tuple[list[Experience], int]:
        """Return corrections that no judgement carries, at most `most`: imitated, and scored by nobody."""
        ours = answers.alias("ours")
        query = (
            sa.select(feedback.c.number, feedback.c.request, feedback.c.text, requests.c.key, requests.c.body)
            .add_columns(ours.c.judge, ours.c.trace)
            .join(requests, requests.c.id == feedback.c.request)
            .outerjoin(ours, sa.and_(ours.c.request == requests.c.id, ours.c.role == "learner"))
            .where(feedback.c.kind == "correction", feedback.c.text.is_not(None))
            .order_by(feedback.c.number)
        )
        found: list[Experience] = []
        while len(found) < most:
            with reading(self.engine) as connection:
                rows = list(connection.execute(query.where(feedback.c.number > last).limit(self.config.training.every)))
            if not rows:
                break
            for row in rows[: most - len(found)]:
                fresh, last = row.number > last, row.number  # two learners may have answered one request
                one = self._demonstrated(row) if fresh else None
                if one is not None:
                    found.append(one)
        return found, last

    def _demonstrated(self, row: Any) -> Experience | None:
        carried = self.admission.compare is not None and row.judge == "user" and row.trace is not None
        if carried or held_back(row.request, self.config.training.held_back_share):
            return None
        prompt = json.loads(row.trace)["prompt"] if row.trace is not None else self._prompt(row.body)
        if not prompt:
            self.left_out["not_text"] += 1
            return None
        if reason := self.admission.refuse(Word(row.key, row.text), row.body or ""):
            self.left_out[reason] += 1
            return None
        shown = tuple(self.template.action(row.text))
        return Experience(row.request, "", tuple(prompt), Action("", (), ()), None, shown)

    def _prompt(self, body: str | None) -> list[int]:
        """Return the tokens of a request that the learner did not answer; none if it is no chat of plain text."""
        messages = messages_text(body)
        plain = plain_chat({"messages": messages}) if messages else None
        try:
            return self.template.start([Message(one["role"], one["content"]) for one in plain]) if plain else []
        except Exception:  # templates raise what they like about orders of roles
            return []

    def _answers_of_others(self, connection: Connection, ids: list[str]) -> dict[str, Any]:
        """Return the incumbent's or a person's answer to each of these requests that has one."""
        query = sa.select(answers.c.request, answers.c.text, answers.c.score).where(
            answers.c.request.in_(ids), answers.c.role != "learner", answers.c.text.is_not(None)
        )
        return {row.request: row for row in connection.execute(query)}


def _finite(numbers: list[float | None]) -> bool:
    return all(one is not None and math.isfinite(one) for one in numbers)
