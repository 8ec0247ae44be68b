"""`dataset:FILE.jsonl`: the user's own questions and answers as a single-turn environment.

One JSON object a line:

    {"prompt": "...", "answer": "...", "grader": "exact"}

`grader` (default exact) is `exact`, `number`, `regex` (the answer is a pattern that the reply must
match in full) or `module:callable`, called with (reply, answer) and returning a score in [0, 1].
Optional: `level` (whole number from 1), `split` (train, practice, sealed or example), and for
`regex` and callables `example`: a reply that is right, used as oracle. Without `split` an item's
place is decided by a hash of its prompt, so the same prompt is never in two splits;
`dataset:FILE.jsonl?default_split=sealed` puts all of those into one.
`questions/` reads the file, once in a process however many instances play it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

from foretaste.envs.base import TextEnv
from foretaste.envs.grading import GRADERS, Grader, grade
from foretaste.envs.questions.items import Item, items_of, split_of_prompt
from foretaste.envs.questions.lines import read_lines
from foretaste.envs.seeds import SPLITS, Split
from foretaste.errors import ConfigError, EnvError

__all__ = ["Dataset", "Item", "read_items", "split_of_prompt"]


class _Stamp(NamedTuple):
    """What changes with a file's content."""

    modified_ns: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class _Contents:
    """A file that was read; all instances of the process share it."""

    stamp: _Stamp
    items: tuple[Item, ...]
    pools: Mapping[tuple[str, int], tuple[Item, ...]]
    """The items of each split and level, in the file's order."""
    graders: tuple[str, ...]
    """The names of all graders in it."""


_contents: dict[tuple[Path, Split | None], _Contents] = {}
_reading = threading.Lock()


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
        contents = _contents_of(self.path, default_split)
        self.items, self._pools = contents.items, contents.pools
        self._levels = range(1, max(level for _, level in self._pools) + 1)
        self.graders = {name: _grader(name, self.path) for name in contents.graders}
        super().__init__(level)

    @property
    def levels(self) -> range:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The levels in the file."""
        return self._levels

    def checked_level(self, level: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return `level`, or raise ConfigError naming the levels in the file."""
        if level not in self.levels:
            raise ConfigError(f"{self.path} has no level {level!r}; it has {self.levels[0]} to {self.levels[-1]}")
        return level

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Draw an item of the split and level. Raises: EnvError if there is none."""
        split = cast(Split, self.split)
        pool = self._pools.get((split, self.level))
        if not pool:
            counts = {name: len(self._pools.get((name, self.level), ())) for name in SPLITS}
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

    def count(self, split: Split, level: int) -> int:
        """Return how many different questions a split has at a level."""
        return len({item.prompt for item in self._pools.get((split, level), ())})

    def worked_examples(self, count: int, level: int) -> list[list[tuple[str, str]]]:
        """Return up to `count` different items of the example split with right replies, in the file's order."""
        self.checked_level(level)
        shown = self._pools.get(("example", level), ())
        usable = [item for item in shown if item.grader != "regex" or item.example is not None]
        return [[(item.prompt, item.answer if item.example is None else item.example)] for item in usable[:count]]

    def _info(self) -> dict[str, Any]:
        return {"privileged": self.item.answer}


def read_items(path: Path, default_split: Split | None = None) -> list[Item]:
    """Return the items of a file in order; without `default_split`, a line without a split gets it from its prompt.

    Raises: EnvError for a missing or empty file or one that is no JSON lines, or naming the line of the first fault.
    """
    return items_of(path, read_lines(path), default_split)


def _contents_of(path: Path, default_split: Split | None) -> _Contents:
    """Return what a file holds; it is read again only after it has changed."""
    where = path.resolve()
    key = (where, default_split)
    with _reading:
        known = _contents.get(key)
        if known is not None and where.is_file() and known.stamp == _stamp(where):
            return known
        stamp = _stamp(where) if where.is_file() else None
        items = tuple(read_items(path) if default_split is None else read_items(path, default_split))
        pools: dict[tuple[str, int], list[Item]] = {}
        for item in items:
            pools.setdefault((item.split, item.level), []).append(item)
        found = _Contents(
            stamp or _stamp(where),
            items,
            {place: tuple(pool) for place, pool in pools.items()},
            tuple(dict.fromkeys(item.grader for item in items)),
        )
        _contents[key] = found
        return found


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return _Stamp(status.st_mtime_ns, status.st_size, status.st_ino)


def _grader(name: str, path: Path) -> Grader:
    if name in GRADERS:
        return GRADERS[name]
    from foretaste.envs.registry import load_object

    found = load_object(name, f"grader of {path}")
    if not callable(found):
        raise EnvError(f"The grader {name!r} of {path} is {type(found).__name__}, not callable")
    return cast(Grader, found)
