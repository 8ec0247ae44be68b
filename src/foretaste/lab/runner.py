"""Run a study: register what is expected, do the jobs that are not done yet, judge, write the verdict down.

    run_study(load("smoke"), "quick", folder) -> Verdict

A study with a tuning step tunes its arms first, all at the same budget (`tuning.py`), or takes the winners stored.
A study that was killed goes on where it was: finished jobs are found in the ledger by the hash of their content and
code, half-finished training runs are resumed. A failed job is recorded and the others go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from foretaste.errors import RunError, interrupted
from foretaste.lab.jobs import Job, code_version, job_records
from foretaste.lab.register import Registration, reasons_to_doubt, register, register_tuning
from foretaste.lab.results import Outcome, Results
from foretaste.lab.study import Mode, Study
from foretaste.lab.tuning import Tuned, read_stored, resolve, store, tune
from foretaste.lab.verdict import Decision, Verdict, Worst, combined, judge
from foretaste.lab.workers import Watcher, cores, do_jobs
from foretaste.ledger import Ledger


def run_study(
    study: Study,
    mode: Mode,
    folder: Path,
    *,
    workers: int | None = None,
    watcher: Watcher | None = None,
    any_code: bool = False,
    minutes: float | None = None,
    winners: Path | None = None,
) -> Verdict:
    """Run what is missing of a study and return its verdict, which is also appended to the ledger.

    `any_code` also reuses results of older code, and the verdict says so. After `minutes` no further job is started,
    and what there is is judged; another call goes on. `winners` is the file in which those of the tuning step are
    stored; in quick mode nothing is tuned, and arms without stored winners have the first settings of their grids.

    Raises: RunError if every job failed, or if the tuning is not finished; LedgerError if the ledger was tampered with.
    """
    workers = workers or cores()
    begun = time.monotonic()
    study = tuned_study(
        study, mode, folder, winners, workers=workers, watcher=watcher, any_code=any_code, minutes=minutes
    )
    if minutes is not None:
        minutes = max(0.0, minutes - (time.monotonic() - begun) / 60)
    with Ledger.open(folder) as ledger:
        registration = register(ledger, study, mode)
        todo = study.plan(mode).jobs()
        made: set[str] = set()
        ledger.append(registration.run, "status", {"status": "started", "jobs": len(todo)})
        anytime = all(one.stopping == "anytime" for one in study.expectations if one.required)
        end = math.inf if minutes is None else time.monotonic() + 60 * minutes

        def enough() -> bool:
            if time.monotonic() >= end:
                return True
            if not anytime:
                return False
            results = collect(ledger, todo, any_code=any_code, made=made)
            return _judged(study, mode, results, whole_seeds=True)[0] is not Decision.UNDECIDED

        try:
            run_jobs(
                ledger,
                registration.run,
                todo,
                folder,
                workers=workers,
                watcher=watcher,
                enough=enough,
                any_code=any_code,
                made=made,
            )
        except KeyboardInterrupt as error:
            ledger.append(registration.run, "status", {"status": "interrupted"})
            again = f"foretaste lab run {study.name} --mode {mode}"
            raise interrupted(error, f"What is finished is kept. Go on: {again}") from None
        verdict = judge_study(ledger, study, mode, registration, workers=workers, any_code=any_code, made=made)
        ledger.append(registration.run, "verdict", verdict.to_json())
        ledger.append(registration.run, "status", {"status": "finished"})
        return verdict


def tuned_study(
    study: Study,
    mode: Mode,
    folder: Path,
    winners: Path | None = None,
    *,
    workers: int | None = None,
    watcher: Watcher | None = None,
    any_code: bool = False,
    minutes: float | None = None,
) -> Study:
    """Return a study with tuned arms: by stored winners or, in full mode, by what is missing of the sweep.

    Raises: RunError if runs of the sweep are still to be done, or if no setting of an arm could be tried.
    """
    if study.tuning is None or study.resolved:
        return study
    stored = read_stored(winners, study.tuning)
    if stored is not None or mode == "quick":
        return resolve(study, stored)
    found = sweep(study, folder, workers=workers, watcher=watcher, any_code=any_code, minutes=minutes)
    if winners is not None:
        store(winners, found)
    return resolve(study, found)


def sweep(
    study: Study,
    folder: Path,
    *,
    workers: int | None = None,
    watcher: Watcher | None = None,
    any_code: bool = False,
    minutes: float | None = None,
) -> Tuned:
    """Register how the arms of a study are tuned, do what is missing of it, and return the winners.

    Raises: RunError if runs are still to be done, or if no setting of an arm could be tried.
    """
    assert study.tuning is not None
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    made: set[str] = set()
    with Ledger.open(folder) as ledger:
        run = register_tuning(ledger, study, "full").run

        def do(jobs: list[Job]) -> Results:
            run_jobs(
                ledger,
                run,
                jobs,
                folder,
                made=made,
                workers=workers,
                watcher=watcher,
                enough=lambda: time.monotonic() >= end,
                any_code=any_code,
            )
            return collect(ledger, jobs, any_code=any_code, made=made)

        ledger.append(run, "status", {"status": "started"})
        found = tune(study.tuning, do)
        ledger.append(run, "winners", found.to_json())
        ledger.append(run, "status", {"status": "finished"})
    return found


def run_jobs(
    ledger: Ledger,
    run: str,
    jobs: Sequence[Job],
    folder: Path,
    *,
    made: set[str],
    workers: int | None = None,
    watcher: Watcher | None = None,
    enough: Callable[[], bool] = lambda: False,
    any_code: bool = False,
) -> None:
    """Do the jobs that have no result yet, for the study or sweep `run`; add the keys of those that ended to `made`."""
    known = job_records(ledger)
    missing = [job for job in jobs if _find(known, job, any_code) is None]
    recorder = _Recorder(watcher, made, ledger, run)
    do_jobs(missing, folder, run, workers=workers or cores(), watcher=recorder, enough=enough)


def judge_study(
    ledger: Ledger,
    study: Study,
    mode: Mode,
    registration: Registration,
    *,
    workers: int,
    any_code: bool = False,
    made: Collection[str] = (),
) -> Verdict:
    """Return the verdict on what the ledger holds of a study, without running anything.

    `made` are the keys of jobs that were just done; they count even if the code was edited meanwhile.

    Raises: RunError if no job has a result.
    """
    plan = study.plan(mode)
    todo = plan.jobs()
    results = collect(ledger, todo, any_code=any_code, made=made)
    if not any(outcome.result for outcome in results.outcomes):
        first = results.failures[0].error if results.failures else "none has been run"
        raise RunError(
            f"Study {study.name!r} has no result: {first}. Run it: foretaste lab run {study.name} --mode {mode}"
        )
    would_be, judged = _judged(study, mode, results)
    doubts = reasons_to_doubt(ledger, registration, todo)
    seconds = sum(outcome.seconds for outcome in results.outcomes)
    ended = sum(1 for outcome in results.outcomes if outcome.result or outcome.error)
    notes = [f"exploratory: {reason}" for reason in doubts]
    notes += [] if registration.pinned else ["the expectation was registered without the code that judges it"]
    notes += [f"job {one.arm}, seed {one.seed} failed: {_first_line(one.error)}" for one in results.failures]
    notes += _other_code(ledger, todo, any_code, made)
    if study.tuning is not None and study.tuned is None:
        notes.append(
            "the arms were not tuned: no winners of these grids are stored, so each has its grid's first settings"
        )
    notes += _off_budget(results)
    notes += [f"{one.expectation}: {one.note}" for one in judged if one.note]
    return Verdict(
        study=study.name,
        mode=mode,
        claim=study.claim,
        source=study.source,
        decision=Decision.EXPLORATORY if doubts else would_be,
        would_be=would_be,
        judged=judged,
        rows=tuple(study.rows(results) if study.rows else results.rows()),
        seeds=plan.seeds,
        token_budget=plan.token_budget,
        failed=len(results.failures),
        unfinished=len(todo) - ended,
        core_minutes=seconds / 60,
        minutes=seconds / 60 / workers,
        workers=workers,
        registered=registration.created,
        registration=registration.key,
        code=code_version(),
        command=f"foretaste lab run {study.name} --mode {mode}",
        notes=(*notes, *study.notes),
        curves={
            arm: [
                [[float(point.tokens), point.success] for point in results.curve(arm, seed)]
                for seed in results.seeds
                if results.curve(arm, seed)
            ]
            for arm in results.arms
        },
        own_budgets=plan.own_budgets,
        picture=study.picture(results).to_json() if study.picture else None,
        own_items=True,
        tuning=study.tuned and study.tuned.to_json(),
    )


def collect(ledger: Ledger, todo: Sequence[Job], *, any_code: bool = False, made: Collection[str] = ()) -> Results:
    """Return how each job ended, from the ledger; a job that was not run has neither result nor error."""
    records = job_records(ledger)
    outcomes = []
    for job in todo:
        done = _find(records, job, any_code, made)
        if done is not None:
            outcomes.append(Outcome(job.arm, job.seed, done["result"], None, float(done["seconds"])))
            continue
        ours = {job.key, *made}
        failed = [
            r.payload
            for r in records
            if r.payload["status"] == "failed"
            and r.payload["key"] in ours
            and r.payload["config_key"] == job.config_key
        ]
        error = str(failed[-1]["error"]) if failed else None
        outcomes.append(Outcome(job.arm, job.seed, None, error, float(failed[-1]["seconds"]) if failed else 0.0))
    return Results(outcomes)


def _judged(
    study: Study, mode: Mode, results: Results, *, whole_seeds: bool = False
) -> tuple[Decision, tuple[Any, ...]]:
    """Judge every expectation; `whole_seeds` leaves out seeds of which a job is still to come."""
    effects_of: Callable[..., Any] = study.effects or (lambda found, expectation: found.effects(expectation))
    judged = []
    for expectation in study.expectations:
        effects = effects_of(results, expectation)
        if whole_seeds:
            open_seeds = {one.seed for one in results.outcomes if one.result is None and one.error is None}
            closed = [seed for seed in results.seeds if seed not in open_seeds]
            if isinstance(effects, Worst):
                effects = effects.only(closed)
            else:
                effects = {seed: effect for seed, effect in effects.items() if seed in closed}
        judged.append(judge(expectation, effects, study.plan(mode).seeds))
    return combined(judged), tuple(judged)


def _find(records: Sequence[Any], job: Job, any_code: bool, made: Collection[str] = ()) -> dict[str, Any] | None:
    """Return the finished record of a job: of this code or just made, else, if allowed, the newest of any code."""
    done = [
        r.payload for r in records if r.payload["status"] == "finished" and r.payload["config_key"] == job.config_key
    ]
    same = [payload for payload in done if payload["key"] == job.key]
    if same:
        return same[0]
    usable = [payload for payload in done if any_code or payload["key"] in made]
    return usable[-1] if usable else None


def _other_code(ledger: Ledger, todo: Sequence[Job], any_code: bool, made: Collection[str]) -> list[str]:
    """Say which results were not made by the code of now."""
    records = job_records(ledger)
    other = [job for job in todo if not _find(records, job, False) and _find(records, job, any_code, made)]
    return [f"{len(other)} of {len(todo)} results were made by other code than that of now"] if other else []


def _off_budget(results: Results) -> list[str]:
    """Say which arms had less than the budget, as the limit of steps came first, or more, as a step is large."""
    short = [
        f"{one.arm} (seed {one.seed}: {one.result['used_budget']:.0%})"
        for one in results.outcomes
        if one.result and (one.result.get("used_budget") or 1.0) < 0.98
    ]
    over = sorted({one.arm for one in results.outcomes if one.result and (one.result.get("used_budget") or 1.0) > 1.1})
    notes = [f"did not use up the token budget, stopped by the limit of steps: {', '.join(short)}"] if short else []
    return notes + ([f"a last step ran more than 10% over the token budget in: {', '.join(over)}"] if over else [])


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0][:300] if (text or "").strip() else "no message"


class _Recorder:
    """Pass on what happens to a watcher, keep the keys of the jobs that ended, and write down a worker's death."""

    def __init__(self, watcher: Watcher | None, made: set[str], ledger: Ledger, run: str) -> None:
        self._watcher, self._made, self._ledger, self._run = watcher, made, ledger, run

    def started(self, job: Job) -> None:
        if self._watcher:
            self._watcher.started(job)

    def moved(self, job: Job, share: float, text: str) -> None:
        if self._watcher:
            self._watcher.moved(job, share, text)

    def ended(self, job: Job, payload: dict[str, Any]) -> None:
        if "key" not in payload:  # the worker did not live to write it
            about = {"key": job.key, "config_key": job.config_key, "arm": job.arm, "seed": job.seed}
            payload = {**about, **payload}
            self._ledger.append(self._run, "job", payload)
        self._made.add(str(payload["key"]))
        if self._watcher:
            self._watcher.ended(job, payload)
