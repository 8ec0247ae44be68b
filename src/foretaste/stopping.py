"""Being told to end (SIGTERM of a scheduler, SIGHUP of a closed terminal) is an interruption like Ctrl-C.

    with terminable():      the signals raise Terminated, which is a KeyboardInterrupt
        with later():       ... but only once this block is over: what is half done would be lost
            ...

Programs that handle the signals themselves are left alone, and so are threads, in which Python allows no handlers.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from foretaste.errors import Terminated

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Windows has no SIGHUP."""


class _Pending:
    """What has been asked while it could not be done."""

    depth = 0
    signal: int | None = None


@contextmanager
def terminable() -> Iterator[None]:
    """Let the signals that end a process raise Terminated while the block runs."""
    here = threading.current_thread() is threading.main_thread()
    # A program's own handler, and the "ignore" of nohup, stay.
    mine = [number for number in SIGNALS if here and signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _asked)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def later() -> Iterator[None]:
    """Put a termination off until the block is over; a second signal does not wait.

    Blocks of other threads put nothing off: handlers run in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: int | None = None
    _Pending.depth += 1
    try:
        yield
    finally:
        _Pending.depth -= 1
        if _Pending.depth == 0:
            asked, _Pending.signal = _Pending.signal, None
    if asked is not None:
        raise Terminated(asked)


def _asked(number: int, frame: Any) -> None:
    del frame
    if _Pending.depth and _Pending.signal is None:
        _Pending.signal = number
        return
    _Pending.signal = None
    raise Terminated(number)
