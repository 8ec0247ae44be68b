"""Show how a study's jobs go: a bar for each running job on a terminal, one line a finished job elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from foretaste.lab.jobs import Job
from foretaste.progress import duration


class JobDisplay:
    """A `workers.Watcher` for people; use it as a context manager."""

    def __init__(self, title: str, total: int, console: Console | None = None) -> None:
        self.console = console or Console()
        self._total, self._ended = total, 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._all = self._bars.add_task(escape(title), total=max(1, total), words="")
        self._rows: dict[tuple[str, int], TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def started(self, job: Job) -> None:
        """Add the job's bar."""
        self._rows[job.arm, job.seed] = self._bars.add_task(escape(_name(job)), total=1.0, words="")

    def moved(self, job: Job, share: float, text: str) -> None:
        """Move the job's bar."""
        self._bars.update(self._rows[job.arm, job.seed], completed=share, words=escape(text))

    def ended(self, job: Job, payload: dict[str, Any]) -> None:
        """Take the bar away and leave one line."""
        self._bars.remove_task(self._rows.pop((job.arm, job.seed)))
        self._ended += 1
        self._bars.update(self._all, completed=self._ended, words=f"{self._ended} of {self._total} jobs")
        how = (
            f"failed: {payload['error'].strip().splitlines()[0]}"
            if payload["status"] == "failed"
            else _success(payload)
        )
        took = duration(payload["seconds"])
        self.console.print(
            escape(f"[{self._ended}/{self._total}] {_name(job)}: {how} ({took})"), highlight=False, soft_wrap=True
        )


def _name(job: Job) -> str:
    return f"{job.arm}, seed {job.seed}"


def _success(payload: dict[str, Any]) -> str:
    result = payload.get("result") or {}
    after = result.get("success_after")
    return "done" if after is None else f"held-out success {result.get('success_before', 0.0):.3f} -> {after:.3f}"
