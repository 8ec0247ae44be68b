"""What the server writes down: an exchange (a request and who answered it), and what somebody says of an answer.

All plain values, made on the request's path and written later by the writer's thread (`writer.py`).
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class LearnerAnswer:
    """What the learner says to one request, with what it needs to learn from it."""

    text: str
    checkpoint: str
    value: float
    """V of the request, before the first token."""
    answer_value: float
    """V before the last token: the whole answer has been seen."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: bool = False
    """True if a limit ended the answer before the learner did; such an answer is never served."""
    seconds: float = 0.0
    trace: dict[str, Any] | None = None
    """prompt ids, sampled ids, log-probabilities, values: what training needs; None for learners without tokens."""


@dataclass(slots=True)
class Answer:
    """One answer to a request, given to the user or not."""

    role: str
    """incumbent, learner or person."""
    served: bool
    seconds: float
    raw: bytes | None = None
    """The incumbent's body as it came; the writer reads its text out of it."""
    content_type: str = ""
    content_encoding: str = ""
    text: str | None = None
    learner: LearnerAnswer | None = None
    harm: float = 0.0
    verdict: float | None = None
    """What the verifier says of a silent answer, in [0, 1]."""


@dataclass(slots=True)
class Exchange:
    """One request of a user, and the answers that belong to it."""

    id: str
    key: str
    body: bytes
    stage: str
    stream: bool
    created: float = field(default_factory=time.time)
    drawn: bool = False
    sampled: bool = False
    check_share: float | None = None
    """Probability with which it was drawn as a check."""
    second: bool = False
    """Drawn for the second judge."""
    route: str = "nobody"
    reason: str = ""
    status: int = 0
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    most_tokens: int | None = None
    """The request's own limit on the tokens of an answer; not written down."""


class LateAnswer(NamedTuple):
    """An answer that came after the user's: a silent one, or the incumbent's for a check."""

    request: str
    answer: Answer


class Verdict(NamedTuple):
    """What the verifier says of the learner's answer to a request, once the user has been answered."""

    request: str
    score: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody says about the answer that was given."""

    response: str
    """The id in the answer's body, or the one in its header x-foretaste-id."""
    key: str
    kind: str
    """score, thumbs, correction or verifier."""
    score: float | None
    """In [0, 1]; None for a correction, which is compared with the answer."""
    text: str | None = None
    """The correct answer."""

    @property
    def digest(self) -> str:
        """What makes two feedbacks the same."""
        return hashlib.sha256(json.dumps([self.kind, self.score, self.text]).encode()).hexdigest()


class Accepted(NamedTuple):
    """What the store says to a feedback that it has written to disk."""

    request: str
    judged: str
    """Whose answer was judged: learner, incumbent, person, or nobody's."""
