"""One job of a study: what identifies it, and how a worker process does it, goes on with it, or reuses it.

A job is a function's name and plain arguments. Its `key` is the hash of both and of the code that could
change its result; a finished job with the same key is never run again. A job writes its own records:
`job` started, finished (with its result) or failed (with its error), in the run of the study that asked.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste.config import TrainConfig, from_dict
from foretaste.errors import ConfigError, ForetasteError, RunError
from foretaste.lab.versions import work_version
from foretaste.ledger import Ledger, Record

TRAIN = "foretaste.lab.jobs:train_arm"
"""The usual work: train, and return the learning curve."""

NOT_CONTENT = ("runs_folder", "writers", "save_every")
"""Settings that do not change what is learned."""


@dataclass(frozen=True)
class Job:
    """One arm with one seed."""

    arm: str
    seed: int
    work: str
    """`module:function`, called with (arguments, Context); returns a dict of plain values."""
    arguments: dict[str, Any]

    @property
    def config_key(self) -> str:
        """Hash of what is done, whatever the code."""
        return content_hash({"work": self.work, "arguments": _content(self.arguments)})

    @property
    def key(self) -> str:
        """Hash of what is done and of the code that does it."""
        return content_hash({"content": self.config_key, "code": code_version(self.work)})


@dataclass(frozen=True)
class Context:
    """What a job's function may use besides its arguments."""

    folder: Path
    """Runs and the ledger."""
    report: Callable[[float, str], None]
    """Tell (share done, a few words) to the person who waits."""
    earlier: tuple[str, ...] = ()
    """Training runs of an attempt at this same job that was killed, newest first."""


def content_hash(values: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def config_key(config: dict[str, Any]) -> str:
    """Return the `config_key` of a plain training job with this config."""
    return Job("", 0, TRAIN, {"config": config, "options": {}}).config_key


@functools.lru_cache(maxsize=32)
def code_version(work: str = TRAIN) -> str:
    """Return a hash of the code behind a job (`versions.py`)."""
    return work_version(Path(str(_module(work).__file__)))


def perform(job: Job, folder: Path, study_run: str, report: Callable[[float, str], None]) -> dict[str, Any]:
    """Do a job in this process, or return what an equal job gave; write its records; return the last one.

    Failures are data: an error becomes a record with status "failed". Only Ctrl-C passes through.
    """
    with alone(folder / "lab" / "locks" / job.key), Ledger.open(folder) as ledger:
        records = job_records(ledger, {job.key})
        done = finished(records, job.key)
        if done is not None:
            return {**done.payload, "reused": True}
        started = [record for record in records if record.payload["status"] == "started"]
        about = {"key": job.key, "config_key": job.config_key, "arm": job.arm, "seed": job.seed}
        about["code"] = code_version(job.work)
        earlier = _earlier_runs(ledger, job, started[0].created) if started else ()
        ledger.append(study_run, "job", {**about, "status": "started"})
        clock = time.perf_counter()
        try:
            result = _function(job.work)({**job.arguments, "seed": job.seed}, Context(folder, report, earlier))
            payload = {**about, "status": "finished", "result": json.loads(json.dumps(result))}
        except Exception as error:
            reason = str(error) if isinstance(error, ForetasteError) else f"{type(error).__name__}: {error}"
            payload = {**about, "status": "failed", "error": reason, "traceback": traceback.format_exc(limit=-6)}
        payload["seconds"] = time.perf_counter() - clock
        ledger.append(study_run, "job", payload)
        return payload


def train_arm(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Train as the config says, going on with a killed attempt where there is one; return curve and figures."""
    from foretaste.lab.curves import figures_of
    from foretaste.rl.train import train

    config = from_dict(TrainConfig, {**arguments["config"], "runs_folder": str(context.folder)})
    watcher = _Watcher(context.report, config.token_budget)
    with Ledger.open(context.folder) as ledger:
        for run in context.earlier:
            if ledger.run(run).status == "finished":
                return figures_of(ledger, run)
    done = None
    for run in context.earlier[:1]:
        try:
            done = train(resume=run, runs_folder=str(context.folder), progress=watcher)
        except RunError:  # it was killed before its first resume point
            done = None
    checkpoint = done or train(config, progress=watcher)
    assert checkpoint.run is not None
    with Ledger.open(context.folder) as ledger:
        return figures_of(ledger, checkpoint.run)


def job_records(ledger: Ledger, keys: set[str] | None = None) -> list[Record]:
    """Return the `job` records of all studies and sweeps in order, or those with the given keys."""
    found = []
    for info in ledger.runs():
        if info.kind in ("study", "sweep"):
            found += ledger.records(info.id, "job")
    found.sort(key=lambda record: record.seq)
    return [record for record in found if keys is None or record.payload["key"] in keys]


def finished(records: list[Record], key: str) -> Record | None:
    """Return the first finished record of a job; None if there is none."""
    return next((r for r in records if r.payload["key"] == key and r.payload["status"] == "finished"), None)


class _Watcher:
    """The training loop's `Progress`, told as a share of the token budget."""

    def __init__(self, report: Callable[[float, str], None], budget: int | None) -> None:
        self._report, self._budget, self._tokens = report, budget, 0.0

    def phase(self, name: str, total: int | None) -> None:
        self._report(self._share(), name)

    def advance(self, n: int = 1) -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._tokens += values.get("train/sampled_tokens", 0.0)
        success = values.get("train/success")
        self._report(self._share(), f"step {step}" + ("" if success is None else f", success {success:.2f}"))

    def note(self, text: str) -> None: ...

    def finish(self, summary: Any) -> None: ...

    def _share(self) -> float:
        return min(1.0, self._tokens / self._budget) if self._budget else 0.0


def _content(arguments: dict[str, Any]) -> dict[str, Any]:
    config = arguments.get("config", {})
    return {**arguments, "config": {name: value for name, value in config.items() if name not in NOT_CONTENT}}


def _earlier_runs(ledger: Ledger, job: Job, since: str) -> tuple[str, ...]:
    """Return training runs with the job's config that began after the first attempt at the job, newest first."""
    wanted = job.config_key
    found = [
        info.id
        for info in ledger.runs("train")
        if info.created >= since and job.work == TRAIN and config_key(info.config) == wanted
    ]
    return tuple(reversed(found))


def _module(work: str) -> Any:
    try:
        return importlib.import_module(work.partition(":")[0])
    except ImportError as error:
        raise ConfigError(f"The work {work!r} of an arm cannot be imported: {error}") from error


def _function(work: str) -> Callable[[dict[str, Any], Context], dict[str, Any]]:
    function = getattr(_module(work), work.partition(":")[2], None)
    if not callable(function):
        raise ConfigError(f"The work {work!r} of an arm is no function; accepted: module:function")
    return function  # type: ignore[return-value]


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process does this job; the lock is gone with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
