"""Whether users wait for the learner: after a missed deadline nobody does, until it has answered a probe in time.

Without it, a process that is stopped would cost user after user the whole deadline. Next: `chat.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0


class Attendance:
    """Used from the server's event loop alone."""

    def __init__(self, probe: Callable[[], Awaitable[bool]]) -> None:
        """`probe` asks the learner something small and says whether it answered in time."""
        self.out = False
        """True while users do not wait for the learner."""
        self.missed = 0
        """Deadlines that were missed so far."""
        self._probe = probe
        self._task: asyncio.Task[None] | None = None

    def miss(self) -> None:
        """A deadline was missed: take the learner out, and begin to probe it."""
        self.missed += 1
        if not self.out:
            self.out = True
            self._task = asyncio.create_task(self._wait_for_answer())

    async def close(self) -> None:
        """End the probes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _wait_for_answer(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while self.out:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            if await self._probe():
                self.out = False
