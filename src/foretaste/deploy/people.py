"""The incumbent as people: questions wait in a queue until somebody answers them on a small page.

Waiting questions are in memory alone: each belongs to an open connection, and ends with it. Next: `chat.py`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from foretaste.deploy.upstream import UpstreamError


@dataclass(slots=True)
class Question:
    """One request that waits for a person."""

    id: str
    messages: list[dict[str, Any]]
    asked: float = field(default_factory=time.time)
    answer: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class PeopleQueue:
    """Questions in the order they were asked; used from the server's event loop alone."""

    def __init__(self, *, timeout_seconds: float, most: int = 1000) -> None:
        self._timeout, self._most = timeout_seconds, most
        self._waiting: dict[str, Question] = {}

    @property
    def waiting(self) -> list[Question]:
        """Questions without an answer, oldest first."""
        return list(self._waiting.values())

    async def ask(self, identity: str, messages: list[dict[str, Any]]) -> str:
        """Wait for a person's answer.

        Raises: UpstreamError if nobody answers in time, or too many questions wait.
        """
        if len(self._waiting) >= self._most:
            raise UpstreamError(503, "queue_full", "Too many questions wait for a person; ask again later.")
        question = self._waiting[identity] = Question(identity, messages)
        try:
            async with asyncio.timeout(self._timeout):
                return await question.answer
        except TimeoutError as error:
            raise UpstreamError(504, "nobody_answered", "No person answered in time; ask again later.") from error
        finally:
            del self._waiting[identity]

    def answer(self, identity: str, text: str) -> bool:
        """Answer a question; False if it does not wait any more."""
        question = self._waiting.get(identity)
        if question is None or question.answer.done():
            return False
        question.answer.set_result(text)
        return True
