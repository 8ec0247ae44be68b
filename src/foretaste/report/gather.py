"""Reads what a report shows out of a run's records. Every kind of record may be missing.

Success rates and their intervals are computed anew from the single outcomes, so that the page does
not depend on figures that the run reported about itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from foretaste.errors import LedgerError
from foretaste.ledger import Ledger, Record, RunInfo
from foretaste.records import Interval, check_version
from foretaste.report.words import number
from foretaste.statistics import exact_interval, newcombe_difference, paired_difference_interval

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One measurement on fresh items."""

    label: str
    """before, curve or after."""
    step: int
    outcomes: tuple[float | None, ...]
    """Success of each item; None where the episode failed with an error."""
    seeds: tuple[int, ...]
    interval: Interval | None
    sampled_tokens: float | None
    by_source: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Mean success and judged items of each source, where there are several."""

    @property
    def errors(self) -> int:
        """Items that could not be measured."""
        return sum(outcome is None for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class RunData:
    """Everything a report shows of one run."""

    info: RunInfo
    steps: tuple[int, ...]
    metrics: dict[str, list[tuple[int, float]]]
    """(step, value) by metric, finite values only."""
    not_finite: tuple[str, ...]
    """Metrics that were NaN or infinite at some step."""
    held_out: tuple[HeldOut, ...]
    calibrations: tuple[dict[str, Any], ...]
    episodes: tuple[dict[str, Any], ...]
    warnings: tuple[tuple[int | None, dict[str, Any]], ...]
    statuses: tuple[dict[str, Any], ...]
    checkpoint: dict[str, Any] | None
    summary: dict[str, Any]
    resumes: tuple[int, ...] = field(default=())
    curriculum: tuple[tuple[int, dict[str, Any]], ...] = ()
    """What was drawn of each source in each step, where there are several."""
    pretraining: dict[str, Any] = field(default_factory=dict)
    """What fitting the critic before the first step used and reached."""

    @property
    def before(self) -> HeldOut | None:
        """The last measurement made before training."""
        return next((point for point in reversed(self.held_out) if point.label == "before"), None)

    @property
    def after(self) -> HeldOut | None:
        """The last measurement made after training."""
        return next((point for point in reversed(self.held_out) if point.label == "after"), None)

    def total(self, name: str) -> float | None:
        """Return the sum of a metric over all steps; None if it was never measured."""
        points = self.metrics.get(name)
        return sum(value for _, value in points) if points else None

    def last(self, name: str) -> float | None:
        """Return a metric's last value; None if it was never measured."""
        points = self.metrics.get(name)
        return points[-1][1] if points else None

    def gain(self) -> tuple[Interval | None, bool]:
        """Return after - before with its interval, and whether the same items were paired."""
        before, after = self.before, self.after
        if before is None or after is None or before.interval is None or after.interval is None:
            return None, False
        paired = before.seeds == after.seeds and len(before.outcomes) == len(after.outcomes)
        if paired and before.seeds:
            rows = [
                (b, a) for b, a in zip(before.outcomes, after.outcomes, strict=True) if b is not None and a is not None
            ]
            if rows and _binary(value for row in rows for value in row):
                first, second = zip(*rows, strict=True)
                return paired_difference_interval(first, second, LEVEL), True
        one, two = _known(before.outcomes), _known(after.outcomes)
        if one and two and _binary(one) and _binary(two):
            return newcombe_difference(round(sum(one)), len(one), round(sum(two)), len(two), LEVEL), False
        return None, False


def gather(ledger: Ledger, run: str) -> RunData:
    """Read the live records of a run (its id, a unique prefix, or "latest").

    Raises: LedgerError for an unknown run, or records written by a newer foretaste.
    """
    info = ledger.run(run)
    records = ledger.records(info.id)
    by_kind: dict[str, list[Record]] = {}
    for record in records:
        by_kind.setdefault(record.kind, []).append(record)
        try:
            check_version(record.payload)
        except (TypeError, ValueError) as error:
            raise LedgerError(
                f"Record {record.seq} ({record.kind}) of run {info.id} cannot be shown: {error}"
            ) from error
    metrics, not_finite = _metrics(by_kind.get("metrics", []))
    steps = sorted({record.step for record in by_kind.get("metrics", []) if record.step is not None})
    last_step = steps[-1] if steps else 0
    pretraining = by_kind.get("value_pretraining", [])
    checkpoints, summaries = by_kind.get("checkpoint", []), by_kind.get("summary", [])
    return RunData(
        info=info,
        steps=tuple(steps),
        metrics=metrics,
        not_finite=not_finite,
        held_out=tuple(_held_out(record, last_step) for record in by_kind.get("held_out", [])),
        calibrations=tuple(record.payload for record in by_kind.get("calibration", [])),
        episodes=tuple({"step": record.step, **record.payload} for record in by_kind.get("episode", [])),
        warnings=tuple((record.step, record.payload) for record in by_kind.get("warning", [])),
        statuses=tuple({"created": record.created, **record.payload} for record in by_kind.get("status", [])),
        checkpoint=checkpoints[-1].payload if checkpoints else None,
        summary=summaries[-1].payload if summaries else {},
        curriculum=tuple((record.step or 0, record.payload) for record in by_kind.get("curriculum", [])),
        pretraining=pretraining[-1].payload if pretraining else {},
        resumes=tuple(int(record.payload.get("from_step", 0)) for record in by_kind.get("resume", [])),
    )


def _metrics(records: Sequence[Record]) -> tuple[dict[str, list[tuple[int, float]]], tuple[str, ...]]:
    found: dict[str, dict[int, float]] = {}
    not_finite: dict[str, None] = {}
    for record in records:
        for name, value in record.payload.items():
            finite = number(value)
            if finite is not None and record.step is not None:
                found.setdefault(name, {})[record.step] = finite
            elif finite is None and isinstance(value, float):
                not_finite[name] = None
    return {name: sorted(points.items()) for name, points in found.items()}, tuple(not_finite)


def _held_out(record: Record, last_step: int) -> HeldOut:
    payload = record.payload
    label = str(payload.get("label", "curve"))
    step = record.step if record.step is not None else payload.get("step")
    if step is None:
        step = 0 if label == "before" else last_step
    outcomes = tuple(number(float(o) if isinstance(o, bool) else o) for o in payload.get("success") or ())
    known = _known(outcomes)
    interval = None
    if known and _binary(known):
        interval = exact_interval(round(sum(known)), len(known), LEVEL)
    elif isinstance(payload.get("interval"), dict):
        # Outcomes between 0 and 1 have no exact interval; the run's own is shown.
        stored = payload["interval"]
        values = [number(stored.get(name)) for name in ("mean", "low", "high", "n")]
        if None not in values:
            mean, low, high, n = (value or 0.0 for value in values)
            interval = Interval(mean, low, high, int(n), LEVEL)
    seeds = tuple(payload.get("seeds") or ())
    tokens = number(payload.get("sampled_tokens"))
    return HeldOut(label, int(step), outcomes, seeds, interval, tokens, payload.get("by_source") or {})


def _known(outcomes: Iterable[float | None]) -> list[float]:
    return [outcome for outcome in outcomes if outcome is not None]


def _binary(outcomes: Iterable[float]) -> bool:
    return all(outcome in (0.0, 1.0) for outcome in outcomes)
