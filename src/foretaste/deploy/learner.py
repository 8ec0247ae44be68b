"""The learner as the server sees it: one interface, and a scripted learner for trials and tests.

`learner_client.py` holds the one that matters: an actor-critic in a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from foretaste.deploy.records import LearnerAnswer

Messages = list[dict[str, Any]]


class LearnerUnavailable(Exception):
    """The learner gives no answer now; the message says why in a word or two, fit for a metric's label."""


class Learner(Protocol):
    """Anything that answers chats with a value."""

    @property
    def checkpoint(self) -> str | None:
        """Content id of the weights that answer now; None while none are loaded."""
        ...

    @property
    def path(self) -> str:
        """Where these weights were loaded from."""
        ...

    @property
    def fault(self) -> str:
        """Why the last weights could not be loaded; empty if they could."""
        ...

    @property
    def ended(self) -> bool:
        """True once it was closed or killed."""
        ...

    async def answer(self, messages: Messages, *, seed: int, urgent: bool, deadline_seconds: float) -> LearnerAnswer:
        """Answer one chat; `urgent` ones, which a user waits for, go first.

        Raises: LearnerUnavailable if it is busy, dead, or too slow.
        """
        ...

    async def load(self, path: str) -> str:
        """Take up other weights between two requests, and return their content id.

        Raises: LearnerUnavailable if they cannot be loaded; the old ones then go on.
        """
        ...

    async def close(self) -> None:
        """End whatever runs."""
        ...

    def kill(self) -> None:
        """End it at once, from any thread, whatever it is doing."""
        ...


class ScriptedLearner:
    """A function from messages to (text, value) as a learner; `load` changes its name and nothing else."""

    def __init__(self, function: Callable[[Messages], tuple[str, float]], *, seconds: float = 0.0) -> None:
        """`seconds` is how long each answer takes."""
        self.checkpoint: str | None = "scripted"
        self.function, self.seconds = function, seconds
        self.killed = False
        self.fault = ""

    @property
    def path(self) -> str:
        """Its name, as that of its weights."""
        return self.checkpoint or ""

    @property
    def ended(self) -> bool:
        """True once it was killed."""
        return self.killed

    async def answer(self, messages: Messages, *, seed: int, urgent: bool, deadline_seconds: float) -> LearnerAnswer:
        """Answer by the function."""
        if self.killed or self.checkpoint is None:
            raise LearnerUnavailable("killed")
        started, checkpoint = time.perf_counter(), self.checkpoint
        try:
            async with asyncio.timeout(deadline_seconds):
                await asyncio.sleep(self.seconds)
        except TimeoutError as error:
            raise LearnerUnavailable("deadline") from error
        try:
            text, value = self.function(messages)
            text, value = str(text), float(value)
        except Exception as error:  # the user's own code
            raise LearnerUnavailable("failed") from error
        words = len(text.split())
        trace = {"prompt": [], "tokens": [], "logprobs": [], "values": []}
        spent = time.perf_counter() - started
        return LearnerAnswer(text, checkpoint, value, value, 0, words, False, spent, trace)

    async def load(self, path: str) -> str:
        """Answer under another name from now on."""
        self.checkpoint = path
        return path

    async def close(self) -> None:
        """Nothing runs."""

    def kill(self) -> None:
        """Answer nothing any more."""
        self.killed = True
