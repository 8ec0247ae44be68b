"""What the lines of a data set say: each checked by itself, then whether they agree.

Lines that tables were turned into are read as they are meant: null (and NaN) is left out, 2.0 is the level 2, and
a number as answer is a number, however it is written. Next: `envs/dataset.py`, which plays them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste.envs.grading import GRADERS, grade, number
from foretaste.envs.questions.lines import SHAPE
from foretaste.envs.seeds import SPLITS, Split
from foretaste.errors import EnvError, unknown

_SHARES: tuple[tuple[Split, int], ...] = (("train", 70), ("practice", 85), ("sealed", 95), ("example", 100))
"""Upper ends of each split's share, in percent of the hash range."""
_FIELDS = ("prompt", "answer", "grader", "level", "split", "example")
_OPTIONAL = ("grader", "level", "split", "example")
_WHOLE = 2.0**53
"""Floats from here on do not tell whole numbers apart; they keep their own notation."""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a dataset."""

    prompt: str
    answer: str
    grader: str
    level: int
    split: Split
    example: str | None


def items_of(path: Path, lines: Sequence[str], default_split: Split | None = None) -> list[Item]:
    """Return the items of a file's lines, in order; those without a split get `default_split`, or their prompt's.

    Raises: EnvError naming the line of the first fault, or both lines of a contradiction.
    """
    found = list(_items(path, lines, default_split))
    if not found:
        raise EnvError(f'{path} holds no items; each line is {{"prompt": "...", "answer": "...", "grader": "exact"}}')
    items = [item for _, item in found]
    levels = {item.level for item in items}
    if len(levels) < max(levels):
        missing = next(level for level in range(1, max(levels)) if level not in levels)
        raise EnvError(f"{path} has no items of level {missing}; number the levels from 1 without gaps")
    places: dict[str, Split] = {}
    for item in items:
        if places.setdefault(item.prompt, item.split) != item.split:
            raise EnvError(
                f"{path}: the prompt {item.prompt[:60]!r} is in {places[item.prompt]} and in {item.split}; "
                "keep it in one"
            )
    _agree(path, found)
    return items


def split_of_prompt(prompt: str) -> Split:
    """Return the split of an item that names none: 70% train, 15% practice, 10% sealed, 5% example."""
    place = (
        int.from_bytes(hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") * 100
        >> 64
    )
    return next(split for split, end in _SHARES if place < end)


def _agree(path: Path, found: Sequence[tuple[int, Item]]) -> None:
    """Refuse a prompt with two different answers: no policy can be right on both, and neither score says so."""
    first: dict[tuple[str, int, str], tuple[int, Item]] = {}
    for line, item in found:
        before, other = first.setdefault((item.prompt, item.level, item.grader), (line, item))
        if _meant(other) != _meant(item):
            raise EnvError(
                f"{path} lines {before} and {line} give the prompt {item.prompt[:60]!r} different answers, "
                f"{other.answer[:60]!r} and {item.answer[:60]!r}, so that no reply is right on both. Keep one; if both "
                'are right, keep one line with "grader": "regex" or your own grader'
            )


def _meant(item: Item) -> Any:
    """Return what an answer says to its grader: equal where every reply earns the same."""
    if item.grader == "number":
        return number(item.answer)
    return item.answer.strip() if item.grader == "exact" else item.answer


def _items(path: Path, lines: Sequence[str], default_split: Split | None) -> Iterator[tuple[int, Item]]:
    for count, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {count}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EnvError(
                f"{where} is not JSON: {error}. A data set is JSON lines: one JSON object a line, {SHAPE}"
            ) from error
        if not isinstance(values, dict):
            raise EnvError(f'{where} is {type(values).__name__}; it must be an object with "prompt" and "answer"')
        yield count, _item(values, where, default_split)


def _item(given: dict[str, Any], where: str, default_split: Split | None) -> Item:
    strange = [name for name in given if name not in _FIELDS]
    if strange:
        raise EnvError(f"{where}: {unknown('field', strange[0], _FIELDS)}")
    values = {name: value for name, value in given.items() if not (name in _OPTIONAL and _absent(value))}
    prompt, answer, example = values.get("prompt"), values.get("answer"), values.get("example")
    if not isinstance(prompt, str) or not prompt.strip():
        raise EnvError(f'{where}: "prompt" is {prompt!r}; it must be a text that is not blank')
    grader = values.get("grader", "exact")
    if isinstance(answer, int | float) and not isinstance(answer, bool) and math.isfinite(answer):
        answer = _written(answer)
        if grader == "exact" and number(answer) is not None:
            grader = "number"
    if not isinstance(answer, str) or not answer.strip():
        raise EnvError(f'{where}: "answer" is {answer!r}; it must be a text or a number')
    if example is not None and not isinstance(example, str):
        raise EnvError(f'{where}: "example" is {example!r}; it must be a text')
    level, split = values.get("level", 1), values.get("split", default_split or split_of_prompt(prompt))
    level = int(level) if isinstance(level, float) and level.is_integer() else level
    if not isinstance(level, int) or isinstance(level, bool) or level < 1:
        raise EnvError(f'{where}: "level" is {level!r}; it must be a whole number from 1')
    if split not in SPLITS:
        raise EnvError(f"{where}: {unknown('split', str(split), SPLITS)}")
    if not isinstance(grader, str) or (grader not in GRADERS and ":" not in grader):
        raise EnvError(f"{where}: {unknown('grader', str(grader), [*GRADERS, 'module:callable'])}")
    judged = grade(GRADERS[grader], example or answer, answer) if grader in GRADERS else None
    if judged is not None and judged.error is not None:
        raise EnvError(f"{where}: {judged.error}")
    if judged is not None and judged.score < 1.0 and (grader != "regex" or example is not None):
        raise EnvError(f"{where}: the grader {grader} does not accept {example or answer!r} as right")
    return Item(prompt, answer, grader, level, split, example)


def _absent(value: Any) -> bool:
    """Return whether a table's cell was empty: null, or the NaN that pandas has for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _written(value: float) -> str:
    """Return a number as people write it: 5.0 is 5."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE
    return str(int(value)) if whole else str(value)
