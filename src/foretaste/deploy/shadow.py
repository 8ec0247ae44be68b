"""Answers that no user waits for: the learner's silent ones, and the incumbent's checks on what the learner served.

Each is a task of its own beside the user's request, in bounded number; what is too much is left out and counted, so
that a user's answer is never later or worse for it. Coverage (answers over offers) is a metric. Next: `chat.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from foretaste.deploy.harm import HarmRule
from foretaste.deploy.judging import Verifier
from foretaste.deploy.learner import Learner, LearnerUnavailable, Messages
from foretaste.deploy.metrics import Metrics
from foretaste.deploy.records import Answer, LateAnswer, LearnerAnswer, Verdict
from foretaste.deploy.upstream import Upstream, UpstreamError
from foretaste.deploy.writer import Writer

CHECKS = 64
"""Checks by the incumbent that may run at once."""
THREADS = 8
"""For the user's own functions: so many where a user waits, and as many for the shadow."""


class Judges:
    """The user's own functions, run in threads: those that a user waits for apart from the shadow's."""

    def __init__(self, harm: HarmRule | None, verifier: Verifier | None) -> None:
        self.harm, self.verifier = harm, verifier
        self._urgent = ThreadPoolExecutor(THREADS, "foretaste-harm")
        self._silent = ThreadPoolExecutor(THREADS, "foretaste-judges")

    async def harm_of(self, messages: Messages, text: str, *, urgent: bool, seconds: float) -> float | None:
        """Return the harm of an answer, or None if the rule does not say in time."""
        if self.harm is None:
            return 0.0
        return await self._run(self._urgent if urgent else self._silent, seconds, self.harm, messages, text)

    async def verdict_of(self, messages: Messages, text: str, *, seconds: float) -> float | None:
        """Return the verifier's score of an answer, or None if it gives none in time."""
        return None if self.verifier is None else await self._run(self._silent, seconds, self.verifier, messages, text)

    def close(self) -> None:
        """Wait for nothing."""
        for threads in (self._urgent, self._silent):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, threads: ThreadPoolExecutor, seconds: float, function: Any, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
        except TimeoutError:
            return None


class Shadow:
    """Runs silent answers and checks; used from the server's event loop alone."""

    def __init__(self, writer: Writer, metrics: Metrics, judges: Judges, *, most: int, deadline_seconds: float) -> None:
        self.tokens = 0
        """Tokens that silent answers took and that nobody has added up yet."""
        self._writer, self._metrics, self._judges = writer, metrics, judges
        self._most, self._deadline = most, deadline_seconds
        self._silent: set[asyncio.Task[None]] = set()
        self._checks: set[asyncio.Task[None]] = set()
        self._verdicts: set[asyncio.Task[None]] = set()

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

    def verify(self, request: str, messages: Messages, text: str) -> None:
        """Have the verifier judge an answer of the learner that is in the writer's queue, or leave it out."""
        if self._judges.verifier is not None and len(self._verdicts) < self._most:
            self._start(self._verdicts, self._verify(request, messages, text))

    def drop(self) -> None:
        """Give up all silent answers: the kill switch is on."""
        for task in list(self._silent):
            task.cancel()

    async def close(self) -> None:
        """Give up everything."""
        tasks = [*self._silent, *self._checks, *self._verdicts]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._judges.close()

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
        answer, _ = await self.examined(messages, found, urgent=False, seconds=self._deadline)
        answer.verdict = await self._judges.verdict_of(messages, found.text, seconds=self._deadline)
        self._writer.put(LateAnswer(request, answer))

    async def examined(
        self, messages: Messages, found: LearnerAnswer, *, urgent: bool, seconds: float
    ) -> tuple[Answer, bool]:
        """Return a learner's answer as it is written down, and whether its harm is known in time; if not it is 1."""
        harm = await self._judges.harm_of(messages, found.text, urgent=urgent, seconds=seconds)
        answer = Answer("learner", False, found.seconds, learner=found, harm=1.0 if harm is None else harm)
        return answer, harm is not None

    async def _verify(self, request: str, messages: Messages, text: str) -> None:
        score = await self._judges.verdict_of(messages, text, seconds=self._deadline)
        if score is not None:
            self._writer.put(Verdict(request, score))

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
