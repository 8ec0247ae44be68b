"""`dataset:FILE.jsonl`: the user's own questions and answers as a single-turn environment.

One JSON object a line:

    {"prompt": "...", "answer": "...", "grader": "exact"}

`grader` (default exact) is `exact`, `number`, `regex` (the answer is a pattern that the reply must
match in full) or `module:callable`, called with (reply, answer) and returning a score in [0, 1].
Optional: `level` (whole number from 1), `split` (train, practice, sealed or example), and for
`regex` and callables `example`: a reply that is right, used as oracle. Without `split` an item's
place is decided by a hash of its prompt, so the same prompt is never in two splits;
`dataset:FILE.jsonl?default_split=sealed` puts all of those into one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from foretaste.envs.base import TextEnv
from foretaste.envs.grading import GRADERS, Grader, grade
from foretaste.envs.seeds import SPLITS, Split
from foretaste.errors import ConfigError, EnvError, unknown

_SHARES: tuple[tuple[Split, int], ...] = (("train", 70), ("practice", 85), ("sealed", 95), ("example", 100))
"""Upper ends of each split's share, in percent of the hash range."""
_FIELDS = ("prompt", "answer", "grader", "level", "split", "example")


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a dataset."""

    prompt: str
    answer: str
    grader: str
    level: int
    split: Split
    example: str | None


class Dataset(TextEnv):
    """One prompt of the file, one reply; success and reward are the grader's score.

    An item is drawn from its split and level by the seed. Levels are those in the file; difficulty
    is whatever the data holds. A grader that raises makes the episode an error.
    """

    name: ClassVar[str] = "dataset"
    listed: ClassVar[bool] = True
    instructions: ClassVar[str] = "Answer the question. Reply with the answer and nothing else."

    def __init__(self, path: str | Path, level: int | None = None, default_split: Split | None = None) -> None:
        """Read the file; `default_split` is where lines without a split belong.

        Raises: EnvError naming the file and line of the first fault.
        """
        self.path = Path(path)
        self.items = read_items(self.path, default_split)
        self.graders = {item.grader: _grader(item.grader, self.path) for item in self.items}
        super().__init__(level)

    @property
    def levels(self) -> range:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The levels in the file."""
        return range(1, max(item.level for item in self.items) + 1)

    def checked_level(self, level: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return `level`, or raise ConfigError naming the levels in the file."""
        if level not in self.levels:
            raise ConfigError(f"{self.path} has no level {level!r}; it has {self.levels[0]} to {self.levels[-1]}")
        return level

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Draw an item of the split and level. Raises: EnvError if there is none."""
        split = cast(Split, self.split)
        pool = [item for item in self.items if item.split == split and item.level == self.level]
        if not pool:
            counts = {name: sum(i.split == name and i.level == self.level for i in self.items) for name in SPLITS}
            raise EnvError(
                f"{self.path} has no {split} items at level {self.level}; items by split: {counts}. "
                'Add lines, or place lines with a field "split"'
            )
        self.item = self.random.choice(pool)
        return self.item.prompt, self._info()

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Grade the reply; the episode ends."""
        judged = grade(self.graders[self.item.grader], action, self.item.answer)
        if judged.error is not None:
            return "", 0.0, True, {**self._info(), "error": judged.error}
        return "", judged.score, True, {**self._info(), "success": judged.score}

    def oracle(self) -> str:
        """Return a right reply. Raises: EnvError for a regex or callable without a field "example"."""
        if self.item.example is not None:
            return self.item.example
        if self.item.grader == "regex":
            raise EnvError(f'{self.path}: a regex item needs a field "example" to be demonstrated')
        return self.item.answer

    def reference(self) -> str:
        """Return the answer as the file has it, for readers: of a regex its pattern."""
        return self.item.answer

    def worked_examples(self, count: int, level: int) -> list[list[tuple[str, str]]]:
        """Return up to `count` different items of the example split with right replies, in the file's order."""
        self.checked_level(level)
        shown = (item for item in self.items if item.split == "example" and item.level == level)
        usable = [item for item in shown if item.grader != "regex" or item.example is not None]
        return [[(item.prompt, item.answer if item.example is None else item.example)] for item in usable[:count]]

    def count(self, split: Split, level: int) -> int:
        """Return how many different questions a split has at a level."""
        return len({item.prompt for item in self.items if (item.split, item.level) == (split, level)})

    def _info(self) -> dict[str, Any]:
        return {"privileged": self.item.answer}


def read_items(path: Path, default_split: Split | None = None) -> list[Item]:
    """Return the items of a file in order; without `default_split`, a line without a split gets it from its prompt.

    Raises: EnvError for a missing or empty file, or naming the line of the first fault.
    """
    if not path.is_file():
        raise EnvError(f"No dataset at {str(path)!r}; name a file of JSON lines, e.g. dataset:orders.jsonl")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise EnvError(f"{path} is not UTF-8 text: {error}") from error
    items = list(_items(path, lines, default_split))
    if not items:
        raise EnvError(f'{path} holds no items; each line is {{"prompt": "...", "answer": "...", "grader": "exact"}}')
    missing = set(range(1, max(item.level for item in items))) - {item.level for item in items}
    if missing:
        raise EnvError(f"{path} has no items of level {min(missing)}; number the levels from 1 without gaps")
    places: dict[str, Split] = {}
    for item in items:
        if places.setdefault(item.prompt, item.split) != item.split:
            raise EnvError(
                f"{path}: the prompt {item.prompt[:60]!r} is in {places[item.prompt]} and in {item.split}; "
                "keep it in one"
            )
    return items


def split_of_prompt(prompt: str) -> Split:
    """Return the split of an item that names none: 70% train, 15% practice, 10% sealed, 5% example."""
    place = (
        int.from_bytes(hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") * 100
        >> 64
    )
    return next(split for split, end in _SHARES if place < end)


def _items(path: Path, lines: list[str], default_split: Split | None) -> Iterator[Item]:
    for count, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {count}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EnvError(f"{where} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise EnvError(f'{where} is {type(values).__name__}; it must be an object with "prompt" and "answer"')
        yield _item(values, where, default_split)


def _item(values: dict[str, Any], where: str, default_split: Split | None) -> Item:
    strange = [name for name in values if name not in _FIELDS]
    if strange:
        raise EnvError(f"{where}: {unknown('field', strange[0], _FIELDS)}")
    prompt, answer, example = values.get("prompt"), values.get("answer"), values.get("example")
    if not isinstance(prompt, str) or not prompt.strip():
        raise EnvError(f'{where}: "prompt" is {prompt!r}; it must be a text that is not blank')
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise EnvError(f'{where}: "answer" is {answer!r}; it must be a text or a number')
    if example is not None and not isinstance(example, str):
        raise EnvError(f'{where}: "example" is {example!r}; it must be a text')
    level, split = values.get("level", 1), values.get("split", default_split or split_of_prompt(prompt))
    if not isinstance(level, int) or isinstance(level, bool) or level < 1:
        raise EnvError(f'{where}: "level" is {level!r}; it must be a whole number from 1')
    if split not in SPLITS:
        raise EnvError(f"{where}: {unknown('split', str(split), SPLITS)}")
    grader = values.get("grader", "exact")
    if not isinstance(grader, str) or (grader not in GRADERS and ":" not in grader):
        raise EnvError(f"{where}: {unknown('grader', str(grader), [*GRADERS, 'module:callable'])}")
    judged = grade(GRADERS[grader], example or answer, answer) if grader in GRADERS else None
    if judged is not None and judged.error is not None:
        raise EnvError(f"{where}: {judged.error}")
    if judged is not None and judged.score < 1.0 and (grader != "regex" or example is not None):
        raise EnvError(f"{where}: the grader {grader} does not accept {example or answer!r} as right")
    return Item(prompt, answer, grader, level, split, example)


def _grader(name: str, path: Path) -> Grader:
    if name in GRADERS:
        return GRADERS[name]
    from foretaste.envs.registry import load_object

    found = load_object(name, f"grader of {path}")
    if not callable(found):
        raise EnvError(f"The grader {name!r} of {path} is {type(found).__name__}, not callable")
    return cast(Grader, found)
