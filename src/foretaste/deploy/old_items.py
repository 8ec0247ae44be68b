"""The old tasks of a deployment: questions with right answers that the learner must not forget, from a file.

Each checkpoint answers them once, silently and beside everything else; `old_tasks.py` says whether it is worse than
the accepted one. Which were right is kept beside the store, so that a restart forgets nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import ClassVar, NamedTuple

from foretaste.deploy.analysis import Finding, Verdict
from foretaste.deploy.files import read_json, write_json
from foretaste.deploy.judging import Comparator, exact
from foretaste.deploy.learner import Learner, LearnerUnavailable, Messages
from foretaste.deploy.old_tasks import Pair, old_tasks_gate
from foretaste.deploy.settings import DeployConfig, OldTasksConfig
from foretaste.errors import ConfigError

DEADLINE_SECONDS = 120.0
AT_ONCE = 8
"""Items that are asked at the same time."""
FILE = "old_items.json"
KEPT = 32
"""Checkpoints whose answers are kept."""
NAME = "old tasks"


class Item(NamedTuple):
    """One question that must go on being answered rightly."""

    task: str
    messages: Messages
    answer: str


class OldItems:
    """Which old questions each checkpoint answered rightly; gathered in the event loop, read from anywhere."""

    NOTHING: ClassVar[Finding] = Finding(NAME, Verdict.SUCCESS, "no old tasks are configured")

    def __init__(
        self, items: list[Item], config: OldTasksConfig, compare: Comparator, file: Path, *, judged_by: str = ""
    ) -> None:
        """`file` is where right and wrong are kept; `judged_by` names the comparator: another may judge otherwise."""
        self.items, self._config, self._compare, self._file = items, config, compare, file
        self._keys = [_key(item, judged_by) for item in items]
        self._right: dict[str, dict[str, bool]] = {
            name: found for name, found in read_json(file).items() if isinstance(found, dict)
        }
        self._saved = self._count()
        self._asked: set[str] = set()
        self._reasons: dict[str, str] = {}

    @classmethod
    def load(cls, all_settings: DeployConfig, folder: Path, files: Path, compare: Comparator | None) -> OldItems | None:
        """Return the old tasks of the configured file, or None without one; `files` is the folder beside the store.

        Raises: ConfigError if the file is missing, or a line is no item.
        """
        config = all_settings.old_tasks
        if config.file is None:
            return None
        file = folder / config.file
        if not file.is_file():
            raise ConfigError(f"old_tasks.file: there is no {str(file)!r}")
        items: list[Item] = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                messages = [{"role": str(one["role"]), "content": str(one["content"])} for one in found["messages"]]
                items.append(Item(str(found.get("task", "old")), messages, str(found["answer"])))
            except (ValueError, KeyError, TypeError) as error:
                accepted = '{"messages": [{"role": ..., "content": ...}], "answer": ...}'
                raise ConfigError(f"{file}, line {number} is no item; accepted: {accepted}") from error
        return cls(items, config, compare or exact, files / FILE, judged_by=all_settings.takeover.comparator)

    def missing(self, checkpoint: str) -> int:
        """Return how many items a checkpoint has not answered yet."""
        known = self._right.get(checkpoint, {})
        return sum(key not in known for key in self._keys)

    def due(self, checkpoint: str) -> bool:
        """Return whether a checkpoint has not been asked all it has to answer since the server began."""
        return checkpoint not in self._asked and self.missing(checkpoint) > 0

    async def ask(self, learner: Learner) -> None:
        """Have a learner answer what its weights have not answered yet; what fails is asked again the next time."""
        checkpoint = learner.checkpoint or ""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(seed: int, item: Item, key: str) -> None:
            async with places:
                try:
                    found = await learner.answer(
                        item.messages, seed=seed, urgent=False, deadline_seconds=DEADLINE_SECONDS
                    )
                except LearnerUnavailable as error:
                    self._reasons[checkpoint] = str(error)[:32]
                    return
            right = (self._compare(found.text, item.answer) or 0.0) >= 1.0
            self._right.setdefault(found.checkpoint, {})[key] = right

        known = self._right.get(checkpoint, {})
        asked = [place for place in enumerate(zip(self.items, self._keys, strict=True)) if place[1][1] not in known]
        await asyncio.gather(*(one(seed, item, key) for seed, (item, key) in asked))
        self._asked.add(checkpoint)

    def save(self, *needed: str | None) -> None:
        """Write down what is new: the answers of the checkpoints that are needed, and of the newest others."""
        if self._count() == self._saved:
            return
        for name in list(self._right)[:-KEPT]:
            if name not in needed:
                del self._right[name]
        self._saved = self._count()
        write_json(self._file, {name: dict(found) for name, found in list(self._right.items())})

    def finding(self, checkpoint: str, accepted: str | None) -> Finding:
        """Return what the gate says of a checkpoint; a pause while it, or the accepted one, has items to answer."""
        first = f"the accepted version {(accepted or '')[:12]}, which does so while it is loaded (deploy rollback),"
        for name, who in ((checkpoint, "it"), (accepted, first)):
            if name is not None and (missing := self.missing(name)):
                failed = f"; the last failure: {self._reasons[name]}" if name in self._reasons else ""
                answered = f"{who} has answered {len(self.items) - missing} of {len(self.items)} old items"
                return Finding(NAME, Verdict.INCONCLUSIVE, f"{answered}{failed}")
        if checkpoint == accepted:
            return Finding(NAME, Verdict.SUCCESS, "it is the accepted version itself")
        before, now = self._right.get(accepted or "", {}), self._right.get(checkpoint, {})
        pairs = (Pair(item.task, before[key], now[key]) for item, key in zip(self.items, self._keys, strict=True))
        return old_tasks_gate(pairs if accepted else (), margin=self._config.margin, delta=self._config.delta)

    def _count(self) -> int:
        return sum(map(len, list(self._right.values())))


def _key(item: Item, judged_by: str) -> str:
    """Return what names an item in the file: an item with another answer is another item."""
    told = json.dumps([item.messages, item.answer, judged_by], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
