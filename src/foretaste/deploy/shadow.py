"""Answers that no user waits for: the learner's silent ones, and the incumbent's checks on what the learner served.

Each is a task of its own beside the user's request, in bounded number; what is too much is left out and counted, so
that a user's answer is never later or worse for it. Coverage (answers over offers) is a metric. Next: `chat.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from foretaste.deploy.harm import HarmRule
from foretaste.deploy.judging import Verifier
from foretaste.deploy.learner import Learner, LearnerUnavailable, Messages
from foretaste.deploy.metrics import Metrics
from foretaste.deploy.records import Answer, LateAnswer, LearnerAnswer
from foretaste.deploy.upstream import Upstream, UpstreamError
from foretaste.deploy.writer import Writer

CHECKS = 64
"""Checks by the incumbent that may run at once."""


class Judges:
    """The user's own functions, run in a thread so that a slow one holds nothing up."""

    def __init__(self, harm: HarmRule | None, verifier: Verifier | None) -> None:
        self.harm, self.verifier = harm, verifier

    async def of(self, messages: Messages, text: str) -> tuple[float, float | None]:
        """Return the harm of an answer and the verifier's score."""
        if self.harm is None and self.verifier is None:
            return 0.0, None
        return await asyncio.to_thread(self._of, messages, text)

    def _of(self, messages: Messages, text: str) -> tuple[float, float | None]:
        harm = self.harm(messages, text) if self.harm else 0.0
        return harm, self.verifier(messages, text) if self.verifier else None


class Shadow:
    """Runs silent answers and checks; used from the server's event loop alone."""

    def __init__(self, writer: Writer, metrics: Metrics, judges: Judges, *, most: int, deadline_seconds: float) -> None:
        self.tokens = 0
        """Tokens that silent answers took and that nobody has added up yet."""
        self._writer, self._metrics, self._judges = writer, metrics, judges
        self._most, self._deadline = most, deadline_seconds
        self._silent: set[asyncio.Task[None]] = set()
        self._checks: set[asyncio.Task[None]] = set()

    def offer(self, learner: Learner, request: str, messages: Messages, seed: int) -> None:
        """Have the learner answer silently, or leave it out."""
        self._metrics.shadow(answered=False)
        if len(self._silent) >= self._most:
            self._metrics.shadow_shed.labels("busy").inc()
            return
        self._start(self._silent, self._answer(learner, request, messages, seed))

    def check(self, upstream: Upstream, request: str, path: str, body: bytes) -> None:
        """Ask the incumbent about a request that the learner has answered, or leave it out."""
        if len(self._checks) < CHECKS:
            self._start(self._checks, self._check(upstream, request, path, body))

    def drop(self) -> None:
        """Give up all silent answers: the kill switch is on."""
        for task in list(self._silent):
            task.cancel()

    async def close(self) -> None:
        """Give up everything."""
        tasks = [*self._silent, *self._checks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _answer(self, learner: Learner, request: str, messages: Messages, seed: int) -> None:
        try:
            found = await learner.answer(messages, seed=seed, urgent=False, deadline_seconds=self._deadline)
        except LearnerUnavailable as error:
            self._metrics.shadow_shed.labels(str(error)[:32]).inc()
            return
        self._metrics.shadow(answered=True)
        self.tokens += found.completion_tokens
        self._writer.put(LateAnswer(request, await self.judged(messages, found, served=False)))

    async def judged(self, messages: Messages, found: LearnerAnswer, *, served: bool) -> Answer:
        """Return a learner's answer as it is written down, with its harm and the verifier's score."""
        harm, verdict = await self._judges.of(messages, found.text)
        return Answer("learner", served, found.seconds, learner=found, harm=harm, verdict=verdict)

    async def _check(self, upstream: Upstream, request: str, path: str, body: bytes) -> None:
        started = time.perf_counter()
        try:
            reply = await upstream.post(path, body)
            try:
                raw = await reply.body()
            finally:
                reply.release()
        except UpstreamError:
            return
        if reply.status == 200:
            spent = time.perf_counter() - started
            answer = Answer("incumbent", False, spent, raw, reply.content_type, reply.content_encoding)
            self._writer.put(LateAnswer(request, answer))
