"""Logs of other harnesses, read for a comparison: files and folders of Inspect and lm-evaluation-harness.

Only what a paired comparison needs is read: which item, which cluster, which score. Neither harness
has to be installed. What the formats are: `other_harnesses/inspect_logs.py`, `other_harnesses/lm_eval_logs.py`.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from foretaste.errors import ConfigError
from foretaste.exams.other_harnesses import inspect_logs, lm_eval_logs
from foretaste.exams.other_harnesses.inspect_logs import InspectLog
from foretaste.exams.other_harnesses.lm_eval_logs import Samples
from foretaste.exams.other_harnesses.scores import Log, Scored, Wanted

__all__ = ["Log", "Scored", "TaskLog", "open_logs", "read_log"]

_SUFFIXES = (".eval", ".json", ".json.gz", ".jsonl", ".jsonl.gz")


class TaskLog(NamedTuple):
    """One task of an evaluation, not yet reduced to one metric."""

    opened: InspectLog | Samples
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The task's name; "" where it is not known."""
        return self.opened.task

    @property
    def metrics(self) -> list[str]:
        """What its items are scored by, as `--metric` takes it."""
        if isinstance(self.opened, InspectLog):
            return inspect_logs.metrics_of(self.opened)
        return [f"{metric},{filter}" for metric, filter in lm_eval_logs.metrics_of(self.opened)]

    def scores(self, *, metric: str | None = None, cluster: str | None = None) -> Log:
        """Return the scores under one metric.

        Raises: ConfigError for a metric or cluster field that there is not, or if several metrics are left.
        """
        wanted, path = Wanted(metric, cluster), self.opened.path
        try:
            if isinstance(self.opened, InspectLog):
                log = inspect_logs.scores_of(self.opened, wanted)
            else:
                log = lm_eval_logs.scores_of(self.opened, wanted)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(path, error) from error
        return replace(log, notes=(*self.notes, *log.notes))


def read_log(path: Path, *, metric: str | None = None, cluster: str | None = None) -> Log:
    """Read the scores of one task: an Inspect log, lm-evaluation-harness samples, or a folder with one task.

    Args:
        metric: scorer (Inspect: `SCORER` or `SCORER.KEY`) or metric (lm-evaluation-harness: `METRIC` or
            `METRIC,FILTER`); needed where a log has several.
        cluster: field of an item's metadata (Inspect) or document (lm-evaluation-harness) that names
            its cluster, e.g. a passage that several questions share. "cluster" is looked for by itself.

    Raises: ConfigError for a path that holds none of these, or several tasks, or an ambiguous or unknown metric.
    """
    tasks = open_logs(path)
    if len(tasks) > 1:
        raise ConfigError(f"{path} holds several tasks: {', '.join(task.task for task in tasks)}; give one file")
    return tasks[0].scores(metric=metric, cluster=cluster)


def open_logs(path: Path) -> list[TaskLog]:
    """Return the tasks that a file or folder holds, by name; of several runs of a task in one folder the newest.

    Raises: ConfigError for a path that holds no log, or a task of several models.
    """
    if not path.is_dir():
        return [TaskLog(_opened(path))]
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_log(file)]
    if not files:
        raise ConfigError(
            f"The folder {path} holds no samples_*.jsonl of lm-evaluation-harness (--log_samples) and no log of Inspect"
        )
    tasks: dict[str, list[InspectLog | Samples]] = {}
    for file in files:
        opened = _opened(file)
        tasks.setdefault(opened.task or file.name, []).append(opened)
    return [_newest(task, runs) for task, runs in sorted(tasks.items())]


def _is_log(file: Path) -> bool:
    if file.name.startswith("samples_"):
        return file.name.endswith((".jsonl", ".jsonl.gz"))
    if file.suffix == ".eval":
        return True
    if not file.name.endswith((".json", ".json.gz")) or "results" in file.name:
        return False
    try:
        inspect_logs.open_log(file)
    except (ConfigError, ValueError, OSError):
        return False
    return True


def _opened(path: Path) -> InspectLog | Samples:
    if not path.is_file():
        raise ConfigError(f"There is no sitting and no file {str(path)!r}. Sittings: foretaste exam list")
    if not path.name.endswith(_SUFFIXES):
        raise ConfigError(
            f"{path} is no log that can be read; accepted: .eval, .json or .json.gz (Inspect), .jsonl or .jsonl.gz "
            "(lm-evaluation-harness)"
        )
    try:
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            return lm_eval_logs.open_samples(path)
        return inspect_logs.open_log(path)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} cannot be read as such a log: {type(error).__name__}: {error}")


def _newest(task: str, runs: list[InspectLog | Samples]) -> TaskLog:
    if len(runs) == 1:
        return TaskLog(runs[0])
    makers = {run.model if isinstance(run, InspectLog) else str(run.path.parent) for run in runs}
    names = ", ".join(str(run.path) for run in runs)
    if len(makers) > 1:
        raise ConfigError(f"Task {task!r} is there of several models: {names}. Give the file or folder of one")
    last = max(runs, key=lambda run: (run.created, run.path.name) if isinstance(run, InspectLog) else (run.stamp, ""))
    others = ", ".join(str(run.path) for run in runs if run is not last)
    return TaskLog(last, (f"{task} was run {len(runs)} times: the newest is read, {last.path}, and not {others}",))
