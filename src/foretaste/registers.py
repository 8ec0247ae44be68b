"""Registers: the same request in other words, with the answer kept by construction.

`rewrite` puts a frame around an untouched payload, or edits only words of a closed list outside
protected spans. Whole families are held out: training never uses them, exams do. The texts are in
`wordings.py`; environments call `rewrite`, exams compare its registers item by item.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foretaste.errors import ConfigError, unknown
from foretaste.wordings import (
    CONTRACTIONS,
    CONTROL_SENTENCES,
    DISTRACTORS,
    FRAMES,
    LAST_DISTRACTOR,
    LONG_CONTROL_OPENING,
    MISSPELLINGS,
    PLAIN_WORDS,
    SPRINKLED,
    Frame,
)


@dataclass(frozen=True, slots=True)
class Register:
    """A way of saying the same thing."""

    name: str
    family: str
    """Registers of one family resemble each other; families are held out whole."""
    held_out: bool
    """True: never used in training, so that exams measure more than memorised wordings."""
    description: str


def _listed(*rows: tuple[str, str, bool, str]) -> dict[str, Register]:
    return {name: Register(name, family, held_out, text) for name, family, held_out, text in rows}


REGISTERS: dict[str, Register] = _listed(
    ("plain", "plain", False, "the environment's own wording, unchanged"),
    ("terse", "tone", False, "a one-word heading"),
    ("polite", "tone", False, "please and thank you around the payload"),
    ("casual", "tone", False, "chat style around the payload"),
    ("formal", "tone", False, "office style around the payload"),
    ("impatient", "tone", False, "an annoyed sender around the payload"),
    ("typos", "surface", False, "common words misspelt"),
    ("contractions", "surface", False, "do not becomes don't"),
    ("lower_case", "surface", False, "common words in lower case"),
    ("shouting", "surface", False, "common words in capitals"),
    ("emoji", "emoji", False, "emoji around the payload"),
    ("emoji_dense", "emoji", False, "emoji after common words"),
    ("control_short", "control", False, "neutral filler as long as a tone frame, so that length is no register"),
    ("control_long", "control", False, "neutral filler as long as the distractors"),
    ("chinese", "language", True, "a Chinese frame around the payload"),
    ("spanish", "language", True, "a Spanish frame around the payload"),
    ("german", "language", True, "a German frame around the payload"),
    ("distractor_before", "distractor", True, "irrelevant sentences before the payload"),
    ("distractor_after", "distractor", True, "irrelevant sentences after the payload"),
    ("tagged", "layout", True, "the payload between tags"),
    ("email", "layout", True, "the payload in an e-mail"),
)
"""Every register by name; `plain` is the identity."""

DISTRACTOR_SENTENCES = 3
_TYPO_SHARE = 0.5
_EMOJI_SHARE = 0.3
_END_OF_TASK = "(The task ends here.)"

_DIGITS = re.compile(r"\S*\d\S*")
_QUOTED = re.compile(
    r"```.*?```|`[^`]*`|\"[^\"]*\"|“[^”]*”|‘[^’]*’|«[^»]*»|(?<!\w)'[^'\n]*'(?!\w)|\{[^{}]*\}|\[[^\[\]]*\]|<[^<>]*>|\([^()]*\)",
    re.DOTALL,
)
_SENTENCE = re.compile(r"(?:[^\n.!?]|[.!?](?!\s))+[.!?]*")
_ABOUT_THE_ANSWER = re.compile(
    r"\b(?:answer|repl(?:y|ies)|respon[ds]|return|output|format|print|submit|say)", re.IGNORECASE
)
_LISTED_WORDS = re.compile(r"\w+(?:[ \t]*[,;|/][ \t]*\w+){2,}(?:[ \t]*,?[ \t]*(?:and|or)[ \t]+\w+)?")
_LONE_WORD = re.compile(r"^\W*\w+\W*$", re.MULTILINE)
_WORD = re.compile(r"(?<![^\s])([A-Za-z]+)(?=[,;:.!?]*(?:\s|$))")
_PAIR = re.compile(
    r"(?<![^\s])(" + "|".join(f"{first} {second}" for first, second in CONTRACTIONS) + r")(?=[,;:.!?]*(?:\s|$))",
    re.IGNORECASE,
)


def families() -> dict[str, tuple[str, ...]]:
    """Return register names by family, in the order of `REGISTERS`."""
    grouped: dict[str, tuple[str, ...]] = {}
    for register in REGISTERS.values():
        grouped[register.family] = (*grouped.get(register.family, ()), register.name)
    return grouped


def trainable() -> tuple[str, ...]:
    """Return the registers that training may draw from: those of families that are not held out."""
    return tuple(register.name for register in REGISTERS.values() if not register.held_out)


def rewrite(
    text: str,
    register: str,
    rng: random.Random,
    *,
    protected: Sequence[str] = (),
    letters_matter: bool = False,
) -> str:
    """Return `text` in another register; everything that could carry the answer survives exactly.

    Frames, controls and distractors keep the whole payload byte-identical. The surface edits and
    `emoji_dense` change only common words of a closed list, outside of: `protected` strings, tokens
    with digits, quoted or bracketed text, code, lists of words, sentences about the answer's format.
    Names are safe because they are not in the closed list.

    Args:
        protected: strings that must survive wherever they occur, e.g. an item's entities.
        letters_matter: the answer depends on letters, words or case of the payload: the payload is
            left untouched in every register, and its end is marked where text follows it.

    Raises: ConfigError for an unknown register.
    """
    if register not in REGISTERS:
        raise ConfigError(unknown("register", register, REGISTERS))
    if register == "plain":
        return text
    frame = _frame(register, text, rng)
    edit = _EDITS.get(register)
    if edit is not None and not letters_matter:
        text = edit(text, protected_spans(text, protected), rng)
    return _framed(text, frame, mark_end=letters_matter)


def protected_spans(text: str, protected: Sequence[str] = ()) -> list[tuple[int, int]]:
    """Return the merged (start, end) spans of `text` that no edit may touch."""
    shapes = (_DIGITS, _QUOTED, _LISTED_WORDS, _LONE_WORD)
    spans = [match.span() for shape in shapes for match in shape.finditer(text)]
    spans += [match.span() for match in _SENTENCE.finditer(text) if _ABOUT_THE_ANSWER.search(match[0])]
    for phrase in filter(None, protected):
        start = text.find(phrase)
        while start >= 0:  # overlapping occurrences too
            spans.append((start, start + len(phrase)))
            start = text.find(phrase, start + 1)
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


# Frames -------------------------------------------------------------------------------------------


def _framed(text: str, frame: Frame, *, mark_end: bool) -> str:
    before = f"{frame.before}\n" if frame.before else ""
    after = f"\n{frame.after}" if frame.after else ""
    return f"{before}{text}\n{_END_OF_TASK}{after}" if after and mark_end else f"{before}{text}{after}"


def _frame(register: str, text: str, rng: random.Random) -> Frame:
    """Choose the text around the payload."""
    if register == "control_short":
        return Frame(_filler(rng.choice(CONTROL_SENTENCES), _tone_length(rng), rng))
    if register == "control_long":
        return Frame(_filler(LONG_CONTROL_OPENING, len(_distractors(text, rng)), rng))
    if register == "distractor_before":
        return Frame(_distractors(text, rng))
    if register == "distractor_after":
        return Frame(after=_distractors(text, rng))
    return rng.choice(FRAMES[register])


def _distractors(text: str, rng: random.Random) -> str:
    """Choose sentences that share no naming word with the payload."""
    words = _naming_words(text)
    free = [sentence for sentence in DISTRACTORS if not words & _naming_words(sentence)]
    chosen = rng.sample(free, min(DISTRACTOR_SENTENCES, len(free)))
    return " ".join(chosen) or LAST_DISTRACTOR


def _naming_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold())) - PLAIN_WORDS - {"a", "i", "s"}


def _tone_length(rng: random.Random) -> int:
    """Return the length in characters of a random tone frame."""
    name = rng.choice(families()["tone"])
    return sum(map(len, rng.choice(FRAMES[name])))


def _filler(opening: str, length: int, rng: random.Random) -> str:
    """Return neutral sentences whose length in characters comes as near to `length` as whole sentences allow."""
    sentences = [sentence for sentence in CONTROL_SENTENCES if sentence != opening]
    rng.shuffle(sentences)
    chosen = opening
    for sentence in sentences:
        if len(chosen) + 1 + len(sentence) / 2 > length:
            break
        chosen = f"{chosen} {sentence}"
    return chosen


# Edits --------------------------------------------------------------------------------------------

Edit = Callable[[str, list[tuple[int, int]], random.Random], str]


def _substitute(
    pattern: re.Pattern[str], text: str, spans: list[tuple[int, int]], change: Callable[[re.Match[str]], str]
) -> str:
    """Replace matches that touch no protected span."""
    pieces: list[str] = []
    position = 0
    for match in pattern.finditer(text):
        if any(start < match.end() and match.start() < end for start, end in spans):
            continue
        pieces += [text[position : match.start()], change(match)]
        position = match.end()
    return "".join([*pieces, text[position:]])


def _typos(text: str, spans: list[tuple[int, int]], rng: random.Random) -> str:
    def misspelt(match: re.Match[str]) -> str:
        word = match[1]
        wrong = MISSPELLINGS.get(word.lower())
        if wrong is None or rng.random() >= _TYPO_SHARE:
            return word
        return wrong.capitalize() if word[0].isupper() else wrong

    return _substitute(_WORD, text, spans, misspelt)


def _contract(text: str, spans: list[tuple[int, int]], rng: random.Random) -> str:
    def contracted(match: re.Match[str]) -> str:
        first, second = match[1].lower().split(" ")
        short = CONTRACTIONS[first, second]
        return short.capitalize() if match[1][0].isupper() else short

    return _substitute(_PAIR, text, spans, contracted)


def _lower(text: str, spans: list[tuple[int, int]], rng: random.Random) -> str:
    return _substitute(_WORD, text, spans, lambda match: match[1].lower() if _is_plain(match[1]) else match[1])


def _shout(text: str, spans: list[tuple[int, int]], rng: random.Random) -> str:
    return _substitute(_WORD, text, spans, lambda match: match[1].upper() if _is_plain(match[1]) else match[1])


def _sprinkle(text: str, spans: list[tuple[int, int]], rng: random.Random) -> str:
    def decorated(match: re.Match[str]) -> str:
        if not _is_plain(match[1]) or rng.random() >= _EMOJI_SHARE:
            return match[1]
        return f"{match[1]} {rng.choice(SPRINKLED)}"

    return _substitute(_WORD, text, spans, decorated)


def _is_plain(word: str) -> bool:
    return word.lower() in PLAIN_WORDS


_EDITS: dict[str, Edit] = {
    "typos": _typos,
    "contractions": _contract,
    "lower_case": _lower,
    "shouting": _shout,
    "emoji_dense": _sprinkle,
}
