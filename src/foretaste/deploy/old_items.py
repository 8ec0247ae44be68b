"""The old tasks of a deployment: questions with right answers that the learner must not forget, from a file.

Each checkpoint answers them once, silently; `old_tasks.py` says whether it is worse than the accepted one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, NamedTuple

from foretaste.deploy.analysis import Finding, Verdict
from foretaste.deploy.judging import Comparator, exact
from foretaste.deploy.learner import Learner, LearnerUnavailable, Messages
from foretaste.deploy.old_tasks import Pair, old_tasks_gate
from foretaste.deploy.settings import OldTasksConfig
from foretaste.errors import ConfigError

DEADLINE_SECONDS = 120.0


class Item(NamedTuple):
    """One question that must go on being answered rightly."""

    task: str
    messages: Messages
    answer: str


class OldItems:
    """Answers of each checkpoint to the old questions, kept while the server runs."""

    NOTHING: ClassVar[Finding] = Finding("old tasks", Verdict.SUCCESS, "no old tasks are configured")

    def __init__(self, items: list[Item], config: OldTasksConfig, compare: Comparator) -> None:
        self.items, self._config, self._compare = items, config, compare
        self._right: dict[str, list[bool]] = {}

    @classmethod
    def load(cls, config: OldTasksConfig, folder: Path, compare: Comparator | None) -> OldItems | None:
        """Return the old tasks of the configured file, or None without one.

        Raises: ConfigError if the file is missing, or a line is no item.
        """
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
        return cls(items, config, compare or exact)

    async def finding(self, learner: Learner, checkpoint: str, accepted: str | None) -> Finding | None:
        """Return what the gate says of a checkpoint; None while it has not answered all of them.

        The checkpoint's own answers are kept: when it is accepted, they are what the next one is held against.
        """
        if checkpoint not in self._right:
            right: list[bool] = []
            for seed, item in enumerate(self.items):
                try:
                    found = await learner.answer(
                        item.messages, seed=seed, urgent=False, deadline_seconds=DEADLINE_SECONDS
                    )
                except LearnerUnavailable:
                    return None
                if found.checkpoint != checkpoint:
                    return None
                right.append((self._compare(found.text, item.answer) or 0.0) >= 1.0)
            self._right[checkpoint] = right
        before = self._right.get(accepted or "")
        pairs = zip(self.items, before or (), self._right[checkpoint], strict=False)
        return old_tasks_gate(
            (Pair(item.task, was, now) for item, was, now in pairs),
            margin=self._config.margin,
            delta=self._config.delta,
        )
