"""The writer's thread: a bounded queue of records that the store commits many at a time.

A request never waits for the database. Records of requests are written as soon as there is time, and left out (and
counted) when the queue is full. Feedback waits for its commit: what was acknowledged survives a killed process.
While the database fails, feedback is refused, records wait, and `healthy` is False, so that the learner serves nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from foretaste.deploy import store
from foretaste.deploy.database import writing
from foretaste.deploy.judging import Comparator
from foretaste.deploy.records import Answer, Exchange, LateAnswer, Verdict
from foretaste.errors import DeployError

logger = logging.getLogger(__name__)

BATCH = 2000
"""Records of one transaction."""
BATCH_BYTES = 8 << 20
"""Bytes of one transaction, after which no further record is taken into it."""
OVERHEAD = 1000
"""Bytes of a record or an answer beside its texts."""
BYTES_OF_NUMBER = 32
"""Of a number in a trace, in Python's memory."""
TELL_SECONDS = 10.0
RETRY_SECONDS = 0.5
Job = Callable[[Connection], Any]


@dataclass(slots=True)
class _Durable:
    """A job whose caller waits until its result is on disk."""

    job: Job
    future: Future[Any]


Record = Exchange | LateAnswer | Verdict
Item = Record | _Durable


@dataclass(slots=True)
class _Waiting:
    """A place in the queue, with the bytes that it was counted with."""

    item: Item
    size: int


class Writer:
    """Owns the only thread that writes exchanges and feedback."""

    def __init__(
        self,
        engine: Engine,
        *,
        queue: int,
        queue_bytes: int = 64 << 20,
        flush_seconds: float,
        compare: Comparator | None,
        judging: bool,
        correct_from: float = 0.5,
    ) -> None:
        """`judging` False (no learner): no answers are compared. Scores from `correct_from` on count as correct."""
        self.healthy = True
        """False while the last attempt to write has failed."""
        self.dropped = 0
        """Records that were left out because the queue was full or the database refused them for good."""
        self.written = 0
        self._engine, self._limit, self._most_bytes, self._flush = engine, queue, queue_bytes, flush_seconds
        self._compare, self._judging, self.correct_from = compare, judging, correct_from
        self._queue: deque[_Waiting] = deque()
        self._counting = threading.Lock()
        self._records = self._bytes = 0  # that wait, those of the batch that is being written among them
        self._told_full = 0.0
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="foretaste-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Records and jobs that are not on disk yet, those that are being written among them."""
        return self._records

    @property
    def waiting_bytes(self) -> int:
        """Bytes of text that they hold."""
        return self._bytes

    def put(self, item: Record) -> bool:
        """Have a record written soon; False if it is left out because too many wait, or too many bytes."""
        size = size_of(item)
        with self._counting:
            full = self._records >= self._limit or self._bytes + size > self._most_bytes
            if full:
                self.dropped += 1
            else:
                self._records, self._bytes = self._records + 1, self._bytes + size
                self._queue.append(_Waiting(item, size))
        if full:
            self._say_full()
        return not full

    def submit(self, job: Job, *, size: int = 0) -> Future[Any]:
        """Run `job` in the next transaction, after all that was put before; the future resolves once it is on disk.

        `size`: bytes of text that the job holds.
        """
        future: Future[Any] = Future()
        size += OVERHEAD
        with self._counting:
            full = self._records >= 2 * self._limit or self._bytes + size > 2 * self._most_bytes
            if self._stopping or full:
                future.set_exception(DeployError("The store does not keep up; try again later."))
                return future
            self._records, self._bytes = self._records + 1, self._bytes + size
            self._queue.append(_Waiting(_Durable(job, future), size))
        self._wake.set()
        return future

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits and end the thread; gives up on a database that fails."""
        self._stopping = True
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._flush)
            self._wake.clear()
            try:
                self._write_waiting()
            except Exception as error:  # the only thread that writes must outlive a fault of its own
                self.healthy = False
                logger.error("The store's writer failed, and goes on: %s", type(error).__name__)
            if self._stopping and (not self._queue or not self.healthy):
                return

    def _write_waiting(self) -> None:
        more = True
        while more and self._queue:
            taken = self._take()
            # One transaction a flush, unless more wait than fit into it: whoever else writes gets the lock between.
            whole = len(taken) == BATCH or sum(one.size for one in taken) >= BATCH_BYTES
            try:
                more = self._commit([one for one in taken if _wanted(one.item)]) and (whole or self._stopping)
            except Exception:
                self.dropped += len(taken)
                raise
            finally:  # what is put back was counted again
                self._count(taken, -1)

    def _take(self) -> list[_Waiting]:
        """Take the next records of one transaction; at least one."""
        taken = [self._queue.popleft()]
        size = taken[0].size
        while self._queue and len(taken) < BATCH and size < BATCH_BYTES:
            taken.append(self._queue.popleft())
            size += taken[-1].size
        return taken

    def _count(self, items: list[_Waiting], sign: int) -> None:
        with self._counting:
            self._records += sign * len(items)
            self._bytes += sign * sum(one.size for one in items)

    def _commit(self, batch: list[_Waiting]) -> bool:
        """Write a batch; on a failing database put the records back in front and return False."""
        error = self._attempt([one.item for one in batch])
        if error is None:
            return True
        if _is_failing(error):
            return self._put_back(batch, error)
        for place, one in enumerate(batch):  # an item is to blame: the others are written without it
            error = self._attempt([one.item])
            if error is not None and _is_failing(error):
                return self._put_back(batch[place:], error)
            if error is not None:
                self._leave_out(one.item, error)
        return True

    def _attempt(self, batch: list[Item]) -> Exception | None:
        """Write a batch in one transaction and tell those who wait; return what failed, in which case nothing is."""
        if not batch:
            return None
        try:
            with writing(self._engine) as connection:
                answers = self._write(connection, batch)
        except Exception as error:  # the thread must outlive whatever a database driver raises
            self.healthy = False
            return error
        self.healthy = True
        self.written += len(batch)
        for future, result in answers:
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        return None

    def _write(self, connection: Connection, batch: list[Item]) -> list[tuple[Future[Any], Any]]:
        """Write in the order of arrival, neighbours of a kind together; return what the waiting callers get."""
        results: list[tuple[Future[Any], Any]] = []
        for kind, items in _groups(batch):
            if kind is Exchange:
                exchanges = [item for item in items if isinstance(item, Exchange)]
                store.write_exchanges(connection, exchanges)
                self._judge(connection, [item.id for item in exchanges])
            elif kind is LateAnswer:
                late = [item for item in items if isinstance(item, LateAnswer)]
                store.write_late(connection, late)
                self._judge(connection, [item.request for item in late])
            elif kind is Verdict:
                store.write_verdicts(connection, [item for item in items if isinstance(item, Verdict)])
            else:
                for item in items:
                    assert isinstance(item, _Durable)
                    try:
                        results.append((item.future, item.job(connection)))
                    except store.FeedbackRefused as refused:  # refused before anything of it was written
                        results.append((item.future, refused))
        return results

    def _judge(self, connection: Connection, ids: list[str]) -> None:
        if self._judging:
            store.number_judged(connection, ids)
            store.judge(connection, ids, self._compare, correct_from=self.correct_from)

    def _leave_out(self, item: Item, error: Exception) -> None:
        logger.error("The store refuses a record, which was left out: %s", type(error.__cause__ or error).__name__)
        if isinstance(item, _Durable):
            item.future.set_exception(_as_deploy_error(error))
        else:
            self.dropped += 1

    def _put_back(self, batch: list[_Waiting], error: Exception) -> bool:
        """Refuse what is waited for, keep the records for when the database works again, and wait; return False."""
        for one in batch:
            if isinstance(one.item, _Durable):
                one.item.future.set_exception(_as_deploy_error(error))
        told = f"{self._records} records ({self._bytes / 1e6:.1f} MB) wait"
        logger.error("The store cannot be written, %s: %s", told, _as_deploy_error(error))
        records = [one for one in batch if not isinstance(one.item, _Durable)]
        self._count(records, 1)
        self._queue.extendleft(reversed(records))
        time.sleep(0 if self._stopping else RETRY_SECONDS)
        return False

    def _say_full(self) -> None:
        """Say that records are left out, once in a while."""
        now = time.monotonic()
        if now - self._told_full >= TELL_SECONDS:
            self._told_full = now
            logger.error(
                "The store does not keep up: %d records (%.1f MB) wait, %d were left out so far. Limits: store.queue, "
                "store.queue_bytes",
                self._records,
                self._bytes / 1e6,
                self.dropped,
            )


def size_of(item: Record) -> int:
    """Return the bytes that a record holds, about: prompts and answers, and what every record takes besides."""
    if isinstance(item, Verdict):
        return OVERHEAD
    found = item.answers if isinstance(item, Exchange) else [item.answer]
    return OVERHEAD + (len(item.body) if isinstance(item, Exchange) else 0) + sum(map(_size_of_answer, found))


def _size_of_answer(one: Answer) -> int:
    learner = one.learner
    texts = len(one.raw or b"") + len(one.text or "") + (len(learner.text) if learner else 0)
    numbers = sum(len(values) for values in learner.trace.values()) if learner and learner.trace else 0
    return OVERHEAD + texts + BYTES_OF_NUMBER * numbers


def _wanted(item: Item) -> bool:
    """False for a job whose caller has given up; of any other it is settled that its caller gets a result."""
    return not isinstance(item, _Durable) or item.future.set_running_or_notify_cancel()


def _groups(batch: list[Item]) -> Iterator[tuple[type, list[Item]]]:
    """Yield neighbours of the same kind together."""
    group: list[Item] = []
    for item in batch:
        if group and type(item) is not type(group[0]):
            yield type(group[0]), group
            group = []
        group.append(item)
    if group:
        yield type(group[0]), group


def _is_failing(error: Exception) -> bool:
    """Return whether the database or the machine is to blame, rather than what was to be written."""
    cause = error.__cause__ or error
    if isinstance(cause, exc.StatementError):
        return isinstance(cause, exc.OperationalError | exc.InterfaceError)
    return isinstance(cause, exc.SQLAlchemyError | OSError | MemoryError)


def _as_deploy_error(error: Exception) -> DeployError:
    return (
        error if isinstance(error, DeployError) else DeployError(f"The store cannot be written: {type(error).__name__}")
    )
