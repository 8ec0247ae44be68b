"""Calls into environments, which are anybody's code: whatever goes wrong in one is a `Fault`, in one line.

Exits count as faults too; only an interruption (Ctrl-C, or being told to end) goes through. The process is as before
once a call is over (`process.py`). `Started` is a call in a thread of its own, with a limit of time.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from foretaste.envs.process import before_call

Result = TypeVar("Result")

CLOSE_SECONDS = 10.0
"""What an environment's close() may take; it is left alone then."""


class Fault(Exception):
    """A call into an environment failed; the message says which, and how."""


def told(error: object) -> str:
    """Return what an exception or another object of anybody's says of itself, in one line; it never raises."""
    try:
        return " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException as failed:
        return f"(its text cannot be read: {type(failed).__name__})"


def guarded(where: str, call: Callable[[], Result]) -> Result:
    """Return what `call` returns, with the process as before.

    Raises: Fault for every exception, exits included; KeyboardInterrupt alone goes through.
    """
    before = before_call()
    try:
        return contained(where, call)
    finally:
        before.put_back()


def contained(where: str, call: Callable[[], Result]) -> Result:
    """Do what `guarded` does, without a look at the process."""
    try:
        return call()
    except (KeyboardInterrupt, Fault):
        raise
    except SystemExit as error:
        raise Fault(
            f"{where} raised SystemExit: {told(error)}. An environment must not end the process; "
            "run what exits in a process of its own"
        ) from error
    except BaseException as error:  # GeneratorExit, CancelledError: nothing that an environment raises ends a run
        raise Fault(f"{where} raised {type(error).__name__}: {told(error)}") from error


class Started(Generic[Result]):
    """A call into an environment, going on in a thread of its own. The thread is a daemon: nothing waits for it."""

    def __init__(
        self,
        where: str,
        call: Callable[[], Result],
        *,
        limit: float | None,
        setting: str,
        slots: threading.Semaphore | None = None,
    ) -> None:
        """Start a call.

        `limit`: seconds it may take (None: any); `setting`: what to raise where that is too short; `slots`: as many
        calls go on at the same time, the others wait, and their seconds do not count.
        """
        self.where, self.limit, self.setting = where, limit, setting
        self._call, self._slots = call, slots
        self._before = before_call()
        self._outcome: list[tuple[Result | None, BaseException | None]] = []
        self._began, self._going, self._done = 0.0, threading.Event(), threading.Event()
        self._lock, self._held = threading.Lock(), slots is not None
        self.seconds = 0.0
        self.abandoned = False
        threading.Thread(target=self._work, name=f"foretaste {where}", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether the call has come back."""
        return self._done.is_set()

    def result(self) -> Result:
        """Wait for the call and return what it returns.

        Raises: Fault as `guarded` does, and when the limit has passed (`abandoned` is set then).
        """
        try:
            self._going.wait()
            left = None if self.limit is None else max(0.0, self._began + self.limit - time.perf_counter())
            if not self._done.wait(left):
                self.abandoned = True
                self._free_slot()
                raise Fault(f"{self.where} took longer than {self.limit:g} s; raise {self.setting} if it may")
        finally:
            self._before.put_back()
        value, error = self._outcome[0]
        if error is not None:
            raise error
        return value  # pyright: ignore[reportReturnType]

    def _work(self) -> None:
        if self._slots is not None:
            self._slots.acquire()
        self._began = time.perf_counter()
        self._going.set()
        try:
            self._outcome.append((contained(self.where, self._call), None))
        except BaseException as error:
            self._outcome.append((None, error))
        self.seconds = time.perf_counter() - self._began
        self._free_slot()
        self._done.set()

    def _free_slot(self) -> None:
        """Let another call begin; a call that was abandoned has done so already."""
        with self._lock:
            held, self._held = self._held, False
        if held and self._slots is not None:
            self._slots.release()


def wants_its_thread(message: str) -> bool:
    """Return whether a fault is one of a call in another thread than the environment was made in."""
    text = message.lower()
    return "thread" in text or "no current event loop" in text


def close(env: Any) -> None:
    """Close an environment; a failing or endless close() is warned of and left alone."""

    def call() -> None:
        env.close()

    try:
        try:
            Started("close", call, limit=CLOSE_SECONDS, setting="nothing: let close() end").result()
        except Fault as fault:
            if not wants_its_thread(str(fault)):
                raise
            guarded("close", call)
    except Fault as fault:
        warnings.warn(f"An environment of class {type(env).__name__} was not closed: {fault}", stacklevel=2)
