"""Evaluations of several tasks, compared task by task, as a folder of logs holds them.

Where all tasks have the same metric, they are also compared as one, each item counting alike (as
lm-evaluation-harness weighs the tasks of a group). Each row alone is tested at alpha / rows, so that the chance of
one wrong "better" in the whole table is alpha at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foretaste.errors import ConfigError
from foretaste.exams.comparing import Comparison, compare
from foretaste.exams.logs import Log, TaskLog
from foretaste.exams.other_harnesses.scores import text_hash


@dataclass(frozen=True, slots=True)
class TaskTable:
    """B against A on every task of two evaluations."""

    rows: tuple[Comparison, ...]
    """A task under one metric each."""
    together: Comparison | None
    """All tasks as one; None where their metrics or directions differ."""
    in_one_alone: tuple[str, ...]
    """Tasks that only one of the two has."""

    @property
    def better(self) -> str | None:
        """What the whole says, else what the rows say that are decided, if they agree."""
        if self.together is not None:
            return self.together.better
        found = {row.better for row in self.rows} - {None}
        return found.pop() if len(found) == 1 else None

    @property
    def exit_code(self) -> int:
        """0: B is better; 1: A is better; 2: undecided."""
        return {"B": 0, "A": 1, None: 2}[self.better]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        together = None if self.together is None else self.together.to_json()
        rows = [row.to_json() for row in self.rows]
        return {"better": self.better, "together": together, "rows": rows, "in_one_alone": list(self.in_one_alone)}


def compare_tasks(
    a: Sequence[TaskLog],
    b: Sequence[TaskLog],
    names: tuple[str, str],
    *,
    metric: str | None = None,
    cluster: str | None = None,
    alpha: float = 0.05,
    lower_is_better: bool | None = None,
    despite_differences: bool = False,
) -> TaskTable:
    """Compare the tasks that both have, under each metric that both have or the one that is named.

    A task without the named metric is compared under its own, if it has just one.

    Raises: ConfigError if they share no task, or as `compare` does.
    """
    first, second = ({log.task: log for log in side} for side in (a, b))
    shared = [task for task in first if task in second]
    if not shared:
        raise ConfigError(
            f"{names[0]} and {names[1]} share no task: {', '.join(first)} in one, {', '.join(second)} in the other"
        )
    sides = [
        (first[task].scores(metric=name, cluster=cluster), second[task].scores(metric=name, cluster=cluster))
        for task in shared
        for name in _metrics(first[task], second[task], metric)
    ]
    settings: dict[str, Any] = {"lower_is_better": lower_is_better, "despite_differences": despite_differences}
    rows = tuple(compare(x, y, alpha=alpha / len(sides), **settings) for x, y in sides)
    together = None
    alike = {(row.metric, row.filter, row.higher_is_better) for row in rows}
    if len(rows) > 1 and len(rows) == len(shared) and len(alike) == 1:
        whole = [_as_one([pair[side] for pair in sides], names[side]) for side in (0, 1)]
        together = compare(*whole, alpha=alpha, **settings)
    return TaskTable(rows, together, tuple(task for task in {**first, **second} if task not in shared))


def _metrics(a: TaskLog, b: TaskLog, wanted: str | None) -> list[str]:
    """Return the metrics of a task's rows in the table.

    Raises: ConfigError if the two share none, or lack the one that is wanted and have several.
    """
    there = [name for name in a.metrics if name in b.metrics]
    named = [n for n in there if wanted in (n, n.partition(",")[0], n.rpartition(".")[2])] if wanted else there
    if wanted and not named and len(there) == 1:
        named = there
    if not named:
        raise ConfigError(
            f"Task {a.task!r} has no metric {wanted or ''!r} in both: {', '.join(a.metrics) or 'none'} in one, "
            f"{', '.join(b.metrics) or 'none'} in the other"
        )
    return named


def _as_one(logs: Sequence[Log], name: str) -> Log:
    """Return the scores of several tasks as one log; equal questions of two tasks stay apart."""
    scores = [
        s._replace(
            item=f"{log.task}:{s.item}",
            cluster=f"{log.task}:{s.cluster}",
            stratum=log.task,
            text=s.text and text_hash(log.task, s.text),
        )
        for log in logs
        for s in log.scores
    ]
    one = logs[0]
    fields = {log.cluster_field for log in logs}
    return Log(
        name,
        scores,
        metric=one.metric,
        filter=one.filter,
        grader=one.grader,
        higher_is_better=one.higher_is_better,
        cluster_field=one.cluster_field if len(fields) == 1 else "",
    )
