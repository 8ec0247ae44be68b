"""Pre-registration: what is expected enters the hash-chained ledger before the first run.

The order of the chain is the evidence. `reasons_to_doubt` finds results that were there before the expectation
was, and expectations that were edited or written again afterwards. The code that judges is registered too: once it is
edited, the registration is another. Results of older code are used only where that is asked for (`runner.py`).

A study whose arms are tuned first is registered twice: claim, expectations, seeds, grids and rule before the sweep, and
the same with the arms that came of it before anything is scored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from foretaste.errors import LedgerError
from foretaste.lab.jobs import Job, config_key, content_hash, job_records
from foretaste.lab.study import Mode, Study
from foretaste.lab.versions import judging_version
from foretaste.ledger import Ledger, Record


class Registration(NamedTuple):
    """An expectation's place in the ledger."""

    run: str
    """Id of the study's run, to which its jobs and verdicts are appended."""
    key: str
    """Hash of everything that was registered."""
    seq: int
    created: str
    """UTC, ISO 8601."""
    new: bool
    """False if the same had been registered before."""
    pinned: bool = True
    """Whether the code that judges is part of it; False for one of an older foretaste."""


def contents(study: Study, mode: Mode) -> dict[str, Any]:
    """Return what is registered: expectations, arms (their content), seeds, budget, stopping rule, code that judges."""
    plan = study.plan(mode)
    arms: dict[str, list[str]] = {}
    for job in plan.jobs():
        arms.setdefault(job.arm, []).append(job.config_key)
    return {**_stated(study, mode), "arms": arms, **_tuning(study)}


def _stated(study: Study, mode: Mode) -> dict[str, Any]:
    """Return what can be stated before any arm is tuned."""
    plan = study.plan(mode)
    return {
        "study": study.name,
        "mode": mode,
        "claim": study.claim,
        "expectations": [_plain(dataclasses.asdict(one)) for one in study.expectations],
        "seeds": list(plan.seeds),
        "token_budget": plan.token_budget,
        "judged_by": judging_version(study),
    }


def _tuning(study: Study) -> dict[str, Any]:
    """Return grids, rule and winners; nothing for a study whose arms are fixed."""
    if study.tuning is None:
        return {}
    winners = study.tuned.winners if study.tuned else None
    return {"tuning": _plain({**study.tuning.contents(), "winners": winners})}


def register_tuning(ledger: Ledger, study: Study, mode: Mode) -> Registration:
    """Write into the ledger, before the sweep, how arms are tuned and what is expected of them; or find it there."""
    assert study.tuning is not None
    wanted = {**_stated(study, mode), **_tuning(dataclasses.replace(study, tuned=None))}
    key = content_hash(wanted)
    return _with_key(ledger, study.name, key, "tuning") or _enter(ledger, study, mode, key, wanted, "tuning")


def register(ledger: Ledger, study: Study, mode: Mode) -> Registration:
    """Write the study's expectation into the ledger, or find it there; results may be judged from then on."""
    earlier = registered(ledger, study, mode)
    if earlier is not None:
        return earlier
    wanted = contents(study, mode)
    return _enter(ledger, study, mode, content_hash(wanted), wanted, "expectation")


def _enter(ledger: Ledger, study: Study, mode: Mode, key: str, wanted: dict[str, Any], kind: str) -> Registration:
    run = ledger.start_run("study", study.name, {"mode": mode, "registration": key})
    ledger.append(run, kind, {"key": key, **wanted})
    record = ledger.records(run, kind)[0]
    return Registration(run, key, record.seq, record.created, True)


def registered(ledger: Ledger, study: Study, mode: Mode) -> Registration | None:
    """Return the first registration of the study as it is now; None if there is none.

    One of an older foretaste, which did not register the code that judges, counts if all the rest is the same.
    """
    wanted = contents(study, mode)
    exact = _with_key(ledger, study.name, content_hash(wanted))
    if exact is not None:
        return exact
    wanted.pop("judged_by")
    older = _with_key(ledger, study.name, content_hash(wanted))
    return older and older._replace(pinned=False)


def _with_key(ledger: Ledger, name: str, key: str, kind: str = "expectation") -> Registration | None:
    for info in ledger.runs("study"):
        if info.name == name and info.config.get("registration") == key:
            records = ledger.records(info.id, kind)
            if records:
                return Registration(info.id, key, records[0].seq, records[0].created, False)
    return None


def reasons_to_doubt(ledger: Ledger, registration: Registration, jobs: Sequence[Job]) -> list[str]:
    """Return why results cannot count as a test of the registered expectation; empty if they can.

    Raises: LedgerError if the ledger's chain is broken: then nothing in it is evidence.
    """
    ledger.verify()
    records = ledger.records(registration.run, "expectation")
    if not records:
        raise LedgerError(f"Run {registration.run} holds no expectation. Register it: foretaste lab register NAME")
    reasons = []
    stated = {name: value for name, value in records[0].payload.items() if name != "key"}
    if content_hash(stated) != registration.key:
        reasons.append("the registered expectation is not the one that the study's file states now")
    if len(records) > 1:
        reasons.append(f"the expectation was written again {len(records) - 1} time(s) after it was registered")
    wanted = {job.config_key for job in jobs}
    early = {
        record.payload["config_key"]
        for record in job_records(ledger)
        if record.payload["status"] == "finished" and record.seq < registration.seq
    }
    early |= _trained_before(ledger, registration.seq)
    seen = len(wanted & early)
    if seen:
        reasons.append(f"{seen} of {len(wanted)} results existed before the expectation was registered")
    return reasons


def _trained_before(ledger: Ledger, seq: int) -> set[str]:
    """Return the config keys of training runs that began before a place in the ledger."""
    found = set()
    for info in ledger.runs("train"):
        first: Record = ledger.records(info.id, "run")[0]
        if first.seq < seq:
            found.add(config_key(info.config))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
