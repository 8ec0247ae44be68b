"""A sealed exam of a person's own questions: the paper of a JSONL file, and the rows of a sitting's answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.envs.dataset import Dataset
from foretaste.envs.seeds import Split
from foretaste.errors import ConfigError
from foretaste.exams.answers import Answer
from foretaste.exams.paper import Family, Paper, resolve
from foretaste.ledger import Ledger, RunInfo


class OwnPaper(NamedTuple):
    """A paper of a file, and how far its questions go."""

    paper: Paper
    questions: int
    """Different questions that the paper may ask, over all levels."""
    per_look: int
    """Of these, how many one sitting asks."""


def paper_of(
    file: Path,
    *,
    name: str = "",
    items: int | None = None,
    looks: int = 5,
    threshold: float = 0.8,
    public: bool = False,
) -> OwnPaper:
    """Return the paper that asks the questions of a file; lines without a `split` all belong to it.

    `items` are the questions of one sitting and level, all of them by default. A public paper asks the same ones at
    every sitting; a sealed one never asks a question twice.

    Raises: EnvError for a file that is no dataset, naming the line; ConfigError for a file without such questions.
    """
    split: Split = "practice" if public else "sealed"
    data = Dataset(file, default_split=split)
    sizes = {level: data.count(split, level) for level in data.levels}
    levels = tuple(level for level, size in sizes.items() if size)
    if not levels:
        raise ConfigError(
            f'No line of {file} may be asked: each has a "split" of its own, none is {split!r}. Leave "split" out, or '
            f'write "split": "{split}"'
        )
    if items is not None and items < 1:
        raise ConfigError(f"items = {items} cannot be used; accepted: 1 or more, or leave it out to ask all")
    groups: dict[int, list[int]] = {}
    for level in levels:
        groups.setdefault(sizes[level] if items is None else min(items, sizes[level]), []).append(level)
    env = f"dataset:{file}?default_split={split}"
    families = tuple(Family(env, levels=tuple(group), items=size) for size, group in groups.items())
    title = name or re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-") or "own"
    paper = Paper(title, families, f"The questions of {file}", threshold=threshold, sealed=not public, looks=looks)
    return OwnPaper(resolve(paper), sum(sizes.values()), sum(size * len(group) for size, group in groups.items()))


def answer_rows(ledger: Ledger, sitting: str) -> list[dict[str, Any]]:
    """Return every answer of a sitting as plain values, in the order of its items; of scarce families none.

    Where an item was asked again, the latest answer counts.
    """
    found: dict[Any, Answer] = {}
    for record in ledger.records(sitting, "answer"):
        answer = Answer.from_json(record.payload)
        if not answer.scarce:
            found[answer.key] = answer
    return [
        {
            "item": answer.item,
            "task": answer.env,
            "level": answer.level,
            "wording": answer.register,
            "sample": answer.sample,
            "public": answer.public,
            "question": answer.turns[0].observation if answer.turns else None,
            "reply": answer.turns[-1].action if answer.turns else None,
            "turns": len(answer.turns),
            "right_answer": answer.expected,
            "mark": answer.mark.value,
            "score": answer.score,
            "error": answer.error,
        }
        for answer in sorted(found.values(), key=lambda a: (a.public, a.item, a.sample))
    ]


def sitting_rows(ledger: Ledger, paper: str | None = None) -> list[tuple[RunInfo, dict[str, Any], int]]:
    """Return (sitting, its verdict or {}, its look or 0), oldest first."""
    rows = []
    for info in ledger.runs("exam"):
        if paper in (None, info.name):
            verdicts, plans = ledger.records(info.id, "verdict"), ledger.records(info.id, "plan")
            look = int(plans[-1].payload.get("look") or 0) if plans else 0
            rows.append((info, verdicts[-1].payload if verdicts else {}, look))
    return rows
