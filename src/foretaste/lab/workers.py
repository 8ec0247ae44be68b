"""Do jobs side by side, each in a process of its own with one thread; a process that dies is one failed job.

A worker keeps its imports from job to job. It ends when its pipe does, so that nothing is left running when the
parent is killed.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, cast

from foretaste.lab.jobs import Job, perform

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCH_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
) | {"TOKENIZERS_PARALLELISM": "false"}


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Watcher(Protocol):
    """Who is told how the jobs go."""

    def started(self, job: Job) -> None: ...

    def moved(self, job: Job, share: float, text: str) -> None: ...

    def ended(self, job: Job, payload: dict[str, Any]) -> None: ...


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    job: Job | None = None


def do_jobs(
    jobs: Sequence[Job],
    folder: Path,
    study_run: str,
    *,
    workers: int,
    watcher: Watcher,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Do the jobs in order, `workers` at a time; `enough` is asked after each and stops further ones from starting.

    Every end, good or bad, is told to `watcher.ended` with the job's record.
    """
    waiting = list(jobs)
    crew: list[_Worker] = []
    try:
        while waiting or any(worker.job for worker in crew):
            while waiting and not enough():
                idle = next((worker for worker in crew if worker.job is None), None)
                if idle is None and len(crew) < workers:
                    crew.append(idle := _start(folder, study_run))
                if idle is None:
                    break
                idle.job = waiting.pop(0)
                watcher.started(idle.job)
                try:
                    idle.pipe.send(idle.job)
                except OSError:  # the process died while it had nothing to do
                    waiting.insert(0, idle.job)
                    crew.remove(idle)
            busy = [worker for worker in crew if worker.job]
            if not busy:
                return
            for ready in wait([worker.pipe for worker in busy]):
                worker = next(worker for worker in busy if worker.pipe is ready)
                _hear(worker, crew, watcher)
    finally:
        _dismiss(crew)


def _hear(worker: _Worker, crew: list[_Worker], watcher: Watcher) -> None:
    """Take one message from a worker, or its death."""
    job = cast(Job, worker.job)
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -9 else ""
        crew.remove(worker)
        watcher.ended(job, {"status": "failed", "error": f"the worker process {how}{hint}", "seconds": 0.0})
        return
    if message[0] == "moved":
        watcher.moved(job, message[1], message[2])
    else:
        worker.job = None
        watcher.ended(job, message[1])


def _start(folder: Path, study_run: str) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on its own locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, folder, study_run), daemon=True)
    with _environment(ONE_THREAD):
        process.start()
    theirs.close()
    return _Worker(process, cast(Connection, ours))


def _work(pipe: Connection, folder: Path, study_run: str) -> None:
    """Do jobs until the pipe ends."""

    def report(share: float, text: str) -> None:
        try:
            pipe.send(("moved", share, text))
        except OSError as error:  # the parent is gone: stop as if interrupted, to be resumed, not as a failure
            raise KeyboardInterrupt from error

    while True:
        try:
            job = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            payload = perform(job, folder, study_run, report)
        except KeyboardInterrupt:
            return
        except Exception as error:  # the ledger itself failed: there is nowhere else to say so
            payload = {"status": "failed", "error": f"{type(error).__name__}: {error}", "seconds": 0.0}
        try:
            pipe.send(("ended", payload))
        except OSError:
            return


def _dismiss(crew: Sequence[_Worker]) -> None:
    for worker in crew:
        worker.pipe.close()
        if worker.job is not None:
            worker.process.terminate()
    for worker in crew:
        worker.process.join(timeout=10)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables while a process starts: thread pools read them when they are imported."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
