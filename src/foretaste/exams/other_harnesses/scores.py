"""What is read of another harness's log: one `Scored` an item, and a `Log` that says how they were scored.

The readers are beside this file (`inspect_logs.py`, `lm_eval_logs.py`); `exams/comparing.py` pairs what they return.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.errors import ConfigError, unknown

OURS = "foretaste"
"""Grader of a log whose items are an exam's own: they pair across harnesses, since one grader scored them."""


class Scored(NamedTuple):
    """One score of one item."""

    item: str
    """Its id, and the number of the repetition; equal in two logs for the same item, if the text is the same too."""
    cluster: str
    """Scores of one cluster are right or wrong together."""
    score: float | None
    """None: the item failed with an error."""
    stratum: str = ""
    """Task or family, for comparisons on different items."""
    text: str = ""
    """Hash of what was asked and of the reference answer; "" where the id says it all."""


@dataclass(frozen=True, slots=True)
class Log:
    """All scores of one sitting, or of one task of an evaluation under one metric."""

    name: str
    scores: list[Scored]
    task: str = ""
    """"" where it is not known, or the items name themselves."""
    metric: str = ""
    """Scorer (Inspect) or metric (lm-evaluation-harness)."""
    filter: str = ""
    """Of lm-evaluation-harness: how the answer was taken out of the reply."""
    grader: str = OURS
    """foretaste, inspect or lm-eval."""
    higher_is_better: bool | None = True
    """None: the log does not say."""
    cluster_field: str = ""
    """The field that names the clusters; "" where each item is its own."""
    notes: tuple[str, ...] = ()
    """What a reader of the comparison must know of this log."""


class Wanted(NamedTuple):
    """What the user asks to be read."""

    metric: str | None = None
    cluster: str | None = None


def text_hash(*parts: Any) -> str:
    """Return a hash of what makes a question the one it is."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def clusters_of(
    rows: Sequence[tuple[str, Mapping[str, Any]]], wanted: str | None, path: Path
) -> tuple[list[str], str, tuple[str, ...]]:
    """Return the cluster of every (item id, fields), the field that named them, and a note where some lack it.

    Raises: ConfigError if no item has the field that is wanted, naming those there are.
    """
    field = wanted or "cluster"
    having = sum(fields.get(field) is not None for _, fields in rows)
    if not having:
        if wanted is not None:
            there = sorted({name for _, fields in rows for name in fields})
            raise ConfigError(unknown(f"field to cluster by in {path}:", wanted, there))
        return [item for item, _ in rows], "", ()
    found = [_plain(fields[field]) if fields.get(field) is not None else f"item {item}" for item, fields in rows]
    lacking = len(rows) - having
    note = (f"{lacking} of {len(rows)} scores in {path} have no field {field!r}: each is its own cluster",)
    return found, field, note if lacking else ()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def chosen(there: Iterable[str], wanted: str | None, path: Path, *, what: str = "metric") -> str:
    """Return the metric that is wanted, or the only one; a wanted one may be given by its last part, if that is clear.

    Raises: ConfigError that names those there are.
    """
    there = list(there)
    if wanted is not None:
        if wanted in there:
            return wanted
        ends = [name for name in there if name.endswith(f".{wanted}")]
        if len(ends) == 1:
            return ends[0]
        raise ConfigError(unknown(f"{what} in {path}:", wanted, ends or there))
    if len(there) != 1:
        raise ConfigError(f"{path} has the {what}s {', '.join(there)}; choose one: --metric NAME")
    return there[0]
