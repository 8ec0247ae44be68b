"""What came of one item in one wording: an Answer, with its mark, as the ledger keeps it.

Failures are told apart: a reply that is wrong, one that cannot be read, one that was cut off, one
that refuses, and an item whose environment, grader or endpoint failed. Only the last is no evidence
about the policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from foretaste.envs.grading import number, one_answer, without_thoughts
from foretaste.exams.paper import Item
from foretaste.records import Action, Episode, EpisodeEnd, Turn

_REFUSAL = re.compile(
    r"^\W*(?:(?:i['’]?m |i am )?(?:very |so )?sorry\b|i (?:can(?:not|['’]t| not)|am (?:not |un)able to|won['’]t)\b"
    r"|as an ai\b|unfortunately,? i\b"
    r"|(?:很|非常)?抱歉|对不起|對不起|我(?:无法|無法|不能|没法|沒法)|作为(?:一个|一名)?(?:ai|人工智能)"
    r"|申し訳|すみませんが|죄송|lo siento\b|no puedo\b|(?:je suis )?désolée?\b|je ne (?:peux|suis pas en mesure)\b"
    r"|(?:es )?tut mir (?:sehr )?leid\b|leider kann ich\b|ich kann (?:ihnen |dir |das |diese \w+ )?(?:leider )?nicht\b"
    r"|desculpe\b|não posso\b|mi dispiace\b|извините|к сожалению|я не могу)",
    re.IGNORECASE,
)
REFUSALS_READ_IN = "English, Chinese, Japanese, Korean, Spanish, French, German, Portuguese, Italian and Russian"
"""Languages whose usual refusals are known by how they begin; in others a refusal counts as wrong or unparseable."""


_MARKUP = tuple(
    re.compile(pattern, re.DOTALL | re.IGNORECASE)
    for pattern in (
        r"```[\w-]*\s*\n?(.*?)\n?```",
        r"\*\*(.*)\*\*\.?",
        r"[*_`](.*)[*_`]",
        r"\$?\$?\\boxed\{(.*)\}\$?\$?",
        r"\$\$?(.*?)\$\$?",
        r"(?:so,? |thus,? |therefore,? )?(?:the |my )?(?:final )?answer(?: is)?\s*[:=]?\s*(.*?)\.?",
        r"=\s*(.*)",
    )
)
"""What is often put around an answer, the answer its one group."""


class Mark(StrEnum):
    """What came of an item. All but ERROR are evidence about the policy."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSEABLE = "unparseable"
    """The reply cannot be read as an answer of the task's form, is blank, or would be right without its markup."""
    TRUNCATED = "truncated"
    """The token limit cut the reply, or the turn or context limit the episode."""
    REFUSED = "refused"
    """Not right, and the last reply begins as a refusal does, or the endpoint's content filter kept it back."""
    ERROR = "error"
    """The environment, its grader or the endpoint failed; left out of every score."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One item to be asked once."""

    item: int
    """Place in the sitting's list of items."""
    asked: Item
    sample: int = 0
    """0 is the attempt that counts; further ones of the plain wording tell how much is chance."""
    public: bool = False
    """An item of the public twin, asked for the gap."""
    scarce: bool = False
    """Of a family whose score is released through the Ladder or Thresholdout: its text is not kept."""

    @property
    def key(self) -> tuple[int, int, bool]:
        """What tells attempts of a sitting apart."""
        return self.item, self.sample, self.public


@dataclass(frozen=True, slots=True)
class Said:
    """One turn as the ledger keeps it: texts, and V before the reply."""

    observation: str
    action: str
    value: float | None = None
    checks: tuple[bool, ...] | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An attempt and what came of it."""

    item: int
    sample: int
    public: bool
    scarce: bool
    env: str
    level: int
    register: str
    seed: int
    cluster: str
    mark: Mark
    error: str | None = None
    retry: bool = False
    """True if a resumed sitting asks again: the endpoint failed, not the item."""
    trained_on: bool = False
    """True if the item, or its text as asked, is one that training has shown."""
    right_without_markup: bool = False
    """True if the reply is the right answer but for bold type, a fence, or words such as "The answer is"."""
    turns: tuple[Said, ...] = ()
    sampled_tokens: int = 0
    prompt_tokens: int = 0
    expected: str | None = None
    """The reference answer, of items of one turn that have one; for a regex its pattern."""

    @property
    def key(self) -> tuple[int, int, bool]:
        """The key of its attempt."""
        return self.item, self.sample, self.public

    @property
    def score(self) -> float | None:
        """1 for right, None for an error, else 0."""
        return None if self.mark is Mark.ERROR else float(self.mark is Mark.RIGHT)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Answer:
        """Read what `to_json` wrote."""
        turns = tuple(
            Said(**{**turn, "checks": None if turn["checks"] is None else tuple(turn["checks"])})
            for turn in values["turns"]
        )
        return cls(**{**values, "mark": Mark(values["mark"]), "turns": turns})

    def episode(self) -> Episode:
        """Return the episode as far as statistics need it: values at the turns' starts, checks, success."""
        turns = tuple(
            Turn(
                said.observation,
                Action(said.action, values=() if said.value is None else (said.value,), cut=said.cut),
                checks=said.checks,
            )
            for said in self.turns
        )
        end = EpisodeEnd.ERROR if self.mark is Mark.ERROR else EpisodeEnd.TERMINATED
        return Episode(
            self.env, self.seed, "sealed", self.level, self.register, turns, end, self.score, error=self.error
        )


def answer_of(
    attempt: Attempt,
    episode: Episode,
    *,
    failure: str | None = None,
    refused: bool = False,
    tokens: tuple[int, int] | None = None,
    values: bool = True,
    trained_on: bool = False,
) -> Answer:
    """Return the answer that an episode amounts to.

    `failure` is the endpoint's, if a request was given up; `refused` says that its content filter kept the reply back;
    `tokens` are those that it counted, read and sampled. `values=False` leaves V out (an untrained critic's).
    """
    mark = Mark.ERROR if failure else mark_of(episode)
    if refused and mark not in (Mark.RIGHT, Mark.ERROR):
        mark = Mark.REFUSED
    sampled = episode.action_tokens
    read = sum(len(turn.observation_tokens) for turn in episode.turns)
    said = tuple(
        Said(
            turn.observation,
            turn.action.text,
            turn.action.values[0] if values and turn.action.values else None,
            turn.checks,
            turn.action.cut,
        )
        for turn in episode.turns
    )
    if attempt.scarce:
        said = tuple(Said("", "", turn.value, turn.checks, turn.cut) for turn in said)
    asked = attempt.asked
    return Answer(
        *attempt.key,
        attempt.scarce,
        asked.env,
        asked.level,
        asked.register,
        asked.seed,
        asked.cluster,
        mark,
        error=failure or episode.error,
        retry=failure is not None,
        trained_on=trained_on,
        right_without_markup=mark is Mark.UNPARSEABLE and _bare_is_right(episode),
        turns=said,
        sampled_tokens=sampled if tokens is None else tokens[1],
        prompt_tokens=read if tokens is None else tokens[0],
    )


def mark_of(episode: Episode) -> Mark:
    """Return the mark of an episode; only a full success is right."""
    if episode.end is EpisodeEnd.ERROR or episode.success is None:
        return Mark.ERROR
    if episode.success >= 1.0:
        return Mark.RIGHT
    if not episode.turns:
        return Mark.TRUNCATED
    last = episode.turns[-1].action
    if _REFUSAL.match(without_thoughts(last.text)):
        return Mark.REFUSED
    if last.cut or episode.end is EpisodeEnd.TRUNCATED:
        return Mark.TRUNCATED
    readable = is_readable(episode.env, last.text) and not _bare_is_right(episode) and not _no_number(episode)
    return Mark.WRONG if readable else Mark.UNPARSEABLE


def without_markup(reply: str) -> str:
    """Return a reply without what is often put around an answer: bold type, fences, LaTeX boxes, "The answer is"."""
    text = one_answer(reply) or without_thoughts(reply).strip()
    for _ in range(3):  # one may stand inside another
        before = text
        for pattern in _MARKUP:
            if found := pattern.fullmatch(text):
                text = found[1].strip()
        if text == before:
            break
    return text


def _bare_is_right(episode: Episode) -> bool:
    """Return whether the reply of a single turn would be right without markup, by the reference answer alone."""
    gold = _gold(episode)
    if gold is None:
        return False
    reply = episode.turns[0].action.text
    bare = without_markup(reply)
    wanted = number(gold)
    alike = bare.casefold() == gold.casefold() or (wanted is not None and number(bare) == wanted)
    return alike and bare != one_answer(reply)


def _no_number(episode: Episode) -> bool:
    """Return whether a number was wanted and the reply is none."""
    gold = _gold(episode)
    if gold is None or number(gold) is None:
        return False
    answer = one_answer(episode.turns[0].action.text)
    return answer is None or number(answer) is None


def _gold(episode: Episode) -> str | None:
    """Return the reference answer of a task of one answer; None where the environment tells none as such."""
    if len(episode.turns) != 1 or _kind(episode.env) not in ("reasoning", "dataset", "route"):
        return None
    gold = episode.turns[0].privileged
    return gold.strip() if isinstance(gold, str) and gold.strip() else None


def is_readable(env: str, reply: str) -> bool:
    """Return whether a reply has the form of an answer; where the form is not known, whether it is not blank."""
    if not without_thoughts(reply).strip():
        return False
    reader = _READERS.get(_kind(env))
    return reader is None or reader(env, reply)


def _kind(env: str) -> str:
    return env.split(":")[0].split("/")[0].split("?")[0]


def _reasoning(env: str, reply: str) -> bool:
    from foretaste.envs.reasoning import LONGEST_ANSWER
    from foretaste.envs.reasoning_shapes import SHAPES

    answer, shape = one_answer(reply), SHAPES.get(env.partition("/")[2])
    return answer is not None and len(answer) <= LONGEST_ANSWER and (shape is None or shape(answer))


def _json_object(env: str, reply: str) -> bool:
    try:
        return isinstance(json.loads(without_thoughts(reply)), dict)
    except (ValueError, RecursionError):
        return False


def _queue(env: str, reply: str) -> bool:
    from foretaste.envs.route import QUEUES

    return without_thoughts(reply).strip().removesuffix(".").lower() in QUEUES


_READERS: dict[str, Callable[[str, str], bool]] = {
    "reasoning": _reasoning,
    "dataset": lambda env, reply: one_answer(reply) is not None,
    "extract": _json_object,
    "route": _queue,
}
"""By the environment's name up to "/", ":" or "?"."""
