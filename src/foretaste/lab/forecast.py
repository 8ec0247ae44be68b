"""What would more compute buy? Fit a law of scale to runs in the ledger, forecast, and check the forecast.

Reinforcement learning runs give their held-out learning curves, fitted by R(C). Supervised runs with a record of kind
`supervised` {"parameters", "tokens", "loss"} are fitted by L(N, D). The largest run is held out of a first fit, which
must predict it; the fit that is reported then uses all. The mathematics: `scaling*.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foretaste.errors import RunError
from foretaste.lab.charts import Series, line_chart
from foretaste.lab.curves import curve_of
from foretaste.lab.jobs import NOT_CONTENT
from foretaste.lab.scaling import Fit, Forecast, check_forecast
from foretaste.lab.scaling_curve import CurvePoint, fit_curve
from foretaste.lab.scaling_loss import LossPoint, fit_loss
from foretaste.ledger import Ledger

Unit = Literal["tokens", "episodes"]


@dataclass(frozen=True)
class Report:
    """A fit with its forecasts, as printed and as JSON."""

    law: str
    runs: tuple[str, ...]
    points: int
    parameters: dict[str, Forecast]
    largest: tuple[float, ...]
    """The most compute seen: (C,), or (N, D)."""
    forecasts: dict[str, Forecast]
    """The law's value at the largest compute ("1x"), at twice and at ten times that."""
    gain_per_double: float
    """What doubling the largest compute would add, in the unit of the measurement."""
    held_out: dict[str, Any] | None
    """The run left out of the first fit: forecast, measured, whether inside; None if there was nothing to leave out."""
    bootstrap: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; forecasts as {"value", "low", "high", "level"}."""

        def plain(value: Any) -> Any:
            if isinstance(value, Forecast):
                return value._asdict()
            if isinstance(value, dict):
                return {name: plain(item) for name, item in value.items()}
            return list(value) if isinstance(value, tuple) else value

        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def forecast_runs(
    ledger: Ledger, names: Sequence[str], *, unit: Unit = "tokens", refits: int = 300, arm: str | None = None
) -> Report:
    """Fit the runs named (a study's or sweep's id stands for its training runs, of one `arm`) and forecast.

    Raises: RunError if they hold too little for a fit; LedgerError for unknown runs.
    """
    runs = _training_runs(ledger, names, arm)
    supervised = {run: records[-1].payload for run in runs if (records := ledger.records(run, "supervised"))}
    if supervised and len(supervised) < len(runs):
        missing = next(run for run in runs if run not in supervised)
        raise RunError(f"Run {missing} has no record of a supervised loss, the others have: fit the two kinds apart")
    try:
        return _loss_report(supervised, refits) if supervised else _curve_report(ledger, runs, unit, refits)
    except ValueError as error:
        raise RunError(
            f"No fit from {len(runs)} run(s): {error}. More or longer runs, or more points of the learning curve "
            "(held_out.every), give more to fit"
        ) from error


def chart(ledger: Ledger, report: Report, *, unit: Unit = "tokens") -> str:
    """Return the measured curves and the forecasts with their interval as SVG; the loss law has no such picture.

    Raises: RunError for the loss law, which has two inputs.
    """
    if len(report.largest) != 1:
        raise RunError("a fit of L(N, D) has two inputs and is not drawn; --json gives its figures")
    measured = [[(float(getattr(p, unit)), p.success) for p in curve_of(ledger, run)] for run in report.runs]
    factors = {"1x": 1.0, "2x": 2.0, "10x": 10.0}
    ahead = [(report.largest[0] * factors[name], f.value, f.low, f.high) for name, f in report.forecasts.items()]
    series = [
        Series("measured", measured),
        Series("forecast", [[(c, value) for c, value, _, _ in ahead]], band=[(c, lo, hi) for c, _, lo, hi in ahead]),
    ]
    return line_chart(series, title=report.law, x=f"sampled {unit}", y="held-out success", log_x=True, y_range=(0, 1))


def _curve_report(ledger: Ledger, runs: Sequence[str], unit: Unit, refits: int) -> Report:
    _alike(ledger, runs)
    points: list[CurvePoint] = []
    starts: list[tuple[float, int]] = []
    for run in runs:
        for measured in curve_of(ledger, run):
            amount = float(getattr(measured, unit))
            if amount > 0:
                points.append(CurvePoint(run, amount, measured.success))
            else:
                starts.append((measured.success, measured.n))
    if not points:
        raise RunError(f"None of the runs {', '.join(runs)} measured anything after training began")
    start = sum(s * n for s, n in starts) / sum(n for _, n in starts) if starts else None
    ends = {run: max(point.compute for point in points if point.run == run) for run in runs if _has(points, run)}
    largest_run = max(ends, key=lambda run: ends[run])
    largest = ends[largest_run]
    notes: list[str] = []
    if len(ends) > 1:
        rest = [point for point in points if point.run != largest_run]
        unseen = [max((p for p in points if p.run == largest_run), key=lambda p: p.compute)]
        if largest < 2 * max(point.compute for point in rest):
            notes.append(
                "the held-out run is less than twice as large as the others: its check is of fit, not of foresight"
            )
    else:
        rest = [point for point in points if point.compute <= largest / 2]
        unseen = [max(points, key=lambda point: point.compute)]
        notes.append("one run alone: how runs differ is not in the intervals; its last half was held out for the check")
    held_out = _checked(rest, unseen[0], start, refits, notes)
    fit = fit_curve(points, start=start, refits=refits)
    if fit.interval("A").high > 0.99 and fit.interval("A").low < 0.5:
        notes.append("the ceiling A is hardly determined: the curves have not begun to level off")
    law = f"R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B), C = sampled {unit}"
    return _report(law, fit, tuple(ends), (largest,), ((2 * largest,), (10 * largest,)), held_out, notes)


def _loss_report(supervised: dict[str, dict[str, Any]], refits: int) -> Report:
    points = {
        run: LossPoint(float(p["parameters"]), float(p["tokens"]), float(p["loss"])) for run, p in supervised.items()
    }
    compute = {run: point.parameters * point.tokens for run, point in points.items()}
    largest_run = max(compute, key=lambda run: compute[run])
    largest = points[largest_run]
    notes: list[str] = []
    held_out = None
    # Runs about as large, of other seeds say, would tell the fit what it is to forecast.
    smaller = [point for run, point in points.items() if compute[run] < 0.9 * compute[largest_run]]
    try:
        first = fit_loss(smaller, refits=refits)
    except ValueError as error:
        notes.append(f"the forecast could not be checked: {error}")
    else:
        check = check_forecast(first, [((largest.parameters, largest.tokens), largest.loss)])[0]
        held_out = {"run": largest_run, **check._asdict()}
    fit = fit_loss(list(points.values()), refits=refits)
    # Compute is about 6 N D; it grows best by about the same factor in both (2203.15556).
    double, tenfold = ((largest.parameters * k**0.5, largest.tokens * k**0.5) for k in (2, 10))
    law = "L(N, D) = E + A / N^a + B / D^b"
    return _report(law, fit, tuple(points), (largest.parameters, largest.tokens), (double, tenfold), held_out, notes)


def _report(
    law: str,
    fit: Fit,
    runs: tuple[str, ...],
    largest: tuple[float, ...],
    more: tuple[tuple[float, ...], tuple[float, ...]],
    held_out: dict[str, Any] | None,
    notes: Sequence[str],
) -> Report:
    now, double, tenfold = fit.at(*largest), fit.at(*more[0]), fit.at(*more[1])
    return Report(
        law=law,
        runs=runs,
        points=fit.n_points,
        parameters={name: fit.interval(name) for name in fit.names},
        largest=largest,
        forecasts={"1x": now, "2x": double, "10x": tenfold},
        gain_per_double=double.value - now.value,
        held_out=held_out,
        bootstrap=f"{len(fit.refits_KP)} refits, resampling {fit.resampled}",
        notes=tuple(notes),
    )


def _checked(
    rest: Sequence[CurvePoint], unseen: CurvePoint, start: float | None, refits: int, notes: list[str]
) -> dict[str, Any] | None:
    try:
        fit = fit_curve(rest, start=start, refits=refits)
    except ValueError as error:
        notes.append(f"the forecast could not be checked: {error}")
        return None
    check = check_forecast(fit, [((unseen.compute,), unseen.value)])[0]
    return {"run": unseen.run, **check._asdict()}


def _has(points: Sequence[CurvePoint], run: str) -> bool:
    return any(point.run == run for point in points)


SIZES = ("seed", "steps", "token_budget", "episodes_per_step", "held_out", *NOT_CONTENT)
"""Settings in which runs on one curve may differ."""


def _alike(ledger: Ledger, runs: Sequence[str]) -> None:
    """Refuse runs that differ in more than their size: they lie on different curves."""
    first = ledger.run(runs[0]).config
    for run in runs[1:]:
        config = ledger.run(run).config
        names = sorted({*first, *config} - set(SIZES))
        differing = [name for name in names if first.get(name) != config.get(name)]
        if differing:
            raise RunError(
                f"Runs {runs[0]} and {run} differ in {', '.join(differing)}, so they lie on different curves. "
                "Fit them apart: name the runs of one setting, or a study with --arm NAME"
            )


def _training_runs(ledger: Ledger, names: Sequence[str], arm: str | None = None) -> list[str]:
    """Return ids of training runs in order, without doubles; of a job done anew by other code the last run alone."""
    found: list[str] = []
    for name in names:
        info = ledger.run(name)
        if info.kind in ("study", "sweep"):
            done = [job.payload for job in ledger.records(info.id, "job") if _of_arm(job.payload, arm)]
            newest = {job["config_key"]: job["result"].get("run") for job in done}
            found += [run for run in newest.values() if run]
        else:
            found.append(info.id)
    if not found:
        raise RunError(f"{', '.join(names)}: no training run to fit")
    return list(dict.fromkeys(found))


def _of_arm(payload: dict[str, Any], arm: str | None) -> bool:
    return payload["status"] == "finished" and arm in (None, payload["arm"])
