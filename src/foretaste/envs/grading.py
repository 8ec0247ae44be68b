"""Whether a reply is right: one answer is read strictly, a grader judges it, a failing grader is an error.

"Strict" means that a reply which hedges ("5 or 6"), gives several answers, or adds prose around a
bare answer earns nothing; graders that search a reply for the right words pay for all of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import regex

from foretaste.envs.guarded import told

Grader = Callable[[str, str], float]
"""(reply, gold answer) -> score in [0, 1]."""

_OPEN, _CLOSE = "<answer>", "</answer>"
_NUMBER = re.compile(r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_FRACTION = re.compile(r"[+-]?\d{1,50}/\d{1,50}", re.ASCII)
_LONGEST_NUMBER = 60

REGEX_SECONDS = 1.0
"""What matching one reply may take. Patterns of a data set may be such that each further character doubles it."""

_THOUGHTS = "think|thinking|thought|thoughts|reasoning"
_THOUGHT_BLOCK = re.compile(rf"\s*(?:<({_THOUGHTS})>.*?</\1>|\[THINK\].*?\[/THINK\])", re.DOTALL | re.IGNORECASE)
_OPEN_THOUGHT = re.compile(rf"\s*(?:<(?:{_THOUGHTS})>|\[THINK\])", re.IGNORECASE)
_CLOSED_THOUGHT = re.compile(rf"</(?:{_THOUGHTS})>|\[/THINK\]", re.IGNORECASE)


class Grade(NamedTuple):
    """What a reply earns."""

    score: float
    error: str | None = None
    """What failed in the grader, in one line; the score means nothing then."""


def without_thoughts(reply: str) -> str:
    """Return a reply without the thinking that models write before it; a reply without any is returned as it is.

    Thinking is a block <think>...</think> (or a tag of a like name) at the beginning. Where a template has opened it,
    the reply holds the end alone: everything up to the last one is left out. A block that is never closed leaves
    nothing.
    """
    rest = reply
    while block := _THOUGHT_BLOCK.match(rest):
        rest = rest[block.end() :]
    if _OPEN_THOUGHT.match(rest):
        return ""
    ends = list(_CLOSED_THOUGHT.finditer(rest))
    rest = rest[ends[-1].end() :] if ends else rest
    return reply if rest == reply else rest.lstrip()


def one_answer(reply: str) -> str | None:
    """Return the one answer of a reply, or None if it has none or several. Thoughts before it are left out.

    The answer is what stands between <answer> and </answer> at the end of the reply, thoughts
    before it allowed; without these tags it is the whole reply, blanks around it dropped.
    """
    reply = without_thoughts(reply)
    if _OPEN not in reply and _CLOSE not in reply:
        return reply.strip() or None
    if reply.count(_OPEN) != 1 or reply.count(_CLOSE) != 1:
        return None
    _, _, rest = reply.partition(_OPEN)
    answer, closed, after = rest.partition(_CLOSE)
    return (answer.strip() or None) if closed and not after.strip() else None


def number(text: str) -> Fraction | None:
    """Return the number that the whole text is (12, -3.5, 1,200, 2e3, 3/4), or None.

    A final full stop is dropped; a typographic minus is one.
    """
    text = text.strip().removesuffix(".").replace("\N{MINUS SIGN}", "-")
    if not text or len(text) > _LONGEST_NUMBER:
        return None
    if _FRACTION.fullmatch(text):
        return None if int(text.partition("/")[2]) == 0 else Fraction(text)
    return Fraction(text.replace(",", "")) if _NUMBER.fullmatch(text) else None


def exact(reply: str, gold: str) -> float:
    """Return 1.0 if the one answer is the gold text, character for character, blanks around both dropped."""
    return float(one_answer(reply) == gold.strip())


def same_number(reply: str, gold: str) -> float:
    """Return 1.0 if the one answer is a single number equal to the gold one.

    Raises: ValueError if the gold answer is no number.
    """
    wanted = number(gold)
    if wanted is None:
        raise ValueError(f"the gold answer {gold!r} is not a number")
    answer = one_answer(reply)
    return float(answer is not None and number(answer) == wanted)


def matches(reply: str, pattern: str) -> float:
    """Return 1.0 if the whole of the one answer matches the regular expression.

    Patterns are those of Python's `re`; the module `regex` matches them, since it takes a limit of time.

    Raises: re.error if the pattern is no regular expression; TimeoutError where matching takes too long.
    """
    re.compile(pattern)
    answer = one_answer(reply)
    if answer is None:
        return 0.0
    try:
        return float(regex.fullmatch(pattern, answer, flags=regex.VERSION0, timeout=REGEX_SECONDS) is not None)
    except TimeoutError as error:
        raise TimeoutError(
            f"the pattern {pattern[:60]!r} took longer than {REGEX_SECONDS:g} s on a reply of {len(answer)} "
            "characters; repetitions inside repetitions, such as (a+)+, are the usual cause"
        ) from error


GRADERS: dict[str, Grader] = {"exact": exact, "number": same_number, "regex": matches}
"""Graders by the names that a dataset uses."""


def grade(grader: Grader, reply: str, gold: str) -> Grade:
    """Return what the grader gives; an exception or a score outside [0, 1] becomes `error`."""
    name = getattr(grader, "__qualname__", type(grader).__name__)
    try:
        score = float(grader(reply, gold))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # exits too: a grader is anybody's code
        return Grade(0.0, f"grader {name} raised {type(error).__name__}: {told(error)}"[:300])
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        return Grade(0.0, f"grader {name} returned {score!r}; a score lies in [0, 1]")
    return Grade(score)
