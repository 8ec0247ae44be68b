"""How a run tells what it is doing: a protocol, a live display, plain lines, and silence.

The training loop calls `Progress` and knows nothing of terminals. Metrics that must last go to
the ledger; what is shown here is for the person who waits. Next: `writers.py`, `docs/metrics.md`.
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from foretaste.records import RunSummary

SPARKS, PLAIN_SPARKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
"""Heights of a sparkline; the second where the terminal's encoding has no blocks."""
SHOWN = ("train/success", "value/explained_variance", "policy/entropy", "policy/kl")
"""Metrics of the live line; all of them are in the ledger and the report."""


class Progress(Protocol):
    """What the training loop tells while it runs."""

    def phase(self, name: str, total: int | None) -> None:
        """Begin a phase of `total` units of work (None: not known)."""
        ...

    def advance(self, n: int = 1) -> None:
        """`n` more units of the current phase are done."""
        ...

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """The metrics of a finished step; names are defined in docs/metrics.md."""
        ...

    def note(self, text: str) -> None:
        """One line that stays on the screen."""
        ...

    def finish(self, summary: RunSummary) -> None:
        """The run is over."""
        ...


class Silent:
    """Shows nothing: the default in Python and in tests."""

    def phase(self, name: str, total: int | None) -> None:
        del name, total

    def advance(self, n: int = 1) -> None:
        del n

    def metrics(self, step: int, values: dict[str, float]) -> None:
        del step, values

    def note(self, text: str) -> None:
        del text

    def finish(self, summary: RunSummary) -> None:
        del summary


class RichProgress:
    """A live display on a terminal; one plain line a phase and a step where output is a file or a pipe.

    The display begins with the first phase and ends with the run; as a context manager it also ends
    when the run fails. `steps` is the run's number of updates, for the time that is left; `clock` returns seconds.
    """

    def __init__(
        self, *, steps: int | None = None, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console or Console()
        self.steps = steps
        self._clock = clock
        self._told: set[str] = set()
        self._step: int | None = None
        self._latest: dict[str, float] = {}
        self._success: deque[float] = deque(maxlen=40)
        self._tokens_per_second: float | None = None
        self._step_times: deque[float] = deque(maxlen=8)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._bar = self._bars.add_task("start", total=None)
        self._live = (
            Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def phase(self, name: str, total: int | None) -> None:
        """Show a new phase; without a terminal, print its name when it comes for the first time."""
        if self._live and not self._live.is_started:
            self._live.start()
            atexit.register(self._live.stop)  # the cursor comes back even if nobody closes the display
        self._bars.reset(self._bar, total=total, description=name)
        if not self._live and name not in self._told:
            self._print(name + (f" ({total})" if total else ""))
        self._told.add(name)

    def advance(self, n: int = 1) -> None:
        """Move the phase's bar."""
        self._bars.advance(self._bar, n)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Keep the newest metrics of the step; without a terminal, print them as one line."""
        now = self._clock()
        self._step_times.append(now)
        self._step = step
        self._latest = {**self._latest, **values}
        if "train/success" in values:
            self._success.append(values["train/success"])
        seconds = values.get("time/sample_seconds", 0.0)
        if seconds > 0 and "train/sampled_tokens" in values:
            self._tokens_per_second = values["train/sampled_tokens"] / seconds
        if not self._live:
            self._print(self._step_line())

    def note(self, text: str) -> None:
        """Print a line above the display."""
        self._print(text)

    def finish(self, summary: RunSummary) -> None:
        """Close the display; the caller shows the summary."""
        del summary
        if self._live:
            self._live.stop()

    def seconds_left(self) -> float | None:
        """Return the estimated seconds until the last step, from the steps seen; None before the second."""
        if self.steps is None or self._step is None or len(self._step_times) < 2:
            return None
        each = (self._step_times[-1] - self._step_times[0]) / (len(self._step_times) - 1)
        return each * max(0, self.steps - self._step)

    def _print(self, text: str) -> None:
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    def _step_line(self) -> str:
        """Return the step, the shown metrics, the speed and the time left as one line."""
        parts = [f"step {self._step}" + (f"/{self.steps}" if self.steps else "")]
        parts += [f"{name.split('/')[1]} {self._latest[name]:.3f}" for name in SHOWN if name in self._latest]
        if self._tokens_per_second is not None:
            parts.append(f"{self._tokens_per_second:.0f} tokens/s")
        left = self.seconds_left()
        if left is not None:
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)

    def _render(self) -> RenderableType:
        rows: list[RenderableType] = [self._bars.get_renderable()]
        if self._success:
            marks = SPARKS if _can_show(SPARKS, self.console.encoding) else PLAIN_SPARKS
            rows.append(Text(f"success {sparkline(list(self._success), marks=marks)} {self._success[-1]:.2f}"))
        if self._step is not None:
            rows.append(Text(self._step_line(), overflow="ellipsis", no_wrap=True))
        return Group(*rows)


def _can_show(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True


def sparkline(values: list[float], *, low: float = 0.0, high: float = 1.0, marks: str = SPARKS) -> str:
    """Return one of `marks` a value, its height the value's place between `low` and `high`."""
    places = [min(max((value - low) / (high - low), 0.0), 1.0) for value in values]
    return "".join(marks[round(place * (len(marks) - 1))] for place in places)


def duration(seconds: float) -> str:
    """Return seconds as a person says them: "48 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
