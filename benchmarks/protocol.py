"""How the benchmark talks to a side: a process that keeps its model loaded and does what a line of JSON asks.

Standard library only. The sides are `side_*.py`; `sides.py` starts them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


class Line:
    """The side's end. What libraries print from now on goes to standard error; standard output holds answers alone."""

    def __init__(self) -> None:
        """Take over standard output."""
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yield requests until there are no more."""
        self.say({"ready": True})
        for line in sys.stdin:
            yield json.loads(line)

    def request(self) -> dict[str, Any] | None:
        """Return the next request; None if there are no more."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def say(self, answer: dict[str, Any]) -> None:
        """Answer one request."""
        print(json.dumps(answer), file=self._out)


def serve(line: Line, work: Callable[..., dict[str, float]]) -> None:
    """Do `work(name, seed, quick)` for each request; answer what it returns, its seconds and the peak memory so far.

    `work` returns its "tokens", and may return what else `sides.Measured` has.
    """
    for request in line.requests():
        started = time.perf_counter()
        done = work(request["name"], request["seed"], request["quick"])
        line.say({"seconds": time.perf_counter() - started, "peak_bytes": peak_bytes(), **done})


def peak_bytes() -> int:
    """Return the largest memory that this process has had in use at a time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
