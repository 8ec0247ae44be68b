"""How fast an endpoint may be asked, learned from its rate limits: slow down, never give up because of one.

Additive increase, multiplicative decrease, as TCP does it (Jacobson 1988): each limit met halves how many requests may
be open and stretches the time between two starts; each answer wins a little of it back. A wait that the server names
holds for everybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST_PAUSE_SECONDS = 60.0
"""Of a pause that no server has named."""
_FIRST_SPACING, _SLOWER, _QUICKER = 0.1, 1.6, 0.97


class Pace:
    """Lets requests start, at most `concurrent` of them open. Thread-safe."""

    def __init__(
        self,
        concurrent: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._most = self._allowed = max(1, concurrent)
        self._open = 0
        self._spacing = 0.0
        self._next_start = 0.0
        self._limits_in_a_row = 0
        self._last_answer = self._changed = clock()
        self._clock, self._sleep = clock, sleep
        self._free = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[float]:
        """Wait until a request may start; it is open until the block ends. Yields when it started."""
        with self._free:
            while self._open >= self._allowed:
                self._free.wait()
            self._open += 1
        try:
            yield self._wait_for_start()
        finally:
            with self._free:
                self._open -= 1
                self._free.notify_all()

    def answered(self) -> None:
        """Count an answer."""
        with self._free:
            self._last_answer = self._clock()
            self._limits_in_a_row = 0
            self._spacing = self._spacing * _QUICKER if self._spacing > 1e-3 else 0.0
            if self._spacing < _FIRST_SPACING:
                self._allowed = min(self._most, self._allowed + 1)
            self._free.notify_all()

    def limited(self, wish: float | None, pause: float, started: float) -> float:
        """Take a rate limit in; return the seconds for which nobody has been answered.

        `wish` is the wait that the server names. Without one the pause, `pause` at first, doubles with each limit that
        no answer comes between. Of requests that were open together (`started` before the last change) one counts.
        """
        with self._free:
            now = self._clock()
            if started >= self._changed:
                self._changed = now
                self._limits_in_a_row += 1
                self._allowed = max(1, self._allowed // 2)
                if wish is None:
                    self._spacing = min(LONGEST_PAUSE_SECONDS, max(_FIRST_SPACING, self._spacing * _SLOWER))
            own = min(LONGEST_PAUSE_SECONDS, pause * 2 ** min(20, self._limits_in_a_row - 1))
            self._next_start = max(self._next_start, now + (own if wish is None else wish))
            return now - self._last_answer

    def _wait_for_start(self) -> float:
        while True:
            with self._free:
                now = self._clock()
                if now >= self._next_start:
                    self._next_start = now + self._spacing
                    return now
                wait = self._next_start - now
            self._sleep(min(wait, 1.0))
